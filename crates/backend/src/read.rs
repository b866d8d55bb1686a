//! Reading one state of all tables.

use crate::engine::{Snapshot, owned_row};
use crate::error::Error;
use crate::layer::{Layer, LayerData};
use crate::revision::{Revision, RevisionRow};
use crate::state::Applied;
use crate::table::{CONSISTENT_INDEX_KEY, TERM_KEY, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Most rows that [`ReadTxn::scan`] takes from one source at a time; a larger answer is made of several such steps.
const SCAN_STEP_ROWS: usize = 1024;

/// One state of all tables: everything that was committed before it began, and nothing after.
///
/// It neither waits for a flush nor holds one up. While it lives, the memory of the layers it reads and the pages of the
/// commit it reads stay in use, and so does the file itself, so do not keep it for long.
pub struct ReadTxn {
    snapshot: Arc<Snapshot>,
    /// The oldest first. Rows behind the snapshot's, in order.
    layers: Vec<VisibleLayer>,
    sequence: u64,
    applied: Applied,
}

/// As much of a layer as was committed when the reader began.
pub(crate) struct VisibleLayer {
    pub(crate) layer: Arc<Layer>,
    pub(crate) row_count: usize,
}

/// What one source contributes to a step of a scan.
struct Step {
    rows: Vec<(Bytes, Option<Bytes>)>,
    /// Whether the source may have more behind the last row.
    more: bool,
}

/// Revision rows up to a limit.
struct Batch {
    rows: Vec<RevisionRow>,
    max_rows: usize,
    bytes_left: usize,
    full: bool,
}

impl ReadTxn {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        layers: Vec<VisibleLayer>,
        sequence: u64,
        applied: Applied,
    ) -> ReadTxn {
        ReadTxn {
            snapshot,
            layers,
            sequence,
            applied,
        }
    }

    /// Returns how far the log is applied in what this transaction sees.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] when the file cannot be read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if table == Table::Key
            && let Some((rev, tombstone)) = Revision::from_table_key(key)
            && let Some(row) = self.pending_row(rev)
        {
            return Ok((row.tombstone == tombstone).then_some(row.record));
        }
        if table == Table::Meta
            && let Some((_, own)) = self.applied_rows().into_iter().find(|(of, _)| *of == key)
        {
            return Ok(own);
        }
        for visible in self.layers.iter().rev() {
            if let Some(found) = visible.layer.read().get(table, key, self.sequence) {
                return Ok(found);
            }
        }
        self.snapshot.get(table, key)
    }

    /// Returns the record of a revision; tombstones have one too.
    ///
    /// # Errors
    /// As [`get`](ReadTxn::get).
    pub fn value(&self, rev: Revision) -> Result<Option<Bytes>, Error> {
        match self.pending_row(rev) {
            Some(row) => Ok(Some(row.record)),
            None => self.snapshot.revision(rev),
        }
    }

    /// Returns the rows of a table from a bound on, in the order of their keys: `max_rows` of them, fewer only at the end.
    ///
    /// # Errors
    /// As [`get`](ReadTxn::get).
    pub fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        max_rows: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let mut out = Vec::new();
        let mut from = from.map(Bytes::copy_from_slice);
        while out.len() < max_rows {
            let limit = (max_rows - out.len()).min(SCAN_STEP_ROWS);
            let steps = self.scan_steps(table, from.as_ref().map(Bytes::as_ref), limit)?;
            // A source that was cut short says nothing about what is behind its last row.
            let boundary = steps
                .iter()
                .filter(|step| step.more)
                .filter_map(|step| step.rows.last())
                .map(|(key, _)| key.clone())
                .min();
            let mut merged = BTreeMap::new();
            for (key, value) in steps.into_iter().flat_map(|step| step.rows) {
                if boundary.as_ref().is_none_or(|boundary| key <= *boundary) {
                    merged.insert(key, value);
                }
            }
            let found = merged
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            out.extend(found);
            match boundary {
                Some(boundary) => from = Bound::Excluded(boundary),
                None => break,
            }
        }
        out.truncate(max_rows);
        Ok(out)
    }

    /// Returns the revision rows from `from` up to but without `to`, in order.
    ///
    /// It stops after `max_rows` rows, or when the records reach `max_bytes`; at least one row is returned if there is one
    /// and `max_rows` is not 0.
    ///
    /// # Errors
    /// As [`get`](ReadTxn::get).
    pub fn revisions(
        &self,
        from: Revision,
        to: Revision,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<RevisionRow>, Error> {
        let mut batch = Batch {
            rows: Vec::new(),
            max_rows,
            bytes_left: max_bytes,
            full: max_rows == 0,
        };
        if !batch.full {
            self.snapshot
                .visit_revisions(from, to, |rev, tombstone, record| {
                    flow(batch.push(owned_row(rev, tombstone, record)))
                })?;
        }
        for visible in &self.layers {
            let data = visible.layer.read();
            let mut rows = pending_rows(&data, visible.row_count, from, to);
            while !batch.full
                && let Some(row) = rows.next()
            {
                batch.push(row.clone());
            }
        }
        Ok(batch.rows)
    }

    /// Hands the revision rows from `from` up to but without `to` to a function, in order and without copying those that
    /// are in the file, until it breaks. The record is only lent.
    ///
    /// The function must not call back into the backend.
    ///
    /// # Errors
    /// As [`get`](ReadTxn::get).
    pub fn visit_revisions(
        &self,
        from: Revision,
        to: Revision,
        mut visitor: impl FnMut(Revision, bool, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut broken = false;
        self.snapshot
            .visit_revisions(from, to, |rev, tombstone, record| {
                let flow = visitor(rev, tombstone, record);
                broken = flow.is_break();
                flow
            })?;
        for visible in &self.layers {
            if broken {
                break;
            }
            // The rows are shared, so that the function runs without the layer's lock.
            let rows: Vec<RevisionRow> = {
                let data = visible.layer.read();
                pending_rows(&data, visible.row_count, from, to)
                    .cloned()
                    .collect()
            };
            broken = rows
                .iter()
                .any(|row| visitor(row.rev, row.tombstone, &row.record).is_break());
        }
        Ok(())
    }

    fn pending_row(&self, rev: Revision) -> Option<RevisionRow> {
        self.layers
            .iter()
            .rev()
            .find_map(|visible| visible.layer.read().find(rev, visible.row_count).cloned())
    }

    /// Returns the rows of table `meta` that belong to the transaction itself and not to a layer.
    fn applied_rows(&self) -> [(&'static [u8], Option<Bytes>); 2] {
        [
            (CONSISTENT_INDEX_KEY, self.applied.index),
            (TERM_KEY, self.applied.term),
        ]
        .map(|(key, number)| {
            let value = (number != 0).then(|| Bytes::copy_from_slice(&number.to_be_bytes()));
            (key, value)
        })
    }

    /// Returns up to `limit` rows of each source, the oldest source first.
    fn scan_steps(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Step>, Error> {
        let mut rows = Vec::new();
        self.snapshot.visit(table, from, |key, value| {
            let row = (
                Bytes::copy_from_slice(key),
                Some(Bytes::copy_from_slice(value)),
            );
            rows.push(row);
            flow(rows.len() >= limit)
        })?;
        let more = rows.len() >= limit;
        let mut steps = vec![Step { rows, more }];
        for visible in &self.layers {
            let data = visible.layer.read();
            let rows: Vec<_> = if table == Table::Key {
                scan_rows(&data, visible.row_count, from, limit)
            } else {
                data.range(table, from, self.sequence)
                    .take(limit)
                    .map(|(key, value)| (key.clone(), value.cloned()))
                    .collect()
            };
            let more = rows.len() >= limit;
            steps.push(Step { rows, more });
        }
        if table == Table::Meta {
            let rows = self
                .applied_rows()
                .into_iter()
                .filter(|(key, _)| match from {
                    Bound::Included(from) => *key >= from,
                    Bound::Excluded(from) => *key > from,
                    Bound::Unbounded => true,
                })
                .map(|(key, value)| (Bytes::from_static(key), value))
                .collect();
            let more = false;
            steps.push(Step { rows, more });
        }
        Ok(steps)
    }
}

impl Batch {
    /// Adds a row and says whether the batch is full then.
    fn push(&mut self, row: RevisionRow) -> bool {
        let bytes = row.record.len();
        self.rows.push(row);
        self.full = self.rows.len() >= self.max_rows || bytes >= self.bytes_left;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.full
    }
}

fn flow(stop: bool) -> ControlFlow<()> {
    if stop {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Returns the rows of a range among the first `count` rows of a layer.
fn pending_rows(
    data: &LayerData,
    count: usize,
    from: Revision,
    to: Revision,
) -> impl Iterator<Item = &RevisionRow> {
    (data.lower_bound(from)..count)
        .map_while(|at| data.row(at))
        .take_while(move |row| row.rev < to)
}

/// Returns rows among the first `count` of a layer as table rows, from a bound on whatever bytes that is.
fn scan_rows(
    data: &LayerData,
    count: usize,
    from: Bound<&[u8]>,
    limit: usize,
) -> Vec<(Bytes, Option<Bytes>)> {
    let start = match from {
        Bound::Unbounded => 0,
        Bound::Included(bytes) => first_row(data, count, |key| key >= bytes),
        Bound::Excluded(bytes) => first_row(data, count, |key| key > bytes),
    };
    (start..count)
        .map_while(|at| data.row(at))
        .take(limit)
        .map(|row| {
            let key = Bytes::copy_from_slice(row.table_key().as_bytes());
            (key, Some(row.record.clone()))
        })
        .collect()
}

/// Returns the place of the first row whose key passes; the keys that pass are the last ones.
fn first_row(data: &LayerData, count: usize, passes: impl Fn(&[u8]) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if data
            .row(middle)
            .is_some_and(|row| passes(row.table_key().as_bytes()))
        {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
