//! Keys with all their versions.
use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::Span;

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// When: main revision.
    pub revision: i64,
    /// Which of the changes of that revision, from 0.
    pub sub: i64,
    /// What it became; `None` when it was deleted.
    pub pair: Option<KeyValue>,
}

/// Keys with all the versions they ever had, compacted or not.
#[derive(Clone, Debug)]
pub struct Keys {
    versions: BTreeMap<Bytes, Vec<Change>>,
    /// By main revision, in the order in which they were made.
    changes: BTreeMap<i64, Vec<Change>>,
    revision: i64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            versions: BTreeMap::new(),
            changes: BTreeMap::new(),
            revision: 1,
        }
    }
}

impl Keys {
    /// Returns the revision of the last write; 1 of a store without one.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns a key as it was at a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.versions.get(key)?;
        let newer = versions.partition_point(|v| v.revision <= revision);
        versions[..newer].last()?.pair.as_ref()
    }

    /// Returns all pairs of a span as they were at a revision, by key.
    pub fn all_at(&self, span: &Span, revision: i64) -> Vec<KeyValue> {
        self.versions
            .range(span.first().clone()..)
            .take_while(|(key, _)| span.beyond().is_none_or(|beyond| **key < beyond))
            .filter(|(key, _)| span.has(key))
            .filter_map(|(key, _)| self.at(key, revision).cloned())
            .collect()
    }

    /// Returns the changes of a revision, in order.
    pub fn changes_of(&self, revision: i64) -> &[Change] {
        self.changes.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// Returns the first revision from one on of which a change passes.
    pub fn next_change(&self, from: i64, wanted: impl Fn(&Change) -> bool) -> Option<i64> {
        let mut changes = self.changes.range(from..);
        let found = changes.find(|(_, changes)| changes.iter().any(&wanted));
        found.map(|(revision, _)| *revision)
    }

    /// Returns the keys that hang on a lease at a revision, sorted.
    pub fn of_lease(&self, lease: i64, revision: i64) -> Vec<Bytes> {
        self.versions
            .keys()
            .filter(|key| self.at(key, revision).is_some_and(|kv| kv.lease == lease))
            .cloned()
            .collect()
    }

    /// Returns every version of every key up to a revision, by key and then in order.
    pub fn versions(&self) -> impl Iterator<Item = &Change> {
        self.versions.values().flatten()
    }

    /// Begins a write.
    pub(super) fn write(&mut self) -> Write<'_> {
        Write {
            made: Vec::new(),
            keys: self,
        }
    }
}

/// The changes of one request while it is carried out; they share a main revision.
pub(super) struct Write<'a> {
    keys: &'a mut Keys,
    made: Vec<Change>,
}

impl Write<'_> {
    /// Returns the revision that reads see here.
    pub(super) fn sees(&self) -> i64 {
        self.keys.revision + i64::from(!self.made.is_empty())
    }

    pub(super) fn keys(&self) -> &Keys {
        self.keys
    }

    /// Returns a key as it is now.
    pub(super) fn now(&self, key: &[u8]) -> Option<KeyValue> {
        self.keys.at(key, self.sees()).cloned()
    }

    /// Writes a key; returns its revision.
    pub(super) fn put(&mut self, key: &Bytes, value: Bytes, lease: i64) -> i64 {
        let revision = self.keys.revision + 1;
        let before = self.now(key);
        let pair = KeyValue {
            key: key.clone(),
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.map_or(1, |kv| kv.version + 1),
            value,
            lease,
        };
        self.change(key, Some(pair));
        revision
    }

    /// Deletes a span; returns what was there.
    pub(super) fn delete(&mut self, span: &Span) -> Vec<KeyValue> {
        let there = self.keys.all_at(span, self.sees());
        for pair in &there {
            self.change(&pair.key, None);
        }
        there
    }

    fn change(&mut self, key: &Bytes, pair: Option<KeyValue>) {
        let change = Change {
            key: key.clone(),
            revision: self.keys.revision + 1,
            sub: i64::try_from(self.made.len()).expect("few changes"),
            pair,
        };
        self.keys
            .versions
            .entry(key.clone())
            .or_default()
            .push(change.clone());
        self.made.push(change);
    }

    /// Ends the write; returns the store's revision after it.
    pub(super) fn finish(self) -> i64 {
        if !self.made.is_empty() {
            self.keys.revision += 1;
            self.keys.changes.insert(self.keys.revision, self.made);
        }
        self.keys.revision
    }

    /// Takes back all changes.
    pub(super) fn undo(self) {
        for change in self.made.iter().rev() {
            let versions = self.keys.versions.get_mut(&change.key);
            versions.expect("it was put in").pop();
        }
        self.keys
            .versions
            .retain(|_, versions| !versions.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keys: &mut Keys, key: &'static str, value: &'static str) -> i64 {
        let mut write = keys.write();
        write.put(&key.into(), value.into(), 0);
        write.finish()
    }

    fn delete(keys: &mut Keys, key: &'static str) -> i64 {
        let mut write = keys.write();
        write.delete(&Span::single(&key.into()));
        write.finish()
    }

    #[test]
    fn the_first_write_has_revision_2_and_every_version_stays() {
        let mut keys = Keys::default();
        assert_eq!(keys.revision(), 1);
        assert_eq!(put(&mut keys, "a", "1"), 2);
        assert_eq!(put(&mut keys, "a", "2"), 3);
        assert_eq!(delete(&mut keys, "a"), 4);
        assert_eq!(put(&mut keys, "a", "3"), 5);
        let at = |revision| {
            keys.at(b"a", revision)
                .map(|kv| (kv.create_revision, kv.version))
        };
        assert_eq!(at(1), None);
        assert_eq!(at(2), Some((2, 1)));
        assert_eq!(at(3), Some((2, 2)));
        assert_eq!(at(4), None);
        assert_eq!(at(5), Some((5, 1)));
    }

    #[test]
    fn what_changes_nothing_takes_no_revision_and_what_is_undone_leaves_no_trace() {
        let mut keys = Keys::default();
        assert_eq!(delete(&mut keys, "a"), 1);
        put(&mut keys, "a", "1");
        let mut write = keys.write();
        write.put(&"a".into(), "2".into(), 0);
        write.put(&"b".into(), "2".into(), 0);
        write.undo();
        assert_eq!(keys.revision(), 2);
        assert!(keys.at(b"b", 9).is_none());
        assert_eq!(keys.at(b"a", 9).unwrap().value, "1");
        assert!(keys.changes_of(3).is_empty());
    }

    #[test]
    fn changes_of_one_write_share_a_revision_in_key_order() {
        let mut keys = Keys::default();
        put(&mut keys, "b", "1");
        put(&mut keys, "a", "1");
        let mut write = keys.write();
        assert_eq!(write.delete(&Span::new(&"a".into(), &"\0".into())).len(), 2);
        assert_eq!(write.finish(), 4);
        let gone: Vec<_> = keys.changes_of(4).iter().map(|c| &c.key[..]).collect();
        assert_eq!(gone, [b"a", b"b"]);
        assert_eq!(keys.next_change(3, |c| c.key == "b"), Some(4));
    }
}
