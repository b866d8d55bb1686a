use std::cmp::Ordering;

use bytes::Bytes;

/// Half-open intervals of keys, each with a number, found by a key that lies in them.
///
/// **Shape**: a treap ordered by start, then end; an interval is in it at most once. Each node knows which interval of
/// its subtree reaches furthest, so that a search leaves out subtrees that end before the key. Insertion and removal
/// take O(log n), a search O(log n) for each interval found.
#[derive(Debug)]
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    /// State of the generator of priorities.
    seed: u64,
}

#[derive(Debug)]
struct Node {
    start: Bytes,
    /// Exclusive; none when open.
    end: Option<Bytes>,
    value: u32,
    priority: u32,
    left: u32,
    right: u32,
    /// The node of this subtree whose interval ends last.
    furthest: u32,
}

/// No node.
const NONE: u32 = u32::MAX;

impl IntervalTree {
    pub(super) fn new(seed: u64) -> IntervalTree {
        IntervalTree {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
            seed,
        }
    }

    /// Returns the number of the interval with exactly these bounds.
    pub(super) fn find(&self, start: &[u8], end: Option<&[u8]>) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = self.node(at);
            match compare((start, end), (&node.start, node.end.as_deref())) {
                Ordering::Less => at = node.left,
                Ordering::Greater => at = node.right,
                Ordering::Equal => return Some(node.value),
            }
        }
        None
    }

    /// Adds an interval that is not there yet.
    pub(super) fn insert(&mut self, start: Bytes, end: Option<Bytes>, value: u32) {
        let priority = self.priority();
        let node = Node {
            start,
            end,
            value,
            priority,
            left: NONE,
            right: NONE,
            furthest: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit in memory")
            }
        };
        self.update(at);
        self.root = self.insert_below(self.root, at);
    }

    /// Removes the interval with exactly these bounds, if it is there.
    pub(super) fn remove(&mut self, start: &[u8], end: Option<&[u8]>) {
        self.root = self.remove_below(self.root, start, end);
    }

    /// Calls `found` with the number of every interval that holds the key, in order.
    pub(super) fn each_holding(&self, key: &[u8], found: &mut impl FnMut(u32)) {
        self.each_below(self.root, key, found);
    }

    fn each_below(&self, at: u32, key: &[u8], found: &mut impl FnMut(u32)) {
        if at == NONE || !ends_after(self.node(self.node(at).furthest), key) {
            return;
        }
        let node = self.node(at);
        self.each_below(node.left, key, found);
        if node.start <= key {
            if ends_after(node, key) {
                found(node.value);
            }
            self.each_below(node.right, key, found);
        }
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NONE {
            return new;
        }
        if self.node(new).priority > self.node(at).priority {
            let (left, right) = self.split(at, new);
            self.node_mut(new).left = left;
            self.node_mut(new).right = right;
            self.update(new);
            return new;
        }
        if self.is_before(new, at) {
            let left = self.insert_below(self.node(at).left, new);
            self.node_mut(at).left = left;
        } else {
            let right = self.insert_below(self.node(at).right, new);
            self.node_mut(at).right = right;
        }
        self.update(at);
        at
    }

    /// Splits a subtree into what lies before the node `by` and what lies after it.
    fn split(&mut self, at: u32, by: u32) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.is_before(at, by) {
            let (left, right) = self.split(self.node(at).right, by);
            self.node_mut(at).right = left;
            self.update(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.node(at).left, by);
            self.node_mut(at).left = right;
            self.update(at);
            (left, at)
        }
    }

    fn remove_below(&mut self, at: u32, start: &[u8], end: Option<&[u8]>) -> u32 {
        if at == NONE {
            return NONE;
        }
        let node = self.node(at);
        let (left, right) = (node.left, node.right);
        match compare((start, end), (&node.start, node.end.as_deref())) {
            Ordering::Less => {
                let left = self.remove_below(left, start, end);
                self.node_mut(at).left = left;
            }
            Ordering::Greater => {
                let right = self.remove_below(right, start, end);
                self.node_mut(at).right = right;
            }
            Ordering::Equal => {
                let node = self.node_mut(at);
                // The keys are let go now, not when the node is used again.
                (node.start, node.end) = (Bytes::new(), None);
                self.free.push(at);
                return self.merge(left, right);
            }
        }
        self.update(at);
        at
    }

    /// Joins two subtrees, the first of which lies wholly before the second.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE {
            return right;
        }
        if right == NONE {
            return left;
        }
        if self.node(left).priority > self.node(right).priority {
            let joined = self.merge(self.node(left).right, right);
            self.node_mut(left).right = joined;
            self.update(left);
            left
        } else {
            let joined = self.merge(left, self.node(right).left);
            self.node_mut(right).left = joined;
            self.update(right);
            right
        }
    }

    fn update(&mut self, at: u32) {
        let node = self.node(at);
        let mut furthest = at;
        for child in [node.left, node.right] {
            if child != NONE {
                let candidate = self.node(child).furthest;
                if compare_ends(
                    self.node(candidate).end.as_deref(),
                    self.node(furthest).end.as_deref(),
                )
                .is_gt()
                {
                    furthest = candidate;
                }
            }
        }
        self.node_mut(at).furthest = furthest;
    }

    fn is_before(&self, a: u32, b: u32) -> bool {
        let (a, b) = (self.node(a), self.node(b));
        compare((&a.start, a.end.as_deref()), (&b.start, b.end.as_deref())).is_lt()
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn priority(&mut self) -> u32 {
        (split_mix(&mut self.seed) >> 32) as u32
    }
}

/// Draws the next number of a seeded sequence (SplitMix64).
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn ends_after(node: &Node, key: &[u8]) -> bool {
    node.end.as_ref().is_none_or(|end| key < &end[..])
}

fn compare(a: (&[u8], Option<&[u8]>), b: (&[u8], Option<&[u8]>)) -> Ordering {
    a.0.cmp(b.0).then_with(|| compare_ends(a.1, b.1))
}

/// Compares two exclusive ends, of which none is the last.
fn compare_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Bounds = (Vec<u8>, Option<Vec<u8>>);

    fn check(tree: &IntervalTree, model: &BTreeMap<Bounds, u32>) {
        for key in 0..=40u8 {
            let mut found = Vec::new();
            tree.each_holding(&[key], &mut |value| found.push(value));
            found.sort_unstable();
            let holds = |(start, end): &Bounds| {
                start[0] <= key && end.as_ref().is_none_or(|end| key < end[0])
            };
            let mut want: Vec<u32> = model
                .iter()
                .filter(|(bounds, _)| holds(bounds))
                .map(|(_, &value)| value)
                .collect();
            want.sort_unstable();
            assert_eq!(found, want, "intervals that hold {key}");
        }
    }

    #[test]
    fn a_random_history_finds_what_a_list_finds() {
        for seed in 0..20u64 {
            let mut random = seed;
            let mut tree = IntervalTree::new(seed);
            let mut model: BTreeMap<Bounds, u32> = BTreeMap::new();
            for step in 0..400u32 {
                let drawn = split_mix(&mut random).to_le_bytes();
                let start = vec![drawn[0] % 40];
                let end = (drawn[1] & 7 > 0).then(|| vec![start[0] + 1 + drawn[2] % 10]);
                let bounds = (start, end);
                match model.remove(&bounds) {
                    Some(value) => {
                        assert_eq!(tree.find(&bounds.0, bounds.1.as_deref()), Some(value));
                        tree.remove(&bounds.0, bounds.1.as_deref());
                    }
                    None => {
                        assert_eq!(tree.find(&bounds.0, bounds.1.as_deref()), None);
                        tree.insert(
                            bounds.0.clone().into(),
                            bounds.1.clone().map(Into::into),
                            step,
                        );
                        model.insert(bounds, step);
                    }
                }
                if step % 10 == 0 {
                    check(&tree, &model);
                }
            }
            assert!(tree.nodes.len() <= 400);
        }
    }

    #[test]
    fn many_intervals_make_a_shallow_tree() {
        let mut tree = IntervalTree::new(3);
        for number in 0..20_000u32 {
            let start = number.to_be_bytes().to_vec();
            let end = (number + 1).to_be_bytes().to_vec();
            tree.insert(start.into(), Some(end.into()), number);
        }
        fn depth(tree: &IntervalTree, at: u32) -> usize {
            if at == NONE {
                0
            } else {
                1 + depth(tree, tree.node(at).left).max(depth(tree, tree.node(at).right))
            }
        }
        assert!(
            depth(&tree, tree.root) < 60,
            "depth {}",
            depth(&tree, tree.root)
        );
    }
}
