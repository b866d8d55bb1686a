//! What appends write, and what they refuse.

use crate::harness::{IDENTITY, Model, create, dir, entries_batch, entry, filler, open, options};
use quorate_disk::{CrashPolicy, OperationKind, RealDisk, SimDisk};
use quorate_wal::{Batch, Error, HardState, Options, SnapshotMark, Wal};
use std::sync::Arc;

fn state(term: u64, vote: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term, vote, commit })
}

#[test]
fn append_is_one_write_and_one_sync_however_many_batches() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, &options(1 << 20)).unwrap();
    disk.start_trace();
    let batches: Vec<Batch> = (1..=40)
        .map(|index| Batch {
            hard_state: state(1, 1, index - 1),
            ..entries_batch(index, vec![entry(1, index, filler(index, 2000))])
        })
        .collect();
    assert_eq!(wal.append(&batches).unwrap().ticket(), 40);
    let kinds: Vec<_> = disk.take_trace().iter().map(|done| done.kind).collect();
    assert_eq!(kinds, [OperationKind::Write, OperationKind::Sync]);
}

#[test]
fn sync_happens_only_when_a_batch_needs_it() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, &options(1 << 20)).unwrap();
    let kinds = |disk: &SimDisk| -> Vec<_> {
        let trace = disk.take_trace();
        trace.iter().map(|done| done.kind).collect()
    };
    let _ = wal
        .append(&[entries_batch(1, vec![entry(1, 1, "a")])])
        .unwrap();
    disk.start_trace();
    let commit = |commit, must_sync| Batch {
        hard_state: state(1, 0, commit),
        must_sync,
        ..Batch::default()
    };
    let _ = wal.append(&[commit(1, false)]).unwrap();
    assert_eq!(kinds(&disk), [OperationKind::Write]);
    // The same hard state again is not written, but what was written before is synced.
    let _ = wal.append(&[commit(1, true)]).unwrap();
    assert_eq!(kinds(&disk), [OperationKind::Sync]);
    let _ = wal.append(&[commit(1, true)]).unwrap();
    let _ = wal.append(&[]).unwrap();
    assert_eq!(kinds(&disk), []);
    let mark = Some(SnapshotMark { index: 1, term: 1 });
    let marked = Batch {
        snapshot: mark,
        ..Batch::default()
    };
    let _ = wal.append(std::slice::from_ref(&marked)).unwrap();
    assert_eq!(kinds(&disk), [OperationKind::Write, OperationKind::Sync]);
    let _ = wal.append(&[marked]).unwrap();
    assert_eq!(kinds(&disk), []);
}

#[test]
fn what_no_correct_caller_asks_for_is_refused_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let options = options(1 << 16);
    let mut wal = create(&disk, &options).unwrap();
    let mark = |index, term| Some(SnapshotMark { index, term });
    let good = Batch {
        hard_state: state(3, 1, 2),
        ..entries_batch(1, (1..=4).map(|index| entry(3, index, "e")).collect())
    };
    let _ = wal.append(std::slice::from_ref(&good)).unwrap();
    let marked = Batch {
        snapshot: mark(2, 3),
        ..Batch::default()
    };
    let _ = wal.append(std::slice::from_ref(&marked)).unwrap();
    let with_state = |hard_state| Batch {
        hard_state,
        ..Batch::default()
    };
    let with_mark = |snapshot| Batch {
        snapshot,
        ..Batch::default()
    };
    for bad in [
        entries_batch(2, vec![entry(3, 7, "gap")]),
        entries_batch(2, vec![entry(3, 6, "a"), entry(3, 8, "gap")]),
        entries_batch(2, vec![entry(3, 2, "committed")]),
        entries_batch(2, vec![entry(3, 1, "before the mark")]),
        with_state(state(2, 1, 2)),
        with_state(state(3, 1, 6)),
        with_mark(mark(1, 3)),
        with_mark(mark(u64::MAX, 3)),
    ] {
        let both = [entries_batch(2, vec![entry(4, 5, "good")]), bad];
        let refused = wal.append(&both).unwrap_err();
        assert!(matches!(refused, Error::OutOfOrder { .. }), "{refused}");
    }
    assert!(!wal.is_poisoned());
    drop(wal);
    let (_, recovered) = open(&disk, &options).unwrap();
    let mut model = Model::default();
    model.apply(&good);
    model.apply(&marked);
    assert_eq!(Model::of(recovered), model);
}

#[test]
fn append_larger_than_a_segment_gets_its_own() {
    let disk = SimDisk::new(1);
    let options = options(4096);
    let mut wal = create(&disk, &options).unwrap();
    let mut model = Model::default();
    let first = entries_batch(1, vec![entry(1, 1, filler(1, 1000))]);
    let _ = wal.append(std::slice::from_ref(&first)).unwrap();
    model.apply(&first);
    let job = wal.take_prepare_job().unwrap();
    wal.accept_prepared(job.run().unwrap());
    for (index, len) in [(2, 50_000), (3, 3000), (4, 0), (5, 9000)] {
        let batch = entries_batch(index, vec![entry(1, index, filler(index, len))]);
        let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
        model.apply(&batch);
    }
    assert_eq!(wal.segment_count(), 4);
    drop(wal);
    let (_, recovered) = open(&disk.crash(&CrashPolicy::KeepNone), &options).unwrap();
    assert_eq!(Model::of(recovered), model);
}

#[test]
fn change_of_segment_uses_the_one_made_ahead() {
    let disk = SimDisk::new(1);
    let options = options(8192);
    let mut wal = create(&disk, &options).unwrap();
    // It is early: most of the first segment is free.
    assert!(wal.take_prepare_job().is_none());
    let batch = entries_batch(1, vec![entry(1, 1, filler(1, 2100))]);
    let _ = wal.append(&[batch]).unwrap();
    let job = wal.take_prepare_job().unwrap();
    wal.accept_prepared(job.run().unwrap());
    assert!(wal.take_prepare_job().is_none());
    disk.start_trace();
    for index in 2..=11 {
        let batch = entries_batch(index, vec![entry(1, index, filler(index, 900))]);
        let _ = wal.append(&[batch]).unwrap();
    }
    assert_eq!(wal.segment_count(), 2);
    let trace = disk.take_trace();
    assert!(
        trace
            .iter()
            .all(|done| done.kind != OperationKind::Allocate)
    );
    let job = wal.take_prepare_job().unwrap();
    // One that comes too late replaces the unused one, whose file goes.
    wal.accept_prepared(job.run().unwrap());
    assert_eq!(quorate_disk::Disk::read_dir(&disk, dir()).unwrap().len(), 3);
}

#[test]
fn real_disk_keeps_a_log_over_many_segments() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("member/wal");
    let identity = IDENTITY;
    let options = Options {
        segment_bytes: 1 << 16,
        identity: Some(identity),
    };
    let disk = Arc::new(RealDisk);
    let mut wal = Wal::create(disk.clone(), &dir, identity, options.clone()).unwrap();
    let mut model = Model::default();
    for index in 1..=300 {
        if let Some(job) = wal.take_prepare_job() {
            wal.accept_prepared(job.run().unwrap());
        }
        let len = usize::try_from(index * 37 % 3000).unwrap();
        let batch = Batch {
            hard_state: state(1, 1, index - 1),
            must_sync: index % 10 == 0,
            ..entries_batch(index, vec![entry(1, index, filler(index, len))])
        };
        let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
        model.apply(&batch);
    }
    let marked = Batch {
        snapshot: Some(SnapshotMark {
            index: 200,
            term: 1,
        }),
        ..Batch::default()
    };
    let _ = wal.append(std::slice::from_ref(&marked)).unwrap();
    model.apply(&marked);
    wal.release_to(200).unwrap();
    drop(wal);
    for _ in 0..2 {
        let (_, recovered) = Wal::open(disk.clone(), &dir, options.clone()).unwrap();
        assert_eq!(Model::of(recovered), model);
    }
}

#[test]
fn parts_can_go_to_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<Wal>();
    is_send::<quorate_wal::PrepareJob>();
    is_send::<quorate_wal::PreparedSegment>();
    is_send::<quorate_wal::Synced>();
}

#[test]
fn appends_end_where_the_disk_wants_blocks_to_end() {
    for block_bytes in [512, 4096] {
        let disk = SimDisk::new(1);
        disk.set_block_bytes(block_bytes);
        let mut wal = create(&disk, &options(1 << 16)).unwrap();
        let mut model = Model::default();
        for index in 1..=9 {
            // What lies behind the last record is written as zeros, which a later append of fewer bytes does not bring back.
            let batch = entries_batch(index, vec![entry(1, index, filler(index, 300))]);
            let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
            model.apply(&batch);
        }
        drop(wal);
        let (_, recovered) = open(&disk.crash(&CrashPolicy::KeepNone), &options(1 << 16)).unwrap();
        assert_eq!(recovered.torn_tail, None);
        assert_eq!(Model::of(recovered), model);
    }
}

#[test]
fn log_on_a_real_disk_reads_back_through_changes_of_segment_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, path) = (Arc::new(RealDisk), dir.path().join("wal"));
    let options = options(64 << 10);
    let mut model = Model::default();
    let mut wal = Wal::create(disk.clone(), &path, IDENTITY, options.clone()).unwrap();
    for index in 1..=120_u64 {
        let len = usize::try_from(index * 7919 % 9000).unwrap();
        let mut batch = entries_batch(index, vec![entry(1, index, filler(index, len))]);
        batch.must_sync = index % 3 > 0;
        if index % 25 == 0 {
            batch.snapshot = Some(SnapshotMark {
                index: index - 1,
                term: 1,
            });
        }
        let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
        model.apply(&batch);
        if index % 25 == 0 {
            wal.release_to(index).unwrap();
        }
        if let Some(job) = wal.take_prepare_job() {
            wal.accept_prepared(job.run().unwrap());
        }
        if index % 17 == 0 {
            drop(wal);
            let (opened, recovered) = Wal::open(disk.clone(), &path, options.clone()).unwrap();
            assert_eq!(Model::of(recovered), model);
            wal = opened;
        }
    }
}
