//! The running digest of everything applied, and the recent ones for comparison with other members.
use bytes::{Buf as _, Bytes};
use raft::eraftpb::Entry;

/// Meta key under which an image of the database carries the digest at its applied index. etcd keeps it and ignores it.
///
/// **Shape** of the row: index and digest, 8 bytes each, big endian. It says nothing when the index is not the image's.
pub const DIGEST_KEY: &[u8] = b"quorateDigest";

/// Makes the row for an image at an index.
pub fn digest_row(index: u64, digest: u64) -> Bytes {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&index.to_be_bytes());
    row[8..].copy_from_slice(&digest.to_be_bytes());
    Bytes::copy_from_slice(&row)
}

/// Reads the row of an image at an index; 0, not known, when it has none or one of another index.
pub fn digest_of_row(row: Option<&[u8]>, index: u64) -> u64 {
    match row {
        Some(mut row) if row.len() == 16 => {
            if row.get_u64() == index {
                row.get_u64()
            } else {
                UNKNOWN
            }
        }
        _ => UNKNOWN,
    }
}

/// Entries after which the digest starts anew, so that members agree again some time after one of them began in the
/// middle, with an image that did not say what the digest was.
const EPOCH_ENTRIES: u64 = 1 << 14;
const SEED: u64 = 0x5175_6f72_6174_6531;
/// Stands for a digest that is not known.
const UNKNOWN: u64 = 0;

/// Folds an entry, and what it left behind, into the digest. Unknown stays unknown until the next epoch begins.
///
/// Members that applied the same entries to the same state have equal digests; a difference means that they diverged.
///
/// # Panics
/// When the entry has no index.
pub fn fold_digest(digest: u64, entry: &Entry, effect: u64) -> u64 {
    let begins = entry
        .index
        .checked_sub(1)
        .expect("entries are counted from 1")
        .is_multiple_of(EPOCH_ENTRIES);
    if digest == UNKNOWN && !begins {
        return UNKNOWN;
    }
    let before = if begins { SEED } else { digest };
    // 0 has a meaning of its own.
    mix(before, entry, effect).max(1)
}

/// Folds an entry's position, its bytes and what it left behind.
fn mix(digest: u64, entry: &Entry, effect: u64) -> u64 {
    let data = u64::from(crc32fast::hash(&entry.data));
    [entry.index, entry.term, data, effect]
        .iter()
        .fold(digest, |digest, value| {
            let mixed = (digest ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 29)
        })
}

/// Digests remembered.
const RECENT: u64 = 65_536;

/// The digests after the newest entries.
#[derive(Debug)]
pub(crate) struct RecentDigests {
    by_index: Box<[u64]>,
    first: u64,
    next: u64,
}

impl RecentDigests {
    /// Begins with what is known after a start or an installed snapshot.
    pub(crate) fn new(index: u64, digest: u64) -> Self {
        let mut recent = Self {
            by_index: vec![UNKNOWN; usize::try_from(RECENT).expect("small")].into(),
            first: index,
            next: index,
        };
        recent.push(index, digest);
        recent
    }

    pub(crate) fn push(&mut self, index: u64, digest: u64) {
        self.by_index[slot(index)] = digest;
        self.next = index + 1;
        self.first = self.first.max(self.next.saturating_sub(RECENT));
    }

    /// Returns the digest after an entry; `None` when it is too old, yet to come, or not known.
    pub(crate) fn at(&self, index: u64) -> Option<u64> {
        let is_there = (self.first..self.next).contains(&index);
        let digest = is_there.then(|| self.by_index[slot(index)])?;
        (digest != UNKNOWN).then_some(digest)
    }
}

fn slot(index: u64) -> usize {
    usize::try_from(index % RECENT).expect("small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry {
            index,
            term: 1,
            ..Entry::default()
        }
    }

    #[test]
    fn who_began_in_the_middle_agrees_again_after_an_epoch() {
        let (mut whole, mut late) = (UNKNOWN, UNKNOWN);
        for index in 1..=EPOCH_ENTRIES + 5 {
            whole = fold_digest(whole, &entry(index), index);
            if index > 100 {
                late = fold_digest(late, &entry(index), index);
                assert_eq!(late == UNKNOWN, index <= EPOCH_ENTRIES);
            }
            assert_ne!(whole, UNKNOWN);
        }
        assert_eq!(whole, late);
    }

    #[test]
    fn only_recent_and_known_digests_are_told() {
        let mut recent = RecentDigests::new(10, 7);
        assert_eq!(
            (recent.at(9), recent.at(10), recent.at(11)),
            (None, Some(7), None)
        );
        for index in 11..=10 + RECENT {
            recent.push(index, if index == 20 { UNKNOWN } else { index });
        }
        assert_eq!(
            (recent.at(10), recent.at(11), recent.at(20)),
            (None, Some(11), None)
        );
    }

    #[test]
    fn the_row_of_an_image_counts_only_at_its_index() {
        let row = digest_row(5, 9);
        assert_eq!(digest_of_row(Some(&row), 5), 9);
        assert_eq!(digest_of_row(Some(&row), 6), 0);
        assert_eq!(digest_of_row(Some(&row[1..]), 5), 0);
        assert_eq!(digest_of_row(None, 5), 0);
    }
}
