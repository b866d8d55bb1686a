//! Hashes that etcd 3.7.1 gave for the same history.
//!
//! Each file is a random history of one etcd member that was driven over its JSON gateway, with what it answered to
//! `HashKV` in between. Lines: `put KEY VALUE LEASE`, `del KEY RANGE_END`, several of these behind `txn` between `;`,
//! `compact REVISION` (physical, so that its end was awaited), and `hash REVISION HASH COMPACT_REVISION HASH_REVISION
//! CURRENT_REVISION` or `hash REVISION error TEXT`. `-` is empty, `long*N` is N times that word with blanks between,
//! `open` is the range end of one zero byte.

use bytes::Bytes;
use quorate_mvcc::{Error, Options};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp};

use crate::harness::{Db, bytes, op, small, txn};

const HISTORIES: [&str; 6] = [
    include_str!("etcd_hashes/history_1.txt"),
    include_str!("etcd_hashes/history_2.txt"),
    include_str!("etcd_hashes/history_3.txt"),
    include_str!("etcd_hashes/history_4.txt"),
    include_str!("etcd_hashes/history_5.txt"),
    include_str!("etcd_hashes/history_6.txt"),
];

fn text(word: &str) -> Bytes {
    match word.split_once('*') {
        _ if word == "-" => Bytes::new(),
        _ if word == "open" => Bytes::from_static(&[0]),
        Some(("long", count)) => vec!["long"; count.parse().unwrap()].join(" ").into(),
        _ => bytes(word),
    }
}

fn parse_op(line: &str) -> RequestOp {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["put", key, value, lease] => op(Request::RequestPut(PutRequest {
            key: text(key),
            value: text(value),
            lease: lease.parse().unwrap(),
            ..Default::default()
        })),
        ["del", key, range_end] => op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: text(key),
            range_end: text(range_end),
            ..Default::default()
        })),
        _ => panic!("unexpected {line}"),
    }
}

fn check_hash(db: &Db, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let number = |word: &str| word.parse::<i64>().unwrap();
    let ours = db.reader().hash_kv(number(words[0]));
    match words[1..] {
        ["error", "required_revision_is_a_future_revision"] => {
            assert!(matches!(ours, Err(Error::FutureRevision)))
        }
        ["error", "required_revision_has_been_compacted"] => {
            assert!(matches!(ours, Err(Error::Compacted)))
        }
        [hash, compact_revision, hash_revision, current] => {
            let ours = ours.unwrap();
            assert_eq!(i64::from(ours.hash), number(hash), "hash {line}");
            assert_eq!(
                [ours.compact_revision, ours.hash_revision, ours.revision],
                [
                    number(compact_revision),
                    number(hash_revision),
                    number(current)
                ],
                "hash {line}"
            );
        }
        _ => panic!("unexpected {line}"),
    }
}

/// Replays a history; `restart_every` steps the store is closed and opened, which forgets the hashes of compactions.
fn replay(history: &str, options: Options, restart_every: usize) -> usize {
    let mut db = Db::new(options);
    let mut hashes = 0;
    let mut compacted_since_restart = false;
    for (at, line) in history.lines().enumerate() {
        if at % restart_every == restart_every - 1 {
            db = db.reopen(None);
            compacted_since_restart = false;
        }
        match line.split_once(' ').unwrap() {
            ("compact", revision) => {
                db.compact_fully(revision.parse().unwrap());
                compacted_since_restart = true;
            }
            ("hash", rest) => {
                let of_compaction = rest.split_whitespace().next()
                    == Some(&db.reader().compact_revision().to_string());
                if compacted_since_restart || !of_compaction {
                    check_hash(&db, rest);
                    hashes += 1;
                }
            }
            ("txn", ops) => {
                db.txn(&txn(ops.split(';').map(parse_op).collect()))
                    .unwrap();
            }
            _ => match parse_op(line).request.unwrap() {
                Request::RequestPut(put) => {
                    db.try_put(&put).unwrap();
                }
                Request::RequestDeleteRange(delete) => {
                    db.apply(|store, txn| store.delete_range(txn, &delete))
                        .unwrap();
                }
                other => panic!("unexpected {other:?}"),
            },
        }
    }
    hashes
}

#[test]
fn hashes_equal_those_of_etcd_for_the_same_history() {
    for history in HISTORIES {
        assert!(replay(history, Options::default(), usize::MAX) > 40);
        replay(history, small(), usize::MAX);
    }
}

#[test]
fn hashes_equal_those_of_etcd_after_restarts() {
    for (history, restart_every) in HISTORIES.iter().zip([3, 5, 7, 11, 13, 17]) {
        assert!(replay(history, small(), restart_every) > 20);
    }
}
