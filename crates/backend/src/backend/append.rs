//! Filling a new file.

use std::sync::Arc;

use super::Backend;
use crate::error::Error;
use crate::revision::Revision;
use crate::state::Applied;
use crate::table::{Table, TableRow, is_consistent_index_key};

impl Backend {
    /// Begins to fill a new file: nothing waits for the disk, and a crash leaves a file of no use, which its name must say. The
    /// first flush or maintenance ends it, and makes all of the file durable.
    ///
    /// # Panics
    /// When something was applied already.
    pub fn begin_filling(&self) {
        let file = self.shared.file.lock();
        assert!(self.is_new(), "a file in use is filled");
        file.engine.pages().set_filling(true);
    }

    fn is_new(&self) -> bool {
        self.shared.view.read().applied == Applied::default()
    }

    /// Brings to the disk what a file being filled has so far, beside whoever appends, so that the end does not wait for all.
    ///
    /// # Errors
    /// [`Error::Io`], after which nothing more can be written.
    pub fn write_back(&self) -> Result<(), Error> {
        let engine = Arc::clone(self.shared.view.read().snapshot.engine());
        engine.pages().write_back()
    }

    /// Appends rows to a file that is being filled, each behind all that its table has; in one step, past any batches.
    ///
    /// # Errors
    /// As [`MaintenanceTxn::commit`](crate::MaintenanceTxn::commit); [`Error::Corrupt`] when the rows are not in order.
    ///
    /// # Panics
    /// When something was applied already, a row is the consistent index or its term, or one of [`Table::Key`] is no
    /// revision.
    ///
    /// # Durability
    /// All of them are on disk when it returns, unless the file is being filled.
    pub fn append_rows(&self, rows: &[TableRow]) -> Result<(), Error> {
        let shared = &*self.shared;
        let mut file = shared.file.lock();
        assert!(self.is_new(), "rows are appended to a file in use");
        let mut newest = None;
        for (table, key, _) in rows {
            assert!(
                !is_consistent_index_key(*table, key),
                "an appended row is the consistent index"
            );
            if *table == Table::Key {
                let (revision, _) =
                    Revision::from_table_key(key).expect("a key of table key is a revision");
                newest = Some(revision);
            }
        }
        let (fuse, snapshot) =
            shared.write_file(&mut file, |engine, state| engine.append(rows, state))?;
        let mut view = shared.view.write();
        let old = std::mem::replace(&mut view.snapshot, snapshot);
        view.durable = file.state;
        view.sequence += 1;
        view.last_revision = newest.or(view.last_revision);
        view.flushed_revision = newest.or(view.flushed_revision);
        drop(view);
        fuse.disarm();
        drop(old);
        Ok(())
    }
}
