//! Reads that would take too much stop, and say so.

use quorate_mvcc::{Error, RangeStreamOptions, ReadLimit};
use quorate_proto::etcdserverpb::RangeRequest;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::harness::{Db, op, range, small, txn};

fn keys(keys_max: usize) -> ReadLimit {
    ReadLimit {
        keys_max,
        ..ReadLimit::NONE
    }
}

fn bytes(bytes_max: usize) -> ReadLimit {
    ReadLimit {
        bytes_max,
        ..ReadLimit::NONE
    }
}

fn filled() -> Db {
    let mut db = Db::new(small());
    for n in 0..20 {
        db.put(&format!("k{n:02}"), &"v".repeat(100));
    }
    db
}

#[test]
fn a_read_within_its_limit_is_answered_and_one_beyond_is_not() {
    let db = filled();
    let reader = db.reader();
    let all = range("k", "l");
    let whole = reader.range(&all).unwrap();
    let sized = |len: usize| ReadLimit {
        keys_max: 20,
        bytes_max: len,
    };
    assert_eq!(reader.range_within(&all, sized(8_192)).unwrap(), whole);
    for limit in [keys(19), bytes(2_000), sized(2_000)] {
        let read = reader.range_within(&all, limit);
        assert!(matches!(read, Err(Error::TooLarge)), "{limit:?}");
    }
    let single = range("k07", "");
    assert_eq!(reader.range_within(&single, bytes(500)).unwrap().count, 1);
    assert!(matches!(
        reader.range_within(&single, bytes(50)),
        Err(Error::TooLarge)
    ));
}

#[test]
fn what_is_looked_at_counts_and_not_only_what_is_answered() {
    let db = filled();
    let by_value = RangeRequest {
        limit: 1,
        sort_target: 4,
        sort_order: 1,
        ..range("k", "l")
    };
    let keys_only = RangeRequest {
        keys_only: true,
        ..range("k", "l")
    };
    for request in [by_value, keys_only] {
        let read = db.reader().range_within(&request, bytes(1_000));
        assert!(matches!(read, Err(Error::TooLarge)), "{request:?}");
    }
}

#[test]
fn the_ranges_of_a_transaction_share_its_limit() {
    let db = filled();
    let reader = db.reader();
    let one = || op(Request::RequestRange(range("k07", "")));
    let limit = bytes(1_000);
    assert!(
        reader
            .txn_read_only_within(&txn(vec![one()]), limit)
            .is_ok()
    );
    let many = txn((0..10).map(|_| one()).collect());
    assert!(matches!(
        reader.txn_read_only_within(&many, limit),
        Err(Error::TooLarge)
    ));
}

#[test]
fn a_streamed_piece_is_bounded_in_bytes_whatever_the_keys_before_it_weighed() {
    const CHUNK: usize = 10_000;
    let mut db = Db::new(small());
    for n in 0..2_000 {
        db.put(&format!("a{n:04}"), "");
    }
    for n in 0..200 {
        db.put(&format!("b{n:04}"), &"v".repeat(CHUNK / 4));
    }
    for n in 0..3 {
        db.put(&format!("c{n:04}"), &"v".repeat(CHUNK * 4));
    }
    let options = RangeStreamOptions { chunk_bytes: CHUNK };
    let mut stream = db.reader().range_stream(&range("a", "d"), options).unwrap();
    let (mut kvs, mut end) = (Vec::new(), None);
    while let Some(chunk) = stream.next_chunk().unwrap() {
        let bytes: usize = chunk.kvs.iter().map(|kv| kv.len()).sum();
        assert!(
            bytes <= 2 * CHUNK || chunk.kvs.len() == 1,
            "{bytes} bytes in {} keys",
            chunk.kvs.len()
        );
        kvs.extend(chunk.kvs);
        end = chunk.end;
    }
    assert_eq!(kvs, db.reader().range(&range("a", "d")).unwrap().kvs);
    let end = end.unwrap();
    assert_eq!((end.more, end.count), (false, 2_203));
}
