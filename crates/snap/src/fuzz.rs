//! Fuzz targets, as plain functions of a seed.

use crate::format::{Decoded, decode, encode};
use crate::{Identity, Snapshot, SnapshotId};
use bytes::Bytes;

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
}
