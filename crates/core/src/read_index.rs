//! Linearizable reads: callers gather in rounds, each round asks raft once for the commit index.
use std::collections::VecDeque;

use hashbrown::HashSet;
use quorate_proto::LeaseId;

use crate::Token;
use crate::api::DowngradeAction;
use crate::versions::Version;

/// How long a round waits before it asks raft again. Source: etcd v3.7.1 readIndexRetryTime.
pub(crate) const RETRY_MS: u64 = 500;

/// What is done when reads of the local store are linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The caller reads itself.
    Tell,
    /// A lease is renewed: leadership had to be confirmed first.
    Renew(LeaseId),
    /// A downgrade is looked at.
    Downgrade(DowngradeAction, Version),
}

/// One question to raft and those who wait for its answer.
#[derive(Debug)]
struct Round {
    /// Request ids asked with; an answer to any of them ends the round, and answers to older rounds do not.
    ids: Vec<u64>,
    asked_ms: u64,
    waiting: Vec<Waiting>,
}

/// A caller and what it waits to have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) token: Token,
    pub(crate) then: Then,
    ends_ms: u64,
}

/// The rounds of one member.
#[derive(Debug, Default)]
pub(crate) struct ReadRounds {
    /// Callers for the next round.
    next: Vec<Waiting>,
    current: Option<Round>,
    /// Rounds that know their index and wait for it to be applied; indexes do not decrease.
    confirmed: VecDeque<(u64, Vec<Waiting>)>,
    /// Callers that wait and did not go away. Order is never observed.
    present: HashSet<u64>,
}

impl ReadRounds {
    pub(crate) fn len(&self) -> usize {
        self.present.len()
    }

    /// Adds a caller to the next round.
    pub(crate) fn join(&mut self, token: Token, then: Then, ends_ms: u64) {
        self.present.insert(token.0);
        self.next.push(Waiting {
            token,
            then,
            ends_ms,
        });
    }

    /// Forgets a caller that went away.
    pub(crate) fn cancel(&mut self, token: Token) {
        self.present.remove(&token.0);
    }

    /// Keeps those that are still there, and forgets that they wait.
    fn leave(&mut self, mut waiting: Vec<Waiting>) -> Vec<Waiting> {
        waiting.retain(|w| self.present.remove(&w.token.0));
        waiting
    }

    /// Says whether raft is to be asked now, and starts or renews the round under `id` if so.
    pub(crate) fn ask(
        &mut self,
        now_ms: u64,
        at_once: bool,
        id: impl FnOnce() -> u64,
    ) -> Option<u64> {
        match &mut self.current {
            Some(round) if at_once || now_ms >= round.asked_ms + RETRY_MS => {
                let id = id();
                round.ids.push(id);
                round.asked_ms = now_ms;
                Some(id)
            }
            None if !self.next.is_empty() => {
                let id = id();
                let waiting = std::mem::take(&mut self.next);
                self.current = Some(Round {
                    ids: vec![id],
                    asked_ms: now_ms,
                    waiting,
                });
                Some(id)
            }
            _ => None,
        }
    }

    /// Says whether the round under way was asked for more than once.
    pub(crate) fn is_asked_again(&self) -> bool {
        self.current.as_ref().is_some_and(|r| r.ids.len() > 1)
    }

    /// Takes raft's answer; one to a question that is not the current round's is ignored.
    pub(crate) fn confirm(&mut self, id: u64, index: u64) {
        if !self.current.as_ref().is_some_and(|r| r.ids.contains(&id)) {
            return;
        }
        let round = self.current.take().expect("just seen");
        // A round that comes later never needs less than one before it.
        let index = self
            .confirmed
            .back()
            .map_or(index, |(before, _)| index.max(*before));
        self.confirmed.push_back((index, round.waiting));
    }

    /// Takes the callers whose index has been applied.
    pub(crate) fn ready(&mut self, applied: u64) -> Vec<Waiting> {
        let mut all = Vec::new();
        while let Some((_, waiting)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            all.extend(self.leave(waiting));
        }
        all
    }

    /// Takes the callers of the round under way, because the leader changed.
    pub(crate) fn fail_current(&mut self) -> Vec<Waiting> {
        match self.current.take() {
            Some(round) => self.leave(round.waiting),
            None => Vec::new(),
        }
    }

    /// Takes the callers whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Waiting> {
        let mut expired = Vec::new();
        let mut sweep = |waiting: &mut Vec<Waiting>| {
            waiting.retain(|w| {
                let over = w.ends_ms <= now_ms;
                if over {
                    expired.push(*w);
                }
                !over
            });
        };
        sweep(&mut self.next);
        if let Some(round) = &mut self.current {
            sweep(&mut round.waiting);
            if round.waiting.is_empty() {
                self.current = None;
            }
        }
        for (_, waiting) in &mut self.confirmed {
            sweep(waiting);
        }
        self.leave(expired)
    }

    /// Takes every caller, for the end of the member.
    pub(crate) fn drain(&mut self) -> Vec<Waiting> {
        let mut all = std::mem::take(&mut self.next);
        all.extend(self.current.take().into_iter().flat_map(|r| r.waiting));
        all.extend(self.confirmed.drain(..).flat_map(|(_, waiting)| waiting));
        self.leave(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(waiting: Vec<Waiting>) -> Vec<u64> {
        waiting.iter().map(|w| w.token.0).collect()
    }

    #[test]
    fn a_caller_that_went_away_is_told_nothing_and_takes_no_room() {
        let mut rounds = ReadRounds::default();
        for token in 1..=3 {
            rounds.join(Token(token), Then::Tell, 1_000);
        }
        rounds.cancel(Token(1));
        rounds.ask(0, false, || 77);
        rounds.cancel(Token(2));
        rounds.confirm(77, 5);
        assert_eq!(rounds.len(), 1);
        assert_eq!(tokens(rounds.ready(5)), [3]);
        assert_eq!(rounds.len(), 0);
    }

    #[test]
    fn one_question_serves_all_who_wait_and_later_callers_wait_for_the_next() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), Then::Tell, 1_000);
        rounds.join(Token(2), Then::Tell, 1_000);
        assert_eq!(rounds.ask(0, false, || 77), Some(77));
        rounds.join(Token(3), Then::Tell, 1_000);
        assert_eq!(rounds.ask(1, false, || 78), None);
        rounds.confirm(77, 5);
        assert!(rounds.ready(4).is_empty());
        assert_eq!(tokens(rounds.ready(5)), [1, 2]);
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds.ask(2, false, || 79), Some(79));
    }

    #[test]
    fn faults_29_an_old_confirmation_does_not_satisfy_a_new_round() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), Then::Tell, 1_000);
        rounds.ask(0, false, || 1);
        assert_eq!(tokens(rounds.fail_current()), [1]);
        rounds.join(Token(2), Then::Tell, 1_000);
        rounds.ask(0, false, || 2);
        rounds.confirm(1, 0);
        assert!(rounds.ready(u64::MAX).is_empty());
    }

    #[test]
    fn a_round_is_asked_again_under_a_new_id_and_either_answer_counts() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), Then::Tell, 10_000);
        rounds.ask(0, false, || 1);
        assert_eq!(rounds.ask(RETRY_MS - 1, false, || 2), None);
        assert_eq!(rounds.ask(RETRY_MS, false, || 2), Some(2));
        rounds.confirm(1, 3);
        assert_eq!(tokens(rounds.ready(3)), [1]);
        rounds.join(Token(2), Then::Tell, 600);
        assert_eq!(tokens(rounds.expire(600)), [2]);
    }
}
