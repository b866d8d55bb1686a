use bytes::Bytes;
use hashbrown::HashMap;
use quorate_backend::{Backend, ReadTxn, Revision, RevisionRow};
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

/// Reads the revision table once, in order, in bounded memory beside the index itself.
///
/// The current revision is the largest of: 1, the newest row, and both marks of compactions, since the newest rows may
/// have been tombstones that a compaction deleted.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/kvstore.go` `restore`.
pub(crate) fn restore(backend: &Backend, options: &Options) -> Result<Restored, Error> {
    let txn = backend.read()?;
    let finished = read_mark(&txn, FINISHED_KEY)?;
    let scheduled = read_mark(&txn, SCHEDULED_KEY)?;
    let mut restoring = Restoring::new(options);
    restoring.read_rows(&txn, options)?;
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

struct Restoring {
    index: KeyIndex,
    newest: Revision,
    /// Lease of each key that has one; order is made when all are known.
    leases: HashMap<Bytes, i64>,
    keys: Vec<u8>,
    batch: Vec<BatchRow>,
}

struct BatchRow {
    /// Place of the key in `keys`.
    start: usize,
    end: usize,
    row: RestoredRow,
}

impl Restoring {
    fn new(options: &Options) -> Restoring {
        Restoring {
            index: KeyIndex::new(0, options.recent_births_max),
            newest: Revision { main: 0, sub: -1 },
            leases: HashMap::new(),
            keys: Vec::new(),
            batch: Vec::new(),
        }
    }

    fn read_rows(&mut self, txn: &ReadTxn, options: &Options) -> Result<(), Error> {
        let mut from = Revision::MIN;
        loop {
            let rows = txn.revisions(
                from,
                Revision::MAX,
                options.scan_batch_rows,
                options.scan_batch_bytes,
            )?;
            let Some(last) = rows.last() else {
                return self.insert_batch();
            };
            from = Revision {
                main: last.rev.main,
                sub: last.rev.sub.saturating_add(1),
            };
            for row in &rows {
                self.add(row)?;
            }
            if self.batch.len() >= BATCH_ROWS_MAX || self.keys.len() >= BATCH_KEY_BYTES_MAX {
                self.insert_batch()?;
            }
        }
    }

    fn add(&mut self, row: &RevisionRow) -> Result<(), Error> {
        let corrupt = |expected| Error::Corrupt {
            main: row.rev.main,
            sub: row.rev.sub,
            expected,
        };
        if row.rev <= self.newest {
            return Err(corrupt("a revision above the one before it"));
        }
        if row.rev.main < 0 || u32::try_from(row.rev.sub).is_err() {
            return Err(corrupt(
                "a revision with a main of 0 or more and a sub below 2^32",
            ));
        }
        self.newest = row.rev;
        let record = Record::parse_stored(&row.record, row.rev)?;
        let key = &row.record[record.key.clone()];
        if row.tombstone || record.lease == 0 {
            if !self.leases.is_empty() {
                self.leases.remove(key);
            }
        } else {
            self.leases
                .insert(Bytes::copy_from_slice(key), record.lease);
        }
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        let restored = if row.tombstone {
            RestoredRow::Tombstone(row.rev)
        } else {
            RestoredRow::Put(KeyVersion {
                revision: row.rev,
                create_revision: record.create_revision,
                version: record.version,
            })
        };
        self.batch.push(BatchRow {
            start,
            end: self.keys.len(),
            row: restored,
        });
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
