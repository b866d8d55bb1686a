//! Saving, loading, setting aside, releasing; on both disks and through crashes.

use quorate_disk::{CrashPolicy, Disk, Fault, OpenMode, OperationKind, RealDisk, SimDisk};
use quorate_snap::{Error, Identity, Snapshot, SnapshotId, Snapshotter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IDENTITY: Identity = Identity {
    cluster_id: 7,
    member_id: 8,
};

fn dir() -> &'static Path {
    Path::new("/snap")
}

fn open(disk: &SimDisk) -> Result<Snapshotter, Error> {
    Snapshotter::open(Arc::new(disk.clone()), dir(), IDENTITY)
}

fn id(term: u64, index: u64) -> SnapshotId {
    SnapshotId { term, index }
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    Snapshot {
        id: id(term, index),
        body: vec![u8::try_from(index).unwrap(); 1200].into(),
    }
}

fn path(term: u64, index: u64) -> PathBuf {
    dir().join(format!("{term:016x}-{index:016x}.snap"))
}

/// A disk with three snapshots.
fn saved() -> (SimDisk, Snapshotter) {
    let disk = SimDisk::new(1);
    let snapshotter = open(&disk).unwrap();
    for (term, index) in [(1, 10), (2, 30), (1, 20)] {
        snapshotter.save(&snapshot(term, index)).unwrap();
    }
    (disk, snapshotter)
}

fn damage(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let mut bytes = disk.peek(path).unwrap();
    bytes[700] ^= 4;
    disk.poke(path, bytes.clone()).unwrap();
    bytes
}

#[test]
fn newest_is_loaded_and_all_are_listed() {
    let disk = SimDisk::new(1);
    let snapshotter = open(&disk).unwrap();
    assert_eq!(snapshotter.load_newest().unwrap().snapshot, None);
    let (_, snapshotter) = saved();
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(2, 30)));
    assert_eq!(loaded.set_aside, []);
    let ids = snapshotter.list().unwrap();
    assert_eq!(ids, [id(2, 30), id(1, 20), id(1, 10)]);
    let older = snapshotter.load_newest_of(|id| id.index < 30).unwrap();
    assert_eq!(older.snapshot, Some(snapshot(1, 20)));
    let replaced = Snapshot {
        body: "other".into(),
        ..snapshot(2, 30)
    };
    snapshotter.save(&replaced).unwrap();
    assert_eq!(snapshotter.load_newest().unwrap().snapshot, Some(replaced));
}

#[test]
fn damaged_files_are_set_aside_and_never_overwritten() {
    let (disk, snapshotter) = saved();
    let mut kept = Vec::new();
    for round in 0..3 {
        let bytes = damage(&disk, &path(2, 30));
        let loaded = snapshotter.load_newest().unwrap();
        assert_eq!(loaded.snapshot, Some(snapshot(1, 20)));
        let aside = &loaded.set_aside[0];
        assert_eq!(aside.path, path(2, 30));
        assert_eq!(aside.damage.what, "checksum");
        let suffix = ["broken", "broken.1", "broken.2"][round];
        let name = format!("{}.{suffix}", path(2, 30).display());
        assert_eq!(aside.moved_to, Path::new(&name));
        kept.push((aside.moved_to.clone(), bytes));
        snapshotter.save(&snapshot(2, 30)).unwrap();
    }
    snapshotter.release(1).unwrap();
    let disk = disk.crash(&CrashPolicy::KeepNone);
    for (path, bytes) in kept {
        assert_eq!(disk.peek(&path).unwrap(), bytes);
    }
}

#[test]
fn all_damaged_is_none_loaded() {
    let (disk, snapshotter) = saved();
    damage(&disk, &path(2, 30));
    disk.poke(&path(1, 20), Vec::new()).unwrap();
    // Whole, but under a name that is not its own.
    let moved = disk.peek(&path(1, 10)).unwrap();
    disk.poke(&path(1, 11), moved).unwrap();
    disk.poke(&path(1, 10), vec![0; 1264]).unwrap();
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, None);
    let whats: Vec<_> = loaded
        .set_aside
        .iter()
        .map(|aside| aside.damage.what)
        .collect();
    let named = "term or index is not that of the name";
    assert_eq!(whats, ["checksum", "file is too short", named, "magic"]);
    assert_eq!(snapshotter.list().unwrap(), []);
}

#[test]
fn file_far_too_long_is_not_read() {
    let (disk, snapshotter) = saved();
    let file = disk.open(&path(2, 30), OpenMode::ReadWrite).unwrap();
    file.set_len(65 << 20).unwrap();
    disk.start_trace();
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(1, 20)));
    let trace = disk.take_trace();
    let read = |done: &&quorate_disk::Operation| done.kind == OperationKind::Read;
    assert!(
        trace
            .iter()
            .filter(read)
            .all(|done| done.path != path(2, 30))
    );
    let huge = Snapshot {
        body: vec![0; (64 << 20) + 1].into(),
        ..snapshot(3, 40)
    };
    assert!(matches!(
        snapshotter.save(&huge),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn foreign_newer_and_unreadable_files_are_not_touched() {
    let (disk, snapshotter) = saved();
    let ours = disk.peek(&path(2, 30)).unwrap();
    let other = Identity {
        cluster_id: 9,
        ..IDENTITY
    };
    let theirs = Snapshotter::open(Arc::new(disk.clone()), dir(), other).unwrap();
    let error = theirs.load_newest().unwrap_err();
    assert!(matches!(
        error,
        Error::ForeignIdentity {
            found: IDENTITY,
            ..
        }
    ));
    let mut newer = ours.clone();
    newer[8] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&newer[..12]);
    hasher.update(&newer[16..]);
    newer[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.poke(&path(2, 30), newer.clone()).unwrap();
    let error = snapshotter.load_newest().unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 2, .. }));
    assert_eq!(disk.peek(&path(2, 30)).unwrap(), newer);
    let etcd = vec![0x08, 0xb9, 0xd5, 0xa4, 0xed, 0x0c, 0x12, 3, 1, 2, 3];
    disk.poke(&path(2, 30), etcd.clone()).unwrap();
    let error = snapshotter.load_newest().unwrap_err();
    assert!(matches!(error, Error::NotASnapshot { .. }));
    assert_eq!(disk.peek(&path(2, 30)).unwrap(), etcd);
    disk.poke(&path(2, 30), ours).unwrap();
    disk.inject_next(OperationKind::Read, Fault::Fail);
    let error = snapshotter.load_newest().unwrap_err();
    assert!(matches!(&error, Error::Io { .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(2, 30)));
}

#[test]
fn release_keeps_the_newest() {
    let (disk, snapshotter) = saved();
    assert_eq!(snapshotter.release(5).unwrap(), []);
    assert_eq!(snapshotter.release(2).unwrap(), [id(1, 10)]);
    assert_eq!(snapshotter.release(0).unwrap(), [id(1, 20)]);
    let left = open(&disk.crash(&CrashPolicy::KeepNone)).unwrap();
    assert_eq!(left.list().unwrap(), [id(2, 30)]);
}

#[test]
fn left_over_of_a_save_is_removed_and_other_files_stay() {
    let (disk, _) = saved();
    let left_over = "0000000000000003-0000000000000040.snap.tmp";
    for name in [left_over, "db", "db.tmp", "0000000000000040.snap.db"] {
        disk.poke(&dir().join(name), vec![1]).unwrap();
    }
    let snapshotter = open(&disk).unwrap();
    assert_eq!(snapshotter.list().unwrap().len(), 3);
    let names = disk.read_dir(dir()).unwrap();
    assert!(!names.contains(&left_over.into()));
    assert_eq!(names.len(), 6);
}

/// Saves, loads past a damaged file, releases; counts the saves that returned.
fn work(disk: &SimDisk, done: &mut u64) -> Result<(), Error> {
    let snapshotter = open(disk)?;
    for index in 1..=4 {
        snapshotter.save(&snapshot(1, index))?;
        *done = index;
        snapshotter.load_newest()?;
        snapshotter.release(2)?;
    }
    Ok(())
}

#[test]
fn crash_at_every_operation_leaves_the_newest_saved_whole() {
    let disk = SimDisk::new(2);
    work(&disk, &mut 0).unwrap();
    let count = disk.operations();
    for stop in 0..=count {
        let disk = SimDisk::new(2);
        disk.power_off_at(stop);
        let mut done = 0;
        let result = work(&disk, &mut done);
        assert_eq!(result.is_ok(), stop == count);
        for seed in 0..60 {
            let left = disk.crash(&CrashPolicy::Seeded(seed));
            let loaded = open(&left).unwrap().load_newest().unwrap();
            assert_eq!(loaded.set_aside, [], "stop {stop} seed {seed}");
            let index = loaded.snapshot.as_ref().map_or(0, |found| found.id.index);
            assert!(index == done || index == done + 1);
            if let Some(found) = loaded.snapshot {
                assert_eq!(found, snapshot(1, index));
            }
        }
    }
}

#[test]
fn setting_aside_survives_a_crash_at_every_operation() {
    let load = |disk: &SimDisk| open(disk).and_then(|snapshotter| snapshotter.load_newest());
    let damaged = || {
        let (disk, _) = saved();
        damage(&disk, &path(2, 30));
        disk
    };
    let disk = damaged();
    let start = disk.operations();
    load(&disk).unwrap();
    for stop in start..=disk.operations() {
        let disk = damaged();
        disk.power_off_at(stop);
        let _ = load(&disk);
        for seed in 0..20 {
            let left = disk.crash(&CrashPolicy::Seeded(seed));
            let loaded = load(&left).unwrap();
            assert_eq!(loaded.snapshot, Some(snapshot(1, 20)));
            assert_eq!(left.read_dir(dir()).unwrap().len(), 3);
        }
    }
}

#[test]
fn full_disk_leaves_what_was_saved() {
    let (disk, snapshotter) = saved();
    disk.set_capacity(Some(5000));
    let error = snapshotter.save(&snapshot(3, 40)).unwrap_err();
    let Error::Io { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(2, 30)));
    disk.set_capacity(None);
    snapshotter.save(&snapshot(3, 40)).unwrap();
}

#[test]
fn real_disk_does_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("member/snap");
    let snapshotter = Snapshotter::open(Arc::new(RealDisk), &dir, IDENTITY).unwrap();
    for index in 1..=7 {
        snapshotter.save(&snapshot(1, index)).unwrap();
        snapshotter.release(5).unwrap();
    }
    assert_eq!(snapshotter.list().unwrap().len(), 5);
    let loaded = snapshotter.load_newest().unwrap();
    assert_eq!(loaded.snapshot, Some(snapshot(1, 7)));
}
