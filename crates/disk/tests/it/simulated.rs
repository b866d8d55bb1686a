//! What only the simulated disk can do.

use quorate_disk::{
    CrashPolicy, Disk, Fault, File, OpenMode, OperationKind, SECTOR_BYTES, SimDisk, Unsynced,
    replace_atomic,
};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

const FILE: &str = "/d/f";

/// A disk with one durable file of `len` bytes of 1.
fn disk_with_file(len: usize) -> (SimDisk, Box<dyn File>) {
    let disk = SimDisk::new(3);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.open(Path::new(FILE), OpenMode::Create).unwrap();
    file.write_all_at(&vec![1; len], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(disk.unsynced(), []);
    (disk, file)
}

fn after(disk: &SimDisk, policy: CrashPolicy) -> Vec<u8> {
    disk.crash(&policy).peek(Path::new(FILE)).unwrap()
}

#[test]
fn each_sector_and_the_length_are_kept_or_lost_alone() {
    let (disk, file) = disk_with_file(2 * SECTOR_BYTES);
    file.write_all_at(&vec![2; 3 * SECTOR_BYTES], 0).unwrap();
    let unsynced = disk.unsynced();
    assert_eq!(unsynced.len(), 4);
    assert!(matches!(unsynced[0], Unsynced::Length { .. }));
    let mut seen = BTreeSet::new();
    for bits in 0..16_u32 {
        let keep = (0..4).map(|bit| bits & (1 << bit) != 0).collect();
        let bytes = after(&disk, CrashPolicy::Keep(keep));
        assert_eq!(
            bytes.len(),
            if bits & 1 == 1 { 3 } else { 2 } * SECTOR_BYTES
        );
        for (position, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let old = if position < 2 { 1 } else { 0 };
            let expected = if bits & (2 << position) != 0 { 2 } else { old };
            assert_eq!(sector, [expected; SECTOR_BYTES]);
        }
        seen.insert(bytes);
    }
    assert_eq!(seen.len(), 12);
    assert_eq!(
        after(&disk, CrashPolicy::KeepNone),
        vec![1; 2 * SECTOR_BYTES]
    );
    assert_eq!(
        after(&disk, CrashPolicy::KeepAll),
        vec![2; 3 * SECTOR_BYTES]
    );
}

#[test]
fn seeded_crashes_repeat_and_find_every_mixture() {
    let (disk, file) = disk_with_file(2 * SECTOR_BYTES);
    file.write_all_at(&vec![2; 2 * SECTOR_BYTES], 0).unwrap();
    file.write_all_at(&vec![3; 2 * SECTOR_BYTES], 0).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..1000 {
        let bytes = after(&disk, CrashPolicy::Seeded(seed));
        assert_eq!(bytes, after(&disk, CrashPolicy::Seeded(seed)));
        seen.insert((bytes[0], bytes[SECTOR_BYTES]));
    }
    // Each of two sectors may hold the durable, the overwritten or the newest version.
    assert_eq!(seen.len(), 9);
}

#[test]
fn cut_that_is_not_synced_may_come_back_whole() {
    let (disk, file) = disk_with_file(1000);
    file.set_len(100).unwrap();
    assert_eq!(after(&disk, CrashPolicy::KeepNone), vec![1; 1000]);
    assert_eq!(after(&disk, CrashPolicy::KeepAll), vec![1; 100]);
    for seed in 0..200 {
        let bytes = after(&disk, CrashPolicy::Seeded(seed));
        assert!(bytes.len() == 100 || bytes.len() == 1000);
        assert_eq!(bytes[..100], [1; 100]);
    }
    file.sync_data().unwrap();
    assert_eq!(after(&disk, CrashPolicy::KeepNone), vec![1; 100]);
}

#[test]
fn names_are_durable_only_after_the_directory_is_synced() {
    let (disk, file) = disk_with_file(10);
    let path = Path::new("/d/g");
    drop(file);
    disk.rename(Path::new(FILE), path).unwrap();
    assert_eq!(disk.unsynced(), [Unsynced::Name("g".into())]);
    let operations = disk.operations();
    assert_eq!(disk.list(Path::new("/d")).unwrap(), ["g"]);
    assert_eq!(disk.operations(), operations);
    let before = disk.crash(&CrashPolicy::KeepNone);
    assert_eq!(before.read_dir(Path::new("/d")).unwrap(), ["f"]);
    let kept = disk.crash(&CrashPolicy::KeepAll);
    assert_eq!(kept.read_dir(Path::new("/d")).unwrap(), ["g"]);
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.remove_file(path).unwrap();
    let back = disk.crash(&CrashPolicy::KeepNone);
    assert_eq!(back.peek(path).unwrap(), [1; 10]);
    disk.sync_dir(Path::new("/d")).unwrap();
    assert!(disk.crash(&CrashPolicy::KeepNone).peek(path).is_err());
}

#[test]
fn file_in_a_directory_that_was_not_synced_is_lost() {
    let disk = SimDisk::new(0);
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    replace_atomic(&disk, Path::new("/a/b/f"), b"x").unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let lost = disk.crash(&CrashPolicy::KeepNone);
    assert!(lost.exists(Path::new("/a")).unwrap());
    assert!(!lost.exists(Path::new("/a/b")).unwrap());
    disk.sync_dir(Path::new("/a")).unwrap();
    let kept = disk.crash(&CrashPolicy::KeepNone);
    assert_eq!(kept.peek(Path::new("/a/b/f")).unwrap(), b"x");
}

#[test]
fn replace_atomic_leaves_old_or_new_at_every_operation() {
    let run = |stop: Option<u64>| {
        let (disk, file) = disk_with_file(700);
        drop(file);
        let start = disk.operations();
        if let Some(stop) = stop {
            disk.power_off_at(start + stop);
        }
        let result = replace_atomic(&disk, Path::new(FILE), &[2; 1200]);
        (disk.operations() - start, disk, result)
    };
    let (count, ..) = run(None);
    for stop in 0..=count {
        let (_, disk, result) = run(Some(stop));
        assert_eq!(result.is_ok(), stop == count);
        for seed in 0..200 {
            let bytes = after(&disk, CrashPolicy::Seeded(seed));
            let new = bytes == [2; 1200];
            assert!(new || (bytes == [1; 700] && result.is_err()));
        }
    }
}

#[test]
fn failed_sync_gives_up_what_it_did_not_write() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[5; SECTOR_BYTES], 0).unwrap();
        disk.inject_next(OperationKind::Sync, Fault::Fail);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut seen = [0];
        file.read_at(&mut seen, 0).unwrap();
        assert_eq!(seen, [5]);
        let left = disk.crash(&CrashPolicy::KeepAll).peek(Path::new("/f"));
        lost += usize::from(left.unwrap()[0] == 0);
        // A new write makes it whole again.
        file.write_all_at(&[6; SECTOR_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        let left = disk.crash(&CrashPolicy::KeepNone).peek(Path::new("/f"));
        assert_eq!(left.unwrap(), [6; SECTOR_BYTES]);
    }
    assert!((5..45).contains(&lost));
}

#[test]
fn faults_happen_where_they_are_planned() {
    let (disk, file) = disk_with_file(1000);
    let mut buf = [0; 1000];
    disk.inject(disk.operations() + 1, Fault::Fail);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 1000);
    assert!(file.read_at(&mut buf, 0).is_err());
    disk.inject_next(OperationKind::Read, Fault::ShortRead);
    assert!((1..1000).contains(&file.read_at(&mut buf, 0).unwrap()));
    disk.inject_next(OperationKind::Map, Fault::FlipBit);
    let flipped = file
        .map()
        .unwrap()
        .iter()
        .filter(|byte| **byte != 1)
        .count();
    assert_eq!(flipped, 1);
    disk.inject_next(OperationKind::Write, Fault::LoseWrite);
    file.write_all_at(&[9; 4], 0).unwrap();
    disk.inject_next(OperationKind::Write, Fault::MisdirectWrite { sectors: 1 });
    file.write_all_at(&[8; 4], 0).unwrap();
    let bytes = disk.peek(Path::new(FILE)).unwrap();
    assert_eq!((bytes[0], bytes[SECTOR_BYTES]), (1, 8));
    disk.inject_next(OperationKind::Write, Fault::FlipBit);
    file.write_all_at(&[1; 4], SECTOR_BYTES as u64).unwrap();
    let bytes = disk.peek(Path::new(FILE)).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte != 1).count(), 1);
    disk.inject_next(OperationKind::Sync, Fault::Stall { ms: 40 });
    file.sync_data().unwrap();
    assert_eq!((disk.take_stalled_ms(), disk.take_stalled_ms()), (40, 0));
    disk.inject_next(OperationKind::Allocate, Fault::NoSpace);
    assert_eq!(file.allocate(1).unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn a_fault_waits_for_its_directory() {
    let (disk, file) = disk_with_file(8);
    disk.create_dir_all(Path::new("/other")).unwrap();
    let other = disk.open(Path::new("/other/f"), OpenMode::Create).unwrap();
    disk.inject_next_in(Path::new("/other"), OperationKind::Len, Fault::Fail);
    assert!(file.len().is_ok());
    assert!(other.len().is_err());
    assert!(other.len().is_ok());
}

#[test]
fn rates_hit_about_as_often_as_they_say_and_end() {
    let (disk, file) = disk_with_file(8);
    disk.set_rate(OperationKind::Len, Fault::Fail, 100_000);
    let failed = (0..10_000).filter(|_| file.len().is_err()).count();
    assert!((800..1200).contains(&failed), "{failed}");
    disk.clear_faults();
    assert!((0..1000).all(|_| file.len().is_ok()));
}

#[test]
fn full_disk_takes_what_fits_and_recovers_when_space_is_freed() {
    let (disk, file) = disk_with_file(2 * SECTOR_BYTES);
    disk.set_capacity(Some(4 * SECTOR_BYTES as u64));
    let other = disk.open(Path::new("/d/o"), OpenMode::Create).unwrap();
    assert!(other.allocate(3 * SECTOR_BYTES as u64).is_err());
    assert_eq!(other.len().unwrap(), 0);
    let full = other.write_all_at(&[7; 3 * SECTOR_BYTES], 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 2 * SECTOR_BYTES as u64);
    // Overwriting needs no space.
    file.write_all_at(&[2; 2 * SECTOR_BYTES], 0).unwrap();
    file.set_len(SECTOR_BYTES as u64).unwrap();
    other.write_all_at(&[7; 3 * SECTOR_BYTES], 0).unwrap();
}

#[test]
fn power_off_stops_everything_and_keeps_the_state_before() {
    let (disk, file) = disk_with_file(10);
    disk.start_trace();
    disk.power_off_at(disk.operations() + 1);
    file.write_all_at(b"xx", 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(disk.open(Path::new(FILE), OpenMode::Read).is_err());
    assert_eq!(after(&disk, CrashPolicy::KeepNone), [1; 10]);
    let trace = disk.take_trace();
    assert_eq!(trace.len(), 1);
    assert_eq!(trace[0].kind, OperationKind::Write);
    assert_eq!(trace[0].path, Path::new(FILE));
    let revived = disk.crash(&CrashPolicy::KeepAll);
    let file = revived.open(Path::new(FILE), OpenMode::ReadWrite).unwrap();
    assert!(file.try_lock().unwrap());
    file.sync_data().unwrap();
}

#[test]
fn an_unreadable_sector_stays_so_until_it_is_written_again() {
    let (disk, file) = disk_with_file(3 * SECTOR_BYTES);
    disk.spoil_sector(Path::new(FILE), 1).unwrap();
    let sector = SECTOR_BYTES as u64;
    let read = |file: &dyn File, offset: u64| {
        let mut bytes = [0; SECTOR_BYTES];
        file.read_at(&mut bytes, offset)
    };
    let is_bad = |result: std::io::Result<usize>| {
        result.is_err_and(|e| e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()))
    };
    assert_eq!(read(&*file, 0).unwrap(), SECTOR_BYTES);
    assert_eq!(read(&*file, 2 * sector).unwrap(), SECTOR_BYTES);
    assert!(is_bad(read(&*file, sector)));
    assert!(is_bad(read(&*file, 1)), "a read that ends in it");
    assert!(file.map().is_err());
    let crashed = disk.crash(&CrashPolicy::KeepAll);
    let again = crashed.open(Path::new(FILE), OpenMode::ReadWrite).unwrap();
    assert!(is_bad(read(&*again, sector)), "a power loss heals nothing");
    again.write_all_at(&[2; SECTOR_BYTES], sector).unwrap();
    assert_eq!(read(&*again, sector).unwrap(), SECTOR_BYTES);
    assert!(is_bad(read(&*file, sector)), "the old disk is as it was");
    file.set_len(sector).unwrap();
    file.set_len(3 * sector).unwrap();
    assert_eq!(read(&*file, sector).unwrap(), SECTOR_BYTES);
}

#[test]
fn what_a_killed_process_wrote_is_there_and_still_not_durable() {
    let (disk, file) = disk_with_file(SECTOR_BYTES);
    assert!(file.try_lock().unwrap());
    file.write_all_at(&[2; SECTOR_BYTES], 0).unwrap();
    disk.rename(Path::new(FILE), Path::new("/d/g")).unwrap();
    let killed = disk.kill();
    let again = killed.open(Path::new("/d/g"), OpenMode::ReadWrite).unwrap();
    assert!(again.try_lock().unwrap(), "nobody holds the lock");
    assert_eq!(killed.peek(Path::new("/d/g")).unwrap(), [2; SECTOR_BYTES]);
    assert_eq!(after(&killed, CrashPolicy::KeepNone), [1; SECTOR_BYTES]);
    again.sync_data().unwrap();
    assert_eq!(after(&killed, CrashPolicy::KeepNone), [2; SECTOR_BYTES]);
    killed.sync_dir(Path::new("/d")).unwrap();
    let crashed = killed.crash(&CrashPolicy::KeepNone);
    assert_eq!(crashed.peek(Path::new("/d/g")).unwrap(), [2; SECTOR_BYTES]);
    // The old disk is as it was.
    assert_eq!(after(&disk, CrashPolicy::KeepNone), [1; SECTOR_BYTES]);
}
