use std::ops::Bound;

use bytes::Bytes;
use hashbrown::HashMap;

use super::interval_tree::IntervalTree;
use crate::KeyRange;

/// Finds the ranges that hold a key; each range is known by a number and is in the index at most once.
#[derive(Debug)]
pub(super) struct RangeIndex {
    /// Ranges of one key. Never iterated.
    singles: HashMap<Bytes, u32>,
    intervals: IntervalTree,
}

impl RangeIndex {
    pub(super) fn new(seed: u64) -> RangeIndex {
        RangeIndex {
            singles: HashMap::new(),
            intervals: IntervalTree::new(seed),
        }
    }

    pub(super) fn find(&self, range: &KeyRange) -> Option<u32> {
        match range.as_single() {
            Some(key) => self.singles.get(key).copied(),
            None => self.intervals.find(range.start(), exclusive_end(range)),
        }
    }

    pub(super) fn insert(&mut self, range: &KeyRange, number: u32) {
        match range.as_single() {
            Some(key) => {
                self.singles.insert(key.clone(), number);
            }
            None => {
                let end = exclusive_end(range).map(Bytes::copy_from_slice);
                self.intervals.insert(range.start().clone(), end, number);
            }
        }
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        match range.as_single() {
            Some(key) => {
                self.singles.remove(key);
            }
            None => self.intervals.remove(range.start(), exclusive_end(range)),
        }
    }

    /// Calls `found` with the number of every range that holds the key.
    pub(super) fn each_holding(&self, key: &[u8], mut found: impl FnMut(u32)) {
        if let Some(&number) = self.singles.get(key) {
            found(number);
        }
        self.intervals.each_holding(key, &mut found);
    }
}

/// Returns the end of a range that is not a single key.
fn exclusive_end(range: &KeyRange) -> Option<&[u8]> {
    match range.end() {
        Bound::Excluded(end) => Some(end),
        Bound::Included(_) | Bound::Unbounded => None,
    }
}
