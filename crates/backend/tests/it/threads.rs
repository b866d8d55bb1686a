//! Readers, the writer and the flusher at the same time.

use crate::support::{disk, open};
use bytes::Bytes;
use quorate_backend::{Revision, Table};
use quorate_disk::CrashPolicy;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const BATCHES: i64 = 1500;
const PER_BATCH: i64 = 4;

/// Ends the other threads, also when this one fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn record(rev: Revision) -> Bytes {
    Bytes::from(format!("record of {rev}"))
}

#[test]
fn readers_always_see_whole_batches() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let newest = AtomicI64::new(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ending = Ending(&done);
            for main in 2..BATCHES {
                let mut txn = backend.begin_apply(main.cast_unsigned(), 1);
                for sub in 0..PER_BATCH {
                    let rev = Revision::new(main, sub);
                    txn.put_revision(rev, false, record(rev));
                }
                txn.put(Table::Auth, b"a", Bytes::from(main.to_string()));
                txn.put(Table::Lease, b"b", Bytes::from(main.to_string()));
                txn.commit(main.cast_unsigned());
                newest.store(main, Ordering::Release);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if let Some(job) = backend.seal() {
                    let applied = job.run().unwrap();
                    assert_eq!(backend.durable(), applied);
                    assert_eq!(applied.index, applied.digest);
                }
            }
        });
        for reader in 0..2 {
            let (backend, newest, done) = (&backend, &newest, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let main = newest.load(Ordering::Acquire);
                    for back in [0, 1, 50, 700] {
                        let rev = Revision::new(main - back, back % PER_BATCH);
                        if rev.main >= 2 {
                            assert_eq!(backend.value(rev).unwrap(), Some(record(rev)));
                        }
                    }
                    let txn = backend.read().unwrap();
                    let index = txn.applied().index;
                    assert_eq!(txn.applied().digest, index);
                    if index == 0 {
                        continue;
                    }
                    let text = Bytes::from(index.to_string());
                    assert_eq!(txn.get(Table::Auth, b"a").unwrap(), Some(text.clone()));
                    assert_eq!(txn.get(Table::Lease, b"b").unwrap(), Some(text));
                    let from = Revision::new(index.cast_signed() - 20 * (reader + 1), 0);
                    let rows = txn
                        .revisions(from.max(Revision::new(2, 0)), Revision::MAX, 9999, 1 << 20)
                        .unwrap();
                    assert_eq!(rows.len() % 4, 0);
                    assert_eq!(rows.last().unwrap().rev.main.cast_unsigned(), index);
                }
            });
        }
    });
    let durable = backend.durable();
    let after = open(&disk.crash(&CrashPolicy::KeepNone)).unwrap();
    assert_eq!(after.applied(), durable);
}
