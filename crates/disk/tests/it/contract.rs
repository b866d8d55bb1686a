//! What both disks must do alike.

use quorate_disk::{Disk, OpenMode, RealDisk, SimDisk, read_exact_at, replace_atomic};
use std::io::ErrorKind;
use std::path::Path;

fn on_both(check: impl Fn(&dyn Disk, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&RealDisk, dir.path());
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/tmp/x")).unwrap();
    check(&disk, Path::new("/tmp/x"));
}

fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn open_modes_mean_the_same() {
    on_both(|disk, dir| {
        let path = dir.join("a");
        for mode in [OpenMode::Read, OpenMode::ReadWrite] {
            assert_eq!(
                disk.open(&path, mode).err().unwrap().kind(),
                ErrorKind::NotFound
            );
        }
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.write_all_at(b"12345", 0).unwrap();
        let again = disk.open(&path, OpenMode::Create).err().unwrap();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        let kept = disk.open(&path, OpenMode::CreateOrOpen).unwrap();
        assert_eq!(kept.len().unwrap(), 5);
        let reader = disk.open(&path, OpenMode::Read).unwrap();
        assert!(reader.write_all_at(b"x", 0).is_err());
        assert_eq!(content(disk, &path), b"12345");
    });
}

#[test]
fn gather_write_keeps_order_and_leaves_holes_as_zeros() {
    on_both(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
        let mut slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        slices.insert(0, b"");
        slices.insert(1500, b"");
        file.write_all_vectored_at(&slices, 10).unwrap();
        file.write_all_vectored_at(&[], 0).unwrap();
        file.write_all_vectored_at(&[b"", b""], 0).unwrap();
        let mut expected = vec![0; 10];
        expected.extend(parts.concat());
        assert_eq!(content(disk, &dir.join("a")), expected);
        assert_eq!(&file.map().unwrap()[..], &expected[..]);
    });
}

#[test]
fn length_allocation_and_reads_at_the_end() {
    on_both(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
        assert!(file.is_empty().unwrap());
        assert!(file.map().unwrap().is_empty());
        file.allocate(5000).unwrap();
        file.allocate(100).unwrap();
        assert_eq!(file.len().unwrap(), 5000);
        file.write_all_at(&[7; 100], 0).unwrap();
        file.set_len(50).unwrap();
        file.set_len(60).unwrap();
        let mut bytes = [9; 100];
        assert_eq!(file.read_at(&mut bytes, 55).unwrap(), 5);
        assert_eq!(&bytes[..6], &[0, 0, 0, 0, 0, 9]);
        assert_eq!(file.read_at(&mut bytes, 60).unwrap(), 0);
        assert_eq!(file.read_at(&mut bytes, 1000).unwrap(), 0);
        let short = read_exact_at(&*file, &mut bytes, 0).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
        file.sync_data().unwrap();
        file.sync_all().unwrap();
    });
}

#[test]
fn names_are_listed_renamed_and_removed() {
    on_both(|disk, dir| {
        disk.create_dir_all(&dir.join("sub/deep")).unwrap();
        disk.create_dir_all(&dir.join("sub/deep")).unwrap();
        for name in ["c", "a", "b"] {
            let file = disk
                .open(&dir.join("sub").join(name), OpenMode::Create)
                .unwrap();
            file.write_all_at(name.as_bytes(), 0).unwrap();
        }
        assert_eq!(
            disk.read_dir(&dir.join("sub")).unwrap(),
            ["a", "b", "c", "deep"]
        );
        disk.rename(&dir.join("sub/a"), &dir.join("sub/b")).unwrap();
        assert_eq!(content(disk, &dir.join("sub/b")), b"a");
        assert!(!disk.exists(&dir.join("sub/a")).unwrap());
        assert!(disk.exists(&dir.join("sub/deep")).unwrap());
        disk.rename(&dir.join("sub"), &dir.join("other")).unwrap();
        assert_eq!(content(disk, &dir.join("other/c")), b"c");
        let open = disk.open(&dir.join("other/c"), OpenMode::Read).unwrap();
        disk.remove_file(&dir.join("other/c")).unwrap();
        assert_eq!(open.len().unwrap(), 1);
        assert_eq!(disk.read_dir(&dir.join("other")).unwrap(), ["b", "deep"]);
        disk.sync_dir(&dir.join("other")).unwrap();
        for error in [
            disk.remove_file(&dir.join("other/c")).unwrap_err(),
            disk.rename(&dir.join("none"), &dir.join("n")).unwrap_err(),
            disk.read_dir(&dir.join("none")).unwrap_err(),
            disk.sync_dir(&dir.join("none")).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn lock_has_one_holder_until_it_is_dropped() {
    on_both(|disk, dir| {
        let first = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
        let second = disk.open(&dir.join("a"), OpenMode::ReadWrite).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    });
}

#[test]
fn replace_atomic_replaces_and_leaves_nothing_behind() {
    on_both(|disk, dir| {
        let path = dir.join("f");
        let leftover = disk.open(&dir.join("f.tmp"), OpenMode::Create).unwrap();
        leftover.write_all_at(&[1; 9000], 0).unwrap();
        replace_atomic(disk, &path, b"one").unwrap();
        replace_atomic(disk, &path, b"two!").unwrap();
        assert_eq!(content(disk, &path), b"two!");
        assert_eq!(disk.read_dir(dir).unwrap(), ["f"]);
    });
}

#[test]
fn new_files_and_directories_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    RealDisk.create_dir_all(&dir.path().join("d/e")).unwrap();
    RealDisk
        .open(&dir.path().join("d/f"), OpenMode::Create)
        .unwrap();
    let mode = |path: &str| {
        let metadata = std::fs::metadata(dir.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("d"), mode("d/e"), mode("d/f")), (0o700, 0o700, 0o600));
}

#[test]
fn direct_writes_of_any_place_and_length_are_what_is_read() {
    on_both(|disk, dir| {
        let path = dir.join("d");
        let direct = disk.open_direct(&path, OpenMode::Create).unwrap();
        let mut model = Vec::new();
        let mut draw = 7_u64;
        let mut below = |limit: u64| {
            draw = draw.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            usize::try_from((draw >> 33) % limit).unwrap()
        };
        let mut from = 0;
        for round in 0..300 {
            // Mostly one behind the other, as a log is written; sometimes anywhere, with gaps and over what is there.
            if below(4) == 0 {
                from = below(40_000);
            }
            let parts: Vec<Vec<u8>> = (0..below(5))
                .map(|_| vec![u8::try_from(round % 255 + 1).unwrap(); below(6_000)])
                .collect();
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            direct.write_all_vectored_at(&slices, from as u64).unwrap();
            let bytes = parts.concat();
            let to = from + bytes.len();
            if !bytes.is_empty() && to > model.len() {
                model.resize(to, 0);
            }
            if !bytes.is_empty() {
                model[from..to].copy_from_slice(&bytes);
            }
            from = to;
            if below(10) == 0 {
                let len = below(50_000);
                direct.set_len(len as u64).unwrap();
                model.resize(len, 0);
            }
            let mut found = vec![0; below(9_000) + 1];
            let at = below(50_000);
            let mut count = 0;
            while let Ok(more @ 1..) = direct.read_at(&mut found[count..], (at + count) as u64) {
                count += more;
            }
            let expected = model.get(at..).unwrap_or_default();
            assert_eq!(found[..count], expected[..expected.len().min(found.len())]);
        }
        direct.sync_data().unwrap();
        assert!(content(disk, &path) == model);
        assert_eq!(direct.len().unwrap(), model.len() as u64);
    });
}

#[test]
fn direct_writes_larger_than_one_transfer_keep_order() {
    on_both(|disk, dir| {
        let path = dir.join("d");
        let direct = disk.open_direct(&path, OpenMode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (1..=9_u8).map(|n| vec![n; 700_001]).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        direct.allocate(8 << 20).unwrap();
        direct.write_all_vectored_at(&slices, 5_000).unwrap();
        direct.write_all_at(b"behind", 5_000 + 9 * 700_001).unwrap();
        let mut expected = vec![0; 8 << 20];
        expected[5_000..5_000 + 9 * 700_001].copy_from_slice(&parts.concat());
        expected[5_000 + 9 * 700_001..][..6].copy_from_slice(b"behind");
        assert!(content(disk, &path) == expected);
        assert_eq!(direct.map().unwrap().len(), expected.len());
        // Memory that lies as the device wants it goes there without a copy.
        let zeros = vec![0; (1 << 20) + 4096];
        let aligned = &zeros[zeros.as_ptr().align_offset(4096)..][..1 << 20];
        direct.write_all_at(aligned, 1 << 20).unwrap();
        expected[1 << 20..2 << 20].fill(0);
        assert!(content(disk, &path) == expected);
    });
}
