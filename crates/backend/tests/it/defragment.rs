//! Defragmentation: what it gives back, what goes on meanwhile, and what a crash leaves.

use crate::support::{Model, PATH, disk, flush, open, read_all, small_options};
use bytes::Bytes;
use quorate_backend::{
    Backend, DefragmentJob, DefragmentOptions, Defragmented, Defragmenting, Error, Identity,
    Options, Revision, Table,
};
use quorate_disk::{CrashPolicy, Disk, Fault, OperationKind, SimDisk};
use std::path::Path;
use std::sync::Arc;

const POLICIES: [CrashPolicy; 4] = [
    CrashPolicy::KeepNone,
    CrashPolicy::KeepAll,
    CrashPolicy::Seeded(1),
    CrashPolicy::Seeded(2),
];
/// Where the copy is made.
const COPY: &str = "/data/db.defrag";

/// Small steps, and no gain too small.
const OPTIONS: DefragmentOptions = DefragmentOptions {
    step_bytes: 16 << 10,
    gain_bytes_min: 0,
};

/// Applies one batch: a revision, a lease that comes and one that goes.
fn apply(backend: &Backend, model: &mut Model, index: u64, record_bytes: usize) {
    let rev = Revision::new(i64::try_from(index).unwrap() + 1, 0);
    let record = Bytes::from(vec![u8::try_from(index % 251).unwrap(); record_bytes]);
    let mut txn = backend.begin_apply(index, 1 + index / 50);
    txn.put_revision(rev, false, record.clone());
    model.set(Table::Key, rev.table_key(false).as_bytes(), Some(record));
    let comes = Bytes::copy_from_slice(&index.to_be_bytes());
    txn.put(Table::Lease, &(index % 40).to_be_bytes(), comes.clone());
    model.set(Table::Lease, &(index % 40).to_be_bytes(), Some(comes));
    let goes = (index + 20) % 40;
    txn.delete(Table::Lease, &goes.to_be_bytes());
    model.set(Table::Lease, &goes.to_be_bytes(), None);
    txn.commit(index * 77);
    model.set_applied(backend.applied());
}

/// Deletes revisions, as a compaction does.
fn compact(
    backend: &Backend,
    model: &mut Model,
    mains: impl Iterator<Item = i64>,
) -> Result<(), Error> {
    let mut txn = backend.maintenance()?;
    for main in mains {
        let rev = Revision::new(main, 0);
        txn.delete_revision(rev, false);
        model.set(Table::Key, rev.table_key(false).as_bytes(), None);
    }
    let mark = Bytes::copy_from_slice(&model.applied.index.to_be_bytes());
    txn.put(Table::Meta, b"mark", mark.clone());
    model.set(Table::Meta, b"mark", Some(mark));
    txn.commit()
}

/// A database of a few hundred rows of which nine in ten are deleted again.
fn fill(backend: &Backend, model: &mut Model) -> Result<(), Error> {
    for index in 1..=400 {
        apply(backend, model, index, 2_000);
        if index % 50 == 0 {
            backend.seal().unwrap().run()?;
        }
    }
    let gone = (2..=400).filter(|main| main % 10 != 0);
    compact(backend, model, gone)
}

fn run(mut job: DefragmentJob, mut between: impl FnMut()) -> Result<Defragmented, Error> {
    loop {
        match job.step()? {
            Defragmenting::Done(done) => return Ok(done),
            Defragmenting::More(more) => job = more,
        }
        between();
    }
}

fn defragment(backend: &Backend) -> Result<Defragmented, Error> {
    run(backend.defragment(OPTIONS)?, || {})
}

fn filled(disk: &SimDisk) -> (Backend, Model) {
    let backend = open(disk).unwrap();
    let mut model = Model::default();
    fill(&backend, &mut model).unwrap();
    (backend, model)
}

fn check(backend: &Backend, model: &Model) {
    assert_eq!(&read_all(&backend.read().unwrap(), 64).unwrap(), model);
}

#[test]
fn the_file_shrinks_and_every_row_is_there() {
    let disk = disk(1);
    let (backend, mut model) = filled(&disk);
    let done = defragment(&backend).unwrap();
    assert!(done.copied);
    assert!(
        done.after.file_bytes * 3 < done.before.file_bytes,
        "{done:?}"
    );
    assert_eq!(done.after.total_bytes, done.after.in_use_bytes);
    assert_eq!(done.after.in_use_bytes, done.before.in_use_bytes);
    assert!(done.before.total_bytes > 2 * done.after.total_bytes);
    check(&backend, &model);
    assert_eq!(backend.durable(), backend.applied());
    assert!(!disk.exists(Path::new(COPY)).unwrap());
    // The copy is what goes on.
    apply(&backend, &mut model, 401, 10);
    flush(&backend);
    compact(&backend, &mut model, [401].into_iter()).unwrap();
    let len = backend.sizes().file_bytes;
    drop(backend);
    let backend = open(&disk).unwrap();
    assert!(backend.sizes().file_bytes <= len);
    check(&backend, &model);
}

#[test]
fn a_file_with_little_to_gain_is_left_and_its_size_told_anew() {
    let disk = disk(1);
    let (backend, model) = filled(&disk);
    let options = DefragmentOptions {
        gain_bytes_min: 1 << 30,
        ..OPTIONS
    };
    let done = run(backend.defragment(options).unwrap(), || {}).unwrap();
    assert!(!done.copied);
    assert_eq!(done.after.file_bytes, done.before.file_bytes);
    assert_eq!(done.after.total_bytes, done.after.in_use_bytes);
    assert!(done.after.total_bytes < done.before.total_bytes);
    check(&backend, &model);
}

#[test]
fn an_identity_goes_with_the_copy() {
    let disk = disk(1);
    let options = Options {
        identity: Some(Identity {
            cluster_id: 7,
            member_id: 8,
        }),
        ..small_options()
    };
    let open = |disk: &SimDisk| Backend::open(Arc::new(disk.clone()), Path::new(PATH), options);
    let backend = open(&disk).unwrap();
    let mut model = Model::default();
    fill(&backend, &mut model).unwrap();
    assert!(defragment(&backend).unwrap().copied);
    drop(backend);
    check(&open(&disk).unwrap(), &model);
}

/// Writes of each kind between all steps, until the copy has caught up.
#[test]
fn batches_flushes_and_compactions_go_on_between_the_steps() {
    for every in 1..6 {
        let disk = disk(every);
        let (backend, mut model) = filled(&disk);
        let before = backend.read().unwrap();
        let expected_before = model.clone();
        let (mut index, mut steps) = (400, 0);
        let done = run(backend.defragment(OPTIONS).unwrap(), || {
            steps += 1;
            for _ in 0..every {
                index += 1;
                apply(&backend, &mut model, index, 700);
            }
            if steps % 2 == 0 {
                flush(&backend);
            }
            if steps % 4 == 0 {
                let newest = i64::try_from(index).unwrap();
                compact(&backend, &mut model, [steps * 10, newest].into_iter()).unwrap();
            }
            check(&backend, &model);
        });
        assert!(done.unwrap().copied);
        assert!(steps > 4, "{steps}");
        check(&backend, &model);
        assert_eq!(
            read_all(&before, 64).unwrap(),
            expected_before,
            "who began before reads on"
        );
        drop(before);
        if backend.durable() != backend.applied() {
            flush(&backend);
        }
        drop(backend);
        check(&open(&disk).unwrap(), &model);
    }
}

#[test]
fn flushes_of_another_thread_go_into_the_copy() {
    let disk = disk(3);
    let (backend, mut model) = filled(&disk);
    std::thread::scope(|scope| {
        let defragmenting = scope.spawn(|| {
            for _ in 0..4 {
                defragment(&backend).unwrap();
            }
        });
        let mut index = 400;
        while !defragmenting.is_finished() || index < 500 {
            index += 1;
            apply(&backend, &mut model, index, 300);
            if index % 5 == 0 {
                flush(&backend);
            }
        }
    });
    apply(&backend, &mut model, 1_000_000, 10);
    flush(&backend);
    drop(backend);
    check(&open(&disk).unwrap(), &model);
}

/// Defragments a filled database with writes between the steps, twice. Notes what is durable and what may be.
fn eventful(
    backend: &Backend,
    model: &mut Model,
    durable: &mut Model,
    next: &mut Model,
) -> Result<(), Error> {
    let mut index = 400;
    for _ in 0..2 {
        let mut job = backend.defragment(OPTIONS)?;
        while let Defragmenting::More(more) = job.step()? {
            job = more;
            index += 1;
            apply(backend, model, index, 900);
            next.clone_from(model);
            if index % 2 == 0 {
                backend.seal().unwrap().run()?;
                durable.clone_from(model);
            }
            if index % 6 == 0 {
                let main = 10 * i64::try_from(index - 400).unwrap();
                let compacted = compact(backend, model, [main].into_iter());
                next.clone_from(model);
                compacted?;
                durable.clone_from(model);
            }
        }
    }
    Ok(())
}

/// Rows 2.6 and 2.7 of the catalogue: a crash at any operation of a defragmentation, and one more after it.
#[test]
fn a_power_loss_at_any_operation_of_a_defragmentation_leaves_one_whole_state() {
    let disk = disk(1);
    let (backend, model) = filled(&disk);
    drop(backend);
    let filled = disk.crash(&CrashPolicy::KeepAll);
    let run = |disk: &SimDisk| {
        let backend = open(disk)?;
        let (mut now, mut durable, mut next) = (model.clone(), model.clone(), model.clone());
        let end = eventful(&backend, &mut now, &mut durable, &mut next);
        Ok::<_, Error>((end, durable, next))
    };
    let sound = filled.crash(&CrashPolicy::KeepAll);
    let from = sound.operations();
    run(&sound).unwrap().0.unwrap();
    let operations = sound.operations();
    assert!(operations > from + 100, "{from} {operations}");
    let mut copies = 0;
    for at in from..operations {
        let disk = filled.crash(&CrashPolicy::KeepAll);
        disk.power_off_at(at);
        // Closing the file reports nothing, so a run may not notice that it lost power there.
        let (durable, next) = match run(&disk) {
            Ok((_, durable, next)) => (durable, next),
            Err(_) => (model.clone(), model.clone()),
        };
        for policy in &POLICIES {
            let context = format!("operation {at}, {policy:?}");
            let disk = disk.crash(policy);
            copies += u32::from(disk.exists(Path::new(COPY)).unwrap());
            let backend = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = read_all(&backend.read().unwrap(), 64).unwrap();
            assert!(
                found == durable || found == next,
                "{context}: index {} is neither {} nor {}, or not whole",
                found.applied.index,
                durable.applied.index,
                next.applied.index,
            );
            // A copy that was left is made anew, not used.
            defragment(&backend).unwrap_or_else(|error| panic!("{context}: {error}"));
            drop(backend);
            check(&open(&disk).unwrap(), &found);
            assert!(!disk.exists(Path::new(COPY)).unwrap(), "{context}");
        }
    }
    assert!(copies > 10, "{copies} crashes left a copy");
}

/// Row 2.8 of the catalogue.
#[test]
fn no_space_ends_it_and_the_database_goes_on() {
    let sound = disk(1);
    let (backend, _) = filled(&sound);
    let from = sound.operations();
    defragment(&backend).unwrap();
    let operations = sound.operations();
    let mut failed = 0;
    for at in from..operations {
        let disk = disk(1);
        let (backend, mut model) = filled(&disk);
        assert_eq!(disk.operations(), from);
        disk.inject(at, Fault::NoSpace);
        match defragment(&backend) {
            // Reading and syncing need no space.
            Ok(_) => continue,
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
            Err(other) => panic!("operation {at}: {other}"),
        }
        failed += 1;
        assert!(!backend.is_poisoned());
        assert!(!disk.exists(Path::new(COPY)).unwrap());
        apply(&backend, &mut model, 401, 100);
        flush(&backend);
        assert!(defragment(&backend).unwrap().copied, "space again");
        drop(backend);
        check(&open(&disk).unwrap(), &model);
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_directory_that_cannot_be_synced_poisons() {
    let disk = disk(1);
    let (backend, mut model) = filled(&disk);
    disk.inject_next(OperationKind::SyncDir, Fault::Fail);
    assert!(matches!(defragment(&backend), Err(Error::Io { .. })));
    assert!(backend.is_poisoned());
    let durable = model.clone();
    apply(&backend, &mut model, 401, 100);
    assert!(matches!(
        backend.seal().unwrap().run(),
        Err(Error::Poisoned)
    ));
    assert!(matches!(backend.defragment(OPTIONS), Err(Error::Poisoned)));
    drop(backend);
    for policy in &POLICIES {
        check(&open(&disk.crash(policy)).unwrap(), &durable);
    }
}

/// Row 2.9 of the catalogue.
#[test]
fn a_file_that_takes_the_name_keeps_it() {
    let disk = disk(1);
    let (backend, _) = filled(&disk);
    let job = backend.defragment(OPTIONS).unwrap();
    let Defragmenting::More(mut job) = job.step().unwrap() else {
        panic!("there is much to gain");
    };
    let other = Path::new("/data/other");
    let newer = Backend::open(Arc::new(disk.clone()), other, small_options()).unwrap();
    let mut model = Model::default();
    apply(&newer, &mut model, 1_000, 10);
    flush(&newer);
    drop(newer);
    for _ in 0..3 {
        let Defragmenting::More(more) = job.step().unwrap() else {
            panic!("there is more to copy");
        };
        job = more;
    }
    backend.leave_name();
    disk.rename(other, Path::new(PATH)).unwrap();
    assert!(matches!(run(job, || {}), Err(Error::Replaced)));
    assert!(matches!(defragment(&backend), Err(Error::Replaced)));
    assert!(!disk.exists(Path::new(COPY)).unwrap());
    check(&open(&disk).unwrap(), &model);
}

#[test]
fn there_is_one_at_a_time_and_one_that_is_dropped_leaves_nothing() {
    let disk = disk(1);
    let (backend, model) = filled(&disk);
    let job = backend.defragment(OPTIONS).unwrap();
    assert!(matches!(
        backend.defragment(OPTIONS),
        Err(Error::Defragmenting)
    ));
    let Defragmenting::More(job) = job.step().unwrap() else {
        panic!("there is much to gain");
    };
    assert!(disk.exists(Path::new(COPY)).unwrap());
    drop(job);
    assert!(!disk.exists(Path::new(COPY)).unwrap());
    assert!(defragment(&backend).unwrap().copied);
    check(&backend, &model);
}
