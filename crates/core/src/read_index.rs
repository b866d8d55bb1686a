//! Linearizable reads: callers gather in rounds, each round asks raft once for the commit index.
use std::collections::VecDeque;

use crate::Token;

/// How long a round waits before it asks raft again. Source: etcd v3.7.1 readIndexRetryTime.
pub(crate) const RETRY_MS: u64 = 500;
/// Callers that may wait at once; more are refused as too many requests.
pub(crate) const MAX_WAITING: usize = 200_000;

/// One question to raft and those who wait for its answer.
#[derive(Debug)]
struct Round {
    /// Request ids asked with; an answer to any of them ends the round, and answers to older rounds do not.
    ids: Vec<u64>,
    asked_ms: u64,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    ends_ms: u64,
}

/// The rounds of one member.
#[derive(Debug, Default)]
pub(crate) struct ReadRounds {
    /// Callers for the next round.
    next: Vec<Waiting>,
    current: Option<Round>,
    /// Rounds that know their index and wait for it to be applied; indexes do not decrease.
    confirmed: VecDeque<(u64, Vec<Token>)>,
}

impl ReadRounds {
    pub(crate) fn len(&self) -> usize {
        self.next.len() + self.current.as_ref().map_or(0, |r| r.waiting.len())
    }

    /// Adds a caller to the next round.
    pub(crate) fn join(&mut self, token: Token, ends_ms: u64) {
        self.next.push(Waiting { token, ends_ms });
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
        let tokens = round.waiting.into_iter().map(|w| w.token).collect();
        // A round that comes later never needs less than one before it.
        let index = self
            .confirmed
            .back()
            .map_or(index, |(before, _)| index.max(*before));
        self.confirmed.push_back((index, tokens));
    }

    /// Takes the callers whose index has been applied.
    pub(crate) fn ready(&mut self, applied: u64, out: &mut Vec<Token>) {
        while self
            .confirmed
            .front()
            .is_some_and(|(index, _)| *index <= applied)
        {
            out.extend(self.confirmed.pop_front().expect("just seen").1);
        }
    }

    /// Takes the callers of the round under way, because the leader changed.
    pub(crate) fn fail_current(&mut self) -> Vec<Token> {
        self.current.take().map_or_else(Vec::new, |r| {
            r.waiting.into_iter().map(|w| w.token).collect()
        })
    }

    /// Takes the callers whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Token> {
        let mut expired = Vec::new();
        let mut sweep = |waiting: &mut Vec<Waiting>| {
            waiting.retain(|w| {
                let over = w.ends_ms <= now_ms;
                if over {
                    expired.push(w.token);
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
        expired
    }

    /// Takes every caller, for the end of the member.
    pub(crate) fn drain(&mut self) -> Vec<Token> {
        let mut all: Vec<Token> = self.next.drain(..).map(|w| w.token).collect();
        all.extend(self.fail_current());
        all.extend(self.confirmed.drain(..).flat_map(|(_, tokens)| tokens));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_serves_all_who_wait_and_later_callers_wait_for_the_next() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), 1_000);
        rounds.join(Token(2), 1_000);
        assert_eq!(rounds.ask(0, false, || 77), Some(77));
        rounds.join(Token(3), 1_000);
        assert_eq!(rounds.ask(1, false, || 78), None);
        rounds.confirm(77, 5);
        let mut ready = Vec::new();
        rounds.ready(4, &mut ready);
        assert!(ready.is_empty());
        rounds.ready(5, &mut ready);
        assert_eq!(ready, [Token(1), Token(2)]);
        assert_eq!(rounds.ask(2, false, || 79), Some(79));
    }

    #[test]
    fn faults_29_an_old_confirmation_does_not_satisfy_a_new_round() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), 1_000);
        rounds.ask(0, false, || 1);
        assert_eq!(rounds.fail_current(), [Token(1)]);
        rounds.join(Token(2), 1_000);
        rounds.ask(0, false, || 2);
        rounds.confirm(1, 0);
        let mut ready = Vec::new();
        rounds.ready(u64::MAX, &mut ready);
        assert!(ready.is_empty());
    }

    #[test]
    fn a_round_is_asked_again_under_a_new_id_and_either_answer_counts() {
        let mut rounds = ReadRounds::default();
        rounds.join(Token(1), 10_000);
        rounds.ask(0, false, || 1);
        assert_eq!(rounds.ask(RETRY_MS - 1, false, || 2), None);
        assert_eq!(rounds.ask(RETRY_MS, false, || 2), Some(2));
        rounds.confirm(1, 3);
        let mut ready = Vec::new();
        rounds.ready(3, &mut ready);
        assert_eq!(ready, [Token(1)]);
        rounds.join(Token(2), 600);
        assert_eq!(rounds.expire(600), [Token(2)]);
    }
}
