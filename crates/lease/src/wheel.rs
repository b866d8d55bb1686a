use crate::slab::NIL;

/// A hierarchical timer wheel: at most one timer for each small number, set, moved and cancelled in constant time.
///
/// **Shape**: level `l` has 64 slots of `64^l` milliseconds. A timer lies on the level of the highest bit in which its
/// time differs from `elapsed_ms`, so all levels together reach over all of `u64`, and a timer moves down at most ten
/// times before it is due. Slots are doubly linked lists through `nodes`; memory is 24 bytes for each number in use.
///
/// **Invariant:** at each level no slot before that of `elapsed_ms` is occupied.
///
/// Source: G. Varghese, T. Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 7.
#[derive(Debug)]
pub(crate) struct Wheel {
    elapsed_ms: u64,
    /// A bit for each slot with timers, by level.
    occupied: [u64; LEVELS],
    /// First timer of each slot, by level, then slot.
    heads: Vec<u32>,
    nodes: Vec<Node>,
}

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Eleven levels of six bits reach over 64 bits.
const LEVELS: usize = 11;
const UNLINKED: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    when_ms: u64,
    prev: u32,
    next: u32,
    /// Level times 64 plus slot, or [`UNLINKED`].
    list: u16,
}

const IDLE: Node = Node {
    when_ms: 0,
    prev: NIL,
    next: NIL,
    list: UNLINKED,
};

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            elapsed_ms: 0,
            occupied: [0; LEVELS],
            heads: vec![NIL; LEVELS * SLOTS],
            nodes: Vec::new(),
        }
    }

    /// Cancels all timers.
    pub(crate) fn clear(&mut self) {
        self.occupied = [0; LEVELS];
        self.heads.fill(NIL);
        self.nodes.clear();
    }

    /// Sets the timer, or moves it. A time in the past is due at once.
    pub(crate) fn set(&mut self, timer: u32, when_ms: u64) {
        self.cancel(timer);
        if self.nodes.len() <= timer as usize {
            self.nodes.resize(timer as usize + 1, IDLE);
        }
        self.link(timer, when_ms.max(self.elapsed_ms));
    }

    /// Cancels the timer if it is set.
    pub(crate) fn cancel(&mut self, timer: u32) {
        if self.time_of(timer).is_some() {
            self.unlink(timer);
        }
    }

    /// Returns the time of the timer if it is set.
    pub(crate) fn time_of(&self, timer: u32) -> Option<u64> {
        let node = self.nodes.get(timer as usize)?;
        (node.list != UNLINKED).then_some(node.when_ms)
    }

    /// Removes and returns a timer whose time has come, earliest first.
    ///
    /// Each timer moved or returned takes one of `steps`; with none left the answer is `None`, and the next call goes on.
    pub(crate) fn pop_due(&mut self, now_ms: u64, steps: &mut usize) -> Option<u32> {
        loop {
            let Some((level, list, start_ms)) = self.next_slot() else {
                self.elapsed_ms = self.elapsed_ms.max(now_ms);
                return None;
            };
            if start_ms > now_ms {
                // Nothing lies between, so every timer keeps its level and slot.
                self.elapsed_ms = self.elapsed_ms.max(now_ms);
                return None;
            }
            *steps = steps.checked_sub(1)?;
            self.elapsed_ms = start_ms;
            let timer = self.heads[list];
            self.unlink(timer);
            if level == 0 {
                return Some(timer);
            }
            self.link(timer, self.nodes[timer as usize].when_ms);
        }
    }

    /// Finds the occupied slot that starts first, and of those the highest, which must be emptied downwards before a
    /// lower one is due. Returns its level, its list and the time at which it starts.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let mut found: Option<(usize, usize, u64)> = None;
        let mut shift = 0;
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied != 0 {
                let slot = occupied.trailing_zeros();
                let above = shift + SLOT_BITS;
                let base = self.elapsed_ms.checked_shr(above).unwrap_or(0);
                let start = base.checked_shl(above).unwrap_or(0) | (u64::from(slot) << shift);
                if found.is_none_or(|(_, _, earliest)| start <= earliest) {
                    found = Some((level, level * SLOTS + slot as usize, start));
                }
            }
            shift += SLOT_BITS;
        }
        found
    }

    fn link(&mut self, timer: u32, when_ms: u64) {
        let differs = (when_ms ^ self.elapsed_ms) | 0x3f;
        let level = (63 - differs.leading_zeros()) / SLOT_BITS;
        let slot = ((when_ms >> (level * SLOT_BITS)) & 0x3f) as u16;
        let list = (((level & 0xf) as u16) << SLOT_BITS) | slot;
        let head = std::mem::replace(&mut self.heads[usize::from(list)], timer);
        if head != NIL {
            self.nodes[head as usize].prev = timer;
        }
        self.nodes[timer as usize] = Node {
            when_ms,
            prev: NIL,
            next: head,
            list,
        };
        self.occupied[level as usize] |= 1 << slot;
    }

    fn unlink(&mut self, timer: u32) {
        let node = self.nodes[timer as usize];
        assert!(node.list != UNLINKED, "timer {timer} is not set");
        self.nodes[timer as usize].list = UNLINKED;
        if node.next != NIL {
            self.nodes[node.next as usize].prev = node.prev;
        }
        if node.prev != NIL {
            self.nodes[node.prev as usize].next = node.next;
            return;
        }
        let list = usize::from(node.list);
        self.heads[list] = node.next;
        if node.next == NIL {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut steps = usize::MAX;
        let mut due: Vec<u32> = std::iter::from_fn(|| wheel.pop_due(now_ms, &mut steps)).collect();
        due.sort_unstable();
        due
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64),
        AdvanceInSteps(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0..70u64, 0..5_000u64, 0..300_000u64, 0..u64::MAX / 2];
        prop_oneof![
            8 => (0..24u32, far.clone()).prop_map(|(t, d)| Step::Set(t, d)),
            2 => (0..24u32).prop_map(Step::Cancel),
            4 => far.clone().prop_map(Step::Advance),
            4 => far.prop_map(Step::AdvanceInSteps),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_of_times(steps in prop::collection::vec(step(), 1..60)) {
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0u64);
            for step in steps {
                match step {
                    Step::Set(timer, delay) => {
                        wheel.set(timer, now.saturating_add(delay));
                        model.insert(timer, now.saturating_add(delay));
                    }
                    Step::Cancel(timer) => {
                        wheel.cancel(timer);
                        model.remove(&timer);
                    }
                    Step::Clear => {
                        wheel.clear();
                        model.clear();
                    }
                    Step::Advance(by) | Step::AdvanceInSteps(by) => {
                        now = now.saturating_add(by);
                        let want: Vec<u32> = model.iter().filter(|&(_, &w)| w <= now).map(|(&t, _)| t).collect();
                        model.retain(|_, w| *w > now);
                        let mut got = Vec::new();
                        if matches!(step, Step::AdvanceInSteps(_)) {
                            for _ in 0..24 * LEVELS {
                                got.extend(wheel.pop_due(now, &mut 1));
                            }
                            got.sort_unstable();
                        } else {
                            got = drain(&mut wheel, now);
                        }
                        prop_assert_eq!(got, want);
                    }
                }
                for timer in 0..24 {
                    prop_assert_eq!(wheel.time_of(timer), model.get(&timer).copied());
                }
            }
            prop_assert_eq!(drain(&mut wheel, u64::MAX), model.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn earliest_comes_first() {
        let mut wheel = Wheel::new();
        for (timer, when) in [(0, 70_000), (1, 5), (2, 4_200), (3, 64), (4, 1 << 40)] {
            wheel.set(timer, when);
        }
        let mut steps = usize::MAX;
        let order: Vec<u32> = std::iter::from_fn(|| wheel.pop_due(u64::MAX, &mut steps)).collect();
        assert_eq!(order, [1, 3, 2, 0, 4]);
    }

    #[test]
    fn clock_that_goes_back_fires_nothing() {
        let mut wheel = Wheel::new();
        wheel.set(0, 1_000);
        assert_eq!(drain(&mut wheel, 900), []);
        assert_eq!(drain(&mut wheel, 100), []);
        wheel.set(1, 200);
        assert_eq!(
            drain(&mut wheel, 899),
            [],
            "a late timer is due only when time has caught up"
        );
        assert_eq!(drain(&mut wheel, 1_000), [0, 1]);
    }
}
