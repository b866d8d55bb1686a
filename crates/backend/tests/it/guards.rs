//! What is refused, and that nothing is touched then.

use crate::support::{PATH, disk, flush, open, small_options};
use bytes::Bytes;
use quorate_backend::{Backend, Error, Identity, Options, Revision, Table};
use quorate_disk::{Disk, Fault, OperationKind, RealDisk, SimDisk};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

const OURS: Identity = Identity {
    cluster_id: 0xc1,
    member_id: 0xa1,
};

fn open_as(disk: &SimDisk, identity: Option<Identity>) -> Result<Backend, Error> {
    let options = Options {
        identity,
        ..small_options()
    };
    Backend::open(Arc::new(disk.clone()), Path::new(PATH), options)
}

fn check_refused_untouched(
    disk: &SimDisk,
    identity: Option<Identity>,
    expected: impl Fn(&Error) -> bool,
) {
    let before = disk.peek(Path::new(PATH)).unwrap();
    disk.start_trace();
    let error = open_as(disk, identity).expect_err("it is refused");
    assert!(expected(&error), "{error}");
    let wrote = disk.take_trace().into_iter().any(|operation| {
        matches!(
            operation.kind,
            OperationKind::Write
                | OperationKind::SetLen
                | OperationKind::Rename
                | OperationKind::Remove
        )
    });
    assert!(!wrote);
    assert_eq!(disk.peek(Path::new(PATH)).unwrap(), before);
}

#[test]
fn a_second_handle_is_refused() {
    let disk = disk(1);
    let first = open(&disk).unwrap();
    check_refused_untouched(&disk, None, |error| matches!(error, Error::Locked { .. }));
    drop(first);
    open(&disk).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || Backend::open(Arc::new(RealDisk), &path, Options::default());
    let first = open().unwrap();
    assert!(matches!(open(), Err(Error::Locked { .. })));
    drop(first);
    open().unwrap();
}

#[test]
fn a_file_of_another_member_is_refused() {
    let disk = disk(1);
    drop(open_as(&disk, Some(OURS)).unwrap());
    let theirs = Identity {
        member_id: 0xa2,
        ..OURS
    };
    check_refused_untouched(
        &disk,
        Some(theirs),
        |error| matches!(error, Error::ForeignIdentity { found, .. } if *found == Some(OURS)),
    );
    assert_eq!(open_as(&disk, None).unwrap().identity(), Some(OURS));
    assert_eq!(open_as(&disk, Some(OURS)).unwrap().identity(), Some(OURS));
}

#[test]
fn a_file_of_nobody_is_refused_to_a_member() {
    let disk = disk(1);
    drop(open_as(&disk, None).unwrap());
    check_refused_untouched(&disk, Some(OURS), |error| {
        matches!(error, Error::ForeignIdentity { found: None, .. })
    });
}

#[test]
fn a_newer_format_is_refused() {
    let disk = disk(1);
    drop(open(&disk).unwrap());
    let path = Path::new(PATH);
    let mut bytes = disk.peek(path).unwrap();
    for copy in [0, 4096] {
        let block = &mut bytes[copy..copy + 512];
        block[8] = 9;
        block[12..16].fill(0);
        let sum = crc32c::crc32c(block);
        block[12..16].copy_from_slice(&sum.to_le_bytes());
    }
    disk.poke(path, bytes).unwrap();
    check_refused_untouched(&disk, None, |error| {
        matches!(
            error,
            Error::NewerFormat {
                found: 9,
                supported: 1,
                ..
            }
        )
    });
}

#[test]
fn foreign_files_are_refused() {
    let disk = disk(1);
    let path = Path::new(PATH);
    let mut bbolt = vec![0; 32_768];
    bbolt[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    for bytes in [vec![], vec![7; 100], vec![7; 40_000], bbolt.clone()] {
        disk.poke(path, bytes).unwrap();
        check_refused_untouched(&disk, None, |error| {
            matches!(error, Error::ForeignFile { .. })
        });
    }
    disk.poke(path, bbolt).unwrap();
    check_refused_untouched(&disk, None, |error| error.to_string().contains("bbolt"));
}

#[test]
fn a_missing_file_is_made_only_when_asked() {
    let disk = disk(1);
    let options = Options {
        create: false,
        ..small_options()
    };
    let open = |options| Backend::open(Arc::new(disk.clone()), Path::new(PATH), options);
    assert!(matches!(open(options), Err(Error::NotFound { .. })));
    assert!(!disk.exists(Path::new(PATH)).unwrap());
    drop(open(small_options()).unwrap());
    open(options).unwrap();
}

#[test]
fn a_file_that_cannot_be_made_leaves_nothing_unfinished() {
    let mut failed = 0;
    for fault in [Fault::Fail, Fault::NoSpace] {
        for at in 0..40 {
            let disk = disk(1);
            disk.inject(disk.operations() + at, fault);
            failed += usize::from(open(&disk).is_err());
            let names = disk.read_dir(Path::new("/data")).unwrap();
            let is_unfinished = |name: &OsString| name.to_string_lossy().ends_with(".new");
            assert!(!names.iter().any(is_unfinished), "{fault:?} at {at}");
        }
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn a_failed_flush_poisons() {
    for kind in [OperationKind::Write, OperationKind::Sync] {
        let disk = disk(1);
        let backend = open(&disk).unwrap();
        let mut txn = backend.begin_apply(5, 1);
        txn.put_revision(Revision::new(2, 0), false, Bytes::from_static(b"a"));
        txn.commit(50);
        flush(&backend);
        let mut txn = backend.begin_apply(6, 1);
        txn.put_revision(Revision::new(3, 0), false, Bytes::from_static(b"b"));
        txn.commit(60);
        disk.inject_next(kind, Fault::Fail);
        let error = backend.seal().unwrap().run().unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(backend.is_poisoned());
        assert_eq!(backend.durable().index, 5);
        assert!(matches!(backend.maintenance(), Err(Error::Poisoned)));
        assert!(matches!(
            backend.seal().unwrap().run(),
            Err(Error::Poisoned)
        ));

        // Reading and applying go on, in memory; the file does not change any more.
        let mut txn = backend.begin_apply(7, 1);
        txn.put(Table::Lease, b"l", Bytes::from_static(b"c"));
        txn.commit(70);
        assert_eq!(
            backend.value(Revision::new(3, 0)).unwrap().unwrap(),
            &b"b"[..]
        );
        disk.start_trace();
        drop(backend);
        let written = disk
            .take_trace()
            .into_iter()
            .filter(|operation| operation.kind == OperationKind::Write)
            .count();
        assert_eq!(written, 0);
        let backend = open(&disk).unwrap();
        assert_eq!(backend.applied().index, 5, "{kind:?}");
        assert_eq!(backend.value(Revision::new(3, 0)).unwrap(), None);
    }
}

#[test]
fn a_dropped_job_is_handed_out_again() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    assert!(backend.seal().is_none());
    let mut txn = backend.begin_apply(1, 1);
    txn.put(Table::Auth, b"k", Bytes::from_static(b"1"));
    txn.commit(1);
    let job = backend.seal().unwrap();
    assert!(backend.seal().is_none());
    let mut txn = backend.begin_apply(2, 1);
    txn.put(Table::Auth, b"k", Bytes::from_static(b"2"));
    txn.commit(2);
    assert!(backend.seal().is_none());
    drop(job);
    assert_eq!(flush(&backend).index, 2);
    assert!(backend.seal().is_none());
    drop(backend);
    let backend = open(&disk).unwrap();
    assert_eq!(backend.applied().index, 2);
    let value = backend.read().unwrap().get(Table::Auth, b"k").unwrap();
    assert_eq!(value.unwrap(), &b"2"[..]);
}

#[test]
fn entries_without_effect_become_durable_too() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    backend.begin_apply(9, 4).commit(3);
    assert_eq!(flush(&backend), backend.applied());
    drop(backend);
    let applied = open(&disk).unwrap().applied();
    assert_eq!((applied.index, applied.term, applied.digest), (9, 4, 3));
}

#[test]
fn a_dropped_batch_leaves_no_trace() {
    let backend = open(&disk(1)).unwrap();
    let mut txn = backend.begin_apply(3, 1);
    txn.put_revision(Revision::new(2, 0), false, Bytes::from_static(b"a"));
    txn.put(Table::Lease, b"l", Bytes::from_static(b"b"));
    assert_eq!(txn.value(Revision::new(2, 0)).unwrap().unwrap(), &b"a"[..]);
    assert_eq!(txn.get(Table::Lease, b"l").unwrap().unwrap(), &b"b"[..]);
    drop(txn);
    assert_eq!(backend.applied().index, 0);
    assert_eq!(backend.value(Revision::new(2, 0)).unwrap(), None);
    assert!(backend.seal().is_none());
    backend.begin_apply(1, 1).commit(0);
}

#[test]
#[should_panic(expected = "is applied after")]
fn the_index_never_goes_back() {
    let backend = open(&disk(1)).unwrap();
    backend.begin_apply(5, 1).commit(0);
    drop(backend.begin_apply(4, 1));
}

#[test]
#[should_panic(expected = "is applied after")]
fn the_index_never_goes_back_over_a_restart() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    backend.begin_apply(5, 1).commit(0);
    flush(&backend);
    drop(backend);
    drop(open(&disk).unwrap().begin_apply(4, 1));
}

#[test]
#[should_panic(expected = "at the same time")]
fn there_is_one_writer() {
    let backend = open(&disk(1)).unwrap();
    let _first = backend.begin_apply(1, 1);
    let _second = backend.begin_apply(1, 1);
}

#[test]
#[should_panic(expected = "revision 2_0 follows")]
fn revisions_only_grow() {
    let disk = disk(1);
    let backend = open(&disk).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    txn.put_revision(Revision::new(2, 0), false, Bytes::new());
    txn.commit(0);
    flush(&backend);
    drop(backend);
    let backend = open(&disk).unwrap();
    let mut txn = backend.begin_apply(2, 1);
    txn.put_revision(Revision::new(2, 0), true, Bytes::new());
}

#[test]
#[should_panic(expected = "written by the commit")]
fn a_batch_cannot_write_the_consistent_index_by_hand() {
    let backend = open(&disk(1)).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    txn.put(
        Table::Meta,
        b"consistent_index",
        Bytes::from_static(b"12345678"),
    );
}

#[test]
#[should_panic(expected = "maintenance writes the consistent index")]
fn maintenance_cannot_write_the_consistent_index() {
    let backend = open(&disk(1)).unwrap();
    backend.maintenance().unwrap().delete(Table::Meta, b"term");
}

#[test]
#[should_panic(expected = "before it is flushed")]
fn compaction_waits_for_the_flush() {
    let backend = open(&disk(1)).unwrap();
    let mut txn = backend.begin_apply(1, 1);
    txn.put_revision(Revision::new(2, 0), false, Bytes::new());
    txn.commit(0);
    let mut maintenance = backend.maintenance().unwrap();
    maintenance.delete_revision(Revision::new(2, 0), false);
}
