//! Values that were read from the file and may be read again.

use crate::revision::Revision;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{BuildHasher, Hasher};

/// Estimate of what an entry costs beside its value, in bytes.
const ENTRY_MEMORY_BYTES: u64 = 96;
/// Values this large, in bytes, or larger are not kept.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Guess of the mean size of a value, in bytes, from which the cache sizes its table.
const VALUE_BYTES_MEAN: u64 = 512;

type Entries = Cache<Revision, Bytes, ByBytes, FixedHash, DefaultLifecycle<Revision, Bytes>>;

/// A cache that counts bytes. Stale entries cannot be: the record of a revision never changes.
pub(crate) struct ValueCache(Option<Entries>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Revision, Bytes> for ByBytes {
    fn weight(&self, _: &Revision, value: &Bytes) -> u64 {
        value.len() as u64 + ENTRY_MEMORY_BYTES
    }
}

/// Hashes the same in every process, so that a run can be repeated.
#[derive(Clone, Copy, Default)]
struct FixedHash;

struct Mixer(u64);

/// Odd, with bits spread evenly. Source: the golden ratio in 64 bits.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

impl BuildHasher for FixedHash {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0)
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(29) ^ value).wrapping_mul(MULTIPLIER);
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value.cast_unsigned());
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 29)
    }
}

impl ValueCache {
    pub(crate) fn new(capacity_bytes: u64) -> ValueCache {
        if capacity_bytes == 0 {
            return ValueCache(None);
        }
        let items = usize::try_from(capacity_bytes / VALUE_BYTES_MEAN)
            .unwrap_or(usize::MAX)
            .max(1);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity_bytes)
            .estimated_items_capacity(items)
            .build()
            .expect("both capacities are set");
        ValueCache(Some(Cache::with_options(
            options,
            ByBytes,
            FixedHash,
            DefaultLifecycle::default(),
        )))
    }

    pub(crate) fn get(&self, rev: Revision) -> Option<Bytes> {
        self.0.as_ref()?.get(&rev)
    }

    pub(crate) fn insert(&self, rev: Revision, value: &Bytes) {
        if let Some(entries) = &self.0
            && value.len() < VALUE_BYTES_MAX
        {
            entries.insert(rev, value.clone());
        }
    }

    pub(crate) fn remove(&self, rev: Revision) {
        if let Some(entries) = &self.0 {
            entries.remove(&rev);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_to_its_bytes() {
        let cache = ValueCache::new(100_000);
        let value = Bytes::from(vec![7; 1000]);
        for main in 0..1000 {
            cache.insert(Revision::new(main, 0), &value);
        }
        assert!(cache.0.as_ref().unwrap().weight() <= 100_000);
        cache.insert(Revision::new(5000, 1), &value);
        assert_eq!(cache.get(Revision::new(5000, 1)), Some(value));
        cache.remove(Revision::new(5000, 1));
        assert_eq!(cache.get(Revision::new(5000, 1)), None);
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = ValueCache::new(0);
        cache.insert(Revision::MIN, &Bytes::from_static(b"x"));
        assert_eq!(cache.get(Revision::MIN), None);
    }

    #[test]
    fn neighbouring_revisions_spread() {
        let mut low_bits = [0_u32; 64];
        for main in 0..6400 {
            let hash = FixedHash.hash_one(Revision::new(main, 0));
            low_bits[usize::try_from(hash % 64).unwrap()] += 1;
        }
        assert!(low_bits.iter().all(|count| (40..200).contains(count)));
    }
}
