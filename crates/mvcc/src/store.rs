use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_backend::{ApplyTxn, Backend, Revision, Table};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};

use crate::compaction::{CompactionJob, SCHEDULED_KEY, mark};
use crate::horizon::Horizon;
use crate::index::Walk;
use crate::range::{Counting, RangeResult, read, signed};
use crate::reader::Reader;
use crate::record::{Record, encode_put, encode_tombstone, key_place};
use crate::restore::{Restoring, restore};
use crate::shared::Shared;
use crate::txn::{OpResult, Path, PreCheck, TxnResult};
use crate::view::{Stop, View};
use crate::{Error, EventKind, EventLog, EventRecord, KeyRange, Options, RevisionEvents};

/// The writer of the store; there is one, on the thread that applies the log.
///
/// Writes of one batch go through one [`ApplyTxn`] and see each other; readers and watchers see them all at once at
/// [`Store::publish`]. Whatever fails before the first change of a request leaves no trace. A failure after it, which
/// only the backend or damaged data can cause, poisons the store: the member must stop and recover.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Revision of the newest write, published or not.
    current: i64,
    /// Newest compact revision, published or not; -1 when there is none.
    compact: i64,
    /// Changes that wait for the publication.
    unpublished: Vec<Arc<RevisionEvents>>,
    /// The compaction that a restart found unfinished.
    pending: Option<Compaction>,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Compaction {
    revision: i64,
    previous: i64,
}

/// What a write did, as far as leases are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The store's revision after it.
    pub revision: i64,
    /// Keys that were put, in order, with the lease they have now; lease 0 detaches. A key that is new and has no lease
    /// may be left out. The bytes of keys may be part of larger ones: whoever keeps them copies them.
    pub attached: Vec<(Bytes, i64)>,
    /// Keys that were deleted, in order. No key is in both lists: what happened to it last counts.
    pub deleted: Vec<Bytes>,
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// Its revision.
    pub revision: i64,
    /// The record before, when asked for and there was one.
    pub prev: Option<Bytes>,
    /// What the lessor must be told.
    pub changes: Changes,
}

/// The answer to a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResult {
    /// The store's revision after it: a new one if it deleted anything.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// The records before, in key order, when asked for.
    pub prevs: Vec<Bytes>,
    /// What the lessor must be told.
    pub changes: Changes,
}

/// The changes of one request, which share a main revision.
struct WriteSet {
    main: i64,
    next_sub: i64,
    events: Vec<EventRecord>,
    changes: Changes,
}

/// Whether the answers to the ranges in a transaction are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Wanted,
    /// Nobody waits for them.
    Dropped,
}

impl Store {
    /// Builds the store from the backend's tables.
    ///
    /// Also returns the lease of each key that has one, in key order: the newest put of a key says which.
    ///
    /// # Errors
    /// When the backend fails, or its tables hold what cannot have been written.
    pub fn restore(
        backend: &Backend,
        options: Options,
    ) -> Result<(Store, Vec<(Bytes, LeaseId)>), Error> {
        Store::restore_passed(backend, options, None)
    }

    /// As [`restore`](Store::restore), with the index made of rows while they went into the backend.
    ///
    /// It is left unused when the newest of them is not the newest of the backend.
    ///
    /// # Errors
    /// As [`restore`](Store::restore).
    pub fn restore_passed(
        backend: &Backend,
        options: Options,
        passed: Option<Restoring>,
    ) -> Result<(Store, Vec<(Bytes, LeaseId)>), Error> {
        let restored = restore(backend, &options, passed)?;
        let shared = Shared {
            backend: backend.clone(),
            index: RwLock::new(restored.index),
            horizon: Horizon::new(restored.current, restored.compact),
            event_log: EventLog::new(restored.current, options.event_log_bytes_max),
            hashes: crate::hash::StoredHashes::default(),
            finished_compaction: AtomicI64::new(restored.finished),
            options,
        };
        let pending = (restored.compact > restored.finished).then_some(Compaction {
            revision: restored.compact,
            previous: restored.finished,
        });
        let store = Store {
            shared: Arc::new(shared),
            current: restored.current,
            compact: restored.compact,
            unpublished: Vec::new(),
            pending,
            poisoned: false,
        };
        Ok((store, restored.leases))
    }

    /// Returns a reader of what is published.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Returns the revision of the newest write, published or not.
    pub fn current_revision(&self) -> i64 {
        self.current
    }

    /// Puts a key.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], then [`Error::KeyNotFound`] when the value or lease of an absent key is to be kept.
    /// Nothing is changed then.
    pub fn put(
        &mut self,
        txn: &mut ApplyTxn,
        request: &PutRequest,
        lease_exists: impl Fn(i64) -> bool,
    ) -> Result<PutResult, Error> {
        if request.lease != 0 && !lease_exists(request.lease) {
            return Err(Error::LeaseNotFound);
        }
        self.write(txn, |store, txn, set| store.put_key(txn, set, request))
            .map(|(prev, changes)| PutResult {
                revision: changes.revision,
                prev,
                changes,
            })
    }

    /// Deletes the keys of a range.
    ///
    /// # Errors
    /// Only those that poison the store.
    pub fn delete_range(
        &mut self,
        txn: &mut ApplyTxn,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteResult, Error> {
        let range = KeyRange::from_wire(&request.key, &request.range_end);
        self.write(txn, |store, txn, set| {
            store.delete(txn, set, &range, request.prev_kv)
        })
        .map(|((deleted, prevs), changes)| DeleteResult {
            revision: changes.revision,
            deleted,
            prevs,
            changes,
        })
    }

    /// Deletes single keys, all at one revision, as the end of a lease does. Keys that do not exist are passed over.
    ///
    /// # Errors
    /// Only those that poison the store.
    pub fn delete_keys(&mut self, txn: &mut ApplyTxn, keys: &[Bytes]) -> Result<Changes, Error> {
        let delete_all = |store: &mut Store, txn: &mut ApplyTxn, set: &mut WriteSet| {
            for key in keys {
                store.delete(txn, set, &KeyRange::single(key.clone()), false)?;
            }
            Ok(())
        };
        self.write(txn, delete_all).map(|((), changes)| changes)
    }

    /// Evaluates a transaction: all compares of the tree first, then the checks of what will run, both against the state
    /// before it, then the operations in order, which see each other's changes.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] and [`Error::Compacted`] of ranges, [`Error::LeaseNotFound`] and
    /// [`Error::KeyNotFound`] of puts. Nothing is changed then.
    pub fn txn(
        &mut self,
        txn: &mut ApplyTxn,
        request: &TxnRequest,
        lease_exists: impl Fn(i64) -> bool,
    ) -> Result<TxnResult, Error> {
        self.evaluate(txn, request, &lease_exists, Answers::Wanted)
    }

    /// Evaluates a transaction as [`Store::txn`] does, but leaves the results of its ranges empty: for a member on which
    /// nobody waits for the answer.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/txn/txn.go` `skipRangeExecution`.
    ///
    /// # Errors
    /// As [`Store::txn`].
    pub fn txn_without_answers(
        &mut self,
        txn: &mut ApplyTxn,
        request: &TxnRequest,
        lease_exists: impl Fn(i64) -> bool,
    ) -> Result<TxnResult, Error> {
        self.evaluate(txn, request, &lease_exists, Answers::Dropped)
    }

    /// Moves the compact revision; readers see that at the publication. The job that is returned frees what may go.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision is not above the compact revision, [`Error::FutureRevision`] when it is
    /// above the current one. Nothing is changed then.
    ///
    /// # Durability
    /// The compact revision is stored with the batch, so after a restart it is never lower than what was published.
    pub fn compact(&mut self, txn: &mut ApplyTxn, revision: i64) -> Result<CompactionJob, Error> {
        self.check_poisoned()?;
        if revision <= self.compact {
            return Err(Error::Compacted);
        }
        if revision > self.current {
            return Err(Error::FutureRevision);
        }
        let previous = self.compact;
        txn.put(Table::Meta, SCHEDULED_KEY.as_bytes(), mark(revision));
        self.compact = revision;
        Ok(CompactionJob::new(
            Arc::clone(&self.shared),
            revision,
            previous,
            true,
            txn.index(),
        ))
    }

    /// Returns the compaction that was under way before a restart, if there is one.
    pub fn pending_compaction(&self) -> Option<CompactionJob> {
        let Compaction { revision, previous } = self.pending?;
        Some(CompactionJob::new(
            Arc::clone(&self.shared),
            revision,
            previous,
            false,
            0,
        ))
    }

    /// Shows everything up to now to readers, then to watchers. To be called after the batch is committed.
    pub fn publish(&mut self) {
        // A client that was told of a change may read at once, so readers come first.
        self.shared.horizon.publish(self.current, self.compact);
        if !self.unpublished.is_empty() {
            self.shared
                .event_log
                .append(std::mem::take(&mut self.unpublished));
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn check_poisoned(&self) -> Result<(), Error> {
        if self.poisoned {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Runs what changes the store under the next main revision, which counts only if something did change.
    fn write<R>(
        &mut self,
        txn: &mut ApplyTxn,
        change: impl FnOnce(&mut Store, &mut ApplyTxn, &mut WriteSet) -> Result<R, Error>,
    ) -> Result<(R, Changes), Error> {
        self.check_poisoned()?;
        let mut set = WriteSet {
            main: self.current + 1,
            next_sub: 0,
            events: Vec::with_capacity(1),
            changes: Changes::default(),
        };
        let result = match change(self, txn, &mut set) {
            Ok(result) => result,
            Err(error) => {
                self.poisoned = set.next_sub > 0;
                return Err(error);
            }
        };
        if set.next_sub > 0 {
            set.settle_leases();
            self.current = set.main;
            self.unpublished.push(Arc::new(RevisionEvents {
                main: set.main,
                events: set.events,
            }));
        }
        set.changes.revision = self.current;
        Ok((result, set.changes))
    }

    /// Puts one key and returns the record before when that is asked for.
    fn put_key(
        &mut self,
        txn: &mut ApplyTxn,
        set: &mut WriteSet,
        request: &PutRequest,
    ) -> Result<Option<Bytes>, Error> {
        let kept = if request.ignore_value || request.ignore_lease {
            Some(self.record_to_keep(txn, set, &request.key)?)
        } else {
            None
        };
        let (mut value, mut lease) = (&request.value[..], request.lease);
        if let Some((bytes, record)) = &kept {
            if request.ignore_value {
                value = &bytes[record.value.clone()];
            }
            if request.ignore_lease {
                lease = record.lease;
            }
        }
        let revision = set.next_revision();
        let (version, previous) = self.shared.index.write().put(&request.key, revision);
        let record = encode_put(&request.key, &version, value, lease);
        txn.put_revision(revision, false, record.clone());
        let key = record.slice(key_place(request.key.len()));
        if lease != 0 || previous.is_some() {
            set.changes.attached.push((key.clone(), lease));
        }
        set.events.push(EventRecord {
            kind: EventKind::Put,
            key,
            record,
            revision,
            create_revision: version.create_revision,
        });
        match (request.prev_kv, kept, previous) {
            (true, Some((bytes, _)), _) => Ok(Some(bytes)),
            (true, None, Some(previous)) => self.view_record(txn, previous).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads the record whose value or lease a put keeps.
    fn record_to_keep(
        &self,
        txn: &ApplyTxn,
        set: &WriteSet,
        key: &[u8],
    ) -> Result<(Bytes, Record), Error> {
        let Some(version) = self.shared.index.read().get(key, set.visible(self.current)) else {
            return Err(Error::KeyNotFound);
        };
        let bytes = self.view_record(txn, version.revision)?;
        let record = Record::parse_stored(&bytes, version.revision)?;
        Ok((bytes, record))
    }

    /// Deletes the keys of a range and returns how many, and their records when they are wanted.
    fn delete(
        &mut self,
        txn: &mut ApplyTxn,
        set: &mut WriteSet,
        range: &KeyRange,
        with_prevs: bool,
    ) -> Result<(i64, Vec<Bytes>), Error> {
        let before = set.next_sub;
        let mut prevs = Vec::new();
        let mut gone: Vec<(Bytes, Revision, Revision)> = Vec::new();
        let mut rest = None;
        loop {
            let chunk_keys = self.shared.options.index_chunk_keys;
            let walk = self.shared.index.write().delete(
                rest.as_ref().unwrap_or(range),
                Revision {
                    main: set.main,
                    sub: set.next_sub,
                },
                chunk_keys,
                |removed| {
                    gone.push((
                        encode_tombstone(removed.key),
                        removed.version.revision,
                        removed.tombstone,
                    ))
                },
            );
            set.next_sub += signed(gone.len());
            for (record, previous, revision) in gone.drain(..) {
                if with_prevs {
                    prevs.push(self.view_record(txn, previous)?);
                }
                txn.put_revision(revision, true, record.clone());
                let place = Record::parse_stored(&record, revision)?.key;
                let key = record.slice(place);
                set.changes.deleted.push(key.clone());
                set.events.push(EventRecord {
                    kind: EventKind::Delete,
                    key,
                    record,
                    revision,
                    create_revision: 0,
                });
            }
            match walk {
                Walk::Done => return Ok((set.next_sub - before, prevs)),
                Walk::After(key) => rest = Some(range.after(&key)),
            }
        }
    }

    fn evaluate(
        &mut self,
        txn: &mut ApplyTxn,
        request: &TxnRequest,
        lease_exists: &dyn Fn(i64) -> bool,
        answers: Answers,
    ) -> Result<TxnResult, Error> {
        self.check_poisoned()?;
        let mut path = self.view(txn, |view| {
            let mut path = Path::choose(view, self.current, request)?;
            PreCheck::new(view, self.current, self.compact, lease_exists)
                .check(request, &mut path)?;
            path.rewind();
            Ok(path)
        })?;
        let execute = |store: &mut Store, txn: &mut ApplyTxn, set: &mut WriteSet| {
            store.execute(txn, set, request, &mut path, answers)
        };
        let ((succeeded, responses), changes) = self.write(txn, execute)?;
        Ok(TxnResult {
            revision: changes.revision,
            succeeded,
            responses,
            changes,
        })
    }

    fn execute(
        &mut self,
        txn: &mut ApplyTxn,
        set: &mut WriteSet,
        request: &TxnRequest,
        path: &mut Path,
        answers: Answers,
    ) -> Result<(bool, Vec<OpResult>), Error> {
        let (succeeded, ops) = path.enter(request);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match &op.request {
                Some(Request::RequestRange(_)) if answers == Answers::Dropped => {
                    OpResult::Range(RangeResult {
                        revision: set.visible(self.current),
                        ..RangeResult::default()
                    })
                }
                Some(Request::RequestRange(range)) => {
                    let current = set.visible(self.current);
                    let read =
                        |view: &View<'_>| read(view, range, current, self.compact, Counting::All);
                    OpResult::Range(self.view(txn, read)?)
                }
                Some(Request::RequestPut(put)) => {
                    let prev = self.put_key(txn, set, put)?;
                    OpResult::Put {
                        revision: set.main,
                        prev,
                    }
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let range = KeyRange::from_wire(&delete.key, &delete.range_end);
                    let (deleted, prevs) = self.delete(txn, set, &range, delete.prev_kv)?;
                    OpResult::Delete {
                        revision: set.visible(self.current),
                        deleted,
                        prevs,
                    }
                }
                Some(Request::RequestTxn(nested)) => {
                    let (succeeded, responses) = self.execute(txn, set, nested, path, answers)?;
                    OpResult::Txn {
                        succeeded,
                        responses,
                    }
                }
                None => OpResult::Empty,
            });
        }
        Ok((succeeded, responses))
    }

    fn view_record(&self, txn: &ApplyTxn, revision: Revision) -> Result<Bytes, Error> {
        self.view(txn, |view| view.record(revision))
    }

    /// Reads with the writes of the batch. No compaction can overtake it, since this thread alone publishes.
    fn view<R>(
        &self,
        txn: &ApplyTxn,
        read: impl FnOnce(&View<'_>) -> Result<R, Stop>,
    ) -> Result<R, Error> {
        read(&self.shared.view(txn, None)).map_err(Stop::into_error)
    }
}

impl WriteSet {
    fn next_revision(&mut self) -> Revision {
        let revision = Revision {
            main: self.main,
            sub: self.next_sub,
        };
        self.next_sub += 1;
        revision
    }

    /// Returns the revision that reads see: the one before, until something changed.
    fn visible(&self, before: i64) -> i64 {
        if self.next_sub > 0 { self.main } else { before }
    }

    /// Says of each key only what happened to it last, when some were put and some deleted.
    fn settle_leases(&mut self) {
        if self.changes.attached.is_empty() || self.changes.deleted.is_empty() {
            return;
        }
        let last: BTreeMap<&[u8], i64> = self
            .events
            .iter()
            .map(|event| (&event.key[..], event.revision.sub))
            .collect();
        self.changes.attached.clear();
        self.changes.deleted.clear();
        for event in &self.events {
            if last.get(&event.key[..]) != Some(&event.revision.sub) {
                continue;
            }
            let key = event.key.clone();
            match event.kind {
                EventKind::Put => {
                    let record = Record::parse(&event.record).expect("the record was encoded here");
                    self.changes.attached.push((key, record.lease));
                }
                EventKind::Delete => self.changes.deleted.push(key),
            }
        }
    }
}
