use std::ops::Range;

use crate::KeyRange;

/// The newest creations and deletions of keys, so that a count at a recent revision can be had from the count now.
///
/// Two arenas take turns: when the younger one is full the elder is emptied, so that remembering costs no allocation.
#[derive(Debug)]
pub(super) struct RecentBirths {
    arenas: [Arena; 2],
    younger: usize,
    /// All changes with a main revision above this are remembered.
    floor: i64,
    changes_max: usize,
}

#[derive(Debug, Default)]
struct Arena {
    changes: Vec<Change>,
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Change {
    main: i64,
    key: Range<usize>,
    /// 1 for a key that came into being, -1 for one that was deleted.
    births: i64,
}

/// Most bytes of keys in an arena; larger keys make it turn over sooner.
const ARENA_BYTES_MAX: usize = 1 << 20;

impl RecentBirths {
    pub(super) fn new(floor: i64, changes_max: usize) -> RecentBirths {
        RecentBirths {
            arenas: Default::default(),
            younger: 0,
            floor,
            changes_max,
        }
    }

    pub(super) fn born(&mut self, main: i64, key: (&[u8], &[u8])) {
        self.push(main, key, 1);
    }

    pub(super) fn died(&mut self, main: i64, key: (&[u8], &[u8])) {
        self.push(main, key, -1);
    }

    /// Returns how many more keys of the range were born than died after a main revision, `None` when that is not
    /// remembered.
    pub(super) fn births_after(&self, main: i64, range: &KeyRange) -> Option<i64> {
        if main < self.floor {
            return None;
        }
        let mut births = 0;
        for arena in [&self.arenas[self.younger], &self.arenas[1 - self.younger]] {
            for change in arena.changes.iter().rev() {
                if change.main <= main {
                    return Some(births);
                }
                if range.contains(&arena.keys[change.key.clone()]) {
                    births += change.births;
                }
            }
        }
        Some(births)
    }

    pub(super) fn set_floor(&mut self, floor: i64) {
        self.floor = floor;
    }

    fn push(&mut self, main: i64, (prefix, rest): (&[u8], &[u8]), births: i64) {
        let full = {
            let arena = &self.arenas[self.younger];
            arena.changes.len() >= self.changes_max.div_ceil(2)
                || arena.keys.len() >= ARENA_BYTES_MAX
        };
        if full {
            self.younger = 1 - self.younger;
            let elder = &mut self.arenas[self.younger];
            if let Some(newest) = elder.changes.last() {
                self.floor = newest.main;
            }
            elder.changes.clear();
            elder.keys.clear();
            elder.keys.shrink_to(ARENA_BYTES_MAX);
        }
        let arena = &mut self.arenas[self.younger];
        let start = arena.keys.len();
        arena.keys.extend_from_slice(prefix);
        arena.keys.extend_from_slice(rest);
        arena.changes.push(Change {
            main,
            key: start..arena.keys.len(),
            births,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_are_known_back_to_the_floor_and_never_guessed() {
        let all = KeyRange::all();
        let mut recent = RecentBirths::new(1, 8);
        assert_eq!(recent.births_after(0, &all), None);
        for main in 2..40 {
            if main % 3 == 0 {
                recent.died(main, (b"", b"b"));
            } else {
                recent.born(main, (b"a", b"x"));
            }
            let mut known = 0;
            for since in 0..=main {
                let of_a = (since + 1..=main)
                    .filter(|main| *main >= 2 && main % 3 != 0)
                    .count();
                let of_b = (since + 1..=main)
                    .filter(|main| *main >= 2 && main % 3 == 0)
                    .count();
                let births = i64::try_from(of_a).unwrap() - i64::try_from(of_b).unwrap();
                if let Some(found) = recent.births_after(since, &all) {
                    assert_eq!(found, births, "since {since} at {main}");
                    known += 1;
                    let of_a_found = recent.births_after(since, &KeyRange::single("ax".into()));
                    assert_eq!(of_a_found, i64::try_from(of_a).ok());
                }
            }
            assert!(known >= 5 || main < 6, "known {known} at {main}");
        }
    }
}
