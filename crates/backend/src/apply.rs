//! The writer of what the log says.

use crate::backend::Shared;
use crate::error::Error;
use crate::revision::{Revision, RevisionRow};
use crate::state::Applied;
use crate::table::{Table, is_consistent_index_key};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that one batch of log entries changes, together with how far the log is applied after it.
///
/// Writes stay here until [`commit`](ApplyTxn::commit), which makes all of them and the new [`Applied`] visible in one step.
/// They become durable with the flush of the layer they are in, again in one step. Dropping the transaction forgets it.
pub struct ApplyTxn {
    shared: Arc<Shared>,
    index: u64,
    term: u64,
    /// **Invariant:** revisions ascend strictly and are newer than all that are committed.
    rows: Vec<RevisionRow>,
    last_revision: Option<Revision>,
    /// crc32c of the records since it was last taken.
    content: u32,
    writes: BTreeMap<(Table, Bytes), Option<Bytes>>,
}

impl ApplyTxn {
    pub(crate) fn new(shared: Arc<Shared>, index: u64, term: u64) -> ApplyTxn {
        let last_revision = shared.last_revision();
        ApplyTxn {
            shared,
            index,
            term,
            rows: Vec::new(),
            last_revision,
            content: 0,
            writes: BTreeMap::new(),
        }
    }

    /// Returns the log index that the transaction brings the backend to.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns the term of the entry at that index.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Sets a key.
    ///
    /// # Panics
    /// When the table is [`Table::Key`], which takes [`put_revision`](ApplyTxn::put_revision) only, or the key is the
    /// consistent index or its term, which the commit writes.
    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.write(table, key, Some(value));
    }

    /// Deletes a key; one that does not exist is no error.
    ///
    /// # Panics
    /// As [`put`](ApplyTxn::put).
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.write(table, key, None);
    }

    /// Appends a row to [`Table::Key`]. The record is kept as it is, not copied.
    ///
    /// # Panics
    /// When the revision is not newer than every one before it, or a part of it is negative.
    pub fn put_revision(&mut self, rev: Revision, tombstone: bool, record: Bytes) {
        assert!(rev.main >= 0 && rev.sub >= 0, "revision {rev} is negative");
        assert!(
            self.last_revision < Some(rev),
            "revision {rev} follows {:?}",
            self.last_revision
        );
        self.last_revision = Some(rev);
        self.content = crc32c::crc32c_append(self.content, &record);
        self.rows.push(RevisionRow {
            rev,
            tombstone,
            record,
        });
    }

    /// Returns a checksum of the records appended since the last call: what an entry has made of the keys, however the entries
    /// are put together to batches.
    pub fn take_content(&mut self) -> u32 {
        std::mem::take(&mut self.content)
    }

    /// Returns the record of a revision, this transaction's own first; tombstones have one too.
    ///
    /// # Errors
    /// As [`Backend::value`](crate::Backend::value).
    pub fn value(&self, rev: Revision) -> Result<Option<Bytes>, Error> {
        match self.rows.binary_search_by_key(&rev, |row| row.rev) {
            Ok(at) => Ok(Some(self.rows[at].record.clone())),
            Err(_) => self.shared.value(rev),
        }
    }

    /// Returns the value of a key, this transaction's own first. The consistent index reads as it was before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] when the file cannot be read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if table == Table::Key {
            let found = Revision::from_table_key(key).and_then(|(rev, tombstone)| {
                let at = self.rows.binary_search_by_key(&rev, |row| row.rev).ok()?;
                Some((self.rows[at].tombstone == tombstone).then(|| self.rows[at].record.clone()))
            });
            if let Some(found) = found {
                return Ok(found);
            }
        }
        // A map of nothing is common and needs no key made for it.
        if !self.writes.is_empty()
            && let Some(own) = self.writes.get(&(table, Bytes::copy_from_slice(key)))
        {
            return Ok(own.clone());
        }
        self.shared.read().get(table, key)
    }

    /// Makes the writes visible, and with them index, term and the digest after the batch.
    ///
    /// # Durability
    /// None yet: a [`FlushJob`](crate::FlushJob) brings it, and until then the log is what keeps the batch.
    pub fn commit(mut self, digest: u64) {
        let applied = Applied {
            index: self.index,
            term: self.term,
            digest,
        };
        let rows = std::mem::take(&mut self.rows);
        let writes = std::mem::take(&mut self.writes);
        self.shared.commit(rows, writes, applied);
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        assert!(table != Table::Key, "table key takes revisions only");
        assert!(
            !is_consistent_index_key(table, key),
            "the consistent index is written by the commit"
        );
        let key = Bytes::copy_from_slice(key);
        self.writes.insert((table, key), value);
    }
}

impl Drop for ApplyTxn {
    fn drop(&mut self) {
        self.shared.end_apply();
    }
}
