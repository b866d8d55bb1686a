//! The decision table of the crate page, row by row.

use crate::harness::{
    IDENTITY, Model, create, dir, entries_batch, entry, filler, open, options, segments,
};
use quorate_disk::{CrashPolicy, Disk, Fault, OpenMode, OperationKind, SimDisk};
use quorate_wal::{Batch, Error, HardState, Identity, Options, SnapshotMark, Wal};
use std::path::Path;
use std::sync::Arc;

/// A log of so many entries of 900 bytes in segments of 4 KiB.
fn log(count: u64) -> (SimDisk, Options) {
    let disk = SimDisk::new(1);
    let options = options(4096);
    let mut wal = create(&disk, &options).unwrap();
    for index in 1..=count {
        let batch = entries_batch(index, vec![entry(1, index, filler(index, 900))]);
        let _ = wal.append(&[batch]).unwrap();
    }
    (disk, options)
}

/// Opens, expects an error, and sees that no byte and no name changed.
fn refuses(disk: &SimDisk, options: &Options) -> Error {
    let state = |disk: &SimDisk| {
        let names = disk.read_dir(dir()).unwrap();
        let files = names
            .iter()
            .map(|name| disk.peek(&dir().join(name)).unwrap());
        (names.clone(), files.collect::<Vec<_>>())
    };
    let before = state(disk);
    let error = open(disk, options).map(|_| ()).unwrap_err();
    assert_eq!(state(disk), before);
    assert_eq!(disk.unsynced(), []);
    error
}

#[test]
fn empty_directory_is_no_log() {
    let disk = SimDisk::new(0);
    assert!(matches!(
        open(&disk, &options(4096)),
        Err(Error::NotFound { .. })
    ));
    disk.create_dir_all(dir()).unwrap();
    assert!(matches!(
        open(&disk, &options(4096)),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn log_has_one_user_at_a_time() {
    let (disk, options) = log(2);
    let (wal, _) = open(&disk, &options).unwrap();
    assert!(matches!(open(&disk, &options), Err(Error::InUse { .. })));
    drop(wal);
    let (_wal, _) = open(&disk, &options).unwrap();
    let again = create(&disk, &options).unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { .. }));
}

#[test]
fn foreign_files_are_left_alone() {
    let (disk, mine) = log(9);
    let theirs = Options {
        identity: Some(Identity {
            member_id: 9,
            ..IDENTITY
        }),
        ..mine.clone()
    };
    let error = refuses(&disk, &theirs);
    assert!(matches!(
        error,
        Error::ForeignIdentity {
            found: IDENTITY,
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "/wal/0000000000000001-0000000000000001.wal belongs to member 3e of cluster c1, not to member 9 of cluster c1"
    );
    // A segment of another member among ours, with and without an expectation.
    let other = SimDisk::new(2);
    let identity = Identity {
        cluster_id: 5,
        ..IDENTITY
    };
    Wal::create(Arc::new(other.clone()), dir(), identity, mine.clone()).unwrap();
    let segment = other.peek(&segments(&other)[0]).unwrap();
    disk.poke(&segments(&disk)[1], segment).unwrap();
    let anyone = Options {
        identity: None,
        ..mine.clone()
    };
    for options in [&mine, &anyone] {
        let error = refuses(&disk, options);
        assert!(matches!(error, Error::ForeignIdentity { .. }));
    }
}

#[test]
fn file_of_etcd_and_newer_format_are_left_alone() {
    let (disk, options) = log(9);
    let path = &segments(&disk)[0];
    let ours = disk.peek(path).unwrap();
    // The first record of an etcd segment: its length, then the checksum record.
    let mut etcd = vec![4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 16, 0, 0, 0, 0, 0];
    etcd.resize(4096, 0);
    disk.poke(path, etcd).unwrap();
    assert!(matches!(refuses(&disk, &options), Error::NotALog { .. }));
    let mut newer = ours.clone();
    newer[8] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&newer[..12]);
    hasher.update(&newer[16..128]);
    newer[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.poke(path, newer).unwrap();
    let error = refuses(&disk, &options);
    assert!(matches!(
        error,
        Error::NewerFormat {
            found: 2,
            supported: 1,
            ..
        }
    ));
}

#[test]
fn missing_segments_are_reported() {
    let (disk, options) = log(16);
    let paths = segments(&disk);
    assert!(paths.len() >= 4);
    let without = |path: &Path| {
        let disk = disk.crash(&CrashPolicy::KeepAll);
        disk.remove_file(path).unwrap();
        disk.sync_dir(dir()).unwrap();
        disk
    };
    let error = refuses(&without(&paths[1]), &options);
    assert!(matches!(error, Error::MissingSegment { sequence: 2, .. }));
    let error = refuses(&without(&paths[0]), &options);
    assert!(matches!(
        error,
        Error::MissingEntries { first_index: 1, .. }
    ));
    // The newest segment leaves no trace in those before it but the commit index.
    let (_, recovered) = open(&without(paths.last().unwrap()), &options).unwrap();
    assert!(recovered.entries.len() < 16);
    let renamed = disk.crash(&CrashPolicy::KeepAll);
    let swapped = dir().join("0000000000000005-0000000000000009.wal");
    renamed.rename(paths.last().unwrap(), &swapped).unwrap();
    renamed.sync_dir(dir()).unwrap();
    assert!(matches!(refuses(&renamed, &options), Error::Corrupt(_)));
}

#[test]
fn segment_before_the_last_must_be_whole() {
    let (disk, options) = log(12);
    let path = &segments(&disk)[1];
    let mut bytes = disk.peek(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 400..].fill(0);
    disk.poke(path, bytes).unwrap();
    let Error::Corrupt(corruption) = refuses(&disk, &options) else {
        panic!("a torn segment in the middle was taken");
    };
    assert_eq!(&corruption.path, path);
    assert_eq!(corruption.what, "segment ends too early");
}

#[test]
fn old_copy_of_a_segment_is_noticed() {
    let write = |changed: u64| {
        let disk = SimDisk::new(1);
        let options = options(4096);
        let mut wal = create(&disk, &options).unwrap();
        for index in 1..=12 {
            let seed = if index == 5 { changed } else { index };
            let batch = entries_batch(index, vec![entry(1, index, filler(seed, 900))]);
            let _ = wal.append(&[batch]).unwrap();
        }
        (disk, options)
    };
    let (disk, options) = write(5);
    let path = &segments(&disk)[1];
    disk.poke(path, write(50).0.peek(path).unwrap()).unwrap();
    let Error::Corrupt(corruption) = refuses(&disk, &options) else {
        panic!("another version of a segment was taken");
    };
    assert_eq!(&corruption.path, path);
    assert_eq!(corruption.what, "segment does not end as the next one says");
}

#[test]
fn damage_before_a_later_append_names_file_offset_and_index() {
    let (disk, options) = log(3);
    let path = &segments(&disk)[0];
    let mut bytes = disk.peek(path).unwrap();
    // The second entry: behind the head and a record of 48 + 900 bytes and its end, as far as whole sectors go.
    bytes[1100] ^= 1;
    disk.poke(path, bytes).unwrap();
    let error = refuses(&disk, &options);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "/wal/0000000000000001-0000000000000001.wal is corrupt at byte 1080, index 2: record"
        ),
        "{text}"
    );
}

#[test]
fn torn_tail_is_reported_and_never_comes_back() {
    let (disk, options) = log(2);
    let path = &segments(&disk)[0];
    let mut bytes = disk.peek(path).unwrap();
    bytes[1536..2048].fill(0);
    disk.poke(path, bytes).unwrap();
    let (mut wal, recovered) = open(&disk, &options).unwrap();
    let torn = recovered.torn_tail.unwrap();
    assert_eq!((&torn.path, torn.offset), (path, 1080));
    assert!(torn.bytes > 400);
    assert_eq!(recovered.entries.len(), 1);
    // The same entry again, half as long: the rest of the cut one must not be taken for what follows it.
    let again = entries_batch(1, vec![entry(1, 2, filler(2, 450))]);
    let _ = wal.append(&[again]).unwrap();
    drop(wal);
    let (_, recovered) = open(&disk.crash(&CrashPolicy::KeepNone), &options).unwrap();
    assert_eq!(recovered.torn_tail, None);
    assert_eq!(recovered.entries[1].data.len(), 450);
}

#[test]
fn left_over_files_are_removed_and_others_stay() {
    let (disk, options) = log(2);
    for name in [
        "prepared-7.tmp",
        "inline-3.tmp",
        "spare-1.tmp",
        "notes.txt",
        "x.wal.broken",
    ] {
        disk.poke(&dir().join(name), vec![1; 10]).unwrap();
    }
    open(&disk, &options).unwrap();
    let names = disk.read_dir(dir()).unwrap();
    let first = "0000000000000001-0000000000000001.wal";
    assert_eq!(names, [first, "notes.txt", "x.wal.broken"]);
}

#[test]
fn full_disk_changes_nothing_and_can_be_waited_out() {
    let disk = SimDisk::new(1);
    let options = options(8192);
    let mut wal = create(&disk, &options).unwrap();
    disk.set_capacity(Some(12_000));
    let mut model = Model::default();
    let mut refused = 0;
    for index in 1..=20 {
        let batch = entries_batch(index, vec![entry(1, index, filler(index, 900))]);
        if let Err(error) = wal.append(std::slice::from_ref(&batch)) {
            assert!(matches!(&error, Error::Io { .. }), "{error}");
            assert!(!wal.is_poisoned());
            disk.set_capacity(None);
            refused += 1;
            let _ = wal.append(std::slice::from_ref(&batch)).unwrap();
        }
        model.apply(&batch);
    }
    assert_eq!(refused, 1);
    drop(wal);
    let (_, recovered) = open(&disk.crash(&CrashPolicy::KeepNone), &options).unwrap();
    assert_eq!(Model::of(recovered), model);
}

#[test]
fn job_that_fails_gives_its_space_back() {
    let disk = SimDisk::new(1);
    let mut wal = create(&disk, &options(8192)).unwrap();
    let batch = entries_batch(1, vec![entry(1, 1, filler(1, 2100))]);
    let _ = wal.append(&[batch]).unwrap();
    let job = wal.take_prepare_job().unwrap();
    assert!(wal.take_prepare_job().is_none());
    disk.inject_next(OperationKind::Allocate, Fault::NoSpace);
    assert!(job.run().is_err());
    assert_eq!(disk.read_dir(dir()).unwrap().len(), 1);
}

#[test]
fn release_goes_no_further_than_the_snapshot_mark() {
    let (disk, options) = log(12);
    let (mut wal, _) = open(&disk, &options).unwrap();
    let before = segments(&disk);
    wal.release_to(12).unwrap();
    assert_eq!(segments(&disk), before);
    let mark = Batch {
        snapshot: Some(SnapshotMark { index: 7, term: 1 }),
        hard_state: Some(HardState {
            term: 1,
            vote: 3,
            commit: 9,
        }),
        ..Batch::default()
    };
    let _ = wal.append(&[mark]).unwrap();
    wal.release_to(12).unwrap();
    assert!(!segments(&disk).contains(&before[0]));
    // The first that went is kept to be used again, the others are gone.
    let names = disk.read_dir(dir()).unwrap();
    let spares = names
        .iter()
        .filter(|name| name.to_str().unwrap().starts_with("spare-"));
    assert_eq!(spares.count(), 1);
    assert_eq!(wal.segment_count(), segments(&disk).len());
    drop(wal);
    let (_, recovered) = open(&disk.crash(&CrashPolicy::KeepNone), &options).unwrap();
    assert_eq!(recovered.snapshot, Some(SnapshotMark { index: 7, term: 1 }));
    assert_eq!(recovered.hard_state.vote, 3);
    let indexes: Vec<u64> = recovered.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [8, 9, 10, 11, 12]);
}

#[test]
fn errors_of_the_system_are_passed_on_with_their_source() {
    let (disk, options) = log(2);
    disk.inject_next(OperationKind::Map, Fault::Fail);
    let error = open(&disk, &options).unwrap_err();
    assert!(error.to_string().starts_with("cannot map /wal/0000"));
    assert!(std::error::Error::source(&error).is_some());
    let file = disk.open(&segments(&disk)[0], OpenMode::Read).unwrap();
    assert!(file.try_lock().unwrap());
}
