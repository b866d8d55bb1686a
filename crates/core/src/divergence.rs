//! Who went another way than the others: judged by the running digests of members at one place in the log.
//!
//! A leader asks the others for their digests now and then. Who asks, and how often, is for those who have clocks; what follows
//! from the answers is decided here.
use std::collections::BTreeMap;

use quorate_proto::MemberId;

/// Why a member ends that is told that it went another way.
pub const DIVERGED: &str = "this member holds another state than a majority of the cluster at the same place in the log: \
     remove it, delete its data, and add it anew";

/// Comparisons in a row that must find the same, so that nothing rests on one answer.
const CONFIRMATIONS: u32 = 2;

/// Who went another way than the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody, as far as could be compared.
    #[default]
    Agreed,
    /// These members.
    Others(Vec<MemberId>),
    /// This one.
    Own,
    /// Nobody can say who.
    Unknown(Vec<MemberId>),
}

/// A comparison, as a leader makes it: with each of the others where that one is. Only when one differs, all are compared with
/// each other, at the first place where one is known to.
#[derive(Clone, Debug)]
pub struct Comparison {
    own: MemberId,
    members: usize,
    /// Members that could be compared where they are.
    known: usize,
    /// Where one differs first.
    place: Option<u64>,
}

impl Comparison {
    /// Begins one of this member with the others, in a cluster with so many members.
    #[must_use]
    pub fn new(own: MemberId, members: usize) -> Self {
        Self {
            own,
            members,
            known: 0,
            place: None,
        }
    }

    /// Takes the digests of this member and of another, at the index where that one is.
    pub fn meet(&mut self, index: u64, own: u64, theirs: u64) {
        self.known += 1;
        if own != theirs {
            self.place = Some(self.place.map_or(index, |place| place.min(index)));
        }
    }

    /// Returns where all are to be compared with each other; `None` when nobody differs.
    #[must_use]
    pub fn place(&self) -> Option<u64> {
        self.place
    }

    /// Judges by the digests at [`Self::place`]: that of this member, and those of others that are known.
    pub fn verdict(&self, own: u64, others: impl IntoIterator<Item = (MemberId, u64)>) -> Verdict {
        let mut digests = vec![(self.own, own)];
        digests.extend(others);
        match judge(self.own, &digests, self.members) {
            // Who is not there yet will say who is right.
            Verdict::Unknown(_) if digests.len() <= self.known => Verdict::Agreed,
            verdict => verdict,
        }
    }
}

/// What the last comparisons found.
#[derive(Debug, Default)]
pub struct Suspicion {
    verdict: Verdict,
    /// How often in a row.
    found: u32,
}

impl Suspicion {
    /// Takes what a comparison found, and gives it back when it is time to act upon it: it was the same as often as it must be.
    pub fn confirm(&mut self, verdict: Verdict) -> Option<Verdict> {
        if verdict == self.verdict {
            self.found += 1;
        } else {
            *self = Self { verdict, found: 1 };
        }
        if self.verdict == Verdict::Agreed || self.found < CONFIRMATIONS {
            return None;
        }
        Some(std::mem::take(self).verdict)
    }
}

/// Judges by what members, this one among them, hold at one place in the log, in a cluster with so many: a majority that holds the
/// same is right, and without one nobody knows who is.
fn judge(own: MemberId, digests: &[(MemberId, u64)], members: usize) -> Verdict {
    let mut by_digest: BTreeMap<u64, Vec<MemberId>> = BTreeMap::new();
    for (id, digest) in digests {
        by_digest.entry(*digest).or_default().push(*id);
    }
    if by_digest.len() <= 1 {
        return Verdict::Agreed;
    }
    let quorum = members / 2 + 1;
    let right = by_digest.values().find(|ids| ids.len() >= quorum);
    let right_or_own = right.or_else(|| by_digest.values().find(|ids| ids.contains(&own)));
    let all = digests.iter().map(|(id, _)| *id);
    let different = all
        .filter(|id| right_or_own.is_none_or(|ids| !ids.contains(id)))
        .collect();
    match right {
        None => Verdict::Unknown(different),
        // Whoever leads after this one finds the rest.
        Some(right) if !right.contains(&own) => Verdict::Own,
        Some(_) => Verdict::Others(different),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges as member 1 by digests of members 1, 2 and so on; 0 stands for no answer.
    fn judged(digests: &[u64]) -> Verdict {
        let ids = (1..).map(MemberId);
        let known: Vec<_> = ids.zip(digests.iter().copied()).collect();
        let known: Vec<_> = known.into_iter().filter(|(_, d)| *d != 0).collect();
        let mut comparison = Comparison::new(MemberId(1), digests.len());
        comparison.meet(5, digests[0], 0);
        let others = known.into_iter().skip(1);
        comparison.verdict(digests[0], others)
    }

    #[test]
    fn a_minority_that_differs_is_named_and_without_a_majority_nobody_is() {
        let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect::<Vec<_>>();
        assert_eq!(judged(&[7, 7, 7]), Verdict::Agreed);
        assert_eq!(judged(&[7, 0, 0]), Verdict::Agreed);
        assert_eq!(judged(&[7, 8, 7]), Verdict::Others(ids(&[2])));
        assert_eq!(judged(&[7, 8, 8]), Verdict::Own);
        assert_eq!(judged(&[7, 7, 7, 8, 9]), Verdict::Others(ids(&[4, 5])));
        assert_eq!(judged(&[9, 7, 7, 7, 8]), Verdict::Own);
        // One of three differs, and the third is of another kind or down: nobody knows.
        assert_eq!(judged(&[7, 8, 0]), Verdict::Unknown(ids(&[2])));
        assert_eq!(judged(&[7, 8]), Verdict::Unknown(ids(&[2])));
    }

    #[test]
    fn nobody_stops_when_all_differ_from_each_other() {
        let unknown = |ids: &[u64]| Verdict::Unknown(ids.iter().map(|id| MemberId(*id)).collect());
        assert_eq!(judged(&[7, 8, 9]), unknown(&[2, 3]));
        assert_eq!(judged(&[7, 8, 9, 10, 11]), unknown(&[2, 3, 4, 5]));
        // Two against two, and the fifth silent or of its own mind.
        assert_eq!(judged(&[7, 8, 8, 7, 9]), unknown(&[2, 3, 5]));
        assert_eq!(judged(&[7, 8, 8, 7, 0]), unknown(&[2, 3]));
    }

    #[test]
    fn only_the_same_finding_twice_in_a_row_is_acted_upon() {
        let others = |id| Verdict::Others(vec![MemberId(id)]);
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(3)), None);
        assert_eq!(suspicion.confirm(Verdict::Own), None);
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(Verdict::Agreed), None);
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(2)), Some(others(2)));
        // What goes on being found is told again, not every time.
        assert_eq!(suspicion.confirm(others(2)), None);
        assert_eq!(suspicion.confirm(others(2)), Some(others(2)));
    }

    #[test]
    fn all_are_compared_at_the_first_place_where_one_differs() {
        let mut comparison = Comparison::new(MemberId(1), 3);
        assert_eq!(comparison.place(), None);
        comparison.meet(9, 5, 6);
        comparison.meet(8, 4, 4);
        assert_eq!(comparison.place(), Some(9));
        comparison.meet(7, 3, 4);
        assert_eq!(comparison.place(), Some(7));
    }

    #[test]
    fn who_does_not_answer_again_is_waited_for() {
        let mut comparison = Comparison::new(MemberId(1), 3);
        comparison.meet(9, 7, 8);
        comparison.meet(9, 7, 7);
        let (two, three) = ((MemberId(2), 8), (MemberId(3), 7));
        assert_eq!(comparison.verdict(7, [two]), Verdict::Agreed);
        let found = comparison.verdict(7, [two, three]);
        assert_eq!(found, Verdict::Others(vec![MemberId(2)]));
    }
}
