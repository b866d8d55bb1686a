//! Links between machines, each direction by itself.
use std::collections::BTreeMap;

use crate::Random;
use crate::plan::{FaultKind, Faults};

/// Milliseconds that a message takes at most when nothing is wrong.
const USUAL_MS: u64 = 3;

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    /// Its bytes change on the way; it arrives after so long.
    Damaged(u64),
    /// It arrives after so long, and perhaps once more.
    Arrives(u64, Option<u64>),
}

/// What carries messages.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    loss: u64,
    twice: u64,
    delay_ms: u64,
    damage: u64,
    /// Directed links that carry nothing, and until when.
    cuts: BTreeMap<(u64, u64), u64>,
    /// When the last message of a link arrives.
    last_ms: BTreeMap<(u64, u64), u64>,
}

impl Network {
    pub(crate) fn new(seed: u64, faults: &Faults) -> Self {
        Self {
            random: Random::of(seed, "network"),
            loss: faults.rate(FaultKind::Loss),
            twice: faults.rate(FaultKind::Duplication),
            delay_ms: faults.rate(FaultKind::Delay),
            damage: faults.rate(FaultKind::Corruption),
            cuts: BTreeMap::new(),
            last_ms: BTreeMap::new(),
        }
    }

    /// Ends all that is wrong.
    pub(crate) fn heal(&mut self) {
        (self.loss, self.twice, self.delay_ms, self.damage) = (0, 0, 0, 0);
        self.cuts.clear();
    }

    pub(crate) fn cut(&mut self, from: u64, to: u64, until_ms: u64) {
        let until = self.cuts.entry((from, to)).or_insert(0);
        *until = until_ms.max(*until);
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64, now_ms: u64) -> bool {
        self.cuts
            .get(&(from, to))
            .is_some_and(|until| now_ms < *until)
    }

    fn delay(&mut self) -> u64 {
        let usual = 1 + self.random.below(USUAL_MS);
        if self.delay_ms > 0 && self.random.one_in(3) {
            return usual + self.random.below(self.delay_ms);
        }
        usual
    }

    /// Draws what becomes of a message sent now. Says also whether it overtakes one that was sent before.
    pub(crate) fn carry(&mut self, from: u64, to: u64, now_ms: u64) -> (Fate, bool) {
        if self.is_cut(from, to, now_ms) || self.random.one_in(self.loss) {
            return (Fate::Lost, false);
        }
        let first = self.delay();
        if self.random.one_in(self.damage) {
            return (Fate::Damaged(first), false);
        }
        let last = self.last_ms.entry((from, to)).or_insert(0);
        let overtakes = now_ms + first < *last;
        *last = (*last).max(now_ms + first);
        let twice = self.random.one_in(self.twice);
        let second = twice.then(|| first + self.delay());
        (Fate::Arrives(first, second), overtakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_a_direction_and_an_end() {
        let mut network = Network::new(1, &Faults::none());
        network.cut(1, 2, 50);
        assert_eq!(network.carry(1, 2, 49).0, Fate::Lost);
        assert!(matches!(network.carry(2, 1, 49).0, Fate::Arrives(_, None)));
        assert!(matches!(network.carry(1, 2, 50).0, Fate::Arrives(_, None)));
    }
}
