use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_backend::{ReadTxn, Revision, Table};

use crate::Error;
use crate::hash::{CompactionHash, KeptRows, KvHasher};
use crate::shared::Shared;

/// Key in the `meta` table of the newest compaction that was asked for.
///
/// **Shape**: the 17-byte form of a revision with sub 0.
///
/// Source: etcd v3.7.1 `server/storage/schema/meta.go` `ScheduledCompactKeyName`.
pub(crate) const SCHEDULED_KEY: &str = "scheduledCompactRev";

/// Key in the `meta` table of the newest compaction that ended; same shape.
///
/// Source: etcd v3.7.1 `server/storage/schema/meta.go` `FinishedCompactKeyName`.
pub(crate) const FINISHED_KEY: &str = "finishedCompactRev";

/// Most keys in a leaf of the index, so that a step knows what a leaf costs.
const LEAF_KEYS_MAX: usize = 64;

/// How many chunks of the index one step compacts; the lock is let go after each.
const INDEX_CHUNKS_PER_STEP: usize = 16;

/// The work of one compaction, done in small steps beside everything else.
///
/// The compact revision has moved when the job is made; what it does cannot be seen from outside but in memory and disk
/// space, and in [`Reader::compaction_hashes`](crate::Reader::compaction_hashes). Jobs are to be stepped one after the other, in the order
/// they were made.
///
/// # Durability
/// What was to be done is on disk with the batch that asked for it. A job that is lost between two steps is made again
/// by [`Store::pending_compaction`](crate::Store::pending_compaction) after a restart, until its last step wrote that
/// it ended:
///
/// | state found at restart | cause | action |
/// |---|---|---|
/// | scheduled = finished, or both absent | the job ended, or there was none | nothing |
/// | scheduled > finished | lost before its end | all of it again; rows already gone are no loss |
/// | newest row below either mark | the newest rows were compacted tombstones | the revision counter starts at the mark |
#[derive(Debug)]
pub struct CompactionJob {
    shared: Arc<Shared>,
    revision: i64,
    previous: i64,
    /// Whether the rows are all there that the compaction's hash covers.
    keeps_hash: bool,
    state: State,
    deleted_rows: u64,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// It has to wait: for the flush of the batch that asked for it, or for a reader. Try again in a while.
    Blocked,
    /// It ended, and that is durable.
    Done(CompactionSummary),
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSummary {
    /// The revision compacted to.
    pub revision: i64,
    /// How many rows were deleted.
    pub deleted_rows: u64,
    /// The hash of what was there before, as etcd logs it; `None` when an earlier compaction had not ended in time.
    pub hash: Option<u32>,
}

#[derive(Debug)]
enum State {
    /// Waits until the horizon has moved, no reader needs what is below, and all rows up to it are in the file.
    Waiting {
        scheduled_index: u64,
    },
    /// Compacts the index and learns what stays.
    Index {
        from: Vec<u8>,
        kept: Vec<Revision>,
    },
    /// Deletes rows.
    Rows {
        from: Revision,
        kept: KeptRows,
        hasher: KvHasher,
    },
    /// The end is to be written.
    Finishing {
        hash: u32,
    },
    Ended(CompactionSummary),
}

impl CompactionJob {
    pub(crate) fn new(
        shared: Arc<Shared>,
        revision: i64,
        previous: i64,
        keeps_hash: bool,
        scheduled_index: u64,
    ) -> CompactionJob {
        let state = State::Waiting { scheduled_index };
        CompactionJob {
            shared,
            revision,
            previous,
            keeps_hash,
            state,
            deleted_rows: 0,
        }
    }

    /// Returns the revision compacted to.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Does one bounded piece of the work.
    ///
    /// # Errors
    /// When the backend fails. What is done stays done; the job may be tried again, but a backend that failed a write
    /// wants a restart.
    pub fn step(&mut self) -> Result<Progress, Error> {
        match &mut self.state {
            State::Waiting { .. } => return Ok(self.wait()),
            State::Index { .. } => self.compact_index(),
            State::Rows { .. } => self.compact_rows()?,
            State::Finishing { hash } => {
                let hash = *hash;
                self.finish(hash)?;
            }
            State::Ended(_) => {}
        }
        match self.state {
            State::Ended(summary) => Ok(Progress::Done(summary)),
            _ => Ok(Progress::More),
        }
    }

    /// Does all of the work, as long as nothing stands in its way.
    ///
    /// # Errors
    /// As [`CompactionJob::step`].
    pub fn run(&mut self) -> Result<Progress, Error> {
        loop {
            match self.step()? {
                Progress::More => {}
                end => return Ok(end),
            }
        }
    }

    fn wait(&mut self) -> Progress {
        let State::Waiting { scheduled_index } = self.state else {
            unreachable!("called in this state only");
        };
        let horizon = &self.shared.horizon;
        if horizon.compact() < self.revision || horizon.is_pinned_below(self.revision) {
            return Progress::Blocked;
        }
        if self.shared.backend.durable().index < scheduled_index {
            return Progress::Blocked;
        }
        // The hash covers all rows only when the compaction before has nothing left to delete. Differs from etcd: there
        // it must have ended when this one is asked for, which depends on how fast it was.
        let finished = self.shared.finished_compaction.load(Ordering::Acquire);
        self.keeps_hash &= finished == self.previous;
        self.state = State::Index {
            from: Vec::new(),
            kept: Vec::new(),
        };
        Progress::More
    }

    fn compact_index(&mut self) {
        let State::Index { from, kept } = &mut self.state else {
            unreachable!("called in this state only");
        };
        for _ in 0..INDEX_CHUNKS_PER_STEP {
            let mut index = self.shared.index.write();
            for _ in 0..self.shared.options.index_chunk_keys.div_ceil(LEAF_KEYS_MAX) {
                match index.compact_leaf(from, self.revision, |revision| kept.push(revision)) {
                    Some(next) => *from = next,
                    None => {
                        drop(index);
                        let kept = KeptRows::new(std::mem::take(kept));
                        let hasher = KvHasher::new(self.previous, !kept.is_empty());
                        self.state = State::Rows {
                            from: Revision::MIN,
                            kept,
                            hasher,
                        };
                        return;
                    }
                }
            }
        }
    }

    fn compact_rows(&mut self) -> Result<(), Error> {
        let State::Rows { from, kept, hasher } = &mut self.state else {
            unreachable!("called in this state only");
        };
        let options = &self.shared.options;
        let (mut rows_left, mut bytes_left) =
            (options.compaction_batch_rows, options.scan_batch_bytes);
        let (mut last, mut gone) = (None, Vec::new());
        let visitor = |revision: Revision, tombstone: bool, record: &[u8]| {
            last = Some(revision);
            let is_kept = kept.contains(revision);
            if self.keeps_hash {
                hasher.add(revision, tombstone, record, || is_kept);
            }
            if !is_kept {
                gone.push((revision, tombstone));
            }
            rows_left = rows_left.saturating_sub(1);
            bytes_left = bytes_left.saturating_sub(record.len());
            if rows_left == 0 || bytes_left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let to = Revision {
            main: self.revision.saturating_add(1),
            sub: 0,
        };
        self.shared
            .backend
            .read()?
            .visit_revisions(*from, to, visitor)?;
        let Some(last) = last else {
            self.state = State::Finishing {
                hash: hasher.finish(),
            };
            return Ok(());
        };
        *from = Revision {
            main: last.main,
            sub: last.sub.saturating_add(1),
        };
        if gone.is_empty() {
            return Ok(());
        }
        self.deleted_rows += gone.len() as u64;
        let mut txn = self.shared.backend.maintenance()?;
        for (revision, tombstone) in gone {
            txn.delete_revision(revision, tombstone);
        }
        Ok(txn.commit()?)
    }

    fn finish(&mut self, hash: u32) -> Result<(), Error> {
        if self.shared.finished_compaction.load(Ordering::Acquire) < self.revision {
            let mut txn = self.shared.backend.maintenance()?;
            txn.put(Table::Meta, FINISHED_KEY.as_bytes(), mark(self.revision));
            txn.commit()?;
            self.shared
                .finished_compaction
                .fetch_max(self.revision, Ordering::AcqRel);
        }
        if self.keeps_hash {
            let (revision, compact_revision) = (self.revision, self.previous);
            self.shared.hashes.store(CompactionHash {
                hash,
                compact_revision,
                revision,
            });
        }
        self.state = State::Ended(CompactionSummary {
            revision: self.revision,
            deleted_rows: self.deleted_rows,
            hash: self.keeps_hash.then_some(hash),
        });
        Ok(())
    }
}

/// Encodes a mark of a compaction.
pub(crate) fn mark(revision: i64) -> Bytes {
    Bytes::copy_from_slice(
        Revision {
            main: revision,
            sub: 0,
        }
        .table_key(false)
        .as_bytes(),
    )
}

/// Reads a mark of a compaction.
pub(crate) fn read_mark(txn: &ReadTxn, key: &'static str) -> Result<Option<i64>, Error> {
    let Some(bytes) = txn.get(Table::Meta, key.as_bytes())? else {
        return Ok(None);
    };
    match Revision::from_table_key(&bytes) {
        Some((revision, false)) if revision.main >= 0 => Ok(Some(revision.main)),
        _ => Err(Error::CorruptMeta {
            key,
            found_len: bytes.len(),
        }),
    }
}
