//! The other way to write: bootstrap and compaction.

use crate::backend::Shared;
use crate::error::Error;
use crate::revision::Revision;
use crate::table::{Table, is_consistent_index_key};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Writes that are not part of the replicated log's effects: bootstrap, compaction marks, physical compaction.
///
/// Nothing happens before [`commit`](MaintenanceTxn::commit); dropping the transaction forgets it. It goes to the file at
/// once and durably, past the batches that wait for their flush, and it cannot touch the consistent index.
pub struct MaintenanceTxn {
    shared: Arc<Shared>,
    work: Work,
}

/// What a maintenance transaction is to do.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) writes: BTreeMap<(Table, Bytes), Option<Bytes>>,
    pub(crate) deleted: Vec<(Revision, bool)>,
    pub(crate) reset_high_water: bool,
}

impl Work {
    pub(crate) fn writes_of(&self, table: Table) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.writes
            .range((table, Bytes::new())..)
            .take_while(move |((of, _), _)| *of == table)
            .map(|((_, key), value)| (key, value.as_ref()))
    }

    /// Returns the largest revision that is put into [`Table::Key`].
    pub(crate) fn last_revision(&self) -> Option<Revision> {
        let (key, _) = self
            .writes_of(Table::Key)
            .filter(|(_, value)| value.is_some())
            .last()?;
        Revision::from_table_key(key).map(|(rev, _)| rev)
    }
}

impl MaintenanceTxn {
    pub(crate) fn new(shared: Arc<Shared>) -> MaintenanceTxn {
        MaintenanceTxn {
            shared,
            work: Work::default(),
        }
    }

    /// Sets a key.
    ///
    /// # Panics
    /// When the key is the consistent index or its term, or is no revision though the table is [`Table::Key`].
    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.write(table, key, Some(value));
    }

    /// Deletes a key; one that does not exist is no error.
    ///
    /// # Panics
    /// As [`put`](MaintenanceTxn::put).
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.write(table, key, None);
    }

    /// Deletes the row of a revision; one that does not exist is no error.
    ///
    /// A [`Backend::value`](crate::Backend::value) under way at the time of the commit may still answer the old row once,
    /// and leave it in the cache: revisions never change, so compacted ones are for the caller not to ask for.
    ///
    /// # Panics
    /// When the revision is newer than [`Backend::flushed_revision`](crate::Backend::flushed_revision): its row would come
    /// back with the next flush. Compaction waits until what it compacts is flushed.
    pub fn delete_revision(&mut self, rev: Revision, tombstone: bool) {
        assert!(
            Some(rev) <= self.shared.flushed_revision(),
            "revision {rev} is deleted before it is flushed"
        );
        self.work.deleted.push((rev, tombstone));
    }

    /// Makes the size that quotas see what is in use now, as a defragmentation of etcd's file does.
    pub fn reset_high_water(&mut self) {
        self.work.reset_high_water = true;
    }

    /// Does all of it in one step.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure. Any other error poisons the backend: after the next open either all
    /// of this transaction is there or nothing.
    ///
    /// # Panics
    /// When it puts rows into [`Table::Key`] while rows of applied batches wait for their flush: it is for bootstrap then.
    ///
    /// # Durability
    /// Everything is on disk when it returns.
    pub fn commit(mut self) -> Result<(), Error> {
        self.work.deleted.sort_unstable();
        self.shared.maintain(&self.work)
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        assert!(
            !is_consistent_index_key(table, key),
            "maintenance writes the consistent index"
        );
        assert!(
            table != Table::Key || Revision::from_table_key(key).is_some(),
            "a key of table key is no revision"
        );
        let key = Bytes::copy_from_slice(key);
        self.work.writes.insert((table, key), value);
    }
}
