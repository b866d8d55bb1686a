//! Flipped bits, cut files, zeroed and misdirected bytes.

use crate::harness::{
    Model, Random, create, dir, entries_batch, entry, filler, open, options, segments,
};
use quorate_disk::{Disk, Fault, OperationKind, SimDisk};
use quorate_wal::{Batch, Error, HardState, Options};

/// A small log: its disk, its options, and the states it went through; all of it is durable.
fn small_log(segment_bytes: u64) -> (SimDisk, Options, Vec<Model>) {
    let disk = SimDisk::new(77);
    let options = options(segment_bytes);
    let mut wal = create(&disk, &options).unwrap();
    let mut states = vec![Model::default()];
    let sizes = [0, 1, 40, 300, 0, 520, 1100, 7, 464, 2];
    for (position, len) in sizes.into_iter().enumerate() {
        let index = position as u64 + 1;
        let mut data = filler(index, len);
        if len == 1100 {
            // A whole sector of zeros, as values may have.
            data[200..1000].fill(0);
        }
        let batch = Batch {
            ticket: index,
            entries: vec![entry(1, index, data)],
            hard_state: index.is_multiple_of(3).then_some(HardState {
                term: 1,
                vote: 2,
                commit: index - 1,
            }),
            snapshot: None,
            must_sync: true,
        };
        let mut state = states.last().unwrap().clone();
        state.apply(&batch);
        states.push(state);
        let _ = wal.append(&[batch]).unwrap();
    }
    (disk, options, states)
}

/// Replaces a segment in a fresh copy of the log and opens it.
fn open_with(
    files: &[(std::path::PathBuf, Vec<u8>)],
    options: &Options,
    which: usize,
    bytes: Vec<u8>,
) -> Result<Model, Error> {
    let disk = SimDisk::new(1);
    disk.create_dir_all(dir()).unwrap();
    for (position, (path, content)) in files.iter().enumerate() {
        let content = if position == which { &bytes } else { content };
        disk.poke(path, content.clone()).unwrap();
    }
    open(&disk, options).map(|(_, recovered)| Model::of(recovered))
}

fn files(disk: &SimDisk) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = segments(disk).into_iter();
    paths
        .map(|path| {
            let bytes = disk.peek(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

#[test]
fn every_flipped_bit_gives_the_same_log_or_a_clear_error() {
    for segment_bytes in [4096, 1 << 16] {
        let (disk, options, states) = small_log(segment_bytes);
        let whole = states.last().unwrap();
        let files = files(&disk);
        let (mut same, mut refused) = (0, 0);
        for (which, (_, bytes)) in files.iter().enumerate() {
            for bit in 0..(used(bytes) + 600).min(bytes.len()) * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                match open_with(&files, &options, which, damaged) {
                    Ok(found) => {
                        assert_eq!(&found, whole, "file {which} bit {bit}");
                        same += 1;
                    }
                    Err(Error::Corrupt(corruption)) => {
                        assert_eq!(corruption.path, files[which].0);
                        assert!(
                            corruption.offset <= bit as u64 / 8,
                            "bit {bit}: {corruption}"
                        );
                        assert!(corruption.index <= 11);
                        refused += 1;
                    }
                    Err(Error::NotALog { .. }) => assert!(bit < 64),
                    Err(error) => panic!("file {which} bit {bit}: {error}"),
                }
            }
        }
        assert!(same > 100 && refused > 10_000, "{same} {refused}");
    }
}

#[test]
fn file_cut_or_zeroed_from_any_byte_loses_only_what_is_behind() {
    let (disk, options, states) = small_log(1 << 16);
    let files = files(&disk);
    let bytes = &files[0].1;
    let mut seen = std::collections::BTreeSet::new();
    for from in 128..used(bytes) + 16 {
        for zeroed in [true, false] {
            let mut damaged = bytes.clone();
            damaged.truncate(from);
            if zeroed {
                damaged.resize(bytes.len(), 0);
            }
            let found = open_with(&files, &options, 0, damaged).unwrap();
            let at = states.iter().position(|state| *state == found);
            seen.insert(at.unwrap_or_else(|| panic!("byte {from}: {found:?}")));
        }
    }
    // Every prefix occurs, each behind the one before it.
    assert_eq!(seen.len(), states.len());
    for from in 0..128 {
        let cut = open_with(&files, &options, 0, bytes[..from].to_vec());
        assert!(matches!(cut, Err(Error::Corrupt(_))));
    }
}

#[test]
fn zeroed_sector_before_a_later_append_is_never_cut() {
    for segment_bytes in [4096, 1 << 16] {
        let (disk, options, states) = small_log(segment_bytes);
        let whole = states.last().unwrap();
        let files = files(&disk);
        for (which, (_, bytes)) in files.iter().enumerate() {
            for sector in 0..used(bytes).div_ceil(512) {
                let mut damaged = bytes.clone();
                damaged[sector * 512..][..512].fill(0);
                let found = open_with(&files, &options, which, damaged);
                let last = which + 1 == files.len() && (sector + 1) * 512 >= used(bytes) - 60;
                match found {
                    Ok(found) if last => assert!(states.contains(&found)),
                    Ok(found) => assert_eq!(&found, whole),
                    Err(Error::Corrupt(corruption)) => assert_eq!(corruption.path, files[which].0),
                    Err(error) => panic!("sector {sector}: {error}"),
                }
            }
        }
    }
}

#[test]
fn random_damage_never_shortens_what_later_records_prove() {
    let (disk, options, states) = small_log(1 << 16);
    let files = files(&disk);
    let bytes = &files[0].1;
    let used = used(bytes) as u64;
    let mut random = Random(4);
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        let at = usize::try_from(random.below(used)).unwrap();
        let len = usize::try_from(1 + random.below(64)).unwrap();
        for byte in damaged.iter_mut().skip(at).take(len) {
            *byte = u8::try_from(random.below(256)).unwrap();
        }
        if let Ok(found) = open_with(&files, &options, 0, damaged) {
            let behind = states.iter().position(|state| *state == found).unwrap();
            // The last two states are one append: only that may be lost.
            assert!(behind + 2 >= states.len(), "byte {at}");
        }
    }
}

#[test]
fn flips_while_reading_are_noticed() {
    let (disk, options, states) = small_log(4096);
    disk.set_rate(OperationKind::Map, Fault::FlipBit, 300_000);
    disk.set_rate(OperationKind::Read, Fault::FlipBit, 100_000);
    disk.set_rate(OperationKind::Read, Fault::ShortRead, 500_000);
    let mut opened = 0;
    for _ in 0..500 {
        if let Ok((_, recovered)) = open(&disk, &options) {
            assert_eq!(&Model::of(recovered), states.last().unwrap());
            opened += 1;
        }
    }
    assert!(opened > 20);
}

#[test]
fn lost_and_misdirected_writes_are_reported() {
    for fault in [
        Fault::LoseWrite,
        Fault::MisdirectWrite { sectors: 3 },
        Fault::MisdirectWrite { sectors: -1 },
    ] {
        let disk = SimDisk::new(0);
        let options = options(1 << 16);
        let mut wal = create(&disk, &options).unwrap();
        for index in 1..=5 {
            if index == 3 {
                disk.inject_next(OperationKind::Write, fault);
            }
            let batch = entries_batch(index, vec![entry(1, index, filler(index, 900))]);
            let _ = wal.append(&[batch]).unwrap();
        }
        drop(wal);
        let Err(Error::Corrupt(corruption)) = open(&disk, &options) else {
            panic!("{fault:?} went unnoticed");
        };
        assert!((1..=3).contains(&corruption.index), "{corruption}");
    }
}

#[test]
fn flip_in_the_last_record_is_no_torn_write() {
    let disk = SimDisk::new(0);
    let options = options(1 << 16);
    let mut wal = create(&disk, &options).unwrap();
    let mut data = filler(2, 2000);
    // Whole sectors of zeros of its own must not pass for sectors that were lost.
    data[400..1700].fill(0);
    for (index, data) in [(1, filler(1, 100)), (2, data)] {
        let batch = entries_batch(index, vec![entry(1, index, data)]);
        let _ = wal.append(&[batch]).unwrap();
    }
    drop(wal);
    let files = files(&disk);
    let bytes = &files[0].1;
    // Behind the head, the first record, and the gap before the second.
    let payload = 280 + 48;
    for byte in [280, payload, payload + 399, payload + 800, payload + 1999] {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 0x10;
        let Err(Error::Corrupt(corruption)) = open_with(&files, &options, 0, damaged) else {
            panic!("byte {byte}");
        };
        assert_eq!((corruption.offset, corruption.index), (280, 2));
    }
    for lost in [512, 1024, 1536, 2048] {
        let mut torn = bytes.clone();
        torn[lost..lost + 512].fill(0);
        let found = open_with(&files, &options, 0, torn);
        // The sector that was zeros anyway is not missed.
        let whole = lost == 1024;
        assert_eq!(found.unwrap().entries.len(), if whole { 2 } else { 1 });
    }
}

#[test]
fn stale_record_that_fits_its_place_is_noticed() {
    let log = |second: u64| {
        let disk = SimDisk::new(0);
        let options = options(1 << 16);
        let mut wal = create(&disk, &options).unwrap();
        for (index, seed) in [(1, 1), (2, second), (3, 3)] {
            let batch = entries_batch(index, vec![entry(1, index, filler(seed, 400))]);
            let _ = wal.append(&[batch]).unwrap();
        }
        disk
    };
    let (disk, stale) = (log(2), log(20));
    let files = files(&disk);
    let mut bytes = files[0].1.clone();
    let third = 128 + 2 * 456;
    bytes[third..].copy_from_slice(&stale.peek(&files[0].0).unwrap()[third..]);
    let error = open_with(&files, &options(1 << 16), 0, bytes).unwrap_err();
    let Error::Corrupt(corruption) = error else {
        panic!("{error}");
    };
    assert_eq!(corruption.what, "record does not follow the one before it");
    assert_eq!((corruption.offset, corruption.index), (third as u64, 3));
}
