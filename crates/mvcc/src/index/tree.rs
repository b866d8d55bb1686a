use std::ops::ControlFlow;

use super::packed_keys::{KeyParts, PackedKeys, grow, relax};
use super::versions::Versions;

/// Most keys in a leaf, and most children of a branch.
const NODE_LEN_MAX: usize = 64;
/// A leaf or branch with fewer is merged with a neighbour when both fit well into one.
const NODE_LEN_MIN: usize = NODE_LEN_MAX / 4;
/// Most bytes of keys in a leaf with more than one key, so that inserting moves little.
const NODE_BYTES_MAX: usize = 16 << 10;

/// A B+tree from key to what is known of it, which knows how many keys below each node are alive.
///
/// Source: the counts make it an order-statistic tree, Cormen et al., "Introduction to Algorithms", chapter 14.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

#[derive(Debug, Default)]
struct Leaf {
    keys: PackedKeys,
    slots: Vec<Versions>,
}

/// **Invariant:** `children.len() == live.len() == separators.len() + 1`; keys below `children[i]` are at or above
/// `separators[i - 1]` and below `separators[i]`; `live[i]` counts the live keys below `children[i]`.
#[derive(Debug)]
struct Branch {
    separators: PackedKeys,
    children: Vec<Node>,
    live: Vec<usize>,
}

/// The right half of a node that became too large.
struct Split {
    separator: Vec<u8>,
    right: Node,
    right_live: usize,
}

/// What [`Tree::upsert`] does with a slot, new or found.
pub(super) enum Upsert<'a> {
    Found(&'a mut Versions),
    Absent(&'a mut Option<Versions>),
}

/// Bounds of a walk; `upper` is left out.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) lower: Option<&'a [u8]>,
    pub(super) upper: Option<&'a [u8]>,
}

/// Memory taken by a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TreeSize {
    pub(super) keys: usize,
    pub(super) allocated_bytes: usize,
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            root: Node::Leaf(Leaf::default()),
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Versions> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|i| &leaf.slots[i]),
                Node::Branch(branch) => node = &branch.children[branch.child_of(key)],
            }
        }
    }

    /// Counts the live keys.
    pub(super) fn live(&self) -> usize {
        self.root.count_live()
    }

    /// Counts the live keys below a key.
    pub(super) fn live_before(&self, key: &[u8]) -> usize {
        let (mut node, mut before) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let end = leaf.keys.search(key).unwrap_or_else(|i| i);
                    return before + count_live(&leaf.slots[..end]);
                }
                Node::Branch(branch) => {
                    let i = branch.child_of(key);
                    before += branch.live[..i].iter().sum::<usize>();
                    node = &branch.children[i];
                }
            }
        }
    }

    /// Changes the slot of a key in one walk. `change` gets the slot found, or an empty one to fill; its result is
    /// handed on.
    pub(super) fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(Upsert<'_>) -> R) -> R {
        let (result, _, split) = self.root.upsert(key, change);
        if let Some(split) = split {
            let Split {
                separator,
                right,
                right_live,
            } = *split;
            let left = std::mem::replace(&mut self.root, Node::Leaf(Leaf::default()));
            let mut separators = PackedKeys::default();
            separators.insert(0, &separator);
            let live = vec![left.count_live(), right_live];
            self.root = Node::Branch(Branch {
                separators,
                children: vec![left, right],
                live,
            });
        }
        result
    }

    /// Walks the keys within bounds in order until told to stop. With `live_only`, parts of the tree without a live key
    /// are passed over.
    pub(super) fn visit<B>(
        &self,
        bounds: Bounds<'_>,
        live_only: bool,
        mut visitor: impl FnMut(KeyParts<'_>, &Versions) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.root.visit(bounds, live_only, &mut visitor)
    }

    /// Walks the live keys within bounds in order until told to stop; the visitor may delete them.
    pub(super) fn visit_live_mut<B>(
        &mut self,
        bounds: Bounds<'_>,
        mut visitor: impl FnMut(KeyParts<'_>, &mut Versions) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.root.visit_live_mut(bounds, &mut visitor).0
    }

    /// Visits every slot of the leaf where the key belongs, drops those for which `keep` is false (they must be dead),
    /// and returns where the next leaf begins, `None` after the last one.
    pub(super) fn retain_in_leaf_of(
        &mut self,
        key: &[u8],
        keep: &mut impl FnMut(&mut Versions) -> bool,
    ) -> Option<Vec<u8>> {
        let next = self.root.retain_in_leaf_of(key, keep);
        while let Node::Branch(branch) = &mut self.root {
            if branch.children.len() > 1 {
                break;
            }
            self.root = branch.children.pop().expect("a branch has a child");
        }
        next
    }

    pub(super) fn size(&self) -> TreeSize {
        let mut size = TreeSize {
            keys: 0,
            allocated_bytes: size_of::<Tree>(),
        };
        self.root.add_size(&mut size);
        size
    }

    /// Checks every invariant, for tests.
    #[cfg(test)]
    fn check(&self) {
        self.root.check(None, None);
    }
}

type Upserted<R> = (R, Delta, Option<Box<Split>>);

/// How the number of live keys changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delta {
    None,
    Born,
    Died,
}

impl Node {
    fn count_live(&self) -> usize {
        match self {
            Node::Leaf(leaf) => count_live(&leaf.slots),
            Node::Branch(branch) => branch.live.iter().sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.slots.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(Upsert<'_>) -> R) -> Upserted<R> {
        match self {
            Node::Leaf(leaf) => leaf.upsert(key, change),
            Node::Branch(branch) => {
                let i = branch.child_of(key);
                let (result, delta, split) = branch.children[i].upsert(key, change);
                match delta {
                    Delta::None => {}
                    Delta::Born => branch.live[i] += 1,
                    Delta::Died => branch.live[i] -= 1,
                }
                (
                    result,
                    delta,
                    split.and_then(|split| branch.insert_split(i, *split)),
                )
            }
        }
    }

    fn visit<B>(
        &self,
        bounds: Bounds<'_>,
        live_only: bool,
        visitor: &mut impl FnMut(KeyParts<'_>, &Versions) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Node::Leaf(leaf) => {
                for i in leaf.places(bounds) {
                    visitor(leaf.keys.key(i), &leaf.slots[i])?;
                }
            }
            Node::Branch(branch) => {
                for i in branch.places(bounds) {
                    if live_only && branch.live[i] == 0 {
                        continue;
                    }
                    branch.children[i].visit(branch.bounds_of(i, bounds), live_only, visitor)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn visit_live_mut<B>(
        &mut self,
        bounds: Bounds<'_>,
        visitor: &mut impl FnMut(KeyParts<'_>, &mut Versions) -> ControlFlow<B>,
    ) -> (ControlFlow<B>, usize) {
        let mut died = 0;
        match self {
            Node::Leaf(leaf) => {
                for i in leaf.places(bounds) {
                    let slot = &mut leaf.slots[i];
                    if !slot.is_live() {
                        continue;
                    }
                    let flow = visitor(leaf.keys.key(i), slot);
                    died += usize::from(!slot.is_live());
                    if flow.is_break() {
                        return (flow, died);
                    }
                }
            }
            Node::Branch(branch) => {
                for i in branch.places(bounds) {
                    if branch.live[i] == 0 {
                        continue;
                    }
                    let inner = branch.bounds_of(i, bounds);
                    let (flow, died_below) = branch.children[i].visit_live_mut(inner, visitor);
                    branch.live[i] -= died_below;
                    died += died_below;
                    if flow.is_break() {
                        return (flow, died);
                    }
                }
            }
        }
        (ControlFlow::Continue(()), died)
    }

    fn retain_in_leaf_of(
        &mut self,
        key: &[u8],
        keep: &mut impl FnMut(&mut Versions) -> bool,
    ) -> Option<Vec<u8>> {
        match self {
            Node::Leaf(leaf) => {
                leaf.retain(keep);
                None
            }
            Node::Branch(branch) => {
                let i = branch.child_of(key);
                let next = branch.children[i].retain_in_leaf_of(key, keep);
                let next = next
                    .or_else(|| (i < branch.separators.len()).then(|| branch.separators.to_vec(i)));
                branch.repair(i);
                relax(&mut branch.children);
                relax(&mut branch.live);
                next
            }
        }
    }

    fn add_size(&self, size: &mut TreeSize) {
        match self {
            Node::Leaf(leaf) => {
                size.keys += leaf.slots.len();
                size.allocated_bytes += leaf.keys.allocated_bytes()
                    + leaf.slots.capacity() * size_of::<Versions>()
                    + leaf
                        .slots
                        .iter()
                        .map(Versions::allocated_bytes)
                        .sum::<usize>();
            }
            Node::Branch(branch) => {
                size.allocated_bytes += branch.separators.allocated_bytes()
                    + branch.children.capacity() * size_of::<Node>()
                    + branch.live.capacity() * size_of::<usize>();
                for child in &branch.children {
                    child.add_size(size);
                }
            }
        }
    }

    #[cfg(test)]
    fn check(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) {
        let keys = match self {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.keys.len(), leaf.slots.len());
                &leaf.keys
            }
            Node::Branch(branch) => {
                assert_eq!(branch.children.len(), branch.live.len());
                assert_eq!(branch.children.len(), branch.separators.len() + 1);
                &branch.separators
            }
        };
        let keys: Vec<_> = (0..keys.len()).map(|i| keys.to_vec(i)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "keys ascend");
        assert!(
            keys.iter()
                .all(|key| lower.is_none_or(|lower| &key[..] >= lower))
        );
        assert!(
            keys.iter()
                .all(|key| upper.is_none_or(|upper| &key[..] < upper))
        );
        assert!(self.len() <= NODE_LEN_MAX);
        if let Node::Branch(branch) = self {
            for (i, child) in branch.children.iter().enumerate() {
                assert_eq!(branch.live[i], child.count_live());
                let lower = if i == 0 {
                    lower
                } else {
                    Some(&keys[i - 1][..])
                };
                child.check(lower, keys.get(i).map(|key| &key[..]).or(upper));
            }
        }
    }
}

impl Leaf {
    fn upsert<R>(&mut self, key: &[u8], change: impl FnOnce(Upsert<'_>) -> R) -> Upserted<R> {
        match self.keys.search(key) {
            Ok(i) => {
                let slot = &mut self.slots[i];
                let before = slot.is_live();
                let result = change(Upsert::Found(slot));
                (result, delta(before, slot.is_live()), None)
            }
            Err(i) => {
                let mut slot = None;
                let result = change(Upsert::Absent(&mut slot));
                let Some(slot) = slot else {
                    return (result, Delta::None, None);
                };
                let delta = delta(false, slot.is_live());
                self.keys.insert(i, key);
                grow(&mut self.slots, 1);
                self.slots.insert(i, slot);
                (result, delta, self.split_when_full(i))
            }
        }
    }

    fn split_when_full(&mut self, inserted: usize) -> Option<Box<Split>> {
        let len = self.slots.len();
        if len < 2 || (len <= NODE_LEN_MAX && self.keys.bytes_len() <= NODE_BYTES_MAX) {
            return None;
        }
        let at = split_place(len, inserted);
        let left_last = self.keys.to_vec(at - 1);
        let right_first = self.keys.to_vec(at);
        let keys = self.keys.split_off(at);
        let slots = self.slots.split_off(at);
        self.slots.shrink_to_fit();
        let right_live = count_live(&slots);
        let separator = separator(&left_last, right_first);
        Some(Box::new(Split {
            separator,
            right: Node::Leaf(Leaf { keys, slots }),
            right_live,
        }))
    }

    fn places(&self, bounds: Bounds<'_>) -> std::ops::Range<usize> {
        let place = |key| self.keys.search(key).unwrap_or_else(|i| i);
        bounds.lower.map_or(0, place)..bounds.upper.map_or(self.slots.len(), place)
    }

    fn retain(&mut self, keep: &mut impl FnMut(&mut Versions) -> bool) {
        let mut i = 0;
        while i < self.slots.len() {
            let was_live = self.slots[i].is_live();
            if keep(&mut self.slots[i]) {
                i += 1;
            } else {
                assert!(!was_live, "only keys that do not exist are dropped");
                self.keys.remove(i);
                self.slots.remove(i);
            }
        }
        relax(&mut self.slots);
    }
}

impl Branch {
    fn child_of(&self, key: &[u8]) -> usize {
        match self.separators.search(key) {
            Ok(i) => i + 1,
            Err(i) => i,
        }
    }

    /// Returns the children that can hold keys within the bounds.
    fn places(&self, bounds: Bounds<'_>) -> std::ops::Range<usize> {
        let first = bounds.lower.map_or(0, |lower| self.child_of(lower));
        // A child that begins at the upper bound holds nothing below it.
        let end = bounds.upper.map_or(self.children.len(), |upper| {
            self.separators.search(upper).unwrap_or_else(|i| i) + 1
        });
        first..end.max(first)
    }

    /// Returns the bounds that still matter below a child.
    fn bounds_of<'a>(&self, i: usize, bounds: Bounds<'a>) -> Bounds<'a> {
        let lower = bounds.lower.filter(|lower| i == self.child_of(lower));
        let upper = bounds
            .upper
            .filter(|upper| i == self.separators.search(upper).unwrap_or_else(|i| i));
        Bounds { lower, upper }
    }

    fn insert_split(&mut self, i: usize, split: Split) -> Option<Box<Split>> {
        self.separators.insert(i, &split.separator);
        grow(&mut self.children, 1);
        self.children.insert(i + 1, split.right);
        self.live[i] -= split.right_live;
        grow(&mut self.live, 1);
        self.live.insert(i + 1, split.right_live);
        let len = self.children.len();
        if len <= NODE_LEN_MAX {
            return None;
        }
        let at = split_place(len, i + 1);
        // The separator between the halves moves up.
        let separator = self.separators.to_vec(at - 1);
        self.separators.remove(at - 1);
        let separators = self.separators.split_off(at - 1);
        let children = self.children.split_off(at);
        let live = self.live.split_off(at);
        self.children.shrink_to_fit();
        let right_live = live.iter().sum();
        Some(Box::new(Split {
            separator,
            right: Node::Branch(Branch {
                separators,
                children,
                live,
            }),
            right_live,
        }))
    }

    /// Merges a child that became small with a neighbour, or removes it when it is empty.
    fn repair(&mut self, i: usize) {
        if self.children[i].len() >= NODE_LEN_MIN || self.children.len() < 2 {
            return;
        }
        if matches!(&self.children[i], Node::Leaf(leaf) if leaf.slots.is_empty()) {
            self.children.remove(i);
            self.live.remove(i);
            self.separators.remove(i.saturating_sub(1));
            return;
        }
        let left = if i > 0 { i - 1 } else { i };
        if self.children[left].len() + self.children[left + 1].len() <= NODE_LEN_MAX * 3 / 4 {
            self.merge(left);
        }
    }

    /// Moves all of the child after `left` into it.
    fn merge(&mut self, left: usize) {
        let separator = self.separators.to_vec(left);
        match self.children.remove(left + 1) {
            Node::Leaf(mut right) => {
                let Node::Leaf(into) = &mut self.children[left] else {
                    unreachable!("all leaves are equally deep");
                };
                into.keys.append(&right.keys);
                into.slots.append(&mut right.slots);
            }
            Node::Branch(mut right) => {
                let Node::Branch(into) = &mut self.children[left] else {
                    unreachable!("all leaves are equally deep");
                };
                into.separators.insert(into.separators.len(), &separator);
                into.separators.append(&right.separators);
                into.children.append(&mut right.children);
                into.live.append(&mut right.live);
            }
        }
        self.separators.remove(left);
        self.live[left] += self.live.remove(left + 1);
    }
}

fn count_live(slots: &[Versions]) -> usize {
    slots.iter().filter(|slot| slot.is_live()).count()
}

fn delta(before: bool, after: bool) -> Delta {
    match (before, after) {
        (false, true) => Delta::Born,
        (true, false) => Delta::Died,
        _ => Delta::None,
    }
}

/// Returns where to split: in the middle, but keys that come in order leave full nodes behind.
fn split_place(len: usize, inserted: usize) -> usize {
    match inserted {
        0 => 1,
        last if last + 1 == len => len - 1,
        _ => len / 2,
    }
}

/// Returns the shortest key above the left one and not above the right one.
fn separator(left: &[u8], mut right: Vec<u8>) -> Vec<u8> {
    let shared = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    right.truncate(shared + 1);
    right
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use quorate_backend::Revision;

    use super::*;
    use crate::index::versions::Compacted;
    use crate::record::KeyVersion;

    fn put(tree: &mut Tree, key: &[u8], main: i64) {
        let revision = Revision { main, sub: 0 };
        tree.upsert(key, |slot| match slot {
            Upsert::Found(versions) => {
                versions.put(revision);
            }
            Upsert::Absent(slot) => {
                *slot = Some(Versions::with_put(KeyVersion {
                    revision,
                    create_revision: main,
                    version: 1,
                }));
            }
        });
    }

    fn delete(tree: &mut Tree, key: &[u8], main: i64) {
        tree.upsert(key, |slot| {
            if let Upsert::Found(versions) = slot {
                versions.tombstone(Revision { main, sub: 0 });
            }
        });
    }

    fn live(tree: &Tree, bounds: Bounds<'_>, live_only: bool) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let flow: ControlFlow<()> = tree.visit(bounds, live_only, |(prefix, rest), versions| {
            if versions.is_live() {
                keys.push([prefix, rest].concat());
            }
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        keys
    }

    fn compact(tree: &mut Tree, main: i64) {
        let mut from = Vec::new();
        while let Some(next) = tree.retain_in_leaf_of(&from, &mut |versions| {
            versions.compact(main) != Compacted::Nothing
        }) {
            assert!(next > from);
            from = next;
        }
    }

    #[test]
    fn many_keys_in_any_order_are_found_counted_and_walked() {
        for step in [1_u32, 7919, 99_999] {
            let count = 5000_u32;
            let mut tree = Tree::new();
            let mut model = BTreeMap::new();
            for i in 0..count {
                let key = format!(
                    "/registry/{:05}",
                    (u64::from(i) * u64::from(step)) % u64::from(count)
                )
                .into_bytes();
                let main = i64::from(i) + 2;
                put(&mut tree, &key, main);
                model.insert(key, main);
            }
            tree.check();
            assert_eq!(tree.live(), model.len());
            assert_eq!(
                live(
                    &tree,
                    Bounds {
                        lower: None,
                        upper: None
                    },
                    true
                )
                .len(),
                model.len()
            );
            for (place, (key, main)) in model.iter().enumerate() {
                assert_eq!(tree.find(key).unwrap().newest().main, *main);
                assert_eq!(tree.live_before(key), place);
            }
            assert!(tree.find(b"/registry/").is_none());
            // Deleting and compacting nearly all of it leaves a small tree.
            let before = tree.size();
            for (i, key) in model.keys().enumerate() {
                if i % 500 != 0 {
                    delete(&mut tree, key, 10_000_000);
                }
            }
            compact(&mut tree, 10_000_001);
            tree.check();
            let after = tree.size();
            assert_eq!((tree.live(), after.keys), (10, 10));
            assert!(
                after.allocated_bytes < before.allocated_bytes / 20,
                "{before:?} {after:?}"
            );
        }
    }

    #[test]
    fn a_leaf_of_huge_keys_is_split_by_bytes() {
        let mut tree = Tree::new();
        for i in 0..20_u8 {
            let mut key = vec![b'x'; 10_000];
            key[0] = i;
            put(&mut tree, &key, i64::from(i) + 2);
        }
        tree.check();
        assert_eq!(tree.live(), 20);
        assert!(matches!(tree.root, Node::Branch(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn the_tree_behaves_as_a_sorted_map(
            steps in proptest::collection::vec((0..20_u8, 0..400_u32, 0..400_u32), 100..700),
        ) {
            let mut tree = Tree::new();
            let mut model: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
            let key = |i: u32| format!("{}{i:03}", if i.is_multiple_of(3) { "a" } else { "ab" }).into_bytes();
            for (at, (what, a, b)) in steps.into_iter().enumerate() {
                let main = i64::try_from(at).unwrap() + 2;
                let (from, to) = (key(a), key(b));
                let bounds = Bounds { lower: Some(&from), upper: Some(&to) };
                match what {
                    0..=12 => {
                        put(&mut tree, &from, main);
                        model.insert(from.clone(), true);
                    }
                    13..=15 => {
                        delete(&mut tree, &from, main);
                        model.entry(from.clone()).and_modify(|live| *live = false);
                    }
                    16 | 17 => {
                        let mut sub = 0;
                        let flow: ControlFlow<()> = tree.visit_live_mut(bounds, |_, versions| {
                            versions.tombstone(Revision { main, sub });
                            sub += 1;
                            ControlFlow::Continue(())
                        });
                        prop_assert!(flow.is_continue());
                        if from < to {
                            for (_, live) in model.range_mut(from.clone()..to.clone()) {
                                *live = false;
                            }
                        }
                    }
                    _ => {
                        compact(&mut tree, main);
                        model.retain(|_, live| *live);
                    }
                }
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(key, live)| **live && **key >= from && **key < to)
                    .map(|(key, _)| key.clone())
                    .collect();
                prop_assert_eq!(live(&tree, bounds, true), expected.clone());
                prop_assert_eq!(live(&tree, bounds, false), expected.clone());
                let count = tree.live_before(&to).saturating_sub(tree.live_before(&from));
                prop_assert_eq!(count, expected.len());
            }
            tree.check();
            prop_assert_eq!(tree.size().keys, model.len());
        }
    }
}
