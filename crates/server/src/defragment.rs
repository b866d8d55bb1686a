//! Defragmentation of the database: what is told of it, and the one at the start.
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_backend::{Backend, DefragmentOptions, Defragmented, Error, Sizes};
use quorate_core::backend_path;
use quorate_rpc::{DefragmentLog, DefragmentNews};

use crate::config::{Config, GoDuration};

/// Tells of a caller's defragmentation in etcd's words.
///
/// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/maintenance.go, server/storage/backend/backend.go.
pub(crate) fn log(data_dir: &Path) -> DefragmentLog {
    let path = backend_path(data_dir);
    DefragmentLog(Some(Arc::new(move |news| match news {
        DefragmentNews::Started(sizes) => {
            tracing::info!("starting defragment");
            tell_started(&path, *sizes);
        }
        DefragmentNews::Finished { what, took } => {
            tell_finished(&path, *what, *took);
            tracing::info!("finished defragment");
        }
        DefragmentNews::Failed(error) => tracing::warn!(error, "failed to defragment"),
        _ => {}
    })))
}

/// Defragments the database that a member starts with when that frees at least as much as the flag says.
///
/// Source: etcd v3.7.1 server/etcdserver/bootstrap.go maybeDefragBackend.
///
/// # Errors
/// What went wrong; the database is as before then.
pub(crate) fn at_start(config: &Config, backend: &Backend) -> Result<(), Error> {
    let threshold_bytes = config.bootstrap_defragment_bytes;
    let sizes = backend.sizes();
    if sizes.total_bytes - sizes.in_use_bytes < threshold_bytes {
        tracing::info!(
            "current-db-size-bytes" = sizes.total_bytes,
            "current-db-size-in-use-bytes" = sizes.in_use_bytes,
            "bootstrap-defrag-threshold-bytes" = threshold_bytes,
            "Skipping defragmentation"
        );
        return Ok(());
    }
    let path = backend_path(&config.data_dir);
    let started = Instant::now();
    tell_started(&path, sizes);
    let what = backend.defragment(DefragmentOptions::default())?.run()?;
    tell_finished(&path, what, started.elapsed());
    Ok(())
}

fn tell_started(path: &Path, sizes: Sizes) {
    tracing::info!(
        path = %path.display(),
        "current-db-size-bytes" = sizes.total_bytes,
        "current-db-size-in-use-bytes" = sizes.in_use_bytes,
        "current-file-size-bytes" = sizes.file_bytes,
        "defragmenting"
    );
}

fn tell_finished(path: &Path, what: Defragmented, took: Duration) {
    let Defragmented { before, after, .. } = what;
    tracing::info!(
        path = %path.display(),
        "current-db-size-bytes-diff" = after.total_bytes.cast_signed() - before.total_bytes.cast_signed(),
        "current-db-size-bytes" = after.total_bytes,
        "current-db-size-in-use-bytes-diff" =
            after.in_use_bytes.cast_signed() - before.in_use_bytes.cast_signed(),
        "current-db-size-in-use-bytes" = after.in_use_bytes,
        "current-file-size-bytes" = after.file_bytes,
        took = %GoDuration::from(took),
        "finished defragmenting directory"
    );
}
