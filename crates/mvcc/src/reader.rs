use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::Revision;
use quorate_proto::etcdserverpb::{RangeRequest, TxnRequest};

use crate::hash::{CompactionHash, HashKv, hash, hash_kv};
use crate::range::{Counting, RangeResult, read};
use crate::range_stream::{RangeStream, RangeStreamOptions};
use crate::record::Record;
use crate::shared::Shared;
use crate::txn::{TxnResult, read_only};
use crate::view::{Budget, ReadLimit, View};
use crate::{Error, EventKind, EventLog, EventRecord, History, RevisionEvents};

/// Reads what the store has published, from any thread.
///
/// Reads wait for no write, flush, sync or compaction: they hold the index lock for a bounded number of keys at a time
/// and never over I/O. A read sees one revision from start to end.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// Returns the revision of the newest published write; 1 of a fresh store.
    pub fn current_revision(&self) -> i64 {
        self.shared.horizon.current()
    }

    /// Returns the revision below which nothing can be read; -1 when nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        self.shared.horizon.compact()
    }

    /// Reads a range.
    ///
    /// When a compaction overtakes the read, it starts anew: at the new current revision when it asked for that, else
    /// with [`Error::Compacted`] if its revision is gone, as if it had come a moment later.
    ///
    /// # Errors
    /// [`Error::FutureRevision`], then [`Error::Compacted`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        self.range_counting(request, Counting::All, ReadLimit::NONE)
    }

    /// Reads a range as [`Reader::range`], unless that takes more than `limit` allows.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and those of [`Reader::range`].
    pub fn range_within(
        &self,
        request: &RangeRequest,
        limit: ReadLimit,
    ) -> Result<RangeResult, Error> {
        self.range_counting(request, Counting::All, limit)
    }

    /// Reads a range piece by piece, all at the revision of the first piece.
    ///
    /// # Errors
    /// As [`Reader::range`], from here or from [`RangeStream::next_chunk`].
    pub fn range_stream(
        &self,
        request: &RangeRequest,
        options: RangeStreamOptions,
    ) -> Result<RangeStream, Error> {
        RangeStream::open(self.clone(), request, options)
    }

    /// Evaluates a transaction that changes nothing.
    ///
    /// # Errors
    /// As [`Store::txn`](crate::Store::txn).
    ///
    /// # Panics
    /// When [`is_read_only`](crate::is_read_only) says otherwise.
    pub fn txn_read_only(&self, request: &TxnRequest) -> Result<TxnResult, Error> {
        self.txn_read_only_within(request, ReadLimit::NONE)
    }

    /// Evaluates as [`Reader::txn_read_only`], unless that takes more than `limit` allows in all.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and those of [`Reader::txn_read_only`].
    ///
    /// # Panics
    /// As [`Reader::txn_read_only`].
    pub fn txn_read_only_within(
        &self,
        request: &TxnRequest,
        limit: ReadLimit,
    ) -> Result<TxnResult, Error> {
        let budget = Budget::new(limit);
        self.shared.read_pinned(|view, pin| {
            let view = View {
                budget: Some(&budget),
                ..*view
            };
            read_only(&view, request, pin.current, pin.compact)
        })
    }

    /// Hashes the history up to a revision, 0 meaning the current one. Equal to etcd's for the same history.
    ///
    /// A revision below 0 covers nothing. Of a revision that a recent compaction was at, the hash which that compaction
    /// made is returned. No compaction goes on while it runs.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        hash_kv(&self.shared, revision)
    }

    /// Hashes all tables but for what differs between members that agree; also returns the current revision.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn hash(&self) -> Result<(u32, i64), Error> {
        hash(&self.shared)
    }

    /// Returns the hashes of the newest compactions, oldest first.
    pub fn compaction_hashes(&self) -> Vec<CompactionHash> {
        self.shared.hashes.all()
    }

    /// Returns the log of recent changes that the store appends to.
    pub fn event_log(&self) -> &EventLog {
        &self.shared.event_log
    }

    /// Reads from the backend the changes of main revisions from `from` up to `to`, exclusive, oldest first.
    ///
    /// Revisions are whole: reading stops after the first one that reaches a limit, and returns at least one if there is
    /// one. Revisions that are not published yet are left out.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `from` is below the compact revision.
    pub fn history(
        &self,
        from: i64,
        to: i64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<RevisionEvents>>, Error> {
        let to = to.min(self.current_revision().saturating_add(1));
        let txn = self.shared.backend.read()?;
        // The horizon moves before anything is removed, so what it allows now is all in the transaction.
        if from < self.compact_revision() {
            return Err(Error::Compacted);
        }
        let mut revisions: Vec<RevisionEvents> = Vec::new();
        let (mut next, mut rows_left, mut bytes_left) = (
            Revision {
                main: from.max(0),
                sub: 0,
            },
            rows_max,
            bytes_max,
        );
        while next.main < to {
            // A revision that was begun is read to its end, whatever the limits.
            let (end, rows, bytes) = if rows_left > 0 && bytes_left > 0 {
                (Revision { main: to, sub: 0 }, rows_left, bytes_left)
            } else {
                let options = &self.shared.options;
                (
                    Revision {
                        main: next.main + 1,
                        sub: 0,
                    },
                    options.scan_batch_rows,
                    options.scan_batch_bytes,
                )
            };
            let rows = txn.revisions(next, end, rows, bytes)?;
            let Some(last) = rows.last() else {
                break;
            };
            next = Revision {
                main: last.rev.main,
                sub: last.rev.sub + 1,
            };
            rows_left = rows_left.saturating_sub(rows.len());
            bytes_left = bytes_left.saturating_sub(rows.iter().map(|row| row.record.len()).sum());
            for row in rows {
                let event = event_of(row.rev, row.tombstone, row.record)?;
                match revisions
                    .last_mut()
                    .filter(|last| last.main == row.rev.main)
                {
                    Some(last) => last.events.push(event),
                    None => revisions.push(RevisionEvents {
                        main: row.rev.main,
                        events: vec![event],
                    }),
                }
            }
        }
        Ok(revisions.into_iter().map(Arc::new).collect())
    }

    /// Returns the encoded record that a key had just before a main revision, `None` when it did not exist then or when
    /// that is compacted.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn value_before(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error> {
        let at = revision.saturating_sub(1);
        let read = self.shared.read(|view, current, compact| {
            if at < compact || at > current {
                return Ok(None);
            }
            match view.get(key, at)? {
                Some(version) => view.record(version.revision).map(Some),
                None => Ok(None),
            }
        });
        match read {
            Err(Error::Compacted) => Ok(None),
            other => other,
        }
    }

    /// Returns how many keys exist.
    pub fn keys_total(&self) -> usize {
        self.shared.index.read().live()
    }

    /// Returns how many keys the index holds, deleted ones that wait for a compaction included, and the bytes of memory
    /// it takes. Walks the index; for tests and diagnosis.
    pub fn index_size(&self) -> (usize, usize) {
        self.shared.index.read().size()
    }

    pub(crate) fn range_counting(
        &self,
        request: &RangeRequest,
        counting: Counting,
        limit: ReadLimit,
    ) -> Result<RangeResult, Error> {
        self.shared.read(|view, current, compact| {
            let budget = Budget::new(limit);
            let view = View {
                budget: Some(&budget),
                ..*view
            };
            read(&view, request, current, compact, counting)
        })
    }
}

impl History for Reader {
    fn event_log(&self) -> &EventLog {
        Reader::event_log(self)
    }

    fn compact_revision(&self) -> i64 {
        Reader::compact_revision(self)
    }

    fn history(
        &self,
        from: i64,
        to: i64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<RevisionEvents>>, Error> {
        match Reader::history(self, from, to, rows_max, bytes_max) {
            // Whoever asks looks at the compact revision after this.
            Err(Error::Compacted) => Ok(Vec::new()),
            other => other,
        }
    }

    fn value_before(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error> {
        Reader::value_before(self, key, revision)
    }
}

/// Turns a stored row into the event it was.
fn event_of(revision: Revision, tombstone: bool, bytes: Bytes) -> Result<EventRecord, Error> {
    let record = Record::parse_stored(&bytes, revision)?;
    let (kind, create_revision) = if tombstone {
        (EventKind::Delete, 0)
    } else {
        (EventKind::Put, record.create_revision)
    };
    Ok(EventRecord {
        kind,
        key: bytes.slice(record.key),
        record: bytes,
        revision,
        create_revision,
    })
}
