//! Readers beside the writer and a compaction.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_mvcc::{CompactionJob, Error, Options, Progress, Reader};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};

use crate::harness::{Db, decode, delete, op, put, range, small, txn};

const KEYS: i64 = 20;

/// Writes every key at each revision, but every third time deletes a third of them.
fn round(revision: i64) -> TxnRequest {
    let ops: Vec<RequestOp> = (0..KEYS)
        .map(|i| {
            let key = format!("k{i:02}");
            if revision % 3 == 0 && i % 3 == 0 {
                op(Request::RequestDeleteRange(delete(&key, "")))
            } else {
                op(Request::RequestPut(put(&key, &revision.to_string())))
            }
        })
        .collect();
    txn(ops)
}

/// Checks that what a reader sees is one revision, whole.
fn check(reader: &Reader, revision: i64) -> bool {
    let request = RangeRequest {
        revision,
        ..range("k", "l")
    };
    let result = match reader.range(&request) {
        Ok(result) => result,
        Err(Error::Compacted) => {
            assert!(revision > 0 && revision < reader.compact_revision());
            return false;
        }
        Err(error) => panic!("{error} at {revision}"),
    };
    let at = if revision > 0 {
        revision
    } else {
        result.revision
    };
    let expected = if at % 3 == 0 {
        KEYS - (KEYS + 2) / 3
    } else {
        KEYS
    };
    assert_eq!(result.count, expected, "count at {at}");
    assert_eq!(i64::try_from(result.kvs.len()).unwrap(), expected);
    for kv in result.kvs.iter().map(decode) {
        assert_eq!((kv.mod_revision, kv.value), (at, at.to_string().into()));
    }
    let single = RangeRequest {
        revision,
        ..range("k01", "")
    };
    if let Ok(result) = reader.range(&single) {
        let kv = decode(&result.kvs[0]);
        assert_eq!(kv.value, kv.mod_revision.to_string());
    }
    true
}

fn rounds(options: Options) {
    let mut db = Db::new(options);
    let rounds = 400;
    let ended = AtomicBool::new(false);
    let (send, receive) = std::sync::mpsc::channel::<CompactionJob>();
    let readers = [db.reader(), db.reader()];
    let mut whole = 0;
    std::thread::scope(|scope| {
        let ended = &ended;
        let threads = readers.map(|reader| {
            scope.spawn(move || {
                let mut whole = 0;
                while !ended.load(Ordering::Relaxed) {
                    let current = reader.current_revision();
                    if current < 3 {
                        continue;
                    }
                    assert!(check(&reader, 0), "a read of now is never compacted");
                    whole += 1;
                    for back in [1, 3, 7] {
                        check(&reader, (current - back).max(2));
                    }
                    let hash = reader.hash_kv(0).unwrap();
                    assert!(hash.hash_revision >= current);
                    let count = RangeRequest {
                        count_only: true,
                        ..range("k", "l")
                    };
                    let count = reader.range(&count).unwrap();
                    assert!(count.count >= KEYS - (KEYS + 2) / 3 && count.count <= KEYS);
                }
                whole
            })
        });
        scope.spawn(move || {
            for mut job in receive {
                while !matches!(job.step().unwrap(), Progress::Done(_)) {
                    std::thread::yield_now();
                }
            }
        });
        for revision in 2..2 + rounds {
            assert_eq!(db.txn(&round(revision)).unwrap().revision, revision);
            if revision % 5 == 0 {
                send.send(db.compact(revision - 2).unwrap()).unwrap();
            }
            if revision % 2 == 0 {
                db.flush();
            }
        }
        db.flush();
        drop(send);
        ended.store(true, Ordering::Relaxed);
        whole = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
    });
    assert!(whole > 0);
    let (keys, _) = db.reader().index_size();
    assert_eq!(keys, usize::try_from(KEYS).unwrap());
}

#[test]
fn reads_see_one_revision_whatever_goes_on_beside_them() {
    rounds(small());
    rounds(Options {
        index_chunk_keys: 1,
        ..small()
    });
    rounds(Options::default());
}
