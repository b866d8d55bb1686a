//! Fuzz targets, as plain functions of a seed.

use crate::{Batch, Entry, Error, HardState, Identity, Options, SnapshotMark, Wal};
use bytes::Bytes;
use quorate_disk::{Disk, SimDisk};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const DIR: &str = "/wal";
const IDENTITY: Identity = Identity {
    cluster_id: 0xc1,
    member_id: 0x3e,
};
/// Appends of the log that is then damaged.
const APPENDS_MAX: u64 = 24;

/// Opens a log that was damaged in ways drawn from the seed, or plain garbage.
///
/// # Panics
/// When opening panics, when a log that opens does not open the same again, or when it holds entries that were never written.
pub fn fuzz_open(seed: u64) {
    let mut random = Random(seed);
    let disk = Arc::new(SimDisk::new(seed));
    let options = Options {
        segment_bytes: 4096 << random.below(3),
        identity: Some(IDENTITY),
    };
    let written = write_log(&mut random, &disk, &options);
    assert!(written.is_ok(), "seed {seed}: {written:?}");
    for _ in 0..=random.below(3) {
        damage(&mut random, &disk);
    }
    let first = Wal::open(disk.clone(), Path::new(DIR), options.clone()).map(|(_, found)| found);
    let Ok(first) = first else { return };
    for entry in &first.entries {
        assert_eq!(entry.data, data_of(entry.term, entry.index), "seed {seed}");
    }
    let again = Wal::open(disk, Path::new(DIR), options).map(|(_, found)| found);
    assert!(
        again.is_ok_and(|again| again.entries == first.entries
            && again.hard_state == first.hard_state
            && again.snapshot == first.snapshot
            && again.torn_tail.is_none()),
        "seed {seed}: a repaired log does not open as it was"
    );
}

/// Flips one bit of a log of about 64 KiB of which all is durable.
///
/// # Panics
/// When the log then opens with anything but all its entries.
pub fn fuzz_flip(seed: u64) {
    let mut random = Random(seed);
    let disk = Arc::new(SimDisk::new(seed));
    let options = Options {
        segment_bytes: 1 << (12 + random.below(6)),
        identity: Some(IDENTITY),
    };
    let last = 64 + random.below(40);
    let written = Wal::create(disk.clone(), Path::new(DIR), IDENTITY, options.clone())
        .and_then(|mut wal| (1..=last).try_for_each(|index| append_one(&mut wal, index)));
    assert!(written.is_ok(), "seed {seed}: {written:?}");
    let names = disk.read_dir(Path::new(DIR)).unwrap_or_default();
    let Some(name) = names.get(random.position(names.len())) else {
        return;
    };
    let path = Path::new(DIR).join(name);
    let mut bytes = disk.peek(&path).unwrap_or_default();
    let at = random.position(crate::fields::used_len(&bytes) + 512);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
    assert!(disk.poke(&path, bytes).is_ok(), "seed {seed}");
    match Wal::open(disk, Path::new(DIR), options) {
        Ok((_, found)) => {
            assert_eq!(found.entries.len() as u64, last, "seed {seed} byte {at}");
            for entry in &found.entries {
                assert_eq!(entry.data, data_of(entry.term, entry.index), "seed {seed}");
            }
        }
        Err(Error::Corrupt(corruption)) => {
            assert_eq!(corruption.path, path, "seed {seed} byte {at}");
            assert!(corruption.offset <= at as u64, "seed {seed} byte {at}");
        }
        Err(error) => assert!(
            at < 8 && matches!(error, Error::NotALog { .. }),
            "seed {seed} byte {at}: {error}"
        ),
    }
}

/// Bytes of each of the two segments of the log that [`fuzz_flip_every`] damages.
const FLIPPED_SEGMENT_BYTES: u64 = 32 << 10;
/// Bits of that log.
pub const FLIPPED_BITS: u64 = 2 * 8 * FLIPPED_SEGMENT_BYTES;
/// Spreads successive seeds over all bits; odd, so that each is hit once.
const FLIP_STRIDE: u64 = 0x9e37_79b1;

/// A log of two segments, 64 KiB together, all of it durable.
struct WholeLog {
    files: Vec<(PathBuf, Vec<u8>)>,
    entries: Vec<Entry>,
}

/// Flips one bit of a log of 64 KiB, always the same log: the first [`FLIPPED_BITS`] seeds are all bits of it, and any run of
/// seeds is spread over the whole of it.
///
/// # Panics
/// When the log then opens with anything but all its entries, or fails without naming the damaged file and a place before it.
pub fn fuzz_flip_every(seed: u64) {
    static LOG: OnceLock<WholeLog> = OnceLock::new();
    let log = LOG.get_or_init(whole_log);
    let bit = seed.wrapping_mul(FLIP_STRIDE) % FLIPPED_BITS;
    let (file, at) = (
        bit / 8 / FLIPPED_SEGMENT_BYTES,
        bit / 8 % FLIPPED_SEGMENT_BYTES,
    );
    let disk = Arc::new(SimDisk::new(seed));
    let made = disk.create_dir_all(Path::new(DIR));
    assert!(made.is_ok(), "{made:?}");
    let mut damaged = None;
    for (number, (path, bytes)) in (0..).zip(&log.files) {
        let mut bytes = bytes.clone();
        if number == file
            && let Some(byte) = bytes.get_mut(crate::fields::memory_len(at))
        {
            *byte ^= 1 << (bit % 8);
            damaged = Some(path);
        }
        assert!(disk.poke(path, bytes).is_ok(), "bit {bit}");
    }
    match Wal::open(disk, Path::new(DIR), Options::default()) {
        Ok((_, found)) => assert!(found.entries == log.entries, "bit {bit}: another log"),
        Err(Error::Corrupt(corruption)) => {
            assert_eq!(Some(&corruption.path), damaged, "bit {bit}");
            assert!(corruption.offset <= at, "bit {bit}: {corruption}");
        }
        Err(error) => assert!(
            at < 8 && matches!(error, Error::NotALog { .. }),
            "bit {bit}: {error}"
        ),
    }
}

/// Writes the log: two segments, the second one nearly full.
fn whole_log() -> WholeLog {
    let disk = Arc::new(SimDisk::new(0));
    let options = Options {
        segment_bytes: FLIPPED_SEGMENT_BYTES,
        identity: Some(IDENTITY),
    };
    let mut entries = Vec::new();
    let created = Wal::create(disk.clone(), Path::new(DIR), IDENTITY, options.clone());
    let mut wal = created.expect("a simulated disk without faults works");
    let room = crate::fields::file_len(2048);
    let is_full = |wal: &Wal| wal.segment_count() == 2 && wal.room_bytes() < room;
    while !is_full(&wal) {
        let index = crate::fields::file_len(entries.len()) + 1;
        let data = data_of(1, index);
        let written = append_one(&mut wal, index);
        assert!(written.is_ok(), "{written:?}");
        entries.push(Entry {
            term: 1,
            index,
            kind: 0,
            data,
        });
    }
    drop(wal);
    let names = disk.read_dir(Path::new(DIR)).unwrap_or_default();
    let files = names.into_iter().map(|name| Path::new(DIR).join(name));
    let files: Vec<_> = files
        .map(|path| {
            let bytes = disk.peek(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect();
    assert_eq!(files.len(), 2, "the log has as many segments as planned");
    WholeLog { files, entries }
}

fn append_one(wal: &mut Wal, index: u64) -> Result<(), Error> {
    let entry = Entry {
        term: 1,
        index,
        kind: 0,
        data: data_of(1, index),
    };
    wal.append(&[Batch {
        ticket: index,
        entries: vec![entry],
        must_sync: true,
        ..Batch::default()
    }])
    .map(|_| ())
}

/// Says what an entry holds, so that any entry found can be checked.
fn data_of(term: u64, index: u64) -> Bytes {
    let len = (term * 7919 + index * 104_729) % 1500;
    let mut random = Random(term << 32 | index);
    (0..len)
        .map(|_| match random.below(3) {
            0 => 0,
            value => value.to_le_bytes()[0].wrapping_mul(77),
        })
        .collect()
}

fn write_log(random: &mut Random, disk: &Arc<SimDisk>, options: &Options) -> Result<(), Error> {
    let mut wal = Wal::create(disk.clone(), Path::new(DIR), IDENTITY, options.clone())?;
    let (mut term, mut last, mut marked) = (1, 0, 0);
    for ticket in 0..random.below(APPENDS_MAX) {
        term += random.below(2);
        // Sometimes a few of the newest entries are replaced.
        let back = random.below(3).min(last - marked) * random.below(2);
        let from = last - back + 1;
        let count = random.below(4) + u64::from(back > 0);
        last = from + count - 1;
        let snapshot = if random.below(6) == 0 && last > marked && back == 0 && count > 0 {
            marked = from - 1;
            (marked > 0).then_some(SnapshotMark {
                index: marked,
                term: 0,
            })
        } else {
            None
        };
        let _ = wal.append(&[Batch {
            ticket,
            entries: (from..=last)
                .map(|index| Entry {
                    term,
                    index,
                    kind: 0,
                    data: data_of(term, index),
                })
                .collect(),
            hard_state: Some(HardState {
                term,
                vote: 1,
                commit: marked,
            }),
            snapshot,
            must_sync: random.below(4) > 0,
        }])?;
    }
    Ok(())
}

/// Damages one file, or adds one.
fn damage(random: &mut Random, disk: &SimDisk) {
    let names = disk.read_dir(Path::new(DIR)).unwrap_or_default();
    let Some(name) = names.get(random.position(names.len())) else {
        return;
    };
    let path: PathBuf = Path::new(DIR).join(name);
    let mut bytes = disk.peek(&path).unwrap_or_default();
    let used = crate::fields::used_len(&bytes) + 64;
    let from = random.position(used).min(bytes.len());
    let to = (from + random.position(600)).min(bytes.len());
    match random.below(6) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(from) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => bytes.truncate(from),
        3 => bytes
            .get_mut(from..to)
            .unwrap_or_default()
            .iter_mut()
            .for_each(|byte| *byte = 0),
        4 => bytes
            .get_mut(from..to)
            .unwrap_or_default()
            .iter_mut()
            .for_each(|byte| *byte = random.below(256).to_le_bytes()[0]),
        _ => {
            let part = bytes.get(from..to).unwrap_or_default().to_vec();
            let place = random.position(bytes.len());
            let places = bytes.get_mut(place..).unwrap_or_default();
            places
                .iter_mut()
                .zip(part)
                .for_each(|(to, from)| *to = from);
        }
    }
    // A directory that cannot take the file leaves it as it was.
    let _ = disk.poke(&path, bytes);
}

/// A small generator of seeded numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(limit).unwrap_or(0)
    }

    fn position(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(self.below(limit)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn damaged_logs_open_or_say_why_not() {
        for seed in 0..3000 {
            super::fuzz_open(seed);
        }
    }

    #[test]
    fn bits_all_over_a_log_shorten_it_nowhere() {
        for seed in 0..4000 {
            super::fuzz_flip_every(seed);
        }
    }

    #[test]
    #[ignore = "half a million openings; cargo xtask fuzz wal_flip_every goes through the same seeds"]
    fn every_bit_of_a_log_shortens_it_nowhere() {
        for seed in 0..super::FLIPPED_BITS {
            super::fuzz_flip_every(seed);
        }
    }

    #[test]
    fn every_bit_has_a_seed() {
        let bits = super::FLIPPED_BITS;
        let mut hit = vec![false; usize::try_from(bits).unwrap()];
        for seed in 0..bits {
            let bit = seed.wrapping_mul(super::FLIP_STRIDE) % bits;
            hit[usize::try_from(bit).unwrap()] = true;
        }
        assert!(hit.iter().all(|hit| *hit));
    }

    #[test]
    fn flipped_bits_shorten_no_log() {
        for seed in 0..1000 {
            super::fuzz_flip(seed);
        }
    }
}
