//! Seeded checks of what is read from the disk, for the project's fuzzer and for the tests.

use crate::{Backend, Error, Options, Revision, Table};
use bytes::Bytes;
use quorate_disk::{Disk, SimDisk};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

const PATH: &str = "/db";
const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// Changes made to one file at most.
const CHANGES_MAX: u64 = 4;
/// Batches before the file is damaged.
const BATCHES: u64 = 12;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).map_or(0, |value| value % limit.max(1))
    }
}

type Contents = Vec<(Table, Bytes, Bytes)>;

/// Damages a file in ways that come from the seed, opens it and reads everything.
///
/// # Panics
/// When something is read that was not written, be it in part, or anything else panics: the target has found a fault.
pub fn damaged_file(seed: u64) {
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let disk = SimDisk::new(seed);
    let states = fill(&disk, &mut random).expect("a sound disk");
    let path = Path::new(PATH);
    let mut bytes = disk.peek(path).expect("the file exists");
    for _ in 0..=random.below(usize::try_from(CHANGES_MAX).unwrap_or(1) - 1) {
        damage(&mut bytes, &mut random);
    }
    disk.poke(path, bytes).expect("the directory exists");
    if let Ok(found) = read(&disk) {
        assert!(
            states.contains(&found),
            "seed {seed}: a damaged file was read as something that was never written"
        );
    }
}

/// Writes some batches and returns what the file may hold: the last two flushes.
fn fill(disk: &SimDisk, random: &mut Random) -> Result<Vec<Contents>, Error> {
    let backend = open(disk)?;
    let mut states = Vec::new();
    let mut main = 1;
    for index in 1..=BATCHES {
        let mut txn = backend.begin_apply(index, 1);
        for _ in 0..random.below(40) {
            main += 1;
            let record = Bytes::from(vec![random.below(256).to_le_bytes()[0]; random.below(900)]);
            txn.put_revision(Revision::new(main, 0), random.below(5) == 0, record);
        }
        txn.put(Table::Auth, b"who", Bytes::from(index.to_string()));
        txn.commit(index);
        if let Some(job) = backend.seal() {
            job.run()?;
        }
        states.push(contents(&backend)?);
    }
    Ok(states.split_off(states.len() - 2))
}

fn open(disk: &SimDisk) -> Result<Backend, Error> {
    let options = Options {
        page_cache_bytes: 16 * PAGE,
        value_cache_bytes: 0,
        ..Options::default()
    };
    Backend::open(Arc::new(disk.clone()), Path::new(PATH), options)
}

fn read(disk: &SimDisk) -> Result<Contents, Error> {
    // No file may be made in place of a damaged one.
    assert!(disk.exists(Path::new(PATH)).unwrap_or(false));
    contents(&open(disk)?)
}

fn contents(backend: &Backend) -> Result<Contents, Error> {
    let txn = backend.read()?;
    let mut out = Vec::new();
    for table in Table::ALL {
        let rows = txn.scan(table, Bound::Unbounded, usize::MAX)?;
        out.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
    }
    Ok(out)
}

/// Does one thing to the file that a bad disk, or a bad hand, does.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let pages = bytes.len() / PAGE;
    let sectors = bytes.len() / SECTOR;
    let pick = |random: &mut Random| {
        // Half of the damage goes where the file is dense.
        let limit = if random.below(2) == 0 { 32 } else { pages };
        random.below(limit.min(pages)) * PAGE
    };
    match random.below(8) {
        0..=2 => {
            let at = pick(random) + random.below(PAGE);
            bytes[at] ^= 1 << random.below(8);
        }
        3 => {
            let at = random.below(sectors) * SECTOR;
            bytes[at..at + SECTOR].fill(0);
        }
        4 => {
            let (from, to) = (pick(random), pick(random));
            bytes.copy_within(from..from + PAGE, to);
        }
        5 => {
            let (from, to) = (random.below(sectors), random.below(sectors));
            bytes.copy_within(from * SECTOR..(from + 1) * SECTOR, to * SECTOR);
        }
        6 => {
            let at = pick(random);
            for byte in &mut bytes[at..at + PAGE] {
                *byte = random.below(256).to_le_bytes()[0];
            }
        }
        _ => {
            let len = if random.below(2) == 0 {
                random.below(bytes.len())
            } else {
                random.below(pages) * PAGE
            };
            bytes.truncate(len.max(PAGE));
        }
    }
}
