//! A database that is made of a state while it arrives.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_backend::{Applied, Backend, TableRow};
use quorate_disk::Disk;

use super::error::at;
use super::{ImageError, ReceivedState};

/// End of the name of a database that was made of a received state, and is to be installed or forgotten. Names of those in the
/// making hold it too.
pub const RECEIVED_END: &str = ".state.db";
const UNFINISHED_END: &str = ".tmp";

/// Returns the name, in `member/snap`, of the database made of the received state at an index.
#[must_use]
pub fn received_file(index: u64) -> String {
    format!("{index:016x}{RECEIVED_END}")
}

/// A database being filled, under a name that says so; its file goes when it is dropped.
pub struct Filling {
    // Closed before its file goes.
    backend: Backend,
    file: Unfinished,
}

/// A file that goes when this is dropped, unless it has another name by then.
struct Unfinished {
    disk: Arc<dyn Disk>,
    snap_dir: PathBuf,
    path: PathBuf,
}

impl Filling {
    /// Makes an empty database; the number tells those apart that are made at the same time.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn begin(
        disk: &Arc<dyn Disk>,
        snap_dir: &Path,
        number: u64,
        options: quorate_backend::Options,
    ) -> Result<Self, ImageError> {
        let file = Unfinished {
            disk: Arc::clone(disk),
            snap_dir: snap_dir.to_owned(),
            path: snap_dir.join(format!("{number}{RECEIVED_END}{UNFINISHED_END}")),
        };
        file.remove();
        let backend = Backend::open(Arc::clone(disk), &file.path, options)?;
        backend.begin_filling();
        Ok(Self { backend, file })
    }

    /// Appends rows, each behind all that its table has.
    ///
    /// # Errors
    /// When they cannot be written; the database is of no use then.
    ///
    /// # Panics
    /// When a row is none that a [`StateReader`](super::StateReader) gives.
    pub fn append(&self, rows: &[TableRow]) -> Result<(), ImageError> {
        Ok(self.backend.append_rows(rows)?)
    }

    /// Returns a handle of the database, for [`Backend::write_back`].
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// Gives the database its place in the log, makes it durable under its index's name and returns where it is. All other
    /// handles must be gone.
    ///
    /// # Errors
    /// When that cannot be done, or one of that index is there already, which stays: somebody goes by it, or removes it soon.
    /// Nothing else is left then.
    ///
    /// # Durability
    /// The database and its name are durable when it returns. A crash before leaves a name that says it is of no use.
    pub fn keep(self, state: ReceivedState) -> Result<PathBuf, ImageError> {
        // Closed before its file goes.
        let Self { file, backend } = self;
        finish(&backend, state.applied)?;
        drop(backend);
        file.keep(state.applied.index)
    }
}

/// Makes all rows of a database that was filled durable, and with them how far the log is applied.
fn finish(backend: &Backend, applied: Applied) -> Result<(), ImageError> {
    backend
        .begin_apply(applied.index, applied.term)
        .commit(applied.digest);
    if let Some(job) = backend.seal() {
        job.run()?;
    }
    assert_eq!(backend.durable(), applied, "all of the state is durable");
    Ok(())
}

impl Unfinished {
    fn keep(&self, index: u64) -> Result<PathBuf, ImageError> {
        let kept = self.snap_dir.join(received_file(index));
        if self.disk.exists(&kept).map_err(at(&kept))? {
            return Err(at(&kept)(io::ErrorKind::AlreadyExists.into()));
        }
        self.disk.rename(&self.path, &kept).map_err(at(&kept))?;
        let synced = self.disk.sync_dir(&self.snap_dir);
        if synced.is_err() {
            // What stays, its name or this one, is removed at the next start.
            let _ = self.disk.remove_file(&kept);
        }
        synced.map_err(at(&self.snap_dir))?;
        Ok(kept)
    }

    /// Removes the file, if there is one; what stays is removed at the next start.
    fn remove(&self) {
        if self.disk.exists(&self.path).unwrap_or(false) {
            let _ = self.disk.remove_file(&self.path);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.remove();
    }
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling")
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}
