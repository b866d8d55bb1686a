//! The content of a simulated file: what is seen, and what a power loss may leave of it.

use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// The unit that a power loss keeps or loses as a whole, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// Versions of one unsynced sector that are remembered; of more, the oldest but one is forgotten.
const SECTOR_VERSIONS_MAX: usize = 8;
/// Sizes of one unsynced file that are remembered; of more, the oldest but one is forgotten.
const LENGTHS_MAX: usize = 16;

/// A sector as it was at some time, with zeros behind the end of the file.
type Image = Box<[u8; SECTOR_BYTES]>;

/// The bytes of a file with what is needed to go back.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// What reads see.
    seen: Vec<u8>,
    /// Sectors changed since the last sync: the durable image first, then what was overwritten since, oldest first.
    dirty: BTreeMap<usize, Vec<Image>>,
    /// Sectors that a failed sync gave up: their durable image. No later sync makes them durable, only a new write does.
    given_up: BTreeMap<usize, Image>,
    /// Size that a power loss certainly leaves if it keeps nothing.
    durable_len: usize,
    /// Sizes the file has had since the last sync, oldest first; the present one is last. Empty when it did not change.
    lengths: Vec<usize>,
    /// Which sectors have space reserved.
    reserved: Vec<bool>,
    /// Sectors that cannot be read until they are written again.
    unreadable: BTreeSet<usize>,
}

impl Content {
    /// Returns a file with these bytes, all durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Content {
        let sectors = bytes.len().div_ceil(SECTOR_BYTES);
        Content {
            durable_len: bytes.len(),
            seen: bytes,
            reserved: vec![true; sectors],
            ..Content::default()
        }
    }

    /// Makes a sector unreadable.
    pub(super) fn spoil(&mut self, sector: usize) {
        self.unreadable.insert(sector);
    }

    /// Says whether a sector of a range of bytes cannot be read.
    pub(super) fn is_unreadable(&self, from: usize, to: usize) -> bool {
        !self.unreadable.is_empty() && self.unreadable.range(sectors_of(from, to)).next().is_some()
    }

    /// Returns the sectors that cannot be read, to be kept over a power loss.
    pub(super) fn with_unreadable_of(mut self, before: &Content) -> Content {
        self.unreadable.clone_from(&before.unreadable);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.seen
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns how many sectors have space reserved.
    pub(super) fn reserved_sectors(&self) -> usize {
        self.reserved.iter().filter(|reserved| **reserved).count()
    }

    /// Returns how many sectors of this range still need space.
    pub(super) fn unreserved_sectors(&self, from: usize, to: usize) -> usize {
        sectors_of(from, to)
            .filter(|sector| self.reserved.get(*sector) != Some(&true))
            .count()
    }

    /// Reserves space for the range and grows the file to its end, with zeros.
    pub(super) fn reserve(&mut self, from: usize, to: usize) {
        self.mark_reserved(from, to);
        if to > self.seen.len() {
            self.set_len(to);
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        for sector in sectors_of(offset, end) {
            self.remember(sector);
            self.unreadable.remove(&sector);
        }
        self.mark_reserved(offset, end);
        if end > self.seen.len() {
            self.set_len(end);
        }
        self.seen[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len == self.seen.len() {
            return;
        }
        for sector in sectors_of(len, self.seen.len()) {
            self.remember(sector);
        }
        if len < self.seen.len() {
            let sectors = len.div_ceil(SECTOR_BYTES);
            self.reserved.truncate(sectors);
            self.unreadable.split_off(&sectors);
        }
        self.seen.resize(len, 0);
        if self.lengths.len() >= LENGTHS_MAX {
            self.lengths.remove(0);
        }
        self.lengths.push(len);
    }

    /// Makes everything durable that no earlier sync gave up.
    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.lengths.clear();
        self.durable_len = self.seen.len();
    }

    /// Fails to sync: some sectors become durable, the others are given up.
    pub(super) fn sync_badly(&mut self, random: &mut Random) {
        for (sector, mut versions) in std::mem::take(&mut self.dirty) {
            if random.below(2) == 0 {
                self.given_up.insert(sector, versions.swap_remove(0));
            }
        }
    }

    /// Says whether the size is not durable.
    pub(super) fn length_is_unsynced(&self) -> bool {
        !self.lengths.is_empty()
    }

    /// Returns the sectors that are not durable, in order.
    pub(super) fn unsynced_sectors(&self) -> impl Iterator<Item = usize> + '_ {
        self.dirty.keys().copied()
    }

    /// Returns what a power loss leaves. `length` and `sector` choose among so many versions, the durable one first.
    pub(super) fn after_power_loss(
        &self,
        length: impl FnOnce(usize) -> usize,
        mut sector: impl FnMut(usize, usize) -> usize,
    ) -> Vec<u8> {
        let len = match length(self.lengths.len() + 1) {
            0 => self.durable_len,
            choice => self.lengths.get(choice - 1).copied().unwrap_or(self.len()),
        };
        let mut bytes = self.seen.clone();
        let whole = bytes.len().max(len).next_multiple_of(SECTOR_BYTES);
        bytes.resize(whole, 0);
        for (at, image) in &self.given_up {
            put(&mut bytes, *at, image);
        }
        for (at, versions) in &self.dirty {
            // Where the file was cut and the cut is not durable, the present zeros are no version of the sector.
            let was_cut = at * SECTOR_BYTES >= self.seen.len() && len > self.seen.len();
            let choices = versions.len() + usize::from(!was_cut);
            if let Some(image) = versions.get(sector(*at, choices)) {
                put(&mut bytes, *at, image);
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// Keeps the present image of a sector before it changes.
    fn remember(&mut self, sector: usize) {
        let mut image = Box::new([0; SECTOR_BYTES]);
        let start = sector * SECTOR_BYTES;
        if let Some(present) = self.seen.get(start..) {
            let len = present.len().min(SECTOR_BYTES);
            image[..len].copy_from_slice(&present[..len]);
        }
        if let Some(versions) = self.dirty.get_mut(&sector) {
            if versions.len() >= SECTOR_VERSIONS_MAX {
                versions.remove(1);
            }
            versions.push(image);
            return;
        }
        let durable = self.given_up.remove(&sector).unwrap_or(image);
        self.dirty.insert(sector, vec![durable]);
    }

    fn mark_reserved(&mut self, from: usize, to: usize) {
        let sectors = to.div_ceil(SECTOR_BYTES);
        if self.reserved.len() < sectors {
            self.reserved.resize(sectors, false);
        }
        for sector in sectors_of(from, to) {
            self.reserved[sector] = true;
        }
    }
}

/// Returns the sectors that a range of bytes touches.
fn sectors_of(from: usize, to: usize) -> std::ops::Range<usize> {
    if from >= to {
        return 0..0;
    }
    from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)
}

fn put(bytes: &mut [u8], sector: usize, image: &Image) {
    let start = sector * SECTOR_BYTES;
    if let Some(place) = bytes.get_mut(start..) {
        let len = place.len().min(SECTOR_BYTES);
        place[..len].copy_from_slice(&image[..len]);
    }
}
