//! Filling a new file with rows in order.

use crate::support::{Model, disk, flush, open, read_all};
use bytes::Bytes;
use quorate_backend::{Applied, Backend, Error, Revision, Table, TableRow};
use quorate_disk::{CrashPolicy, Disk as _, Fault, OperationKind, SimDisk};
use std::path::Path;

/// Rows of three tables in order, of which those from `first` on are the second half.
fn rows(first: i64, count: i64) -> Vec<TableRow> {
    let value = |n: i64| Bytes::from(vec![7; usize::try_from(n * 37 % 900).unwrap()]);
    let lease = |n: i64| {
        let id = Bytes::copy_from_slice(&n.to_be_bytes());
        (Table::Lease, id, value(n))
    };
    let key = |n: i64| {
        let key = Revision::new(n, 0).table_key(n % 5 == 0);
        let key = Bytes::copy_from_slice(key.as_bytes());
        (Table::Key, key, value(n))
    };
    let all = || first..first + count;
    all().map(key).chain(all().map(lease)).collect()
}

fn model(rows: &[TableRow]) -> Model {
    let mut model = Model::default();
    for (table, key, value) in rows {
        model.set(*table, key, Some(value.clone()));
    }
    model
}

fn all_of(backend: &Backend) -> Model {
    read_all(&backend.read().unwrap(), 64).unwrap()
}

#[test]
fn appended_rows_are_what_maintenance_would_have_written() {
    let (first, second) = (rows(1, 400), rows(401, 300));
    let disk_of_appended = disk(1);
    let appended = open(&disk_of_appended).unwrap();
    appended.append_rows(&first).unwrap();
    assert_eq!(appended.flushed_revision(), Some(Revision::new(400, 0)));
    appended.append_rows(&second).unwrap();
    appended.append_rows(&[]).unwrap();
    let all = [first, second].concat();
    assert_eq!(all_of(&appended), model(&all));

    let other_disk = disk(1);
    let written = open(&other_disk).unwrap();
    let mut txn = written.maintenance().unwrap();
    for (table, key, value) in &all {
        txn.put(*table, key, value.clone());
    }
    txn.commit().unwrap();
    assert_eq!(all_of(&appended), all_of(&written));
    assert_eq!(appended.sizes().in_use_bytes, written.sizes().in_use_bytes);

    appended.begin_apply(9, 2).commit(5);
    flush(&appended);
    drop(appended);
    let appended = open(&disk_of_appended).unwrap();
    let applied = Applied {
        index: 9,
        term: 2,
        digest: 5,
    };
    assert_eq!(appended.applied(), applied);
    assert_eq!(appended.flushed_revision(), Some(Revision::new(700, 0)));
}

#[test]
fn rows_out_of_order_are_refused_and_end_the_file() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    backend.append_rows(&rows(10, 5)).unwrap();
    let error = backend.append_rows(&rows(14, 5)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let error = backend.append_rows(&rows(20, 5)).unwrap_err();
    assert!(matches!(error, Error::Poisoned), "{error}");
    drop(backend);
    assert_eq!(all_of(&open(&disk).unwrap()), model(&rows(10, 5)));
}

#[test]
#[should_panic(expected = "a file in use")]
fn rows_are_not_appended_to_a_file_in_use() {
    let backend = open(&disk(1)).unwrap();
    backend.begin_apply(1, 1).commit(0);
    let _ = backend.append_rows(&rows(1, 1));
}

#[test]
fn a_power_loss_leaves_whole_batches() {
    let sound = disk(1);
    let (first, second) = (rows(1, 40), rows(41, 40));
    let fill = |disk: &SimDisk, done: &mut usize| -> Result<(), Error> {
        let backend = open(disk)?;
        for batch in [&first, &second] {
            backend.append_rows(batch)?;
            *done += 1;
        }
        Ok(())
    };
    fill(&sound, &mut 0).unwrap();
    let states = [
        Model::default(),
        model(&first),
        model(&[first.clone(), second.clone()].concat()),
    ];
    for at in 0..sound.operations() {
        let disk = disk(1);
        disk.power_off_at(disk.operations() + at);
        let mut done = 0;
        let _ended = fill(&disk, &mut done);
        for policy in [CrashPolicy::KeepNone, CrashPolicy::Seeded(at)] {
            let found = all_of(&open(&disk.crash(&policy)).unwrap());
            let is_whole = states[done..].iter().take(2).any(|state| *state == found);
            assert!(is_whole, "operation {at}, {policy:?}, {done} done");
        }
    }
}

#[test]
fn what_is_filled_is_durable_with_the_first_flush_and_not_before() {
    let rows = rows(1, 400);
    let disk = disk(1);
    let filled = open(&disk).unwrap();
    filled.begin_filling();
    let syncs = |disk: &SimDisk| {
        let trace = disk.take_trace();
        trace
            .iter()
            .filter(|o| o.kind == OperationKind::Sync)
            .count()
    };
    disk.start_trace();
    for rows in rows.chunks(100) {
        filled.append_rows(rows).unwrap();
    }
    assert_eq!(syncs(&disk), 0, "nothing waits for the disk");
    assert_eq!(all_of(&filled), model(&rows), "and all is read");
    disk.start_trace();
    filled.write_back().unwrap();
    assert_eq!(syncs(&disk), 1);
    filled.begin_apply(9, 2).commit(5);
    flush(&filled);
    let crashed = disk.crash(&CrashPolicy::KeepNone);
    let found = open(&crashed).unwrap();
    assert_eq!(found.durable().index, 9);
    let mut read = all_of(&found);
    read.tables.remove(&Table::Meta);
    assert_eq!(read.tables, model(&rows).tables);
}

#[test]
fn maintenance_ends_filling_too() {
    let disk = disk(1);
    let filled = open(&disk).unwrap();
    filled.begin_filling();
    filled.append_rows(&rows(1, 50)).unwrap();
    let mut txn = filled.maintenance().unwrap();
    txn.put(Table::Auth, b"k", Bytes::from_static(b"v"));
    txn.commit().unwrap();
    let found = open(&disk.crash(&CrashPolicy::KeepNone)).unwrap();
    assert_eq!(all_of(&found), all_of(&filled));
}

#[test]
fn nothing_is_durable_after_writing_back_failed() {
    let disk = disk(1);
    let filled = open(&disk).unwrap();
    filled.begin_filling();
    filled.append_rows(&rows(1, 50)).unwrap();
    disk.inject_next(OperationKind::Sync, Fault::Fail);
    let error = filled.write_back().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    filled.begin_apply(9, 2).commit(5);
    filled.seal().unwrap().run().unwrap_err();
    assert_eq!(filled.durable(), Applied::default());
    assert!(filled.is_poisoned());
}

#[test]
#[should_panic(expected = "a file in use is filled")]
fn a_file_in_use_is_not_filled() {
    let backend = open(&disk(1)).unwrap();
    backend.begin_apply(1, 1).commit(0);
    backend.begin_filling();
}

#[test]
fn a_file_that_cannot_be_made_leaves_nothing() {
    for kind in [
        OperationKind::SetLen,
        OperationKind::Write,
        OperationKind::Sync,
        OperationKind::Rename,
    ] {
        let disk = disk(1);
        let before = disk.read_dir(Path::new("/data")).unwrap();
        disk.inject_next(kind, Fault::Fail);
        open(&disk).unwrap_err();
        assert_eq!(
            disk.read_dir(Path::new("/data")).unwrap(),
            before,
            "{kind:?}"
        );
    }
}
