//! Files that are not as they were left.

use crate::support::{Model, PATH, disk, flush, open, read_all};
use bytes::Bytes;
use quorate_backend::{Error, Revision, Table, fuzz};
use quorate_disk::{CrashPolicy, SimDisk};
use std::path::Path;

fn filled(seed: u64) -> (SimDisk, Model) {
    let disk = disk(seed);
    let backend = open(&disk).unwrap();
    for index in 1..=20 {
        let main = i64::try_from(index).unwrap() + 1;
        let mut txn = backend.begin_apply(index, 1);
        for sub in 0..10 {
            let record = Bytes::from(vec![u8::try_from(main).unwrap(); 200]);
            txn.put_revision(Revision::new(main, sub), false, record);
        }
        txn.put(Table::Lease, &index.to_be_bytes(), Bytes::from(vec![3; 50]));
        txn.commit(index);
        if index % 6 == 0 {
            flush(&backend);
        }
    }
    flush(&backend);
    let model = read_all(&backend.read().unwrap(), 100).unwrap();
    drop(backend);
    (disk.crash(&CrashPolicy::KeepNone), model)
}

#[test]
fn a_flipped_bit_in_any_page_is_an_error_or_without_effect() {
    let (disk, model) = filled(1);
    let path = Path::new(PATH);
    let good = disk.peek(path).unwrap();
    let mut errors = 0;
    for page in 0..good.len() / 4096 {
        let mut bad = good.clone();
        bad[page * 4096 + (page * 37) % 512] ^= 1 << (page % 8);
        disk.poke(path, bad).unwrap();
        let found = open(&disk).and_then(|backend| read_all(&backend.read()?, 100));
        match found {
            Ok(found) => assert_eq!(found, model, "page {page}"),
            Err(Error::Corrupt { offset, path, .. }) => {
                assert_eq!(path, Path::new(PATH));
                let offset = usize::try_from(offset.unwrap()).unwrap();
                // The page itself, or one whose checksum is in it.
                assert!(offset / 4096 == page || page == 2, "page {page}: {offset}");
                errors += 1;
            }
            Err(other) => panic!("page {page}: {other}"),
        }
    }
    assert!(errors > 10, "{errors} pages of the file matter");
}

#[test]
fn a_superblock_has_a_second_copy() {
    let (disk, model) = filled(1);
    let path = Path::new(PATH);
    let good = disk.peek(path).unwrap();
    for copy in [0, 4096] {
        for bit in (0..512 * 8).step_by(7) {
            let mut bad = good.clone();
            bad[copy + bit / 8] ^= 1 << (bit % 8);
            disk.poke(path, bad).unwrap();
            let backend = open(&disk).unwrap();
            assert_eq!(backend.applied(), model.applied, "bit {bit} at {copy}");
        }
    }
    let mut bad = good;
    bad[100] ^= 1;
    bad[4196] ^= 1;
    disk.poke(path, bad).unwrap();
    assert!(matches!(
        open(&disk),
        Err(Error::Corrupt {
            offset: Some(0),
            ..
        })
    ));
}

#[test]
fn a_shorter_file_is_an_error() {
    let (disk, _) = filled(1);
    let path = Path::new(PATH);
    let good = disk.peek(path).unwrap();
    for len in [
        good.len() - 1,
        good.len() - 4096,
        good.len() / 2,
        12_288,
        8192,
    ] {
        disk.poke(path, good[..len].to_vec()).unwrap();
        let error = open(&disk).expect_err("it is refused");
        assert!(matches!(error, Error::Corrupt { .. }), "{len}: {error}");
        assert_eq!(disk.peek(path).unwrap().len(), len);
    }
}

#[test]
fn a_page_of_another_file_is_found() {
    let (disk, model) = filled(1);
    let (other, _) = filled(1);
    let path = Path::new(PATH);
    let older = {
        let backend = open(&other).unwrap();
        let mut txn = backend.begin_apply(50, 1);
        txn.put(Table::Lease, &3_u64.to_be_bytes(), Bytes::from_static(b"x"));
        txn.commit(1);
        flush(&backend);
        drop(backend);
        other.peek(path).unwrap()
    };
    let good = disk.peek(path).unwrap();
    for page in 3..good.len().min(older.len()) / 4096 {
        let mut bad = good.clone();
        let span = page * 4096..(page + 1) * 4096;
        bad[span.clone()].copy_from_slice(&older[span]);
        disk.poke(path, bad).unwrap();
        if let Ok(found) = open(&disk).and_then(|backend| read_all(&backend.read()?, 100)) {
            assert_eq!(found, model, "page {page}");
        }
    }
}

#[test]
fn damaged_files_are_read_right_or_not_at_all() {
    for seed in 0..150 {
        fuzz::damaged_file(seed);
    }
}
