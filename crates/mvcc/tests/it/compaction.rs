//! What a compaction leaves, whenever it is interrupted.

use quorate_disk::CrashPolicy;
use quorate_mvcc::{CompactionSummary, Error, Progress};

use crate::harness::{Db, small};

/// Puts, updates and deletions of a few keys; returns the store at revision 20, whose revision 20 is a deletion.
fn busy() -> Db {
    let mut db = Db::new(small());
    for i in 0..6 {
        db.put(&format!("k{i}"), "first");
    }
    for i in 0..6 {
        db.put(&format!("k{i}"), "second");
    }
    db.delete("k1", "k3");
    db.put("k1", "again");
    db.delete("k1", "");
    db.put("k9", "x");
    db.put("k9", "y");
    db.put("k0", "third");
    db.delete("k9", "");
    assert_eq!(db.store.current_revision(), 20);
    db
}

fn rows(db: &Db) -> Vec<(i64, i64, bool)> {
    let read = db.backend.read().unwrap();
    let rows = read.revisions(
        quorate_backend::Revision::MIN,
        quorate_backend::Revision::MAX,
        usize::MAX,
        usize::MAX,
    );
    rows.unwrap()
        .into_iter()
        .map(|row| (row.rev.main, row.rev.sub, row.tombstone))
        .collect()
}

#[test]
fn faults_24_a_deletion_at_the_compact_revision_stays_for_those_who_start_there() {
    let mut db = busy();
    db.compact_fully(16);
    let history = db.reader().history(16, 17, 10, 1000).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].events[0].key, "k1");
    assert_eq!(history[0].events[0].kind, quorate_mvcc::EventKind::Delete);
    assert!(matches!(
        db.reader().history(15, 17, 10, 1000),
        Err(Error::Compacted)
    ));
    // A restart does not change that; the next compaction does.
    let mut db = db.reopen(None);
    assert_eq!(db.reader().history(16, 17, 10, 1000).unwrap().len(), 1);
    db.compact_fully(17);
    assert!(rows(&db).iter().all(|(main, ..)| *main != 16));
}

#[test]
fn faults_25_26_a_crash_between_any_two_steps_leaves_nothing_wrong() {
    for revision in [2, 13, 14, 16, 17, 19, 20] {
        let mut steps = 0;
        loop {
            let mut db = busy();
            let mut job = db.compact(revision).unwrap();
            db.flush();
            let kept_before = db.all(revision).unwrap();
            let all = db.all(0).unwrap();
            let hash = db.reader().hash_kv(20).unwrap();
            let mut ended = false;
            for _ in 0..steps {
                ended |= matches!(job.step().unwrap(), Progress::Done(_));
            }
            for policy in [
                CrashPolicy::KeepNone,
                CrashPolicy::KeepAll,
                CrashPolicy::Seeded(steps),
            ] {
                let crashed = Db::open(db.disk.crash(&policy), small());
                let reader = crashed.reader();
                assert_eq!(
                    reader.current_revision(),
                    20,
                    "compacted at {revision}, crashed after {steps} steps"
                );
                assert_eq!(reader.compact_revision(), revision);
                assert_eq!(crashed.all(revision).unwrap(), kept_before);
                assert_eq!(crashed.all(0).unwrap(), all);
                assert_eq!(reader.hash_kv(20).unwrap().hash, hash.hash);
                let pending = crashed.store.pending_compaction();
                assert_eq!(pending.is_some(), !ended);
                if let Some(mut pending) = pending {
                    assert_eq!(pending.revision(), revision);
                    let Progress::Done(summary) = pending.run().unwrap() else {
                        panic!("nothing stands in the way of a compaction at a restart");
                    };
                    // Not all rows that it would cover are there any more.
                    assert_eq!(summary.hash, None);
                }
                let mut untouched = busy();
                untouched.compact_fully(revision);
                assert_eq!(rows(&crashed), rows(&untouched));
                drop(reader);
                let again = crashed.reopen(None);
                assert_eq!(again.reader().current_revision(), 20);
                assert_eq!(again.reader().hash_kv(20).unwrap().hash, hash.hash);
                assert!(again.store.pending_compaction().is_none());
            }
            if ended {
                break;
            }
            steps += 1;
        }
        assert!(steps > 3);
    }
}

#[test]
fn nothing_is_deleted_before_the_compaction_and_its_rows_are_durable() {
    let mut db = busy();
    let mut job = db.compact(15).unwrap();
    let before = rows(&db);
    for _ in 0..5 {
        assert_eq!(job.run().unwrap(), Progress::Blocked);
    }
    assert_eq!(rows(&db), before);
    // What was not durable is gone with the power; so is the compaction, and nothing is lost by it.
    let crashed = Db::open(db.disk.crash(&CrashPolicy::KeepNone), small());
    assert_eq!(crashed.reader().compact_revision(), -1);
    drop(crashed);
    db.flush();
    assert!(matches!(
        job.run().unwrap(),
        Progress::Done(CompactionSummary {
            revision: 15,
            hash: Some(_),
            ..
        })
    ));
    assert!(rows(&db).len() < before.len());
}

#[test]
fn a_job_stepped_before_the_publication_waits() {
    let mut db = busy();
    let reader = db.reader();
    let mut job = db.apply(|store, txn| {
        let mut job = store.compact(txn, 15).unwrap();
        assert_eq!(reader.compact_revision(), -1);
        assert_eq!(job.step().unwrap(), Progress::Blocked);
        assert!(matches!(store.compact(txn, 15), Err(Error::Compacted)));
        assert!(matches!(store.compact(txn, 21), Err(Error::FutureRevision)));
        job
    });
    db.flush();
    assert!(matches!(job.run().unwrap(), Progress::Done(_)));
    assert_eq!(reader.compact_revision(), 15);
}

#[test]
fn the_ten_newest_compactions_leave_their_hashes() {
    let mut db = busy();
    for revision in 2..=14 {
        db.compact_fully(revision);
    }
    let hashes = db.reader().compaction_hashes();
    assert_eq!(
        hashes.iter().map(|hash| hash.revision).collect::<Vec<_>>(),
        (5..=14).collect::<Vec<_>>()
    );
    assert!(
        hashes
            .iter()
            .all(|hash| hash.compact_revision == hash.revision - 1)
    );
    let stored = db.reader().hash_kv(14).unwrap();
    assert_eq!(
        (
            stored.hash_revision,
            stored.compact_revision,
            stored.revision
        ),
        (14, 13, 20)
    );
    assert_eq!(stored.hash, hashes[9].hash);
    // Asked for as the current revision it is made anew.
    assert_eq!(db.reader().hash_kv(0).unwrap().compact_revision, 14);
    // They are not kept over a restart.
    assert_eq!(db.reopen(None).reader().compaction_hashes(), []);
}

#[test]
fn a_compaction_asked_for_before_the_last_one_ended_leaves_its_hash_all_the_same() {
    let mut db = busy();
    let mut first = db.compact(5).unwrap();
    let mut second = db.compact(9).unwrap();
    db.flush();
    assert!(matches!(
        first.run().unwrap(),
        Progress::Done(CompactionSummary { hash: Some(_), .. })
    ));
    assert!(matches!(
        second.run().unwrap(),
        Progress::Done(CompactionSummary { hash: Some(_), .. })
    ));
    db.compact_fully(12);
    let stored: Vec<_> = db
        .reader()
        .compaction_hashes()
        .iter()
        .map(|hash| hash.revision)
        .collect();
    assert_eq!(stored, [5, 9, 12]);
}

#[test]
fn the_hash_does_not_depend_on_how_far_the_compaction_got() {
    let mut db = busy();
    let mut job = db.compact(14).unwrap();
    db.flush();
    let expected: Vec<_> = (14..=20)
        .map(|revision| db.reader().hash_kv(revision).unwrap())
        .collect();
    loop {
        let ended = matches!(job.step().unwrap(), Progress::Done(_));
        for (revision, expected) in (15..=20).zip(&expected[1..]) {
            assert_eq!(db.reader().hash_kv(revision).unwrap(), *expected);
        }
        if ended {
            break;
        }
        assert_eq!(db.reader().hash_kv(14).unwrap(), expected[0]);
    }
    assert!(matches!(db.reader().hash_kv(13), Err(Error::Compacted)));
    assert!(matches!(
        db.reader().hash_kv(21),
        Err(Error::FutureRevision)
    ));
}

#[test]
fn with_nothing_alive_the_hash_covers_what_a_finished_compaction_leaves() {
    let mut db = busy();
    let mut job = db.compact(14).unwrap();
    db.delete("a", "z");
    assert_eq!(db.all(0).unwrap(), Vec::<String>::new());
    db.flush();
    let before = db.reader().hash_kv(0).unwrap();
    assert!(matches!(job.run().unwrap(), Progress::Done(_)));
    assert_eq!(db.reader().hash_kv(0).unwrap(), before);
    drop(job);
    let db = db.reopen(None);
    assert_eq!(db.reader().hash_kv(0).unwrap(), before);
}
