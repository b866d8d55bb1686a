use std::collections::BTreeMap;

use crate::KeyRange;

/// A set of keys given by intervals, joined where they meet.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntervalSet {
    /// Start to exclusive end, `None` for no end. **Invariant:** not empty, disjoint and not touching.
    intervals: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl IntervalSet {
    pub(crate) fn insert(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let end = match range.end() {
            std::ops::Bound::Included(last) => Some([last, &[0]].concat()),
            std::ops::Bound::Excluded(end) => Some(end.to_vec()),
            std::ops::Bound::Unbounded => None,
        };
        self.insert_interval(range.start().to_vec(), end);
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        // The interval that starts last at or before the key.
        let before = (std::ops::Bound::Unbounded, std::ops::Bound::Included(key));
        self.intervals
            .range::<[u8], _>(before)
            .next_back()
            .is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < &end[..]))
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, mut other: IntervalSet) {
        if self.intervals.len() < other.intervals.len() {
            std::mem::swap(self, &mut other);
        }
        for (start, end) in other.intervals {
            self.insert_interval(start, end);
        }
    }

    fn insert_interval(&mut self, mut start: Vec<u8>, mut end: Option<Vec<u8>>) {
        // Whatever starts at or before the end and does not end before the start becomes one with it.
        while let Some((met_start, met_end)) = self.last_starting_by(&end) {
            if met_end.as_ref().is_some_and(|met_end| *met_end < start) {
                break;
            }
            self.intervals.remove(&met_start);
            start = start.min(met_start);
            end = match (end, met_end) {
                (Some(end), Some(met_end)) => Some(end.max(met_end)),
                _ => None,
            };
        }
        self.intervals.insert(start, end);
    }

    fn last_starting_by(&self, end: &Option<Vec<u8>>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let found = match end {
            Some(end) => self.intervals.range::<Vec<u8>, _>(..=end).next_back(),
            None => self.intervals.last_key_value(),
        };
        found.map(|(start, end)| (start.clone(), end.clone()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(
            prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)],
            0..4,
        )
        .prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn a_key_is_in_the_set_when_it_is_in_one_of_its_ranges(
            ranges in proptest::collection::vec((key(), key(), any::<bool>()), 0..12),
            probes in proptest::collection::vec(key(), 20),
        ) {
            let mut sets = [IntervalSet::default(), IntervalSet::default()];
            let mut all = Vec::new();
            for (start, end, second) in ranges {
                let range = KeyRange::from_wire(&start, &end);
                sets[usize::from(second)].insert(&range);
                all.push(range);
            }
            let [mut set, other] = sets;
            set.merge(other);
            for key in probes {
                prop_assert_eq!(set.contains(&key), all.iter().any(|range| range.contains(&key)), "{:?} in {:?}", key, all);
            }
            let ends: Vec<_> = set.intervals.iter().collect();
            for pair in ends.windows(2) {
                prop_assert!(pair[0].1.as_ref().is_some_and(|end| end < pair[1].0));
            }
        }
    }
}
