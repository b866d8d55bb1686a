use std::ops::ControlFlow;

use bytes::Bytes;
use hashbrown::HashMap;
use quorate_backend::{Backend, ReadTxn, Revision, Table, TableRow};
use quorate_proto::LeaseId;

use crate::compaction::{FINISHED_KEY, SCHEDULED_KEY, read_mark};
use crate::index::{KeyIndex, RestoredRow};
use crate::record::{KeyVersion, Record};
use crate::{Error, Options};

/// What the backend's tables say of the store.
pub(crate) struct Restored {
    pub(crate) index: KeyIndex,
    pub(crate) current: i64,
    pub(crate) compact: i64,
    /// The newest compaction that ended; -1 when there was none.
    pub(crate) finished: i64,
    /// By key.
    pub(crate) leases: Vec<(Bytes, LeaseId)>,
}

/// Rows gathered before they go into the index in key order, so that neighbours are inserted one after the other.
const BATCH_ROWS_MAX: usize = 1 << 16;
/// Most bytes of keys gathered.
const BATCH_KEY_BYTES_MAX: usize = 16 << 20;

/// Makes the index of rows that passed by, if they are what the backend has, or else of the revision table, which is read
/// once, in order. Memory is bounded, beside the index itself.
///
/// The current revision is the largest of: 1, the newest row, and both marks of compactions, since the newest rows may
/// have been tombstones that a compaction deleted.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/kvstore.go` `restore`.
pub(crate) fn restore(
    backend: &Backend,
    options: &Options,
    passed: Option<Restoring>,
) -> Result<Restored, Error> {
    let txn = backend.read()?;
    let finished = read_mark(&txn, FINISHED_KEY)?;
    let scheduled = read_mark(&txn, SCHEDULED_KEY)?;
    let is_flushed = backend.durable() == backend.applied();
    let is_same =
        |passed: &Restoring| is_flushed && Some(passed.newest) == backend.flushed_revision();
    let mut restoring = match passed.filter(is_same) {
        Some(passed) => passed,
        None => Restoring::of_table(&txn, options)?,
    };
    restoring.insert_batch()?;
    let marks = finished.max(scheduled).unwrap_or(-1);
    let current = restoring.newest.main.max(marks).max(1);
    restoring.index.finish_restore(current);
    let mut leases: Vec<_> = restoring
        .leases
        .into_iter()
        .map(|(key, lease)| (key, LeaseId(lease)))
        .collect();
    leases.sort_unstable();
    Ok(Restored {
        index: restoring.index,
        current,
        compact: marks,
        finished: finished.unwrap_or(-1),
        leases,
    })
}

/// The key index in the making, of rows on their way into a new backend.
///
/// It saves [`Store::restore_passed`](crate::Store::restore_passed) from reading them back.
pub struct Restoring {
    index: KeyIndex,
    newest: Revision,
    /// Lease of each key that has one; order is made when all are known.
    leases: HashMap<Bytes, i64>,
    keys: Vec<u8>,
    batch: Vec<BatchRow>,
}

impl std::fmt::Debug for Restoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restoring")
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

struct BatchRow {
    /// Place of the key in `keys`.
    start: usize,
    end: usize,
    row: RestoredRow,
}

impl Restoring {
    /// Begins, without any row.
    #[must_use]
    pub fn new(options: &Options) -> Restoring {
        Restoring {
            index: KeyIndex::new(0, options.recent_births_max),
            newest: Revision { main: 0, sub: -1 },
            leases: HashMap::new(),
            keys: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// Takes the next rows; those of other tables than [`Table::Key`] do not matter.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they cannot have been written by a store.
    pub fn add_rows(&mut self, rows: &[TableRow]) -> Result<(), Error> {
        for (_, key, record) in rows.iter().filter(|row| row.0 == Table::Key) {
            let (revision, tombstone) = Revision::from_table_key(key).ok_or(Error::Corrupt {
                main: self.newest.main,
                sub: self.newest.sub,
                expected: "a revision behind it",
            })?;
            self.add(revision, tombstone, record)?;
        }
        Ok(())
    }

    fn of_table(txn: &ReadTxn, options: &Options) -> Result<Restoring, Error> {
        let mut restoring = Restoring::new(options);
        let mut result = Ok(());
        txn.visit_revisions(
            Revision::MIN,
            Revision::MAX,
            |revision, tombstone, record| {
                result = restoring.add(revision, tombstone, record);
                if result.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            },
        )?;
        result.map(|()| restoring)
    }

    fn add(&mut self, revision: Revision, tombstone: bool, bytes: &[u8]) -> Result<(), Error> {
        let corrupt = |expected| Error::Corrupt {
            main: revision.main,
            sub: revision.sub,
            expected,
        };
        if revision <= self.newest {
            return Err(corrupt("a revision above the one before it"));
        }
        if revision.main < 0 || u32::try_from(revision.sub).is_err() {
            return Err(corrupt(
                "a revision with a main of 0 or more and a sub below 2^32",
            ));
        }
        self.newest = revision;
        let record = Record::parse_stored(bytes, revision)?;
        let key = &bytes[record.key.clone()];
        if tombstone || record.lease == 0 {
            if !self.leases.is_empty() {
                self.leases.remove(key);
            }
        } else {
            self.leases
                .insert(Bytes::copy_from_slice(key), record.lease);
        }
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        let row = if tombstone {
            RestoredRow::Tombstone(revision)
        } else {
            RestoredRow::Put(KeyVersion {
                revision,
                create_revision: record.create_revision,
                version: record.version,
            })
        };
        self.batch.push(BatchRow {
            start,
            end: self.keys.len(),
            row,
        });
        if self.batch.len() >= BATCH_ROWS_MAX || self.keys.len() >= BATCH_KEY_BYTES_MAX {
            self.insert_batch()?;
        }
        Ok(())
    }

    fn insert_batch(&mut self) -> Result<(), Error> {
        let keys = &self.keys;
        // Stable, so that the rows of one key stay in order.
        self.batch
            .sort_by(|a, b| keys[a.start..a.end].cmp(&keys[b.start..b.end]));
        for row in &self.batch {
            if !self.index.restore(&keys[row.start..row.end], row.row) {
                let revision = row.row.revision();
                let expected = "a revision above those of the same key";
                return Err(Error::Corrupt {
                    main: revision.main,
                    sub: revision.sub,
                    expected,
                });
            }
        }
        self.batch.clear();
        self.keys.clear();
        Ok(())
    }
}
