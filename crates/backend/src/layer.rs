//! Applied work that is not in the file yet.

use crate::accounting::row_cost;
use crate::revision::{Revision, RevisionRow};
use crate::table::Table;
use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Rows of a chunk: a layer grows without ever moving the rows it has.
const CHUNK_ROWS: usize = 1024;
/// Estimate of what a row costs in memory beside its key and value, in bytes.
const ROW_MEMORY_BYTES: u64 = 96;

/// A layer, shared between the view, readers that began while it was there, and the flush.
///
/// The open layer is written under its lock for as long as it takes to move the rows of one batch in. A sealed layer is
/// written only by a [`MaintenanceTxn`](crate::MaintenanceTxn), and never during its flush.
#[derive(Default)]
pub(crate) struct Layer {
    data: RwLock<LayerData>,
}

/// What a layer holds.
#[derive(Default)]
pub(crate) struct LayerData {
    /// Full but for the last. **Invariant:** revisions ascend strictly.
    chunks: Vec<Vec<RevisionRow>>,
    /// By [`Table::slot`]; that of [`Table::Key`] stays empty.
    tables: [BTreeMap<Bytes, Versions>; Table::COUNT],
    /// Whether a batch was committed into the layer, be it without rows.
    used: bool,
    /// Memory, in bytes.
    bytes: u64,
    /// What the rows will add to the size of the file at most, in bytes.
    logical_bytes: u64,
}

/// All that a layer's batches wrote to one key.
struct Versions {
    newest: Version,
    /// **Invariant:** sequence numbers ascend and are smaller than the newest one's.
    older: Vec<Version>,
}

struct Version {
    /// Which commit wrote it.
    sequence: u64,
    /// `None` for a delete.
    value: Option<Bytes>,
}

impl Versions {
    fn visible(&self, sequence: u64) -> Option<&Version> {
        if self.newest.sequence <= sequence {
            return Some(&self.newest);
        }
        self.older
            .iter()
            .rev()
            .find(|version| version.sequence <= sequence)
    }
}

impl Layer {
    /// Locks the layer for reading, for a look-up in memory only.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, LayerData> {
        self.data.read()
    }

    /// Moves the writes of one batch in.
    pub(crate) fn commit(
        &self,
        rows: Vec<RevisionRow>,
        writes: BTreeMap<(Table, Bytes), Option<Bytes>>,
        sequence: u64,
    ) {
        let mut data = self.data.write();
        data.used = true;
        for row in rows {
            data.push(row);
        }
        for ((table, key), value) in writes {
            data.put(table, key, value, sequence);
        }
    }

    /// Overwrites a key if the layer has it.
    pub(crate) fn supersede(
        &self,
        table: Table,
        key: &Bytes,
        value: Option<&Bytes>,
        sequence: u64,
    ) {
        let mut data = self.data.write();
        if data.tables[table.slot()].contains_key(key) {
            data.put(table, key.clone(), value.cloned(), sequence);
        }
    }
}

impl LayerData {
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn logical_bytes(&self) -> u64 {
        self.logical_bytes
    }

    fn push(&mut self, row: RevisionRow) {
        debug_assert!(self.last_revision() < Some(row.rev));
        let key_bytes = row.table_key().as_bytes().len();
        self.bytes += memory_cost(key_bytes, row.record.len());
        self.logical_bytes += row_cost(key_bytes, row.record.len());
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ROWS => chunk.push(row),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_ROWS);
                chunk.push(row);
                self.chunks.push(chunk);
            }
        }
    }

    fn put(&mut self, table: Table, key: Bytes, value: Option<Bytes>, sequence: u64) {
        let cost = |value: &Option<Bytes>| match value {
            Some(value) => row_cost(key.len(), value.len()),
            None => 0,
        };
        self.bytes += memory_cost(key.len(), value.as_ref().map_or(0, Bytes::len));
        self.logical_bytes += cost(&value);
        let newest = Version { sequence, value };
        match self.tables[table.slot()].get_mut(&key) {
            Some(versions) => {
                self.logical_bytes -= cost(&versions.newest.value);
                let older = std::mem::replace(&mut versions.newest, newest);
                debug_assert!(older.sequence <= sequence);
                versions.older.push(older);
            }
            None => {
                let older = Vec::new();
                self.tables[table.slot()].insert(key, Versions { newest, older });
            }
        }
    }

    /// Returns how many revision rows there are.
    pub(crate) fn row_count(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK_ROWS + last.len(),
            None => 0,
        }
    }

    pub(crate) fn row(&self, at: usize) -> Option<&RevisionRow> {
        self.chunks.get(at / CHUNK_ROWS)?.get(at % CHUNK_ROWS)
    }

    /// Returns the revision rows in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &RevisionRow> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn first_revision(&self) -> Option<Revision> {
        self.row(0).map(|row| row.rev)
    }

    pub(crate) fn last_revision(&self) -> Option<Revision> {
        Some(self.chunks.last()?.last()?.rev)
    }

    /// Returns the place of the first row that is not before a revision.
    pub(crate) fn lower_bound(&self, rev: Revision) -> usize {
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.rev < rev));
        match self.chunks.get(chunk) {
            Some(rows) => chunk * CHUNK_ROWS + rows.partition_point(|row| row.rev < rev),
            None => self.row_count(),
        }
    }

    /// Finds the row of a revision among the first `count` rows.
    pub(crate) fn find(&self, rev: Revision, count: usize) -> Option<&RevisionRow> {
        let at = self.lower_bound(rev);
        self.row(at).filter(|row| row.rev == rev && at < count)
    }

    /// Returns what commits up to a sequence number left at a key: a value, a delete, or nothing.
    pub(crate) fn get(&self, table: Table, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        let versions = self.tables[table.slot()].get(key)?;
        versions
            .visible(sequence)
            .map(|version| version.value.clone())
    }

    /// Returns the keys from a bound on that commits up to a sequence number wrote, with what they left there.
    pub(crate) fn range<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
        sequence: u64,
    ) -> impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)> + use<'a> {
        self.tables[table.slot()]
            .range::<[u8], _>((from, Bound::Unbounded))
            .filter_map(move |(key, versions)| {
                versions
                    .visible(sequence)
                    .map(|version| (key, version.value.as_ref()))
            })
    }

    /// Returns the newest of all keys of a table, in order.
    pub(crate) fn newest(&self, table: Table) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.tables[table.slot()]
            .iter()
            .map(|(key, versions)| (key, versions.newest.value.as_ref()))
    }
}

fn memory_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    key_bytes as u64 + value_bytes as u64 + ROW_MEMORY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(main: i64) -> RevisionRow {
        RevisionRow {
            rev: Revision::new(main, 0),
            tombstone: false,
            record: Bytes::from_static(b"value"),
        }
    }

    #[test]
    fn rows_are_found_over_chunks() {
        let layer = Layer::default();
        let count = CHUNK_ROWS * 2 + 3;
        let rows = (0..count)
            .map(|at| row(i64::try_from(at).unwrap() * 2 + 2))
            .collect();
        layer.commit(rows, BTreeMap::new(), 1);
        let data = layer.read();
        assert_eq!(data.row_count(), count);
        for at in 0..count {
            let main = i64::try_from(at).unwrap() * 2 + 2;
            assert_eq!(data.lower_bound(Revision::new(main, 0)), at);
            assert_eq!(data.lower_bound(Revision::new(main - 1, 9)), at);
            assert!(data.find(Revision::new(main, 0), at + 1).is_some());
            assert!(data.find(Revision::new(main, 0), at).is_none());
            assert!(data.find(Revision::new(main + 1, 0), count).is_none());
        }
        assert_eq!(data.lower_bound(Revision::MAX), count);
        assert_eq!(data.rows().count(), count);
    }

    #[test]
    fn a_reader_sees_the_version_of_its_time() {
        let layer = Layer::default();
        let write = |value: Option<&'static [u8]>, sequence| {
            let writes = [(
                (Table::Lease, Bytes::from_static(b"k")),
                value.map(Bytes::from_static),
            )];
            layer.commit(Vec::new(), writes.into(), sequence);
        };
        write(Some(b"a"), 3);
        write(None, 5);
        write(Some(b"bcd"), 9);
        let data = layer.read();
        let at = |sequence| data.get(Table::Lease, b"k", sequence);
        assert_eq!(at(2), None);
        assert_eq!(at(3), Some(Some(Bytes::from_static(b"a"))));
        assert_eq!(at(4), Some(Some(Bytes::from_static(b"a"))));
        assert_eq!(at(5), Some(None));
        assert_eq!(at(8), Some(None));
        assert_eq!(at(9), Some(Some(Bytes::from_static(b"bcd"))));
        assert_eq!(data.range(Table::Lease, Bound::Unbounded, 2).count(), 0);
        assert_eq!(data.logical_bytes(), row_cost(1, 3));
    }
}
