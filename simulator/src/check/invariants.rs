//! What must hold after every step of every member.
use std::collections::BTreeMap;

use super::Violation;
use crate::node::Running;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    /// Who led each term.
    leaders: BTreeMap<u64, u64>,
    /// The digest after each entry, from 1 on; 0 where none is known.
    digests: Vec<u64>,
}

impl Invariants {
    /// Looks at a member after a step. The digest of one that was made to differ is not compared.
    pub(crate) fn look(
        &mut self,
        number: u64,
        running: &mut Running,
        differs: bool,
    ) -> Option<Violation> {
        let member = &running.member;
        let view = member.view();
        if member.leads() {
            let term = view.term();
            let before = *self.leaders.entry(term).or_insert(number);
            if before != number {
                let text = format!("m{before} and m{number} both lead term {term}");
                return Some(Violation::new("one leader each term", text));
            }
        }
        let (applied, committed) = (view.applied(), view.committed());
        if applied < running.compared {
            let text = format!(
                "m{number} goes back from entry {} to {applied}",
                running.compared
            );
            return Some(Violation::new("applied never back", text));
        }
        if applied > committed {
            let text = format!("m{number} has applied {applied} of {committed}");
            return Some(Violation::new("only what is committed is applied", text));
        }
        let compared = running.compared..=applied;
        for index in compared.filter(|_| !differs) {
            let Some(digest) = member.digest_at(index) else {
                continue;
            };
            if let Some(violation) = self.compare(number, index, digest) {
                return Some(violation);
            }
        }
        running.compared = applied;
        None
    }

    /// Says whether nobody is known to have led a later term.
    pub(crate) fn is_newest_term(&self, term: u64) -> bool {
        let newest = self.leaders.last_key_value();
        newest.is_none_or(|(newest, _)| term >= *newest)
    }

    /// Says whether nobody is known to have led the term before this one.
    pub(crate) fn skips(&self, term: u64) -> bool {
        let before = self.leaders.range(..term).next_back();
        before.is_some_and(|(before, _)| before + 1 < term)
    }

    /// Says whether a machine's member has led this term or a later one.
    pub(crate) fn has_led(&self, number: u64, term: u64) -> bool {
        self.leaders
            .range(term..)
            .any(|(_, leader)| *leader == number)
    }

    fn compare(&mut self, number: u64, index: u64, digest: u64) -> Option<Violation> {
        let at = usize::try_from(index).ok()?;
        if self.digests.len() <= at {
            self.digests.resize(at + 1, 0);
        }
        let before = self.digests.get_mut(at)?;
        if *before == 0 {
            *before = digest;
        }
        (*before != digest).then(|| {
            let text = format!(
                "m{number} holds another state after entry {index} than a member before it"
            );
            Violation::new("equal digests", text)
        })
    }
}
