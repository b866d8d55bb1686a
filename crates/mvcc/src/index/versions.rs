use std::num::NonZeroU32;

use quorate_backend::Revision;

use crate::record::KeyVersion;

/// The revisions of one key that the store still knows.
///
/// A key with one revision, by far the most common, takes no memory of its own.
///
/// **Invariant:** there is at least one revision, and revisions ascend.
#[derive(Clone, Debug)]
pub(crate) enum Versions {
    /// One put.
    One {
        main: i64,
        create_revision: i64,
        sub: u32,
        version: NonZeroU32,
    },
    /// Anything else.
    Many(Box<History>),
}

const _: () = assert!(
    size_of::<Versions>() == 24,
    "the index is as small as its slots"
);

/// Several revisions of one key, or a tombstone.
///
/// **Shape**: `entries` ascend; each generation is a run of them that begins with a put. Every generation but the last
/// ends with a tombstone, the last one does when `dead`. The first generation may lack its beginning (compacted), even
/// all but its tombstone.
///
/// Source: etcd v3.7.1 `server/storage/mvcc/key_index.go` `keyIndex`.
#[derive(Clone, Debug)]
pub(crate) struct History {
    entries: Vec<Entry>,
    last: Generation,
    dead: bool,
    older: Vec<Generation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    main: i64,
    sub: u32,
}

#[derive(Clone, Copy, Debug)]
struct Generation {
    /// Place of its first entry.
    start: usize,
    create_revision: i64,
    /// Version number of its first entry.
    first_version: i64,
}

/// What a compaction left of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compacted {
    /// Nothing: the key is to be removed from the index.
    Nothing,
    /// Only revisions above the compact revision.
    Newer,
    /// The newest revision at or below the compact revision, and all above.
    Kept(Revision),
}

impl Versions {
    /// Starts with a put, of which restored records tell the numbers.
    pub(crate) fn with_put(put: KeyVersion) -> Versions {
        let version = u32::try_from(put.version).ok().and_then(NonZeroU32::new);
        match version {
            Some(version) => Versions::One {
                main: put.revision.main,
                create_revision: put.create_revision,
                sub: sub(put.revision),
                version,
            },
            None => Versions::Many(Box::new(History {
                entries: vec![Entry::new(put.revision)],
                last: Generation {
                    start: 0,
                    create_revision: put.create_revision,
                    first_version: put.version,
                },
                dead: false,
                older: Vec::new(),
            })),
        }
    }

    /// Starts with a tombstone whose puts are compacted away.
    pub(crate) fn with_tombstone(revision: Revision) -> Versions {
        Versions::Many(Box::new(History {
            entries: vec![Entry::new(revision)],
            last: Generation {
                start: 0,
                create_revision: 0,
                first_version: 0,
            },
            dead: true,
            older: Vec::new(),
        }))
    }

    /// Returns whether the key exists now.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Versions::One { .. } => true,
            Versions::Many(history) => !history.dead,
        }
    }

    /// Returns the newest revision, tombstone or not.
    pub(crate) fn newest(&self) -> Revision {
        match self {
            Versions::One { main, sub, .. } => Revision {
                main: *main,
                sub: i64::from(*sub),
            },
            Versions::Many(history) => history.entries[history.entries.len() - 1].revision(),
        }
    }

    /// Returns what the key is at a main revision, `None` when it does not exist then.
    pub(crate) fn at(&self, main: i64) -> Option<KeyVersion> {
        match self {
            Versions::One {
                main: only,
                create_revision,
                sub,
                version,
            } => (*only <= main).then(|| KeyVersion {
                revision: Revision {
                    main: *only,
                    sub: i64::from(*sub),
                },
                create_revision: *create_revision,
                version: i64::from(version.get()),
            }),
            Versions::Many(history) => history.at(main),
        }
    }

    /// Adds a put and returns the numbers it gets.
    pub(crate) fn put(&mut self, revision: Revision) -> KeyVersion {
        let history = self.history();
        history.check_ascends(revision);
        history.entries.push(Entry::new(revision));
        if history.dead {
            history.older.push(history.last);
            history.dead = false;
            history.last = Generation {
                start: history.entries.len() - 1,
                create_revision: revision.main,
                first_version: 1,
            };
        }
        history.version_of(history.entries.len() - 1)
    }

    /// Adds a tombstone and returns what it deletes, `None` when the key does not exist.
    pub(crate) fn tombstone(&mut self, revision: Revision) -> Option<KeyVersion> {
        if !self.is_live() {
            return None;
        }
        let history = self.history();
        history.check_ascends(revision);
        let deleted = history.version_of(history.entries.len() - 1);
        history.entries.push(Entry::new(revision));
        history.dead = true;
        Some(deleted)
    }

    /// Drops what a compaction at a main revision drops: all at or below it but the newest, and that too when it is a
    /// tombstone below it.
    ///
    /// A tombstone at exactly the compact revision stays, so that a watcher which starts there still gets the deletion.
    ///
    /// Source: etcd v3.7.1 `server/storage/mvcc/key_index.go` `compact`. Differs from etcd: when one transaction
    /// deletes a key and puts it again and the compaction is at its revision, etcd keeps the tombstone and loses the
    /// put; here the put stays.
    pub(crate) fn compact(&mut self, main: i64) -> Compacted {
        match self {
            Versions::One {
                main: only, sub, ..
            } => {
                if *only <= main {
                    Compacted::Kept(Revision {
                        main: *only,
                        sub: i64::from(*sub),
                    })
                } else {
                    Compacted::Newer
                }
            }
            Versions::Many(history) => {
                let compacted = history.compact(main);
                if let Some(put) = history
                    .as_one_put()
                    .filter(|_| compacted != Compacted::Nothing)
                {
                    *self = Versions::with_put(put);
                }
                compacted
            }
        }
    }

    /// Returns the bytes of memory that the key's revisions take beyond the slot.
    pub(crate) fn allocated_bytes(&self) -> usize {
        match self {
            Versions::One { .. } => 0,
            Versions::Many(history) => {
                size_of::<History>()
                    + history.entries.capacity() * size_of::<Entry>()
                    + history.older.capacity() * size_of::<Generation>()
            }
        }
    }

    fn history(&mut self) -> &mut History {
        if let Versions::One {
            main,
            create_revision,
            sub,
            version,
        } = *self
        {
            let mut entries = Vec::with_capacity(2);
            entries.push(Entry { main, sub });
            let first_version = i64::from(version.get());
            *self = Versions::Many(Box::new(History {
                entries,
                last: Generation {
                    start: 0,
                    create_revision,
                    first_version,
                },
                dead: false,
                older: Vec::new(),
            }));
        }
        match self {
            Versions::Many(history) => history,
            Versions::One { .. } => unreachable!("a single put was turned into a history above"),
        }
    }
}

impl Entry {
    fn new(revision: Revision) -> Entry {
        Entry {
            main: revision.main,
            sub: sub(revision),
        }
    }

    fn revision(self) -> Revision {
        Revision {
            main: self.main,
            sub: i64::from(self.sub),
        }
    }
}

impl History {
    fn at(&self, main: i64) -> Option<KeyVersion> {
        let newest = self.entries.len() - 1;
        let place = if self.entries[newest].main <= main {
            newest
        } else {
            self.entries
                .partition_point(|entry| entry.main <= main)
                .checked_sub(1)?
        };
        (!self.is_tombstone(place)).then(|| self.version_of(place))
    }

    fn is_tombstone(&self, place: usize) -> bool {
        if place + 1 == self.entries.len() {
            return self.dead;
        }
        let next = place + 1;
        next == self.last.start && !self.older.is_empty()
            || self
                .older
                .binary_search_by_key(&next, |generation| generation.start)
                .is_ok()
    }

    fn generation_of(&self, place: usize) -> Generation {
        if place >= self.last.start {
            return self.last;
        }
        let after = self
            .older
            .partition_point(|generation| generation.start <= place);
        assert!(after > 0, "the oldest generation starts at the first entry");
        self.older[after - 1]
    }

    fn version_of(&self, place: usize) -> KeyVersion {
        let generation = self.generation_of(place);
        let since =
            i64::try_from(place - generation.start).expect("a key has fewer than 2^63 versions");
        KeyVersion {
            revision: self.entries[place].revision(),
            create_revision: generation.create_revision,
            version: generation.first_version + since,
        }
    }

    fn check_ascends(&self, revision: Revision) {
        let newest = self.entries[self.entries.len() - 1].revision();
        assert!(
            revision > newest,
            "revision {revision:?} of a key does not follow {newest:?}"
        );
    }

    fn compact(&mut self, main: i64) -> Compacted {
        let Some(newest) = self
            .entries
            .partition_point(|entry| entry.main <= main)
            .checked_sub(1)
        else {
            return Compacted::Newer;
        };
        let kept = self.entries[newest];
        let stays = !self.is_tombstone(newest) || kept.main == main;
        let first = if stays { newest } else { newest + 1 };
        if first == self.entries.len() {
            return Compacted::Nothing;
        }
        self.drop_before(first);
        if stays {
            Compacted::Kept(kept.revision())
        } else {
            Compacted::Newer
        }
    }

    /// Drops the entries before a place, and the generations that ended there.
    fn drop_before(&mut self, first: usize) {
        if first == 0 {
            return;
        }
        let version = self.version_of(first).version;
        let whole = self
            .older
            .partition_point(|generation| generation.start <= first);
        if first >= self.last.start {
            self.older.clear();
            self.last.first_version = version;
        } else {
            // The generation that holds the first entry left stays, cut.
            self.older.drain(..whole - 1);
            self.older[0].first_version = version;
        }
        self.entries.drain(..first);
        for generation in self.older.iter_mut().chain([&mut self.last]) {
            generation.start = generation.start.saturating_sub(first);
        }
        self.entries.shrink_to_fit();
        self.older.shrink_to_fit();
    }

    /// Returns the only entry when it is a put that fits into a slot.
    fn as_one_put(&self) -> Option<KeyVersion> {
        (self.entries.len() == 1 && !self.dead)
            .then(|| self.version_of(0))
            .filter(|put| u32::try_from(put.version).is_ok_and(|version| version > 0))
    }
}

fn sub(revision: Revision) -> u32 {
    u32::try_from(revision.sub)
        .expect("a transaction has fewer than 2^32 changes, and restored ones are checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// put 2, put 3, tombstone 5, put 8 (first of two in its revision), put 8.1, tombstone 13
    fn example() -> Versions {
        let mut versions = Versions::with_put(KeyVersion {
            revision: revision(2, 0),
            create_revision: 2,
            version: 1,
        });
        versions.put(revision(3, 4));
        assert!(versions.tombstone(revision(5, 0)).is_some());
        assert!(versions.tombstone(revision(6, 0)).is_none());
        versions.put(revision(8, 0));
        versions.put(revision(8, 1));
        versions.tombstone(revision(13, 0));
        versions
    }

    fn all(versions: &Versions) -> Vec<Option<(i64, i64, i64, i64)>> {
        (1..=14)
            .map(|main| {
                let at = versions.at(main)?;
                Some((
                    at.revision.main,
                    at.revision.sub,
                    at.create_revision,
                    at.version,
                ))
            })
            .collect()
    }

    #[test]
    fn a_key_is_what_its_newest_revision_says() {
        let first = Some((2, 0, 2, 1));
        let second = Some((3, 4, 2, 2));
        let again = Some((8, 1, 8, 2));
        assert_eq!(
            all(&example()),
            [
                None, first, second, second, None, None, None, again, again, again, again, again,
                None, None
            ]
        );
    }

    #[test]
    fn compaction_changes_nothing_at_or_above_its_revision() {
        let before = all(&example());
        for main in 0..=14 {
            let mut versions = example();
            let compacted = versions.compact(main);
            if compacted == Compacted::Nothing {
                assert_eq!(main, 14);
                continue;
            }
            let from = usize::try_from(main - 1).unwrap_or(0);
            assert_eq!(
                all(&versions)[from..],
                before[from..],
                "compacted at {main}"
            );
            // Compacting in two steps is the same as in one.
            for later in main..=14 {
                let mut twice = versions.clone();
                let mut once = example();
                assert_eq!(
                    twice.compact(later),
                    once.compact(later),
                    "compacted at {main}, then {later}"
                );
            }
        }
    }

    #[test]
    fn faults_24_a_tombstone_at_the_compact_revision_stays_until_the_next_compaction() {
        let mut versions = example();
        assert_eq!(versions.compact(5), Compacted::Kept(revision(5, 0)));
        assert_eq!(versions.compact(6), Compacted::Newer);
        assert_eq!(versions.compact(13), Compacted::Kept(revision(13, 0)));
        assert_eq!(versions.compact(14), Compacted::Nothing);
    }

    #[test]
    fn a_put_after_a_delete_in_one_transaction_survives_compaction_at_its_revision() {
        let mut versions = Versions::with_put(KeyVersion {
            revision: revision(2, 0),
            create_revision: 2,
            version: 1,
        });
        versions.tombstone(revision(3, 0));
        versions.put(revision(3, 1));
        assert_eq!(versions.compact(3), Compacted::Kept(revision(3, 1)));
        assert_eq!(
            versions.at(3),
            Some(KeyVersion {
                revision: revision(3, 1),
                create_revision: 3,
                version: 1
            })
        );
    }

    #[test]
    fn a_key_with_one_put_left_takes_no_memory_of_its_own() {
        let mut versions = Versions::with_put(KeyVersion {
            revision: revision(2, 0),
            create_revision: 2,
            version: 1,
        });
        for main in 3..100 {
            versions.put(revision(main, 0));
        }
        assert!(versions.allocated_bytes() > 0);
        versions.compact(99);
        assert_eq!(versions.allocated_bytes(), 0);
        assert_eq!(
            versions.at(99),
            Some(KeyVersion {
                revision: revision(99, 0),
                create_revision: 2,
                version: 98
            })
        );
    }

    #[test]
    fn versions_beyond_32_bits_are_counted() {
        let many = i64::from(u32::MAX);
        let mut versions = Versions::with_put(KeyVersion {
            revision: revision(9, 0),
            create_revision: 2,
            version: many,
        });
        assert_eq!(versions.put(revision(10, 0)).version, many + 1);
        versions.compact(10);
        assert_eq!(versions.at(10).unwrap().version, many + 1);
        assert_eq!(versions.put(revision(11, 0)).version, many + 2);
    }

    #[test]
    fn a_restored_tombstone_is_followed_by_a_new_generation() {
        let mut versions = Versions::with_tombstone(revision(7, 2));
        assert_eq!(versions.at(7), None);
        assert_eq!(
            versions.put(revision(9, 0)),
            KeyVersion {
                revision: revision(9, 0),
                create_revision: 9,
                version: 1
            }
        );
        assert_eq!(versions.at(8), None);
    }
}
