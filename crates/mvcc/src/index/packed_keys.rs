use std::cmp::Ordering;

/// A sorted run of distinct keys in one allocation, their common prefix stored once.
///
/// **Shape**: `bytes` holds the prefix, then what follows it of each key, in order. The prefix may be shorter than what
/// the keys share; splitting and merging make it as long as can be.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedKeys {
    bytes: Vec<u8>,
    rests: Vec<Rest>,
    prefix_len: u32,
}

/// What follows the prefix of a key.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Its first four bytes as a number, zeros behind a shorter one: most comparisons need no more, and a search that
    /// stays within these numbers misses the processor's cache least.
    head: u32,
    /// Where it ends.
    end: u32,
}

/// A key in two pieces: what it shares with its neighbours, and the rest.
pub(crate) type KeyParts<'a> = (&'a [u8], &'a [u8]);

/// Room that a run of keys is given beyond what it needs, as a fraction of its length: memory against copying.
const GROWTH_DIVISOR: usize = 4;

impl PackedKeys {
    pub(super) fn len(&self) -> usize {
        self.rests.len()
    }

    /// Returns the bytes that the keys take here.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of memory set aside.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity() + self.rests.capacity() * size_of::<Rest>()
    }

    pub(super) fn key(&self, i: usize) -> KeyParts<'_> {
        (self.prefix(), self.rest(i))
    }

    pub(super) fn to_vec(&self, i: usize) -> Vec<u8> {
        let (prefix, rest) = self.key(i);
        [prefix, rest].concat()
    }

    /// Finds a key, or the place where it belongs.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let head = head(rest);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let ordering = self.rests[middle].head.cmp(&head);
            match ordering.then_with(|| self.rest(middle).cmp(rest)) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Inserts a key where [`PackedKeys::search`] said it belongs.
    pub(super) fn insert(&mut self, i: usize, key: &[u8]) {
        let shared = shared_len(self.prefix(), key);
        if shared < self.prefix_len as usize {
            self.rebuild(0, self.len(), shared);
        }
        let rest = &key[self.prefix_len as usize..];
        let start = self.start(i);
        let (before, end) = (self.bytes.len(), start + rest.len());
        grow(&mut self.bytes, rest.len());
        self.bytes.resize(before + rest.len(), 0);
        self.bytes.copy_within(start..before, end);
        self.bytes[start..end].copy_from_slice(rest);
        let more = offset(rest.len());
        for later in &mut self.rests[i..] {
            later.end += more;
        }
        grow(&mut self.rests, 1);
        self.rests.insert(
            i,
            Rest {
                head: head(rest),
                end: offset(end),
            },
        );
    }

    pub(super) fn remove(&mut self, i: usize) {
        let (start, end) = (self.start(i), self.end(i));
        self.bytes.drain(start..end);
        self.rests.remove(i);
        let less = offset(end - start);
        for later in &mut self.rests[i..] {
            later.end -= less;
        }
        relax(&mut self.bytes);
        relax(&mut self.rests);
    }

    /// Cuts off the keys from `at` on, and stores the common prefix of either part once.
    pub(super) fn split_off(&mut self, at: usize) -> PackedKeys {
        let mut right = self.clone();
        right.rebuild(at, self.len(), right.shared_by(at, self.len()));
        self.rebuild(0, at, self.shared_by(0, at));
        right
    }

    /// Appends keys that all come after those here.
    pub(super) fn append(&mut self, right: &PackedKeys) {
        for i in 0..right.len() {
            let (prefix, rest) = right.key(i);
            let key = [prefix, rest].concat();
            self.insert(self.len(), &key);
        }
        self.rebuild(0, self.len(), self.shared_by(0, self.len()));
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_len as usize]
    }

    fn rest(&self, i: usize) -> &[u8] {
        &self.bytes[self.start(i)..self.end(i)]
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 {
            self.prefix_len as usize
        } else {
            self.end(i - 1)
        }
    }

    fn end(&self, i: usize) -> usize {
        self.rests[i].end as usize
    }

    /// Returns how long a prefix the keys of a part share; sorted keys share what the first and the last share.
    fn shared_by(&self, from: usize, to: usize) -> usize {
        if from == to {
            return 0;
        }
        self.prefix_len as usize + shared_len(self.rest(from), self.rest(to - 1))
    }

    /// Writes the keys of a part anew with the given prefix length, in exactly the memory they need.
    fn rebuild(&mut self, from: usize, to: usize, prefix_len: usize) {
        let count = to - from;
        let mut bytes = Vec::with_capacity(self.rebuilt_len(from, to, prefix_len));
        let mut rests = Vec::with_capacity(count);
        for i in from..to {
            let (prefix, rest) = self.key(i);
            if i == from {
                // The prefix is taken from the first key; both pieces of it may be needed.
                let of_rest = prefix_len.saturating_sub(prefix.len());
                bytes.extend_from_slice(&prefix[..prefix_len.min(prefix.len())]);
                bytes.extend_from_slice(&rest[..of_rest]);
            }
            let start = bytes.len();
            bytes.extend_from_slice(&prefix[prefix_len.min(prefix.len())..]);
            bytes.extend_from_slice(&rest[prefix_len.saturating_sub(prefix.len())..]);
            rests.push(Rest {
                head: head(&bytes[start..]),
                end: offset(bytes.len()),
            });
        }
        *self = PackedKeys {
            bytes,
            rests,
            prefix_len: if count == 0 { 0 } else { offset(prefix_len) },
        };
    }

    fn rebuilt_len(&self, from: usize, to: usize, prefix_len: usize) -> usize {
        if from == to {
            return 0;
        }
        let (count, rests) = (to - from, self.end(to - 1) - self.start(from));
        prefix_len + count * self.prefix_len as usize + rests - count * prefix_len
    }
}

/// Makes room for more elements, a little at a time.
pub(super) fn grow<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / GROWTH_DIVISOR).max(4));
    }
}

/// Gives memory back when most of it is not used any more.
pub(super) fn relax<T>(vec: &mut Vec<T>) {
    if vec.capacity() > 4 * vec.len().max(2) {
        vec.shrink_to_fit();
    }
}

fn head(rest: &[u8]) -> u32 {
    match rest.first_chunk() {
        Some(first) => u32::from_be_bytes(*first),
        None => {
            let mut first = [0; 4];
            first[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(first)
        }
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("a node is split long before its keys take 4 GiB")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn list(keys: &PackedKeys) -> Vec<Vec<u8>> {
        (0..keys.len()).map(|i| keys.to_vec(i)).collect()
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Few letters, so that prefixes are shared, broken and shared again.
        proptest::collection::vec(
            prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)],
            0..6,
        )
    }

    proptest! {
        #[test]
        fn packed_keys_behave_as_a_sorted_set(
            steps in proptest::collection::vec((key(), 0..8_u8), 1..60),
            probe in key(),
        ) {
            let mut keys = PackedKeys::default();
            let mut model = BTreeSet::new();
            for (key, step) in steps {
                match (keys.search(&key), step) {
                    (Ok(i), 0..=3) => {
                        keys.remove(i);
                        prop_assert!(model.remove(&key));
                    }
                    (Ok(_), _) => prop_assert!(model.contains(&key)),
                    (Err(i), _) => {
                        keys.insert(i, &key);
                        prop_assert!(model.insert(key));
                    }
                }
                if step == 7 {
                    let right = keys.split_off(keys.len() / 2);
                    keys.append(&right);
                }
                prop_assert_eq!(list(&keys), model.iter().cloned().collect::<Vec<_>>());
                prop_assert_eq!(keys.search(&probe).is_ok(), model.contains(&probe));
                let place = model.range(..probe.clone()).count();
                prop_assert_eq!(keys.search(&probe).unwrap_or_else(|i| i), place);
            }
        }
    }

    #[test]
    fn a_common_prefix_is_stored_once_after_a_split() {
        let mut keys = PackedKeys::default();
        for i in 0..10 {
            keys.insert(i, format!("/registry/pods/default/{i}").as_bytes());
        }
        let before = keys.bytes_len();
        let right = keys.split_off(5);
        assert!(keys.bytes_len() + right.bytes_len() < before / 3);
        assert_eq!(right.to_vec(4), b"/registry/pods/default/9");
        keys.append(&right);
        assert_eq!(keys.len(), 10);
        assert_eq!(keys.search(b"/registry/pods/default/7"), Ok(7));
        assert_eq!(keys.search(b"/registry/p"), Err(0));
        assert_eq!(keys.search(b"/registry/q"), Err(10));
    }
}
