//! Bringing applied work to the disk.

use crate::backend::Shared;
use crate::error::Error;
use crate::layer::Layer;
use crate::state::Applied;
use std::sync::Arc;

/// One flush: sealed work on its way into the file.
///
/// Run it on a thread of its own; applying and reading go on meanwhile and see the work as before. Dropping the job without
/// running it puts the work back: the next [`Backend::seal`](crate::Backend::seal) hands it out again.
pub struct FlushJob {
    shared: Arc<Shared>,
    /// The oldest first.
    layers: Vec<Arc<Layer>>,
    applied: Applied,
}

impl FlushJob {
    pub(crate) fn new(shared: Arc<Shared>, layers: Vec<Arc<Layer>>, applied: Applied) -> FlushJob {
        FlushJob {
            shared,
            layers,
            applied,
        }
    }

    /// Returns how far the log is applied in what the job writes.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Commits the work to the file in one transaction.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure. Any other error poisons the backend: nothing becomes durable any more,
    /// reading and applying in memory go on, and after the next open either all of this job's work is there or nothing.
    ///
    /// # Durability
    /// Everything up to the [`Applied`] that it returns is on disk.
    pub fn run(self) -> Result<Applied, Error> {
        self.shared.flush(&self.layers, self.applied)
    }
}

impl Drop for FlushJob {
    fn drop(&mut self) {
        self.shared.end_flush();
    }
}
