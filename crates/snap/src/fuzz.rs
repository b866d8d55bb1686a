//! Fuzz targets, as plain functions of a seed.

use crate::format::{Decoded, decode, encode};
use crate::{Identity, ImageReader, ImageWriter, Snapshot, SnapshotId};
use bytes::Bytes;
use quorate_disk::{Disk, OpenMode, SimDisk};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest body that is drawn, in bytes.
const BODY_BYTES_MAX: u64 = 600;

/// Decodes a snapshot file that was damaged in ways drawn from the seed, or plain garbage.
///
/// # Panics
/// When decoding panics, or takes damaged bytes for whole.
pub fn fuzz_decode(seed: u64) {
    let mut random = Random(seed);
    let identity = Identity {
        cluster_id: random.next(),
        member_id: random.next(),
    };
    let snapshot = Snapshot {
        id: SnapshotId {
            term: random.next(),
            index: random.next(),
        },
        body: random.bytes(BODY_BYTES_MAX).into(),
    };
    let whole = encode(identity, &snapshot);
    let mut bytes = whole.clone();
    for _ in 0..=random.below(3) {
        bytes = damage(&mut random, bytes);
    }
    let same = bytes == whole;
    let decoded = decode(&Bytes::from(bytes));
    let read = matches!(decoded, Decoded::Whole(..) | Decoded::Newer(_));
    assert_eq!(read, same, "seed {seed}: {decoded:?}");
}

/// Most rows of a bucket that is drawn.
const ROWS_MAX: u64 = 200;

/// Reads all of an image that was damaged in ways drawn from the seed, or a whole one.
///
/// # Panics
/// When reading panics, gives rows out of order, does not end, or does not give back what was written.
pub fn fuzz_image(seed: u64) {
    let mut random = Random(seed);
    let mut buckets = BTreeMap::new();
    for name in 0..random.below(5) {
        let mut rows = BTreeMap::new();
        let value_bytes_max = [10, 300, 9_000].get(usize::try_from(random.below(3)).unwrap_or(0));
        for _ in 0..random.below(ROWS_MAX) {
            let mut key = random.bytes(40);
            key.push(1);
            rows.insert(key, random.bytes(value_bytes_max.copied().unwrap_or(10)));
        }
        buckets.insert(vec![u8::try_from(name).unwrap_or(0) + 1], rows);
    }
    let whole = write_image(&buckets);
    let mut bytes = whole.clone();
    for _ in 0..random.below(4) {
        let page = random.below(u64::try_from(bytes.len() / 4096).unwrap_or(1).max(1)) * 4096;
        // The heads of pages are where the damage does most.
        let at = usize::try_from(page + random.below(100)).unwrap_or(0);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.extend(random.bytes(5_000)),
            _ => {
                let new = random.bytes(8);
                let place = bytes.get_mut(at..).unwrap_or_default();
                place.iter_mut().zip(new).for_each(|(to, from)| *to = from);
            }
        }
    }
    let read = read_image(&bytes, seed);
    if bytes == whole {
        assert!(
            read == Some(buckets),
            "seed {seed}: a whole image is not read back"
        );
    }
}

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn write_image(buckets: &Buckets) -> Vec<u8> {
    fn fill<W: std::io::Write>(mut image: ImageWriter<W>, buckets: &Buckets) -> (W, crate::Layout) {
        for (name, rows) in buckets {
            image.bucket(name).expect("memory takes all bytes");
            for (key, value) in rows {
                image.row(key, value).expect("memory takes all bytes");
            }
        }
        image
            .finish()
            .expect("the rows are those that were measured")
    }
    let (_, layout) = fill(ImageWriter::measure(), buckets);
    let image = ImageWriter::new(Vec::new(), layout).expect("memory takes all bytes");
    fill(image, buckets).0
}

/// Reads an image to its first error; `None` when there is one.
fn read_image(bytes: &[u8], seed: u64) -> Option<Buckets> {
    let disk = SimDisk::new(1);
    let path = Path::new("/image");
    let file = disk.open(path, OpenMode::Create).expect("the disk is new");
    file.write_all_at(bytes, 0).expect("the disk is new");
    let image = ImageReader::open(&disk, path).ok()?;
    let mut buckets = Buckets::new();
    for name in image.buckets() {
        let mut last: Option<Bytes> = None;
        let mut rows = BTreeMap::new();
        for row in image.rows(name) {
            let (key, value) = row.ok()?;
            assert!(
                last.is_none_or(|last| last < key),
                "seed {seed}: rows are out of order"
            );
            rows.insert(key.to_vec(), value.to_vec());
            last = Some(key);
        }
        buckets.insert(name.to_vec(), rows);
    }
    image.check().ok()?;
    image.check_seal().ok()?;
    Some(buckets)
}

fn damage(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    let at = usize::try_from(random.below(800))
        .unwrap_or(0)
        .min(bytes.len());
    match random.below(5) {
        0 => bytes.truncate(at),
        1 => bytes.extend(random.bytes(40)),
        2 => bytes = random.bytes(BODY_BYTES_MAX),
        _ => {
            let new = random.bytes(8);
            let place = bytes.get_mut(at..).unwrap_or_default();
            place.iter_mut().zip(new).for_each(|(to, from)| *to = from);
        }
    }
    bytes
}

/// A small generator of seeded numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len)
            .map(|_| u8::try_from(self.below(256)).unwrap_or(0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn damaged_files_are_never_taken_for_whole() {
        for seed in 0..20_000 {
            super::fuzz_decode(seed);
        }
    }

    #[test]
    fn damaged_images_are_read_to_their_damage() {
        for seed in 0..1_500 {
            super::fuzz_image(seed);
        }
    }
}
