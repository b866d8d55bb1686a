use std::hash::BuildHasher as _;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::slab::{NIL, Slab};

/// Which keys hang on which lease: a key has at most one.
///
/// **Shape**: the keys of a lease are a doubly linked list through the items, so that an attached key costs its bytes
/// and about 45 more, a lease without keys costs eight, and attaching and detaching take constant time. A key is copied
/// when it is attached: the request it came in may be large and must not be kept for it.
#[derive(Debug)]
pub(crate) struct Attachments {
    items: Slab<Item>,
    /// Items by key; never iterated.
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Lists of keys, by the lease's slot.
    lists: Vec<List>,
}

#[derive(Debug)]
struct Item {
    key: Box<[u8]>,
    lease: u32,
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    len: u32,
}

const EMPTY: List = List { head: NIL, len: 0 };

impl Attachments {
    pub(crate) fn new() -> Self {
        Self {
            items: Slab::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            lists: Vec::new(),
        }
    }

    /// Returns how many keys are attached to any lease.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns the slot of the lease that the key hangs on.
    pub(crate) fn lease_of(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let item = self
            .by_key
            .find(hash, |&item| *self.items.get(item).key == *key)?;
        Some(self.items.get(*item).lease)
    }

    /// Hangs the key on the lease, whatever it hung on before.
    pub(crate) fn attach(&mut self, key: &[u8], lease: u32) {
        let hash = self.hasher.hash_one(key);
        let items = &self.items;
        let found = self
            .by_key
            .find(hash, |&item| *items.get(item).key == *key)
            .copied();
        let item = match found {
            Some(item) if self.items.get(item).lease == lease => return,
            Some(item) => {
                self.unlink(item);
                item
            }
            None => {
                let item = self.items.insert(Item {
                    key: key.into(),
                    lease,
                    prev: NIL,
                    next: NIL,
                });
                let (items, hasher) = (&self.items, &self.hasher);
                self.by_key
                    .insert_unique(hash, item, |&i| hasher.hash_one(&*items.get(i).key));
                item
            }
        };
        self.link(item, lease);
    }

    /// Takes the key off its lease, if it hangs on one.
    pub(crate) fn detach(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let items = &self.items;
        let found = self
            .by_key
            .find_entry(hash, |&item| *items.get(item).key == *key);
        if let Ok(entry) = found {
            let (item, _) = entry.remove();
            self.unlink(item);
            self.items.remove(item);
        }
    }

    /// Returns the keys of a lease in byte order.
    pub(crate) fn keys(&self, lease: u32) -> Vec<Bytes> {
        let mut keys = self.keys_as_attached(lease);
        keys.sort_unstable();
        keys
    }

    /// Returns the keys of a lease in the order in which they were attached.
    pub(crate) fn keys_as_attached(&self, lease: u32) -> Vec<Bytes> {
        let mut keys = Vec::with_capacity(self.list(lease).len as usize);
        let mut next = self.list(lease).head;
        while next != NIL {
            let item = self.items.get(next);
            keys.push(Bytes::copy_from_slice(&item.key));
            next = item.next;
        }
        // The newest is the head of the list.
        keys.reverse();
        keys
    }

    /// Takes all keys off a lease.
    pub(crate) fn detach_all(&mut self, lease: u32) {
        let mut next = self.list(lease).head;
        while next != NIL {
            let item = self.items.remove(next);
            let hash = self.hasher.hash_one(&*item.key);
            let entry = self.by_key.find_entry(hash, |&found| found == next);
            entry
                .unwrap_or_else(|_| panic!("an attached key is not in the index"))
                .remove();
            next = item.next;
        }
        if let Some(list) = self.lists.get_mut(lease as usize) {
            *list = EMPTY;
        }
    }

    fn list(&self, lease: u32) -> List {
        self.lists.get(lease as usize).copied().unwrap_or(EMPTY)
    }

    fn link(&mut self, item: u32, lease: u32) {
        if self.lists.len() <= lease as usize {
            self.lists.resize(lease as usize + 1, EMPTY);
        }
        let list = &mut self.lists[lease as usize];
        let head = std::mem::replace(&mut list.head, item);
        list.len += 1;
        if head != NIL {
            self.items.get_mut(head).prev = item;
        }
        let it = self.items.get_mut(item);
        (it.lease, it.prev, it.next) = (lease, NIL, head);
    }

    fn unlink(&mut self, item: u32) {
        let (lease, prev, next) = {
            let it = self.items.get(item);
            (it.lease, it.prev, it.next)
        };
        let list = &mut self.lists[lease as usize];
        list.len -= 1;
        if prev == NIL {
            list.head = next;
        } else {
            self.items.get_mut(prev).next = next;
        }
        if next != NIL {
            self.items.get_mut(next).prev = prev;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map_of_keys(steps in prop::collection::vec((0..4u8, 0..6u8, 0..4u32), 1..80)) {
            let (mut attachments, mut model) = (Attachments::new(), BTreeMap::<Vec<u8>, u32>::new());
            for (what, key, lease) in steps {
                let key = vec![b'k', key];
                match what {
                    0 | 1 => {
                        attachments.attach(&key, lease);
                        model.insert(key, lease);
                    }
                    2 => {
                        attachments.detach(&key);
                        model.remove(&key);
                    }
                    _ => {
                        attachments.detach_all(lease);
                        model.retain(|_, l| *l != lease);
                    }
                }
                prop_assert_eq!(attachments.len(), model.len());
                for n in 0..6 {
                    prop_assert_eq!(attachments.lease_of(&[b'k', n]), model.get(&[b'k', n][..]).copied());
                }
                for lease in 0..4 {
                    let want: BTreeSet<Vec<u8>> = model.iter().filter(|&(_, &l)| l == lease).map(|(k, _)| k.clone()).collect();
                    let got: Vec<Vec<u8>> = attachments.keys(lease).iter().map(|k| k.to_vec()).collect();
                    prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn attached_key_does_not_keep_its_request() {
        let request = Bytes::from(vec![7; 1 << 20]);
        let mut attachments = Attachments::new();
        attachments.attach(&request.slice(..4), 0);
        assert!(request.is_unique(), "the key must have been copied");
    }
}
