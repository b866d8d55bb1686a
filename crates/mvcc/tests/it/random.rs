//! Random histories against the model: writes, reads at any revision, compactions in steps, flushes, restarts, crashes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_backend::ApplyTxn;
use quorate_disk::CrashPolicy;
use quorate_mvcc::{
    Changes, CompactionJob, Error, KeyRange, OpResult, Progress, RangeResult, RangeStreamOptions,
    Store, TxnResult, is_read_only,
};
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};

use crate::harness::{Db, LEASES, decode, lease_exists, op, small};
use crate::model::{Answer, Failure, Model, Ranged, encode};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Write>),
    /// How far below the current revision; negative is above.
    Compact(i64),
    CompactionSteps(usize),
    Flush,
    Reopen,
    Crash(Option<u64>),
    Range(RangeRequest),
    HashKv(i64),
    History(i64),
}

#[derive(Clone, Debug)]
enum Write {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    DeleteKeys(Vec<Bytes>),
    Txn(TxnRequest),
    /// Puts so many keys that the index gets several nodes: every so many-th of 300.
    Fill(usize),
    /// Deletes a stretch of those.
    Clear(u8, u8),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0..12_u8).prop_map(|i| Bytes::from(format!("key/{i:02}"))),
        1 => (0..6_u8).prop_map(|i| Bytes::from(vec![b'a' + i])),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just(Bytes::new()), 3 => key(), 1 => Just(Bytes::from_static(&[0]))]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0..4_u8).prop_map(|i| Bytes::from(format!("value {i}"))),
        1 => Just(Bytes::new()),
        1 => (0..900_usize).prop_map(|len| Bytes::from(vec![b'x'; len])),
    ]
}

fn put() -> impl Strategy<Value = PutRequest> {
    (
        key(),
        value(),
        0..LEASES + 2,
        0..8_u8,
        0..8_u8,
        any::<bool>(),
    )
        .prop_map(|(key, value, lease, ignore_value, ignore_lease, prev_kv)| {
            let (ignore_value, ignore_lease) = (ignore_value == 0, ignore_lease == 0);
            PutRequest {
                key,
                value: if ignore_value { Bytes::new() } else { value },
                lease: if ignore_lease || lease < LEASES / 2 {
                    0
                } else {
                    lease
                },
                prev_kv,
                ignore_value,
                ignore_lease,
            }
        })
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let filter = || prop_oneof![6 => Just(0_i64), 1 => 0..60_i64];
    let shape = (
        key(),
        range_end(),
        -1..6_i64,
        -2..60_i64,
        0..3_i32,
        0..5_i32,
    );
    let flags = (any::<bool>(), 0..5_u8);
    (shape, flags, filter(), filter(), filter(), filter()).prop_map(
        |(
            (key, range_end, limit, revision, sort_order, sort_target),
            (keys_only, count_only),
            min_mod,
            max_mod,
            min_create,
            max_create,
        )| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only,
                count_only: count_only == 0,
                min_mod_revision: min_mod,
                max_mod_revision: max_mod,
                min_create_revision: min_create,
                max_create_revision: max_create,
                serializable: false,
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = prop_oneof![
        Just(None),
        (0..4_i64).prop_map(|version| Some(TargetUnion::Version(version))),
        (0..60_i64).prop_map(|revision| Some(TargetUnion::CreateRevision(revision))),
        (0..60_i64).prop_map(|revision| Some(TargetUnion::ModRevision(revision))),
        value().prop_map(|value| Some(TargetUnion::Value(value))),
        (0..LEASES).prop_map(|lease| Some(TargetUnion::Lease(lease))),
    ];
    (0..5_i32, 0..6_i32, key(), range_end(), union, any::<bool>()).prop_map(
        |(result, target, key, range_end, target_union, right_kind)| {
            let target = match (&target_union, right_kind) {
                (Some(TargetUnion::Version(_)), true) => 0,
                (Some(TargetUnion::CreateRevision(_)), true) => 1,
                (Some(TargetUnion::ModRevision(_)), true) => 2,
                (Some(TargetUnion::Value(_)), true) => 3,
                (Some(TargetUnion::Lease(_)), true) => 4,
                _ => target,
            };
            Compare {
                result,
                target,
                key,
                range_end,
                target_union,
            }
        },
    )
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        3 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
        3 => (range(), any::<bool>()).prop_map(|(range, now)| {
            Request::RequestRange(RangeRequest { revision: if now { 0 } else { range.revision }, ..range })
        }),
    ];
    let request = leaf.prop_recursive(3, 12, 3, |inner| {
        let ops = || vec(inner.clone().prop_map(op), 0..4);
        (vec(compare(), 0..2), ops(), ops()).prop_map(|(compare, success, failure)| {
            Request::RequestTxn(TxnRequest {
                compare,
                success,
                failure,
            })
        })
    });
    let ops = || vec(request.clone().prop_map(op), 0..5);
    (vec(compare(), 0..3), ops(), ops()).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        5 => put().prop_map(Write::Put),
        2 => delete().prop_map(Write::Delete),
        1 => vec(key(), 0..4).prop_map(|mut keys| {
            keys.sort();
            keys.dedup();
            Write::DeleteKeys(keys)
        }),
        4 => txn().prop_map(Write::Txn),
        1 => (1..4_usize).prop_map(Write::Fill),
        1 => (0..3_u8, 0..4_u8).prop_map(|(from, to)| Write::Clear(from, to)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(write(), 1..4).prop_map(Step::Write),
        2 => (-1..12_i64).prop_map(Step::Compact),
        4 => (1..8_usize).prop_map(Step::CompactionSteps),
        3 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => prop::option::of(any::<u64>()).prop_map(Step::Crash),
        8 => range().prop_map(Step::Range),
        3 => (-1..60_i64).prop_map(Step::HashKv),
        2 => (0..60_i64).prop_map(Step::History),
    ]
}

/// The store, the model, and the models that a crash may go back to, by log index.
struct Run {
    db: Option<Db>,
    model: Model,
    durable: BTreeMap<u64, Model>,
    jobs: Vec<CompactionJob>,
    /// The lease of each key, as the store told it.
    attached: BTreeMap<Bytes, i64>,
}

impl Run {
    fn new() -> Run {
        let model = Model::new();
        Run {
            db: Some(Db::new(small())),
            durable: BTreeMap::from([(0, model.clone())]),
            model,
            jobs: Vec::new(),
            attached: BTreeMap::new(),
        }
    }

    fn db(&mut self) -> &mut Db {
        self.db.as_mut().unwrap()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(writes) => self.write(writes),
            Step::Compact(below) => self.compact(below),
            Step::CompactionSteps(count) => self.step_compaction(count),
            Step::Flush => self.db().flush(),
            Step::Reopen => self.reopen(None),
            Step::Crash(seed) => self.reopen(Some(
                &seed.map_or(CrashPolicy::KeepNone, CrashPolicy::Seeded),
            )),
            Step::Range(request) => self.range(&request),
            Step::HashKv(revision) => self.hash_kv(revision),
            Step::History(from) => self.history(from),
        }
    }

    /// Several writes in one batch, which see each other before readers see any of them.
    fn write(&mut self, writes: Vec<Write>) {
        let before = self.model.current;
        let Run {
            model, attached, ..
        } = self;
        let db = self.db.as_mut().unwrap();
        let reader = db.reader();
        db.apply(|store, txn| {
            for write in writes {
                let changes = write_one(store, txn, model, write).unwrap_or_default();
                for key in &changes.deleted {
                    assert!(changes.attached.iter().all(|(put, _)| put != key));
                    attached.remove(key);
                }
                attached.extend(changes.attached);
                attached.retain(|_, lease| *lease != 0);
                assert_eq!(*attached, leases(model));
                assert_eq!(store.current_revision(), model.current);
                assert_eq!(reader.current_revision(), before);
            }
        });
        assert_eq!(reader.current_revision(), self.model.current);
        self.remember();
    }

    fn compact(&mut self, below: i64) {
        let revision = self.model.current - below;
        let ours = self.db().compact(revision);
        same(
            ours.map(|job| self.jobs.push(job)),
            self.model.compact(revision),
        );
        assert_eq!(self.db().reader().compact_revision(), self.model.compact);
        self.remember();
    }

    fn step_compaction(&mut self, count: usize) {
        for _ in 0..count {
            let Some(job) = self.jobs.first_mut() else {
                return;
            };
            if let Progress::Done(summary) = job.step().unwrap() {
                assert_eq!(summary.revision, job.revision());
                self.jobs.remove(0);
            }
        }
    }

    fn reopen(&mut self, power_loss: Option<&CrashPolicy>) {
        self.jobs.clear();
        let db = self.db.take().unwrap().reopen(power_loss);
        if power_loss.is_some() {
            self.model = self.durable[&db.index].clone();
        }
        self.durable = BTreeMap::from([(db.index, self.model.clone())]);
        // What was compacted stays so, and the revision never goes back (faults 26).
        assert_eq!(db.reader().current_revision(), self.model.current);
        assert_eq!(db.reader().compact_revision(), self.model.compact);
        self.attached = db
            .leases
            .iter()
            .map(|(key, lease)| (key.clone(), lease.0))
            .collect();
        assert_eq!(self.attached, leases(&self.model));
        assert!(db.leases.is_sorted_by(|a, b| a.0 < b.0));
        self.jobs.extend(db.store.pending_compaction());
        self.db = Some(db);
    }

    fn remember(&mut self) {
        let index = self.db().index;
        self.durable.insert(index, self.model.clone());
    }

    fn range(&mut self, request: &RangeRequest) {
        let reader = self.db().reader();
        let expected = self.model.range(request);
        same(
            reader.range(request).map(|ours| ranged(&ours)),
            expected.clone(),
        );
        let read_only = TxnRequest {
            success: vec![op(Request::RequestRange(request.clone()))],
            ..Default::default()
        };
        assert!(is_read_only(&read_only));
        let ours = reader.txn_read_only(&read_only);
        same(
            ours.map(|ours| {
                (
                    ours.succeeded,
                    ours.responses.iter().map(answer).collect::<Vec<_>>(),
                )
            }),
            self.model.txn(&read_only),
        );
        if quorate_mvcc::validate::range_stream(request).is_ok() {
            self.stream(request);
        }
    }

    /// The pieces of a stream are together what one answer would be.
    fn stream(&mut self, request: &RangeRequest) {
        // What fits the first piece is sorted by the target; anything longer comes in key order.
        const FIRST_PIECE_KEYS: i64 = 10;
        let plain = RangeRequest {
            sort_order: 0,
            sort_target: 0,
            ..request.clone()
        };
        let sorted = RangeRequest {
            sort_order: 0,
            ..request.clone()
        };
        let in_key_order = self.model.range(&plain);
        let is_short = in_key_order
            .as_ref()
            .is_ok_and(|range| range.count <= FIRST_PIECE_KEYS)
            || (1..=FIRST_PIECE_KEYS).contains(&request.limit);
        let expected = if is_short {
            self.model.range(&sorted)
        } else {
            in_key_order
        };
        let stream = self
            .db()
            .reader()
            .range_stream(request, RangeStreamOptions { chunk_bytes: 150 });
        let ours = stream.and_then(|mut stream| {
            let mut whole = RangeResult::default();
            let mut ends = 0;
            while let Some(chunk) = stream.next_chunk()? {
                assert_eq!(ends, 0);
                whole.kvs.extend(chunk.kvs);
                if let Some(end) = chunk.end {
                    (whole.revision, whole.more, whole.count) = (end.revision, end.more, end.count);
                    ends += 1;
                }
            }
            assert_eq!(ends, 1);
            Ok(ranged(&whole))
        });
        same(ours, expected);
    }

    fn hash_kv(&mut self, revision: i64) {
        let reader = self.db().reader();
        // Of a compacted revision the hash may be the one that the compaction left; that has tests of its own.
        if reader
            .compaction_hashes()
            .iter()
            .any(|stored| stored.revision == revision)
        {
            return;
        }
        let ours = reader.hash_kv(revision).map(|ours| {
            assert_eq!(
                (ours.compact_revision, ours.revision),
                (self.model.compact, self.model.current)
            );
            ours.hash
        });
        same(ours, self.model.hash_kv(revision));
    }

    fn history(&mut self, from: i64) {
        let reader = self.db().reader();
        let ours = reader.history(from, i64::MAX, 4, 300);
        if from < self.model.compact {
            assert!(matches!(ours, Err(Error::Compacted)));
            return;
        }
        let ours = ours.unwrap();
        let after = ours.last().map_or(i64::MAX, |last| last.main + 1);
        let rows = self
            .model
            .rows
            .iter()
            .filter(|row| row.revision.main >= from && row.revision.main < after);
        let events: Vec<_> = ours.iter().flat_map(|revision| &revision.events).collect();
        if from > self.model.compact {
            let expected: Vec<_> = rows.map(|row| (row.revision, encode(row))).collect();
            let found: Vec<_> = events
                .iter()
                .map(|event| (event.revision, event.record.to_vec()))
                .collect();
            assert_eq!(found, expected);
        }
        assert!(after < i64::MAX || self.model.current < from.max(2));
        for event in events {
            let expected = self.model.at(event.revision.main - 1).remove(&event.key);
            let expected = expected.filter(|_| event.revision.main > self.model.compact);
            let before = reader
                .value_before(&event.key, event.revision.main)
                .unwrap();
            assert_eq!(before.as_ref().map(decode), expected);
        }
    }

    /// Lets all compactions end and compares what is stored, row by row.
    fn finish(&mut self) {
        self.db().flush();
        while !self.jobs.is_empty() {
            self.step_compaction(1);
        }
        if self.model.compact >= 0 {
            let rows = self
                .model
                .rows_left()
                .into_iter()
                .map(|row| (row.revision, encode(row)))
                .collect::<Vec<_>>();
            let read = self.db().backend.read().unwrap();
            let stored = read.revisions(
                quorate_backend::Revision::MIN,
                quorate_backend::Revision::MAX,
                usize::MAX,
                usize::MAX,
            );
            let stored: Vec<_> = stored
                .unwrap()
                .into_iter()
                .map(|row| (row.rev, row.record.to_vec()))
                .collect();
            assert_eq!(stored, rows);
            let dead_or_alive = self
                .model
                .rows_left()
                .into_iter()
                .map(|row| &row.key)
                .collect::<std::collections::BTreeSet<_>>();
            let dead_or_alive = dead_or_alive.len();
            assert_eq!(self.db().reader().index_size().0, dead_or_alive);
        }
    }
}

/// Does one write in both stores; returns what the lessor would be told.
fn write_one(
    store: &mut Store,
    txn: &mut ApplyTxn,
    model: &mut Model,
    write: Write,
) -> Option<Changes> {
    match write {
        Write::Put(request) => {
            let ours = store.put(txn, &request, lease_exists);
            let changes = ours.as_ref().ok().map(|ours| ours.changes.clone());
            let ours = ours.map(|ours| OpResult::Put {
                revision: ours.revision,
                prev: ours.prev,
            });
            same(ours.map(|ours| answer(&ours)), model.put(&request));
            changes
        }
        Write::Delete(request) => {
            let ours = store.delete_range(txn, &request).unwrap();
            let range = KeyRange::from_wire(&request.key, &request.range_end);
            let theirs = model.delete(&range, request.prev_kv);
            let changes = ours.changes.clone();
            let ours = OpResult::Delete {
                revision: ours.revision,
                deleted: ours.deleted,
                prevs: ours.prevs,
            };
            assert_eq!(answer(&ours), theirs);
            Some(changes)
        }
        Write::DeleteKeys(keys) => {
            let changes = store.delete_keys(txn, &keys).unwrap();
            let ops = keys.iter().map(|key| {
                let delete = DeleteRangeRequest {
                    key: key.clone(),
                    ..Default::default()
                };
                op(Request::RequestDeleteRange(delete))
            });
            model
                .txn(&TxnRequest {
                    success: ops.collect(),
                    ..Default::default()
                })
                .unwrap();
            Some(changes)
        }
        Write::Fill(step) => write_one(store, txn, model, Write::Txn(fill(step))),
        Write::Clear(from, to) => write_one(store, txn, model, Write::Delete(clear(from, to))),
        Write::Txn(request) => {
            let ours = store.txn(txn, &request, lease_exists);
            let changes = ours.as_ref().ok().map(|ours| ours.changes.clone());
            let answers = |ours: TxnResult| {
                (
                    ours.succeeded,
                    ours.responses.iter().map(answer).collect::<Vec<_>>(),
                )
            };
            same(ours.map(answers), model.txn(&request));
            changes
        }
    }
}

fn fill(step: usize) -> TxnRequest {
    let puts = (0..300).step_by(step).map(|i| {
        let key = format!("many/{i:03}").into();
        op(Request::RequestPut(PutRequest {
            key,
            ..Default::default()
        }))
    });
    TxnRequest {
        success: puts.collect(),
        ..Default::default()
    }
}

fn clear(from: u8, to: u8) -> DeleteRangeRequest {
    let (key, range_end) = (format!("many/{from}").into(), format!("many/{to}").into());
    DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    }
}

fn leases(model: &Model) -> BTreeMap<Bytes, i64> {
    let state = model.at(model.current).into_values();
    state
        .filter(|kv| kv.lease != 0)
        .map(|kv| (kv.key, kv.lease))
        .collect()
}

fn same<O: PartialEq + std::fmt::Debug>(ours: Result<O, Error>, theirs: Result<O, Failure>) {
    let ours = ours.map_err(|error| match error {
        Error::Compacted => Failure::Compacted,
        Error::FutureRevision => Failure::FutureRevision,
        Error::LeaseNotFound => Failure::LeaseNotFound,
        Error::KeyNotFound => Failure::KeyNotFound,
        other => panic!("unexpected {other}"),
    });
    assert_eq!(ours, theirs);
}

fn ranged(result: &RangeResult) -> Ranged {
    let kvs = result.kvs.iter().map(decode).collect();
    Ranged {
        revision: result.revision,
        kvs,
        more: result.more,
        count: result.count,
    }
}

fn answer(result: &OpResult) -> Answer {
    match result {
        OpResult::Range(range) => Answer::Range(ranged(range)),
        OpResult::Put { revision, prev } => Answer::Put {
            revision: *revision,
            prev: prev.as_ref().map(decode),
        },
        OpResult::Delete {
            revision,
            deleted,
            prevs,
        } => Answer::Delete {
            revision: *revision,
            deleted: *deleted,
            prevs: prevs.iter().map(decode).collect(),
        },
        OpResult::Txn {
            succeeded,
            responses,
        } => Answer::Txn {
            succeeded: *succeeded,
            responses: responses.iter().map(answer).collect(),
        },
        other => panic!("unexpected {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn any_history_gives_what_the_model_gives(steps in vec(step(), 1..70)) {
        let mut run = Run::new();
        for step in steps {
            run.run(step);
        }
        run.finish();
    }
}
