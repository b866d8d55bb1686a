//! Power losses at every operation of a run.

use crate::support::{Model, disk, flush, open, read_all};
use bytes::Bytes;
use quorate_backend::{Backend, Error, Revision, Table};
use quorate_disk::{CrashPolicy, Fault, OperationKind, SimDisk};

const POLICIES: [CrashPolicy; 5] = [
    CrashPolicy::KeepNone,
    CrashPolicy::KeepAll,
    CrashPolicy::Seeded(1),
    CrashPolicy::Seeded(2),
    CrashPolicy::Seeded(3),
];

/// What a run has made durable, and what it was making durable when it ended.
#[derive(Default)]
struct Progress {
    durable: Option<Model>,
    attempted: Option<Model>,
}

impl Progress {
    fn attempt(&mut self, model: &Model) {
        self.attempted = Some(model.clone());
    }

    fn done(&mut self) {
        self.durable = self.attempted.clone();
    }
}

/// Applies one batch, to the model too.
fn apply(backend: &Backend, model: &mut Model, index: u64) {
    let main = i64::try_from(index).unwrap() + 1;
    let mut txn = backend.begin_apply(index, 1 + index / 10);
    for sub in 0..3 {
        let rev = Revision::new(main, sub);
        let record = Bytes::from(vec![u8::try_from(main % 256).unwrap(); 1500]);
        txn.put_revision(rev, sub == 2, record.clone());
        model.set(Table::Key, rev.table_key(sub == 2).as_bytes(), Some(record));
    }
    for (key, value) in [
        ([1], Some(index)),
        ([u8::try_from(index % 5).unwrap() + 2], Some(index)),
        ([u8::try_from((index + 2) % 5).unwrap() + 2], None),
    ] {
        let value = value.map(|value| Bytes::copy_from_slice(&value.to_be_bytes()));
        match &value {
            Some(value) => txn.put(Table::Lease, &key, value.clone()),
            None => txn.delete(Table::Lease, &key),
        }
        model.set(Table::Lease, &key, value);
    }
    txn.commit(index * 77);
    model.set_applied(backend.applied());
}

/// The run: batches, flushes, compactions, a restart.
fn run(disk: &SimDisk, progress: &mut Progress) -> Result<(), Error> {
    let mut model = Model::default();
    progress.attempt(&model);
    let mut backend = open(disk)?;
    progress.done();
    for index in 1..=18 {
        apply(&backend, &mut model, index);
        if index % 3 == 0 {
            progress.attempt(&model);
            backend.seal().unwrap().run()?;
            progress.done();
        }
        if index % 6 == 0 {
            let mut maintenance = backend.maintenance()?;
            let mark = Bytes::copy_from_slice(&index.to_be_bytes());
            maintenance.put(Table::Meta, b"mark", mark.clone());
            model.set(Table::Meta, b"mark", Some(mark));
            for main in 2..i64::try_from(index).unwrap() - 1 {
                for sub in [0, 2] {
                    let rev = Revision::new(main, sub);
                    maintenance.delete_revision(rev, sub == 2);
                    model.set(Table::Key, rev.table_key(sub == 2).as_bytes(), None);
                }
            }
            progress.attempt(&model);
            maintenance.commit()?;
            progress.done();
        }
        if index == 9 {
            drop(backend);
            backend = open(disk)?;
        }
    }
    Ok(())
}

fn check(disk: &SimDisk, progress: &Progress, context: &str) -> Model {
    let backend = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = read_all(&backend.read().unwrap(), 64).unwrap();
    assert_eq!(found.applied, backend.durable(), "{context}");
    let expected = [&progress.durable, &progress.attempted];
    assert!(
        expected.into_iter().flatten().any(|model| *model == found),
        "{context}: index {} is neither {:?} nor {:?}, or not whole",
        found.applied.index,
        progress.durable.as_ref().map(|model| model.applied),
        progress.attempted.as_ref().map(|model| model.applied),
    );
    // What was recovered can be built upon.
    let mut model = found.clone();
    apply(&backend, &mut model, 100);
    flush(&backend);
    assert_eq!(
        read_all(&backend.read().unwrap(), 64).unwrap(),
        model,
        "{context}"
    );
    found
}

#[test]
fn a_power_loss_at_any_operation_leaves_one_whole_state() {
    let sound = disk(1);
    let mut progress = Progress::default();
    let before = sound.operations();
    run(&sound, &mut progress).unwrap();
    let operations = sound.operations();
    assert!(operations > 300, "{operations}");
    for at in before..operations {
        let disk = disk(1);
        disk.power_off_at(at);
        let mut progress = Progress::default();
        // Closing the file reports nothing, so a run may not notice that it lost power there.
        if let Err(error) = run(&disk, &mut progress) {
            assert!(
                matches!(error, Error::Io { .. } | Error::Poisoned),
                "operation {at}: {error}"
            );
        }
        for policy in &POLICIES {
            let context = format!("operation {at}, {policy:?}");
            check(&disk.crash(policy), &progress, &context);
        }
    }
}

#[test]
fn a_power_loss_in_the_recovery_changes_nothing() {
    let sound = disk(1);
    let mut progress = Progress::default();
    run(&sound, &mut progress).unwrap();
    let operations = sound.operations();
    for at in (operations - 60..operations).step_by(7) {
        let disk = disk(1);
        disk.power_off_at(at);
        let mut progress = Progress::default();
        let _ended = run(&disk, &mut progress);
        let crashed = disk.crash(&CrashPolicy::Seeded(at));
        let expected = check(&crashed.crash(&CrashPolicy::KeepNone), &progress, "first");
        let mut crashed = crashed;
        for nested in 0..10 {
            crashed.power_off_at(nested * 3);
            drop(open(&crashed));
            crashed = crashed.crash(&CrashPolicy::Seeded(at * 100 + nested));
        }
        let progress = Progress {
            durable: Some(expected),
            attempted: None,
        };
        check(&crashed, &progress, &format!("operation {at}"));
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_flushed() {
    let disk = disk(4);
    let mut model = Model::default();
    let mut backend = open(&disk).unwrap();
    for index in 1..=30 {
        apply(&backend, &mut model, index);
        flush(&backend);
        // The old handle stays as it was: nobody closes it, as after a kill.
        let killed = disk.crash(&CrashPolicy::KeepAll);
        let reopened = open(&killed).unwrap();
        assert_eq!(read_all(&reopened.read().unwrap(), 64).unwrap(), model);
        if index % 10 == 0 {
            drop(backend);
            backend = open(&disk).unwrap();
        }
    }
}

#[test]
fn a_full_disk_or_a_failing_one_leaves_one_whole_state() {
    let faults = [
        (OperationKind::Write, Fault::NoSpace),
        (OperationKind::SetLen, Fault::NoSpace),
        (OperationKind::Write, Fault::Fail),
        (OperationKind::Sync, Fault::Fail),
        (OperationKind::SetLen, Fault::Fail),
        (OperationKind::Read, Fault::Fail),
    ];
    for (kind, fault) in faults {
        for skipped in (0..90).step_by(3) {
            let disk = disk(1);
            let mut progress = Progress::default();
            // The fault hits the first fitting operation from this one on.
            disk.inject(30 + skipped * 4, fault);
            let failed = run(&disk, &mut progress);
            disk.clear_faults();
            let context = format!("{kind:?} {fault:?} after {skipped}");
            match failed {
                Ok(()) => assert!(progress.durable.is_some()),
                Err(error) => assert!(
                    matches!(error, Error::Io { .. } | Error::Poisoned),
                    "{context}: {error}"
                ),
            }
            for policy in [CrashPolicy::KeepNone, CrashPolicy::Seeded(skipped)] {
                check(&disk.crash(&policy), &progress, &context);
            }
        }
    }
}

#[test]
fn short_reads_and_stalls_change_nothing() {
    let disk = disk(3);
    disk.set_rate(OperationKind::Read, Fault::ShortRead, 500_000);
    let mut progress = Progress::default();
    run(&disk, &mut progress).unwrap();
    check(&disk, &progress, "short reads");
}

#[test]
fn silent_write_errors_are_found_or_without_effect() {
    let faults = [
        Fault::FlipBit,
        Fault::LoseWrite,
        Fault::MisdirectWrite { sectors: 8 },
        Fault::MisdirectWrite { sectors: -3 },
    ];
    for fault in faults {
        for at in 0..60 {
            let disk = disk(1);
            disk.inject(20 + at * 9, fault);
            let mut progress = Progress::default();
            let ran = run(&disk, &mut progress);
            disk.clear_faults();
            let context = format!("{fault:?} at {at}: {ran:?}");
            let found = open(&disk.crash(&CrashPolicy::KeepAll))
                .and_then(|backend| read_all(&backend.read()?, 64));
            match found {
                Ok(found) => assert!(
                    [&progress.durable, &progress.attempted]
                        .into_iter()
                        .flatten()
                        .any(|model| *model == found),
                    "{context}: {:?}",
                    found.applied
                ),
                Err(Error::Corrupt { .. } | Error::ForeignFile { .. } | Error::Io { .. }) => {}
                Err(other) => panic!("{context}: {other}"),
            }
        }
    }
}
