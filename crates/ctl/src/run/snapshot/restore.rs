//! `snapshot restore`: a backup into a new data directory.
//!
//! Source: etcd v3.7.1 `etcdutl/etcdutl/snapshot_command.go`.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_core::{Restore, restore_backup};
use quorate_disk::RealDisk;

use super::founding;
use crate::failure::{Failure, Outcome};
use crate::log;
use crate::run::Session;

pub(in crate::run) fn restore(session: &Session) -> Outcome {
    let [backup] = session.args.as_slice() else {
        return Err(Failure::bad_args(
            "snapshot restore requires exactly one argument",
        ));
    };
    let flags = &session.flags;
    let bump = u64::try_from(flags.int("bump-revision"))
        .map_err(|_| Failure::bad_args("--bump-revision must not be negative"))?;
    if (bump > 0) != flags.bool("mark-compacted") {
        return Err(Failure::bad_args(
            "--mark-compacted required if --revision-bump > 0",
        ));
    }
    let name = flags.string("name");
    let members = founding::members(
        &flags.string("initial-cluster"),
        &name,
        &flags.string("initial-advertise-peer-urls"),
    );
    let path = |flag: &str| match flags.bytes(flag) {
        empty if empty.is_empty() => None,
        bytes => Some(path_of(bytes)),
    };
    let restore = Restore {
        backup: path_of(backup.clone()),
        skip_hash_check: flags.bool("skip-hash-check"),
        data_dir: path("data-dir").unwrap_or_else(|| PathBuf::from(format!("{name}.etcd"))),
        wal_dir: path("wal-dir"),
        name,
        members: members.map_err(Failure::error)?,
        token: flags.string("initial-cluster-token"),
        bump_revision: (bump > 0).then_some(bump),
        ..Restore::default()
    };
    say("restoring snapshot", &restore);
    run(&restore)?;
    say("restored snapshot", &restore);
    Ok(())
}

/// Restores; what was begun and cannot be ended is removed again.
fn run(restore: &Restore) -> Outcome {
    let was_there = [Some(restore.data_dir.as_path()), restore.wal_dir.as_deref()]
        .map(|dir| dir.is_some_and(|dir| dir.symlink_metadata().is_ok()));
    let member_dir = restore.data_dir.join("member");
    let member_was_there = member_dir.symlink_metadata().is_ok();
    let disk: Arc<dyn quorate_disk::Disk> = Arc::new(RealDisk);
    let Err(error) = restore_backup(&disk, restore) else {
        return Ok(());
    };
    let remove = |dir: &Path| {
        // It may never have been made; if it stays, no member starts on it.
        let _ = std::fs::remove_dir_all(dir);
    };
    match was_there {
        [false, _] => remove(&restore.data_dir),
        _ if !member_was_there => remove(&member_dir),
        _ => {}
    }
    if let ([_, false], Some(wal_dir)) = (was_there, &restore.wal_dir) {
        remove(wal_dir);
    }
    Err(Failure::error(error.to_string()))
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn say(message: &str, restore: &Restore) {
    let member = restore.data_dir.join("member");
    let wal_dir = restore.wal_dir.clone();
    let shown = |path: &Path| path.display().to_string();
    log::write(
        "info",
        message,
        &[
            ("path", &shown(&restore.backup)),
            (
                "wal-dir",
                &shown(&wal_dir.unwrap_or_else(|| member.join("wal"))),
            ),
            ("data-dir", &shown(&restore.data_dir)),
            ("snap-dir", &shown(&member.join("snap"))),
        ],
    );
}
