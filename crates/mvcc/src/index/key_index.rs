use std::ops::{Bound, ControlFlow};

use quorate_backend::Revision;

use super::packed_keys::KeyParts;
use super::recent::RecentBirths;
use super::tree::{Bounds, Tree, Upsert};
use super::versions::{Compacted, Versions};
use crate::KeyRange;
use crate::record::KeyVersion;

/// The in-memory index from key to revisions.
///
/// It may know revisions above the published one; readers ask at a revision and never see more than that.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    tree: Tree,
    recent: RecentBirths,
    /// Newest main revision in the index.
    newest_main: i64,
}

/// A key that a deletion removed, and what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed<'a> {
    pub(crate) key: KeyParts<'a>,
    pub(crate) version: KeyVersion,
    pub(crate) tombstone: Revision,
}

/// A row of the revision table, as far as the index is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RestoredRow {
    Put(KeyVersion),
    Tombstone(Revision),
}

impl RestoredRow {
    pub(crate) fn revision(&self) -> Revision {
        match self {
            RestoredRow::Put(version) => version.revision,
            RestoredRow::Tombstone(revision) => *revision,
        }
    }
}

/// How far a chunk of a walk got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// All of the range was visited, or the visitor stopped.
    Done,
    /// The limit was reached; go on after this key.
    After(Vec<u8>),
}

impl KeyIndex {
    /// Makes an empty index of a store at a revision; `recent_births_max` bounds what is remembered for counts.
    pub(crate) fn new(current: i64, recent_births_max: usize) -> KeyIndex {
        KeyIndex {
            tree: Tree::new(),
            recent: RecentBirths::new(current, recent_births_max),
            newest_main: current,
        }
    }

    /// Returns what a key is at a main revision, `None` when it does not exist then.
    pub(crate) fn get(&self, key: &[u8], main: i64) -> Option<KeyVersion> {
        self.tree.find(key)?.at(main)
    }

    /// Adds a put in one walk and returns the numbers it gets, and the revision it replaces.
    pub(crate) fn put(&mut self, key: &[u8], revision: Revision) -> (KeyVersion, Option<Revision>) {
        self.check_follows(revision);
        self.newest_main = revision.main;
        let (version, previous) = self.tree.upsert(key, |slot| match slot {
            Upsert::Found(versions) => {
                let previous = versions.is_live().then(|| versions.newest());
                (versions.put(revision), previous)
            }
            Upsert::Absent(slot) => {
                let version = KeyVersion {
                    revision,
                    create_revision: revision.main,
                    version: 1,
                };
                *slot = Some(Versions::with_put(version));
                (version, None)
            }
        });
        if previous.is_none() {
            self.recent.born(revision.main, (key, &[]));
        }
        (version, previous)
    }

    /// Deletes up to `keys_max` live keys of a range, in key order, the first at revision `first`, each further one at
    /// the next sub revision. Returns where to go on.
    pub(crate) fn delete(
        &mut self,
        range: &KeyRange,
        first: Revision,
        keys_max: usize,
        mut removed: impl FnMut(Removed<'_>),
    ) -> Walk {
        self.check_follows(first);
        let Self {
            tree,
            recent,
            newest_main,
        } = self;
        if let Some(key) = range.as_single() {
            let deleted = tree.upsert(key, |slot| match slot {
                Upsert::Found(versions) => versions.tombstone(first),
                Upsert::Absent(_) => None,
            });
            if let Some(version) = deleted {
                recent.died(first.main, (key, &[]));
                *newest_main = first.main;
                removed(Removed {
                    key: (key, &[]),
                    version,
                    tombstone: first,
                });
            }
            return Walk::Done;
        }
        let (mut tombstone, mut left) = (first, keys_max);
        with_bounds(range, |bounds| {
            let flow = tree.visit_live_mut(bounds, |key, versions| {
                let version = versions
                    .tombstone(tombstone)
                    .expect("only live keys are visited");
                recent.died(tombstone.main, key);
                *newest_main = tombstone.main;
                removed(Removed {
                    key,
                    version,
                    tombstone,
                });
                tombstone.sub += 1;
                left -= 1;
                if left == 0 {
                    ControlFlow::Break([key.0, key.1].concat())
                } else {
                    ControlFlow::Continue(())
                }
            });
            Walk::from(flow)
        })
    }

    /// Visits the keys of a range that exist at a main revision, in key order, until told to stop, looking at no more
    /// than `keys_max` keys.
    pub(crate) fn visit(
        &self,
        range: &KeyRange,
        main: i64,
        keys_max: usize,
        mut visitor: impl FnMut(KeyParts<'_>, KeyVersion) -> ControlFlow<()>,
    ) -> Walk {
        // Dead keys can be passed over in bulk when nothing happened after the revision.
        let live_only = main >= self.newest_main;
        let mut left = keys_max;
        with_bounds(range, |bounds| {
            let flow = self.tree.visit(bounds, live_only, |key, versions| {
                if let Some(version) = versions.at(main)
                    && visitor(key, version).is_break()
                {
                    return ControlFlow::Break(None);
                }
                left -= 1;
                if left == 0 {
                    return ControlFlow::Break(Some([key.0, key.1].concat()));
                }
                ControlFlow::Continue(())
            });
            match flow {
                ControlFlow::Break(Some(key)) => Walk::After(key),
                ControlFlow::Break(None) | ControlFlow::Continue(()) => Walk::Done,
            }
        })
    }

    /// Counts the keys of a range that exist at a main revision without a walk, `None` when that cannot be done.
    pub(crate) fn count(&self, range: &KeyRange, main: i64) -> Option<usize> {
        if range.is_empty() {
            return Some(0);
        }
        if let Some(key) = range.as_single() {
            return Some(usize::from(self.get(key, main).is_some()));
        }
        let births = if main >= self.newest_main {
            0
        } else {
            self.recent.births_after(main, range)?
        };
        let end = match range.end() {
            Bound::Excluded(end) | Bound::Included(end) => self.tree.live_before(end),
            Bound::Unbounded => self.tree.live(),
        };
        let now = end - self.tree.live_before(range.start());
        let then = i64::try_from(now).expect("a count of keys fits") - births;
        Some(usize::try_from(then).expect("no more keys were born than exist"))
    }

    /// Compacts the keys of one leaf of the tree, the one where `from` belongs. Each revision that is kept at or below
    /// the compact revision is handed to `kept`; one may come twice. Returns where the next leaf begins.
    pub(crate) fn compact_leaf(
        &mut self,
        from: &[u8],
        main: i64,
        mut kept: impl FnMut(Revision),
    ) -> Option<Vec<u8>> {
        self.tree
            .retain_in_leaf_of(from, &mut |versions| match versions.compact(main) {
                Compacted::Nothing => false,
                Compacted::Newer => true,
                Compacted::Kept(revision) => {
                    kept(revision);
                    true
                }
            })
    }

    /// Adds a row read back from the backend. Rows of one key must come in order.
    ///
    /// A row that does not follow what is known of its key is refused with `false`.
    pub(crate) fn restore(&mut self, key: &[u8], row: RestoredRow) -> bool {
        let revision = row.revision();
        self.newest_main = self.newest_main.max(revision.main);
        self.tree.upsert(key, |slot| match (slot, row) {
            (Upsert::Found(versions), _) if versions.newest() >= revision => false,
            (Upsert::Found(versions), RestoredRow::Put(_)) => {
                versions.put(revision);
                true
            }
            (Upsert::Found(versions), RestoredRow::Tombstone(_)) => {
                // A second tombstone in a row says nothing new.
                versions.tombstone(revision);
                true
            }
            (Upsert::Absent(slot), RestoredRow::Put(version)) => {
                *slot = Some(Versions::with_put(version));
                true
            }
            (Upsert::Absent(slot), RestoredRow::Tombstone(_)) => {
                *slot = Some(Versions::with_tombstone(revision));
                true
            }
        })
    }

    /// Ends a restore: the store is at this revision, and nothing is remembered of what came before.
    pub(crate) fn finish_restore(&mut self, current: i64) {
        self.newest_main = self.newest_main.max(current);
        self.recent.set_floor(self.newest_main);
    }

    /// Returns the number of keys, dead ones included, and the bytes of memory that the index takes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = self.tree.size();
        (size.keys, size.allocated_bytes)
    }

    /// Returns the number of keys that exist now.
    pub(crate) fn live(&self) -> usize {
        self.tree.live()
    }

    fn check_follows(&self, revision: Revision) {
        assert!(
            revision.main >= self.newest_main,
            "revision {revision:?} goes back behind {}",
            self.newest_main
        );
    }
}

impl From<ControlFlow<Vec<u8>>> for Walk {
    fn from(flow: ControlFlow<Vec<u8>>) -> Self {
        match flow {
            ControlFlow::Continue(()) => Walk::Done,
            ControlFlow::Break(key) => Walk::After(key),
        }
    }
}

/// Calls with the bounds of a range; those of an empty range are not looked at.
fn with_bounds(range: &KeyRange, walk: impl FnOnce(Bounds<'_>) -> Walk) -> Walk {
    if range.is_empty() {
        return Walk::Done;
    }
    let after;
    let upper = match range.end() {
        Bound::Unbounded => None,
        Bound::Excluded(end) => Some(end),
        Bound::Included(last) => {
            after = [last, &[0]].concat();
            Some(&after[..])
        }
    };
    walk(Bounds {
        lower: Some(range.start()),
        upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index_of(count: i64) -> KeyIndex {
        let mut index = KeyIndex::new(1, 64);
        for i in 0..count {
            index.put(
                format!("k{i:04}").as_bytes(),
                Revision {
                    main: i + 2,
                    sub: 0,
                },
            );
        }
        index
    }

    fn keys(index: &KeyIndex, range: &KeyRange, main: i64, chunk: usize) -> Vec<String> {
        let mut keys = Vec::new();
        let mut rest = range.clone();
        loop {
            let walk = index.visit(&rest, main, chunk, |(prefix, rest), _| {
                keys.push(String::from_utf8([prefix, rest].concat()).unwrap());
                ControlFlow::Continue(())
            });
            match walk {
                Walk::Done => return keys,
                Walk::After(key) => rest = range.after(&key),
            }
        }
    }

    #[test]
    fn walking_in_chunks_of_any_size_visits_the_same_keys() {
        let mut index = index_of(300);
        let range = KeyRange::from_wire(&"k0010".into(), &"k0250".into());
        let whole = keys(&index, &range, 301, 10_000);
        assert_eq!(whole.len(), 240);
        for chunk in [1, 7, 64, 240, 241] {
            assert_eq!(keys(&index, &range, 301, chunk), whole);
        }
        assert_eq!(
            keys(&index, &KeyRange::single("k0011".into()), 301, 5),
            ["k0011"]
        );
        // Deleting goes in chunks too, and walks at an older revision are not affected.
        let mut removed = Vec::new();
        let mut rest = range.clone();
        let mut sub = 0;
        while let Walk::After(key) = index.delete(&rest, Revision { main: 302, sub }, 100, |gone| {
            assert_eq!(gone.tombstone.sub, i64::try_from(removed.len()).unwrap());
            removed.push(String::from_utf8([gone.key.0, gone.key.1].concat()).unwrap());
        }) {
            rest = range.after(&key);
            sub += 100;
        }
        assert_eq!(removed, whole);
        assert_eq!(keys(&index, &range, 301, 9), whole);
        assert!(keys(&index, &range, 302, 9).is_empty());
        assert_eq!(index.live(), 60);
    }

    #[test]
    fn counts_at_recent_revisions_need_no_walk_and_older_ones_are_not_guessed() {
        let mut index = index_of(300);
        let range = KeyRange::from_wire(&"k0010".into(), &"\0".into());
        for main in 1..=301 {
            let walked = keys(&index, &range, main, 100).len();
            match index.count(&range, main) {
                Some(count) => assert_eq!(count, walked, "at {main}"),
                None => assert!(main < 301 - 32, "at {main}"),
            }
        }
        let empty = KeyRange::from_wire(&"z".into(), &"a".into());
        assert_eq!(index.count(&empty, 1), Some(0));
        index.delete(
            &KeyRange::all(),
            Revision { main: 302, sub: 0 },
            1000,
            |_| {},
        );
        assert_eq!(index.count(&range, 302), Some(0));
        // So many deletions at once push out what was remembered: that is said, not guessed.
        assert_eq!(index.count(&range, 301), None);
        assert_eq!(keys(&index, &range, 301, 100).len(), 290);
    }

    #[test]
    fn a_compacted_index_forgets_dead_keys_and_old_revisions() {
        let mut index = index_of(200);
        index.delete(
            &KeyRange::from_wire(&"k0100".into(), &"\0".into()),
            Revision { main: 202, sub: 0 },
            1000,
            |_| {},
        );
        for main in 203..303 {
            index.put(b"k0000", Revision { main, sub: 0 });
        }
        let (_, before) = index.size();
        let mut kept = Vec::new();
        let mut from = Vec::new();
        while let Some(next) = index.compact_leaf(&from, 302, |revision| kept.push(revision.main)) {
            from = next;
        }
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept, (3..=101).chain([302]).collect::<Vec<_>>());
        let (keys, after) = index.size();
        assert_eq!(keys, 100);
        assert!(after < before);
        assert_eq!(index.get(b"k0000", 302).unwrap().version, 101);
        assert_eq!(index.get(b"k0150", 302), None);
    }

    #[test]
    fn rows_that_go_back_are_refused_on_restore() {
        let mut index = KeyIndex::new(1, 8);
        let put = |main| {
            RestoredRow::Put(KeyVersion {
                revision: Revision { main, sub: 0 },
                create_revision: 2,
                version: 4,
            })
        };
        assert!(index.restore(b"a", put(5)));
        assert!(!index.restore(b"a", put(5)));
        assert!(index.restore(b"b", RestoredRow::Tombstone(Revision { main: 6, sub: 0 })));
        assert!(index.restore(b"b", RestoredRow::Tombstone(Revision { main: 7, sub: 0 })));
        index.finish_restore(9);
        assert_eq!(index.get(b"a", 9).unwrap().version, 4);
        assert_eq!(index.get(b"b", 9), None);
        assert_eq!(index.count(&KeyRange::all(), 9), Some(1));
        assert_eq!(index.count(&KeyRange::all(), 8), None);
    }
}
