//! Rules of requests that are easy to get wrong, one test each.

use bytes::Bytes;
use prost::Message;
use quorate_backend::{Revision, Table};
use quorate_mvcc::{Error, Options, Reader, Store, WatchCreate, WatchHub, WatchOptions};
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::harness::{Db, bytes, delete, lease_exists, op, put, range, show, show_ops, small, txn};

fn filled() -> Db {
    let mut db = Db::new(small());
    db.put("a", "3");
    db.put("b", "1");
    db.put("c", "2");
    db.put("a", "9");
    db
}

fn put_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn delete_op(key: &str, range_end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete(key, range_end)))
}

fn range_op(key: &str, range_end: &str) -> RequestOp {
    op(Request::RequestRange(range(key, range_end)))
}

fn nested(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest {
        compare,
        success,
        failure,
    }))
}

fn value_is(key: &str, value: &str) -> Compare {
    Compare {
        target: 3,
        key: bytes(key),
        target_union: Some(TargetUnion::Value(bytes(value))),
        ..Default::default()
    }
}

#[test]
fn a_fresh_store_is_at_revision_1_and_its_first_write_at_2() {
    let mut db = Db::new(Options::default());
    assert_eq!(
        (
            db.reader().current_revision(),
            db.reader().compact_revision()
        ),
        (1, -1)
    );
    assert_eq!(db.delete("a", "\0").revision, 1);
    assert_eq!(db.put("a", "1").revision, 2);
    // The same value again is a new revision, and a delete without match is none.
    assert_eq!(db.put("a", "1").revision, 3);
    assert_eq!(db.delete("b", "").revision, 3);
    assert_eq!(db.all(0).unwrap(), ["a=1 2/3/2"]);
}

#[test]
fn a_sort_target_without_an_order_sorts_what_the_limit_fetched() {
    let db = filled();
    let request = RangeRequest {
        limit: 1,
        sort_target: 4,
        ..range("a", "\0")
    };
    // Two keys are fetched in key order, sorted by value, and one is cut.
    let result = db.reader().range(&request).unwrap();
    assert_eq!(show(&result.kvs), ["b=1 3/3/1"]);
    assert_eq!((result.more, result.count), (true, 3));
    let request = RangeRequest {
        sort_order: 2,
        ..request
    };
    assert_eq!(
        show(&db.reader().range(&request).unwrap().kvs),
        ["a=9 2/5/2"]
    );
}

#[test]
fn keys_only_drops_the_lease_unless_sorted_by_value() {
    let mut db = filled();
    db.try_put(&PutRequest {
        lease: 7,
        ..put("b", "x")
    })
    .unwrap();
    let request = RangeRequest {
        keys_only: true,
        ..range("b", "")
    };
    assert_eq!(
        show(&db.reader().range(&request).unwrap().kvs),
        ["b= 3/6/2"]
    );
    let request = RangeRequest {
        sort_target: 4,
        ..request
    };
    assert_eq!(
        show(&db.reader().range(&request).unwrap().kvs),
        ["b= 3/6/2 lease 7"]
    );
}

#[test]
fn filters_come_before_the_limit_and_never_change_the_count() {
    let db = filled();
    let request = RangeRequest {
        limit: 1,
        max_create_revision: 3,
        ..range("a", "\0")
    };
    let result = db.reader().range(&request).unwrap();
    assert_eq!(show(&result.kvs), ["a=9 2/5/2"]);
    assert_eq!((result.more, result.count), (true, 3));
    let request = RangeRequest {
        min_mod_revision: 5,
        ..request
    };
    let result = db.reader().range(&request).unwrap();
    assert_eq!((result.kvs.len(), result.more, result.count), (1, false, 3));
    let request = RangeRequest {
        count_only: true,
        ..request
    };
    let result = db.reader().range(&request).unwrap();
    assert_eq!((result.kvs.len(), result.more, result.count), (0, false, 3));
}

#[test]
fn a_negative_revision_is_now_in_a_range_and_compacted_in_a_transaction() {
    let mut db = filled();
    let now = RangeRequest {
        revision: -1,
        ..range("a", "")
    };
    assert_eq!(show(&db.reader().range(&now).unwrap().kvs), ["a=9 2/5/2"]);
    let in_txn = txn(vec![op(Request::RequestRange(now.clone()))]);
    // Nothing is compacted, which counts as -1, so only what is below that is.
    assert!(db.reader().txn_read_only(&in_txn).is_ok());
    let older = txn(vec![op(Request::RequestRange(RangeRequest {
        revision: -2,
        ..now
    }))]);
    assert!(matches!(
        db.reader().txn_read_only(&older),
        Err(Error::Compacted)
    ));
    db.compact(0).unwrap();
    assert!(matches!(
        db.reader().txn_read_only(&in_txn),
        Err(Error::Compacted)
    ));
    assert!(matches!(db.compact(0), Err(Error::Compacted)));
}

#[test]
fn the_answer_has_the_revision_of_the_store_not_the_one_asked_for() {
    let db = filled();
    let result = db
        .reader()
        .range(&RangeRequest {
            revision: 2,
            ..range("a", "")
        })
        .unwrap();
    assert_eq!(
        (result.revision, show(&result.kvs)),
        (5, vec!["a=3 2/2/1".to_owned()])
    );
    let future = db.reader().range(&RangeRequest {
        revision: 6,
        ..range("a", "")
    });
    assert!(matches!(future, Err(Error::FutureRevision)));
}

#[test]
fn a_put_keeps_what_it_is_told_to_keep() {
    let mut db = Db::new(small());
    let keep_value = PutRequest {
        ignore_value: true,
        lease: 3,
        ..put("k", "")
    };
    assert!(matches!(db.try_put(&keep_value), Err(Error::KeyNotFound)));
    assert!(matches!(
        db.try_put(&PutRequest {
            lease: 99,
            ..put("k", "v")
        }),
        Err(Error::LeaseNotFound)
    ));
    let result = db
        .try_put(&PutRequest {
            lease: 2,
            ..put("k", "v")
        })
        .unwrap();
    assert_eq!(result.changes.attached, [(bytes("k"), 2)]);
    let result = db
        .try_put(&PutRequest {
            prev_kv: true,
            ..keep_value
        })
        .unwrap();
    assert_eq!(show(&[result.prev.unwrap()]), ["k=v 2/2/1 lease 2"]);
    assert_eq!(result.changes.attached, [(bytes("k"), 3)]);
    let keep_lease = PutRequest {
        ignore_lease: true,
        ..put("k", "w")
    };
    assert_eq!(
        db.try_put(&keep_lease).unwrap().changes.attached,
        [(bytes("k"), 3)]
    );
    assert_eq!(db.all(0).unwrap(), ["k=w 2/4/3 lease 3"]);
    // A put without a lease takes the key from its lease; of a new key there is nothing to say.
    assert_eq!(db.put("k", "x").changes.attached, [(bytes("k"), 0)]);
    assert_eq!(db.put("new", "x").changes.attached, []);
}

#[test]
fn compares_are_all_made_before_anything_is_changed() {
    let mut db = filled();
    let inner = nested(
        vec![value_is("a", "9")],
        vec![range_op("a", "")],
        vec![delete_op("a", "\0")],
    );
    let request = TxnRequest {
        compare: vec![value_is("b", "1")],
        success: vec![
            range_op("a", "b"),
            put_op("a", "new"),
            range_op("a", "b"),
            inner,
            delete_op("z", ""),
        ],
        failure: vec![],
    };
    let result = db.txn(&request).unwrap();
    assert_eq!((result.succeeded, result.revision), (true, 6));
    assert_eq!(
        show_ops(&result.responses),
        [
            r#"range @5 count 1 ["a=9 2/5/2"]"#,
            "put @6 []",
            r#"range @6 count 1 ["a=new 2/6/3"]"#,
            "txn true",
            r#"  range @6 count 1 ["a=new 2/6/3"]"#,
            "delete @6 0 []",
        ]
    );
    // An explicit revision still reads the state before.
    let old = op(Request::RequestRange(RangeRequest {
        revision: 6,
        ..range("a", "")
    }));
    let result = db
        .txn(&txn(vec![delete_op("z", ""), put_op("a", "newer"), old]))
        .unwrap();
    assert_eq!(
        show_ops(&result.responses),
        [
            "delete @6 0 []",
            "put @7 []",
            r#"range @7 count 1 ["a=new 2/6/3"]"#
        ]
    );
}

#[test]
fn an_absent_key_compares_as_zeros_and_its_value_as_nothing() {
    let mut db = filled();
    let mut holds =
        |target: i32, result: i32, target_union: Option<TargetUnion>, range_end: &str| {
            let compare = Compare {
                result,
                target,
                key: bytes("x"),
                range_end: bytes(range_end),
                target_union,
            };
            db.txn(&TxnRequest {
                compare: vec![compare],
                ..Default::default()
            })
            .unwrap()
            .succeeded
        };
    for range_end in ["", "z", "\0", "a"] {
        for target in [0, 1, 2, 4, 77] {
            assert!(
                holds(target, 0, None, range_end),
                "target {target} end {range_end:?}"
            );
        }
        for result in 0..4 {
            assert!(!holds(3, result, None, range_end), "result {result}");
        }
        // Given under another name it counts as 0; an unknown operator holds.
        assert!(holds(0, 0, Some(TargetUnion::ModRevision(5)), range_end));
        assert!(holds(0, 44, Some(TargetUnion::Version(5)), range_end));
        assert!(holds(0, 2, Some(TargetUnion::Version(5)), range_end));
    }
}

#[test]
fn all_keys_of_a_compared_range_must_satisfy() {
    let mut db = filled();
    let compare = |result, version| Compare {
        result,
        target: 0,
        key: bytes("a"),
        range_end: bytes("\0"),
        target_union: Some(TargetUnion::Version(version)),
    };
    for (result, version, expected) in [
        (1, 0, true),
        (1, 1, false),
        (2, 3, true),
        (2, 2, false),
        (0, 1, false),
    ] {
        let request = TxnRequest {
            compare: vec![compare(result, version)],
            ..Default::default()
        };
        assert_eq!(
            db.txn(&request).unwrap().succeeded,
            expected,
            "{result} {version}"
        );
    }
}

#[test]
fn faults_28_a_transaction_with_a_compacted_or_future_range_changes_nothing() {
    let mut db = filled();
    db.compact(4).unwrap();
    let at = |revision| {
        op(Request::RequestRange(RangeRequest {
            revision,
            ..range("a", "")
        }))
    };
    let before = db.all(0).unwrap();
    let hash = db.reader().hash_kv(0).unwrap();
    for (revision, compacted) in [(3, true), (6, false)] {
        for bad in [
            vec![put_op("a", "x"), at(revision)],
            vec![put_op("a", "x"), nested(vec![], vec![at(revision)], vec![])],
        ] {
            let error = db.txn(&txn(bad)).unwrap_err();
            assert_eq!(matches!(error, Error::Compacted), compacted);
            assert_eq!(matches!(error, Error::FutureRevision), !compacted);
        }
    }
    let lost_lease = op(Request::RequestPut(PutRequest {
        lease: 99,
        ..put("z", "")
    }));
    assert!(matches!(
        db.txn(&txn(vec![put_op("a", "x"), lost_lease])),
        Err(Error::LeaseNotFound)
    ));
    // What the other branch says does not matter.
    let unless = TxnRequest {
        failure: vec![at(3)],
        ..Default::default()
    };
    assert!(db.txn(&unless).unwrap().succeeded);
    assert_eq!(db.all(0).unwrap(), before);
    assert_eq!(db.reader().hash_kv(0).unwrap(), hash);
}

#[test]
fn faults_39_a_hostile_transaction_is_refused_or_done_and_stops_nothing() {
    let mut db = filled();
    // Validation does not see that the first operation deletes what the second wants to keep.
    let keep = op(Request::RequestPut(PutRequest {
        ignore_value: true,
        ..put("b", "")
    }));
    let request = txn(vec![delete_op("a", "\0"), keep.clone()]);
    quorate_mvcc::validate::txn(&request, &quorate_mvcc::validate::Limits::default()).unwrap();
    assert!(matches!(db.txn(&request), Err(Error::KeyNotFound)));
    assert_eq!(db.reader().current_revision(), 5);
    // Put back in between, it is there to be kept.
    let request = txn(vec![
        delete_op("a", "\0"),
        put_op("b", "back"),
        nested(vec![], vec![keep], vec![]),
    ]);
    let result = db.txn(&request).unwrap();
    // What was put back counts as put, for the lessor.
    assert_eq!(result.changes.deleted, [bytes("a"), bytes("c")]);
    assert_eq!(result.changes.attached, [(bytes("b"), 0)]);
    assert_eq!(db.all(0).unwrap(), ["b=back 6/6/2"]);
    // Deep nesting, and operations that validation refuses.
    let mut deep = put_op("deep", "1");
    for _ in 0..90 {
        deep = nested(vec![], vec![deep], vec![]);
    }
    assert_eq!(
        db.txn(&txn(vec![deep, RequestOp { request: None }]))
            .unwrap()
            .revision,
        7
    );
}

#[test]
fn a_key_deleted_and_put_in_one_transaction_starts_again() {
    let mut db = filled();
    let request = txn(vec![
        delete_op("a", "\0"),
        put_op("a", "again"),
        range_op("a", "\0"),
    ]);
    let result = db.txn(&request).unwrap();
    assert_eq!(
        show_ops(&result.responses)[2],
        r#"range @6 count 1 ["a=again 6/6/1"]"#
    );
    assert_eq!(db.all(5).unwrap().len(), 3);
    // It is kept by a compaction at its very revision, here and after a restart.
    db.compact_fully(6);
    assert_eq!(db.all(0).unwrap(), ["a=again 6/6/1"]);
    let db = db.reopen(None);
    assert_eq!(db.all(6).unwrap(), ["a=again 6/6/1"]);
}

#[test]
fn faults_27_deleting_what_is_deleted_makes_no_second_event() {
    let mut db = filled();
    assert_eq!(db.delete("a", "").deleted, 1);
    assert_eq!(db.delete("a", "").deleted, 0);
    let twice = txn(vec![
        delete_op("b", ""),
        delete_op("b", ""),
        delete_op("a", "c"),
    ]);
    db.txn(&twice).unwrap();
    let count = |db: &Db| {
        let history = db.reader().history(6, i64::MAX, 100, 10_000).unwrap();
        history
            .iter()
            .map(|revision| revision.events.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&db), [1, 1]);
    assert_eq!(count(&db.reopen(None)), [1, 1]);
}

#[test]
fn writes_of_a_batch_see_each_other_and_readers_see_them_at_the_publication() {
    let mut db = filled();
    let reader = db.reader();
    db.apply(|store, txn| {
        store.put(txn, &put("x", "1"), lease_exists).unwrap();
        let result = store
            .put(
                txn,
                &PutRequest {
                    prev_kv: true,
                    ..put("x", "2")
                },
                lease_exists,
            )
            .unwrap();
        assert_eq!(show(&[result.prev.unwrap()]), ["x=1 6/6/1"]);
        store
            .delete_keys(txn, &[bytes("a"), bytes("b"), bytes("nothing")])
            .unwrap();
        assert_eq!(store.current_revision(), 8);
        assert_eq!(reader.current_revision(), 5);
        let all = RangeRequest {
            count_only: true,
            ..range("a", "\0")
        };
        assert_eq!(reader.range(&all).unwrap().count, 3);
        assert_eq!(reader.range(&range("x", "")).unwrap().count, 0);
    });
    assert_eq!(db.all(0).unwrap(), ["c=2 4/4/1", "x=2 6/7/2"]);
    assert_eq!(reader.event_log().last_revision(), 8);
}

#[test]
fn answers_that_nobody_waits_for_are_left_out_and_change_nothing_else() {
    let request = txn(vec![
        range_op("a", "\0"),
        put_op("a", "x"),
        range_op("a", "\0"),
    ]);
    let (mut with, mut without) = (filled(), filled());
    let answered = with.txn(&request).unwrap();
    let dropped = without
        .apply(|store, txn| store.txn_without_answers(txn, &request, lease_exists))
        .unwrap();
    assert_eq!(
        (dropped.revision, &dropped.changes),
        (answered.revision, &answered.changes)
    );
    assert_eq!(
        show_ops(&dropped.responses),
        ["range @5 count 0 []", "put @6 []", "range @6 count 0 []"]
    );
    assert_eq!(
        with.reader().hash_kv(0).unwrap(),
        without.reader().hash_kv(0).unwrap()
    );
}

#[test]
fn an_empty_record_of_a_bumped_revision_does_not_break_loading() {
    let mut db = filled();
    db.flush();
    // What a restored snapshot holds whose revisions were bumped and marked as compacted.
    let bumped = Revision {
        main: 1_000_005,
        sub: 0,
    };
    let mut txn = db.backend.maintenance().unwrap();
    txn.put(Table::Key, bumped.table_key(false).as_bytes(), Bytes::new());
    txn.put(
        Table::Meta,
        b"scheduledCompactRev",
        Bytes::copy_from_slice(bumped.table_key(false).as_bytes()),
    );
    txn.commit().unwrap();
    db = db.reopen(None);
    let reader = db.reader();
    assert_eq!(
        (reader.current_revision(), reader.compact_revision()),
        (1_000_005, 1_000_005)
    );
    assert!(matches!(db.all(5), Err(Error::Compacted)));
    assert_eq!(db.all(0).unwrap(), ["a=9 2/5/2", "b=1 3/3/1", "c=2 4/4/1"]);
    let mut job = db.store.pending_compaction().unwrap();
    job.run().unwrap();
    drop((job, reader));
    assert_eq!(db.put("a", "x").revision, 1_000_006);
    let db = db.reopen(None);
    assert_eq!(db.all(0).unwrap()[0], "a=x 2/1000006/3");
    assert!(db.store.pending_compaction().is_none());
}

#[test]
fn damaged_records_are_reported_and_never_panic() {
    for (key, record) in [
        (
            Revision { main: 6, sub: 0 },
            Bytes::from_static(&[0x0a, 9, 1]),
        ),
        (
            Revision {
                main: 6,
                sub: 1 << 40,
            },
            Bytes::from_static(&[0x0a, 1, 1]),
        ),
    ] {
        let db = filled();
        db.flush();
        let mut txn = db.backend.maintenance().unwrap();
        txn.put(Table::Key, key.table_key(false).as_bytes(), record);
        txn.commit().unwrap();
        let restored = Store::restore(&db.backend, small()).map(|_| ());
        assert!(
            matches!(restored, Err(Error::Corrupt { main: 6, .. })),
            "{restored:?}"
        );
    }
    let db = filled();
    let mut txn = db.backend.maintenance().unwrap();
    txn.put(
        Table::Meta,
        b"finishedCompactRev",
        Bytes::from_static(b"short"),
    );
    txn.commit().unwrap();
    let restored = Store::restore(&db.backend, small()).map(|_| ());
    assert!(matches!(
        restored,
        Err(Error::CorruptMeta { found_len: 5, .. })
    ));
}

#[test]
fn a_deletion_of_many_keys_numbers_them_in_key_order() {
    let mut db = Db::new(small());
    for i in 0..50 {
        db.put(&format!("{i:02}"), "v");
    }
    let request = DeleteRangeRequest {
        prev_kv: true,
        ..delete("1", "4")
    };
    let result = db
        .apply(|store, txn| store.delete_range(txn, &request))
        .unwrap();
    assert_eq!(
        (
            result.deleted,
            result.prevs.len(),
            result.changes.deleted.len()
        ),
        (30, 30, 30)
    );
    let history = db.reader().history(52, 53, 1, 1).unwrap();
    assert_eq!(history.len(), 1);
    let keys: Vec<_> = history[0]
        .events
        .iter()
        .map(|event| (event.revision.sub, event.key.clone()))
        .collect();
    let expected: Vec<_> = (10..40)
        .map(|i| (i - 10, bytes(&format!("{i:02}"))))
        .collect();
    assert_eq!(keys, expected);
}

#[test]
fn faults_23_a_watcher_gets_all_of_history_and_what_comes_or_is_told_that_it_is_compacted() {
    let mut db = Db::new(small());
    for i in 0..40 {
        db.put(&format!("k{}", i % 7), &i.to_string());
        if i % 10 == 9 {
            db.delete("k3", "k5");
        }
    }
    db.flush();
    // The log of recent events is far too small for all of it.
    assert!(db.reader().event_log().first_revision() > 10);
    let mut hub = WatchHub::new(db.reader(), WatchOptions::default());
    let stream = hub.open_stream(0);
    hub.create(
        stream,
        WatchCreate {
            key: bytes("k3"),
            start_revision: 2,
            prev_kv: true,
            ..Default::default()
        },
    );
    let mut events = Vec::new();
    let mut collect = |hub: &mut WatchHub<Reader>| {
        loop {
            let more = hub.advance().unwrap();
            let responses = hub.take(stream, usize::MAX);
            if responses.is_empty() && !more {
                return events.clone();
            }
            for response in responses {
                for event in response.events.iter() {
                    let event = quorate_proto::mvccpb::Event::decode(event.clone()).unwrap();
                    let kv = event.kv.unwrap();
                    let prev = event.prev_kv.map_or(0, |prev| prev.mod_revision);
                    events.push((event.r#type, kv.mod_revision, prev));
                }
            }
        }
    };
    let before = collect(&mut hub);
    let expected: Vec<_> = [(0, 5, 0), (1, 12, 5), (0, 13, 0), (0, 20, 13), (1, 23, 20)].to_vec();
    assert_eq!(before[..5], expected);
    let newest = db.put("k3", "live").revision;
    assert_eq!(collect(&mut hub).last().unwrap().1, newest);

    db.compact_fully(newest - 1);
    hub.create(
        stream,
        WatchCreate {
            key: bytes("k3"),
            start_revision: 2,
            ..Default::default()
        },
    );
    while hub.advance().unwrap() {}
    let responses = hub.take(stream, usize::MAX);
    assert!(
        responses
            .iter()
            .any(|response| response.canceled && response.compact_revision == newest - 1)
    );
}
