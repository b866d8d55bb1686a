//! The lessor against an obvious model, and the mistakes of others that must not come back.
#![allow(
    clippy::unwrap_used,
    reason = "a failure of a test's own set-up may panic"
)]
#![allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "the numbers of these tests are small"
)]

mod faults;
mod model;
mod rules;
mod scale;

use std::path::Path;
use std::sync::Arc;

use quorate_backend::{ApplyTxn, Backend};
use quorate_disk::SimDisk;
use quorate_lease::{Lessor, Options};

/// A backend on a simulated disk, and the next log index.
struct Store {
    disk: Arc<SimDisk>,
    backend: Option<Backend>,
    index: u64,
}

impl Store {
    fn new() -> Self {
        let mut store = Self {
            disk: Arc::new(SimDisk::new(1)),
            backend: None,
            index: 0,
        };
        store.open();
        store
    }

    fn open(&mut self) {
        let backend = Backend::open(self.disk.clone(), Path::new("db"), Default::default());
        self.backend = Some(backend.unwrap());
    }

    fn backend(&self) -> &Backend {
        self.backend.as_ref().unwrap()
    }

    /// Makes everything durable and opens the file again.
    fn reopen(&mut self) {
        while let Some(job) = self.backend().seal() {
            job.run().unwrap();
        }
        self.backend = None;
        self.open();
    }

    fn lessor(&self, options: Options) -> Lessor {
        Lessor::restore(self.backend(), options).unwrap()
    }

    /// Applies one entry.
    fn apply<T>(&mut self, change: impl FnOnce(&mut ApplyTxn) -> T) -> T {
        self.index += 1;
        let mut txn = self.backend().begin_apply(self.index, 1);
        let result = change(&mut txn);
        txn.commit(0);
        result
    }
}
