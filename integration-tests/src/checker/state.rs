//! The keys at one revision.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::record::{KeyRange, Kv};

/// Every key and what it holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    keys: BTreeMap<Bytes, Kv>,
}

/// What a revision did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Put(Kv),
    Delete(Bytes),
}

impl Change {
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Change::Put(kv) => &kv.key,
            Change::Delete(key) => key,
        }
    }
}

impl State {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Kv> {
        self.keys.get(key)
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(kv) => self.keys.insert(kv.key.clone(), kv.clone()),
            Change::Delete(key) => self.keys.remove(key),
        };
    }

    /// The keys of a range, in order.
    pub(super) fn range<'a>(&'a self, range: &KeyRange) -> impl Iterator<Item = &'a Kv> + use<'a> {
        let from = Bound::Included(range.key.clone());
        let to = match &range.end[..] {
            b"" => Bound::Included(range.key.clone()),
            b"\0" => Bound::Unbounded,
            // An end before the beginning names nothing.
            end if *end <= range.key[..] => Bound::Excluded(range.key.clone()),
            _ => Bound::Excluded(range.end.clone()),
        };
        let is_empty = matches!(&to, Bound::Excluded(end) if *end == range.key);
        let found = (!is_empty).then(|| self.keys.range((from, to)));
        found.into_iter().flatten().map(|(_, kv)| kv)
    }

    /// The keys of a lease, in order.
    pub(super) fn of_lease(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.keys
            .values()
            .filter(move |kv| kv.lease == lease)
            .map(|kv| &kv.key)
    }
}

/// A state and the changes of a transaction on it, not applied yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    base: &'a State,
    changed: BTreeMap<Bytes, Option<Kv>>,
    /// In the order in which they were made.
    pub(super) changes: Vec<Change>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a State) -> Draft<'a> {
        Draft {
            base,
            changed: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Kv> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.base.get(key),
        }
    }

    pub(super) fn range(&self, range: &KeyRange) -> Vec<Kv> {
        let unchanged = self.base.range(range);
        let mut found: Vec<Kv> = unchanged
            .filter(|kv| !self.changed.contains_key(&kv.key))
            .cloned()
            .collect();
        if !self.changed.is_empty() {
            let here = self.changed.values().flatten();
            found.extend(here.filter(|kv| range.contains(&kv.key)).cloned());
            found.sort_by(|a, b| a.key.cmp(&b.key));
        }
        found
    }

    pub(super) fn add(&mut self, change: Change) {
        let held = match &change {
            Change::Put(kv) => Some(kv.clone()),
            Change::Delete(_) => None,
        };
        self.changed.insert(change.key().clone(), held);
        self.changes.push(change);
    }
}
