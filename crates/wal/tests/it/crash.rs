//! Power losses and kills at every operation.

use crate::harness::{
    IDENTITY, Model, Progress, Random, Script, Step, create, dir, entries_batch, entry, filler,
    open, options, sim_disk,
};
use quorate_disk::{CrashPolicy, Fault, Operation, OperationKind, SimDisk};
use quorate_wal::{Error, Wal};
use std::path::Path;

/// Opens what a crash left, checks it, and lets the log go on from there through two more crashes.
fn check_after(script: &Script, progress: Progress, disk: &SimDisk, seed: u64) {
    let (wal, recovered) = match open(disk, &script.options) {
        Ok(opened) => opened,
        Err(Error::NotFound { .. }) => {
            assert!(!progress.created, "seed {seed}: the log is gone");
            create(disk, &script.options).unwrap();
            return;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    };
    assert_eq!(recovered.identity, IDENTITY);
    let mut found = Model::of(recovered);
    script.check(progress, &found);
    drop(wal);
    // What was returned is durable, and nothing that was cut comes back.
    let lost = disk.crash(&CrashPolicy::KeepNone);
    let (mut wal, recovered) = open(&lost, &script.options).unwrap();
    assert_eq!(recovered.torn_tail, None);
    assert_eq!(Model::of(recovered), found, "seed {seed}");
    let next = entry(u64::MAX, found.last_index() + 1, filler(seed, 70));
    let batch = entries_batch(1, vec![next]);
    let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
    found.apply(&batch);
    let lost = lost.crash(&CrashPolicy::KeepNone);
    let (_, recovered) = open(&lost, &script.options).unwrap();
    assert_eq!(Model::of(recovered), found, "seed {seed}");
}

#[test]
fn power_loss_at_every_operation_keeps_what_was_durable() {
    for seed in 0..6 {
        let script = Script::draw(seed, 24, 4096, 900);
        let disk = sim_disk(seed);
        script.run(&disk).1.unwrap();
        for stop in 0..=disk.operations() {
            let disk = sim_disk(seed);
            disk.power_off_at(stop);
            let (progress, _) = script.run(&disk);
            for policy in [CrashPolicy::KeepNone, CrashPolicy::KeepAll] {
                check_after(&script, progress, &disk.crash(&policy), stop);
            }
            for draw in 0..6 {
                let draw = (seed << 40) | (stop << 8) | draw;
                let left = disk.crash(&CrashPolicy::Seeded(draw));
                check_after(&script, progress, &left, draw);
            }
        }
    }
}

#[test]
fn power_loss_while_segments_are_used_again_keeps_what_was_durable() {
    for seed in 0..6 {
        let script = Script::rotate(seed, 7);
        let disk = sim_disk(seed);
        disk.start_trace();
        script.run(&disk).1.unwrap();
        let trace = disk.take_trace();
        let used_again = |kind, part: &str| {
            let path = |done: &&Operation| done.path.to_str().unwrap().contains(part);
            trace
                .iter()
                .filter(|done| done.kind == kind)
                .filter(path)
                .count()
        };
        // Filled with zeros where it lies, and given the name of a segment.
        assert!(used_again(OperationKind::Write, "spare-") > 1);
        assert!(used_again(OperationKind::Rename, "spare-") > 1);
        for stop in 0..=disk.operations() {
            let disk = sim_disk(seed);
            disk.power_off_at(stop);
            let (progress, _) = script.run(&disk);
            for policy in [CrashPolicy::KeepNone, CrashPolicy::KeepAll] {
                check_after(&script, progress, &disk.crash(&policy), stop);
            }
            for draw in 0..6 {
                let draw = (seed << 40) | (stop << 8) | draw;
                let left = disk.crash(&CrashPolicy::Seeded(draw));
                check_after(&script, progress, &left, draw);
            }
        }
    }
}

#[test]
fn small_traces_survive_every_subset_of_sectors() {
    let mut subsets = 0_u32;
    for seed in 100..116 {
        let script = Script::draw(seed, 8, 4096, 700);
        let disk = sim_disk(seed);
        script.run(&disk).1.unwrap();
        for stop in 0..=disk.operations() {
            let disk = sim_disk(seed);
            disk.power_off_at(stop);
            let (progress, _) = script.run(&disk);
            let count = disk.unsynced().len();
            // Filling a segment with zeros leaves many sectors that all read the same; those subsets teach nothing.
            if count > 9 {
                continue;
            }
            for bits in 0..1_u32 << count {
                let keep = (0..count).map(|bit| bits >> bit & 1 == 1).collect();
                let left = disk.crash(&CrashPolicy::Keep(keep));
                check_after(&script, progress, &left, u64::from(bits));
                subsets += 1;
            }
        }
    }
    assert!(subsets > 2000, "{subsets}");
}

#[test]
fn killed_process_leaves_a_log_that_survives_a_later_power_loss() {
    for seed in 200..206 {
        let script = Script::draw(seed, 20, 4096, 600);
        let disk = sim_disk(seed);
        script.run(&disk).1.unwrap();
        for stop in 0..=disk.operations() {
            let disk = sim_disk(seed);
            // One operation fails as if the process had been killed there; the system keeps what it has in memory.
            disk.inject(stop, Fault::Fail);
            let (progress, _) = script.run(&disk);
            disk.clear_faults();
            check_after(&script, progress, &disk, stop);
        }
    }
}

#[test]
fn recovery_may_itself_be_cut_off_ten_times() {
    for seed in 300..340 {
        let script = Script::draw(seed, 20, 4096, 900);
        let disk = sim_disk(seed);
        script.run(&disk).1.unwrap();
        let mut random = Random(seed);
        let mut disk = sim_disk(seed);
        disk.power_off_at(random.below(disk.operations().max(150)));
        let (progress, _) = script.run(&disk);
        for depth in 0..10 {
            disk = disk.crash(&CrashPolicy::Seeded(seed * 16 + depth));
            disk.power_off_at(random.below(14));
            if let Ok((_, recovered)) = open(&disk, &script.options) {
                script.check(progress, &Model::of(recovered));
            }
        }
        let disk = disk.crash(&CrashPolicy::Seeded(seed));
        check_after(&script, progress, &disk, seed);
    }
}

#[test]
fn failed_write_or_sync_poisons_for_good_and_loses_nothing() {
    for kind in [OperationKind::Write, OperationKind::Sync] {
        for seed in 0..40 {
            let disk = sim_disk(seed);
            let options = options(1 << 16);
            let mut wal = create(&disk, &options).unwrap();
            let first = entries_batch(1, vec![entry(1, 1, filler(1, 3000))]);
            let second = entries_batch(2, vec![entry(1, 2, filler(2, 3000))]);
            let _ = wal.append(std::slice::from_ref(&first)).unwrap();
            disk.inject_next(kind, Fault::Fail);
            let failed = wal.append(std::slice::from_ref(&second)).unwrap_err();
            assert!(matches!(failed, Error::Io { .. }));
            assert!(wal.is_poisoned());
            assert!(matches!(
                wal.append(std::slice::from_ref(&second)),
                Err(Error::Poisoned)
            ));
            assert!(matches!(wal.append(&[]), Err(Error::Poisoned)));
            assert!(matches!(wal.release_to(1), Err(Error::Poisoned)));
            assert!(wal.take_prepare_job().is_none());
            drop(wal);
            // A restart without power loss: whatever it finds and says must survive one.
            let (wal, recovered) = open(&disk, &options).unwrap();
            let found = recovered.entries.len();
            assert!((1..=2).contains(&found));
            drop(wal);
            let lost = disk.crash(&CrashPolicy::KeepNone);
            let (_, recovered) = open(&lost, &options).unwrap();
            assert_eq!(recovered.entries.len(), found);
        }
    }
}

#[test]
fn change_of_segment_that_fails_half_way_poisons() {
    for (kind, poisons) in [
        (OperationKind::Allocate, false),
        (OperationKind::Lock, false),
        (OperationKind::Rename, true),
        (OperationKind::SyncDir, true),
    ] {
        let disk = SimDisk::new(0);
        let options = options(4096);
        let mut wal = create(&disk, &options).unwrap();
        let batch = |index| entries_batch(index, vec![entry(1, index, filler(index, 3000))]);
        let _ = wal.append(&[batch(1)]).unwrap();
        disk.inject_next(kind, Fault::Fail);
        assert!(wal.append(&[batch(2)]).is_err(), "{kind:?}");
        assert_eq!(wal.is_poisoned(), poisons, "{kind:?}");
        assert_eq!(wal.append(&[batch(2)]).is_err(), poisons, "{kind:?}");
        drop(wal);
        let (_, recovered) = open(&disk, &options).unwrap();
        assert_eq!(recovered.entries.len(), if poisons { 1 } else { 2 });
    }
}

#[test]
fn batch_is_there_whole_or_not_at_all() {
    let disk = SimDisk::new(5);
    let options = options(1 << 16);
    let mut wal = create(&disk, &options).unwrap();
    let before = entries_batch(1, vec![entry(1, 1, "x")]);
    let _ = wal.append(&[before]).unwrap();
    disk.inject_next(OperationKind::Sync, Fault::Fail);
    let entries = (2..6)
        .map(|index| entry(2, index, filler(index, 700)))
        .collect();
    let batch = entries_batch(2, entries);
    assert!(wal.append(std::slice::from_ref(&batch)).is_err());
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let left = disk.crash(&CrashPolicy::Seeded(seed));
        let (_, recovered) = open(&left, &options).unwrap();
        sizes.insert(recovered.entries.len());
    }
    assert!(sizes.iter().all(|len| [1, 5].contains(len)), "{sizes:?}");
}

#[test]
fn unfinished_creation_is_no_log() {
    let count = {
        let disk = SimDisk::new(9);
        create(&disk, &options(4096)).unwrap();
        disk.operations()
    };
    for stop in 0..count {
        let disk = SimDisk::new(9);
        disk.power_off_at(stop);
        assert!(create(&disk, &options(4096)).is_err());
        for seed in 0..20 {
            let left = disk.crash(&CrashPolicy::Seeded(seed));
            if Wal::exists(&left, dir()).unwrap() {
                let (_, recovered) = open(&left, &options(4096)).unwrap();
                assert_eq!(Model::of(recovered), Model::default());
            } else {
                create(&left, &options(4096)).unwrap();
            }
        }
    }
    assert!(!Wal::exists(&SimDisk::new(0), Path::new("/none")).unwrap());
}

#[test]
fn scripts_cover_what_they_should() {
    let (mut reopened, mut released, mut prepared, mut marked, mut replaced) = (0, 0, 0, 0, 0);
    for seed in 0..6 {
        let script = Script::draw(seed, 24, 4096, 900);
        let mut last = 0;
        for step in &script.steps {
            match step {
                Step::Reopen => reopened += 1,
                Step::Release(index) => released += u32::from(*index > 0),
                Step::Prepare => prepared += 1,
                Step::Append(batches) => {
                    for batch in batches {
                        marked += u32::from(batch.snapshot.is_some());
                        let first = batch.entries.first().map_or(u64::MAX, |entry| entry.index);
                        replaced += u32::from(first <= last);
                        last = batch.entries.last().map_or(last, |entry| entry.index);
                    }
                }
            }
        }
    }
    for count in [reopened, released, prepared, marked, replaced] {
        assert!(
            count > 1,
            "{reopened} {released} {prepared} {marked} {replaced}"
        );
    }
}
