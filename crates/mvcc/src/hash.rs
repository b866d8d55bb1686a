use std::ops::{Bound, ControlFlow};

use parking_lot::Mutex;
use quorate_backend::{ReadTxn, Revision, Table};

use crate::horizon::Pin;
use crate::index::KeyParts;
use crate::record::KeyVersion;
use crate::shared::Shared;
use crate::view::{Stop, View};
use crate::{Error, KeyRange};

/// The hash of the store's history, with what it depends on.
///
/// Two members agree when they have the same `hash` for the same `hash_revision` and `compact_revision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the rows.
    pub hash: u32,
    /// The compact revision the hash was made with; of a compaction's own hash, the one before it.
    pub compact_revision: i64,
    /// The revision up to which rows count.
    pub hash_revision: i64,
    /// The store's revision when it was asked for.
    pub revision: i64,
}

/// The hash that a finished compaction left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionHash {
    /// CRC-32C over the rows.
    pub hash: u32,
    /// The compact revision before that compaction.
    pub compact_revision: i64,
    /// The revision compacted to.
    pub revision: i64,
}

/// The hashes of the newest compactions.
#[derive(Debug, Default)]
pub(crate) struct StoredHashes {
    /// By ascending revision.
    hashes: Mutex<Vec<CompactionHash>>,
}

/// How many hashes of compactions are kept.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/hash.go` `hashStorageMaxSize`.
const STORED_HASHES_MAX: usize = 10;

/// Keys of the `meta` table that differ between members that agree.
///
/// Source: etcd v3.7.1 `server/storage/schema/bucket.go` `DefaultIgnores`.
const IGNORED_META_KEYS: [&[u8]; 3] = [b"consistent_index", b"term", b"storageVersion"];

impl StoredHashes {
    pub(crate) fn store(&self, hash: CompactionHash) {
        let mut hashes = self.hashes.lock();
        let place = hashes.partition_point(|stored| stored.revision <= hash.revision);
        hashes.insert(place, hash);
        if hashes.len() > STORED_HASHES_MAX {
            hashes.remove(0);
        }
    }

    pub(crate) fn all(&self) -> Vec<CompactionHash> {
        self.hashes.lock().clone()
    }

    fn of_revision(&self, revision: i64) -> Option<CompactionHash> {
        self.hashes
            .lock()
            .iter()
            .find(|hash| hash.revision == revision)
            .copied()
    }
}

/// The running hash over the rows of the revision table.
///
/// **Shape**: CRC-32C over the table's name, then the table key and the record of each row that counts, in order.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/hash.go` `kvHasher`.
#[derive(Clone, Debug)]
pub(crate) struct KvHasher {
    crc: u32,
    /// Rows up to here count only when they are kept.
    compact: i64,
    any_kept: bool,
}

/// The revisions at or below the compact revision that count, to be asked for in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct KeptRows {
    /// Ascending.
    revisions: Vec<Revision>,
    next: usize,
}

impl KeptRows {
    pub(crate) fn new(mut revisions: Vec<Revision>) -> KeptRows {
        revisions.sort_unstable();
        revisions.dedup();
        KeptRows { revisions, next: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Returns whether a revision is kept; each call asks for a later one.
    pub(crate) fn contains(&mut self, revision: Revision) -> bool {
        while self
            .revisions
            .get(self.next)
            .is_some_and(|kept| *kept < revision)
        {
            self.next += 1;
        }
        self.revisions.get(self.next) == Some(&revision)
    }
}

impl KvHasher {
    /// Starts a hash of a store compacted up to `compact`. With no row kept, rows at or below it count all the same:
    /// etcd takes an empty set for none.
    pub(crate) fn new(compact: i64, any_kept: bool) -> KvHasher {
        let crc = crc32c::crc32c(Table::Key.name().as_bytes());
        KvHasher {
            crc,
            compact,
            any_kept,
        }
    }

    /// Adds the next row; `is_kept` is asked only where it matters.
    pub(crate) fn add(
        &mut self,
        revision: Revision,
        tombstone: bool,
        record: &[u8],
        is_kept: impl FnOnce() -> bool,
    ) {
        if revision.main <= self.compact && self.any_kept && !is_kept() {
            return;
        }
        if revision.main == self.compact && tombstone {
            return;
        }
        self.crc = add_row(self.crc, revision, tombstone, record);
    }

    pub(crate) fn finish(&self) -> u32 {
        self.crc
    }
}

/// Hashes the history up to a revision, 0 meaning the current one.
///
/// The result is that of an etcd whose physical compaction has ended, whether ours has or not.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/hash.go` `HashByRev`, `kvstore.go` `hashByRev`. Differs from etcd: when one
/// transaction deletes a key and puts it again, and the compaction is at exactly its revision, etcd loses the put, so
/// that its hash has no row of it; here the row is there and counts.
pub(crate) fn hash_kv(shared: &Shared, revision: i64) -> Result<HashKv, Error> {
    // A compaction at revision 0 stores a hash too, and a question for revision 0 finds it first, as in etcd.
    if let Some(stored) = shared.hashes.of_revision(revision) {
        return Ok(HashKv {
            hash: stored.hash,
            compact_revision: stored.compact_revision,
            hash_revision: stored.revision,
            revision: shared.horizon.current(),
        });
    }
    shared.read_pinned(|view, pin| {
        if revision > 0 && revision < pin.compact {
            return Err(Error::Compacted.into());
        }
        if revision > pin.current {
            return Err(Error::FutureRevision.into());
        }
        let at = if revision == 0 { pin.current } else { revision };
        let hash = hash_at(shared, view, pin, at)?;
        Ok(HashKv {
            hash,
            compact_revision: pin.compact,
            hash_revision: at,
            revision: pin.current,
        })
    })
}

fn hash_at(shared: &Shared, view: &View<'_>, pin: &Pin<'_>, at: i64) -> Result<u32, Stop> {
    let (mut kept, any_kept) = alive(view, at, pin.compact)?;
    if !any_kept {
        // Nothing is alive at the revision, so every row up to the compact revision counts that a finished compaction
        // left there: what was alive then, and deletions at it, which the hash skips.
        kept = alive(view, pin.compact, pin.compact)?.0;
        // An empty set would let in rows that wait for their deletion.
        if kept.is_empty() {
            kept.push(Revision {
                main: i64::MAX,
                sub: i64::MAX,
            });
        }
    } else if kept.is_empty() {
        // All that is alive is newer: no row up to the compact revision counts, which an empty set would not say.
        kept.push(Revision {
            main: i64::MAX,
            sub: i64::MAX,
        });
    }
    let mut kept = KeptRows::new(kept);
    let mut hasher = KvHasher::new(pin.compact, !kept.is_empty());
    let to = Revision {
        main: at.saturating_add(1).max(0),
        sub: 0,
    };
    let txn = shared.backend.read().map_err(Error::from)?;
    let add = |revision: Revision, tombstone: bool, record: &[u8]| {
        hasher.add(revision, tombstone, record, || kept.contains(revision));
        ControlFlow::Continue(())
    };
    txn.visit_revisions(Revision::MIN, to, add)
        .map_err(Error::from)?;
    Ok(hasher.finish())
}

fn add_row(crc: u32, revision: Revision, tombstone: bool, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc, revision.table_key(tombstone).as_bytes());
    crc32c::crc32c_append(crc, record)
}

/// Returns the revisions at or below `compact` of the keys that exist at a main revision, and whether any key does.
fn alive(view: &View<'_>, at: i64, compact: i64) -> Result<(Vec<Revision>, bool), Stop> {
    let (mut revisions, mut any) = (Vec::new(), false);
    let visitor = |_: KeyParts<'_>, version: KeyVersion| {
        any = true;
        if version.revision.main <= compact {
            revisions.push(version.revision);
        }
        ControlFlow::Continue(())
    };
    view.walk(&KeyRange::all(), at, visitor, || {
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((revisions, any))
}

/// Hashes all tables, and returns the revision of the store beside it.
///
/// Source: etcd v3.7.1 `server/storage/backend/backend.go` `Hash`.
pub(crate) fn hash(shared: &Shared) -> Result<(u32, i64), Error> {
    let txn = shared.backend.read()?;
    let revision = shared.horizon.current();
    let mut crc = 0;
    for table in Table::ALL {
        crc = crc32c::crc32c_append(crc, table.name().as_bytes());
        if table == Table::Key {
            txn.visit_revisions(
                Revision::MIN,
                Revision::MAX,
                |revision, tombstone, record| {
                    crc = add_row(crc, revision, tombstone, record);
                    ControlFlow::Continue(())
                },
            )?;
        } else {
            crc = add_table(shared, &txn, table, crc)?;
        }
    }
    Ok((crc, revision))
}

fn add_table(shared: &Shared, txn: &ReadTxn, table: Table, mut crc: u32) -> Result<u32, Error> {
    let mut last: Option<bytes::Bytes> = None;
    loop {
        let from = last
            .as_ref()
            .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let rows = txn.scan(table, from, shared.options.scan_batch_rows)?;
        let Some((key, _)) = rows.last() else {
            return Ok(crc);
        };
        last = Some(key.clone());
        for (key, value) in &rows {
            if table == Table::Meta && IGNORED_META_KEYS.contains(&&key[..]) {
                continue;
            }
            crc = crc32c::crc32c_append(crc, key);
            crc = crc32c::crc32c_append(crc, value);
        }
    }
}
