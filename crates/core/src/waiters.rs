//! Who waits for which proposal, and until when.
use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use quorate_proto::{LeaseId, MemberId};

use crate::{DowngradeAction, Outcome, Request, Token};

/// What to do when a proposal of this member has been applied.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A caller waits; the decoded request is kept so that it need not be decoded again.
    Client {
        /// The caller.
        token: Token,
        /// The request.
        request: Request,
    },
    /// A caller waits for a change of members.
    Change {
        /// The caller.
        token: Token,
        /// The member that it is about.
        id: MemberId,
        /// The entry's data, in case it is lost with its leader.
        data: Bytes,
    },
    /// A caller waits for a downgrade to begin or to end.
    Downgrade(Token, DowngradeAction),
    /// The member publishes its own attributes.
    Publish,
    /// The member raised an alarm; these outcomes are told once it is active.
    Alarm(Vec<(Token, Outcome)>),
    /// A lease's stored remaining time is cleared, then the caller's renewal is done.
    Renewal(LeaseId, Token),
    /// The member compacts by itself at this revision.
    AutoCompaction(i64),
    /// Nobody waits; the member proposed it for the cluster's sake.
    Internal,
}

impl Waiter {
    /// Returns the caller that may go away.
    fn caller(&self) -> Option<Token> {
        match self {
            Self::Client { token, .. } | Self::Change { token, .. } | Self::Downgrade(token, _) => {
                Some(*token)
            }
            _ => None,
        }
    }
}

/// Waiters by request id. Deadlines are all equally far away, so they end in the order they began.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_id: HashMap<u64, Waiter>,
    by_token: HashMap<u64, u64>,
    /// **Invariant:** deadlines do not decrease.
    deadlines: VecDeque<Deadline>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) id: u64,
    pub(crate) started_ms: u64,
    pub(crate) ends_ms: u64,
}

impl Waiters {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn register(&mut self, deadline: Deadline, waiter: Waiter) {
        self.register_endless(deadline.id, waiter);
        self.deadlines.push_back(deadline);
    }

    /// Adds a waiter that waits until it is answered or its caller goes away.
    pub(crate) fn register_endless(&mut self, id: u64, waiter: Waiter) {
        if let Some(token) = waiter.caller() {
            self.by_token.insert(token.0, id);
        }
        let before = self.by_id.insert(id, waiter);
        assert!(before.is_none(), "request id {id} used twice");
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.by_id.remove(&id)?;
        if let Some(token) = waiter.caller() {
            self.by_token.remove(&token.0);
        }
        Some(waiter)
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Returns the data of changes of members that are waited for, in the order in which they were asked for.
    pub(crate) fn open_changes(&self) -> Vec<(u64, Bytes)> {
        let mut open: Vec<_> = self
            .by_id
            .iter()
            .filter_map(|(id, waiter)| match waiter {
                Waiter::Change { data, .. } => Some((*id, data.clone())),
                _ => None,
            })
            .collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open
    }

    /// Returns the leases whose renewal waits for the log.
    pub(crate) fn renewals(&self) -> HashSet<LeaseId> {
        let lease = |waiter: &Waiter| match waiter {
            Waiter::Renewal(id, _) => Some(*id),
            _ => None,
        };
        self.by_id.values().filter_map(lease).collect()
    }

    /// Forgets the waiter of a caller that went away.
    pub(crate) fn cancel(&mut self, token: Token) {
        if let Some(id) = self.by_token.remove(&token.0) {
            self.by_id.remove(&id);
        }
    }

    /// Takes the waiters whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(Deadline, Waiter)> {
        let mut expired = Vec::new();
        while let Some(first) = self.deadlines.front().copied() {
            let answered = !self.by_id.contains_key(&first.id);
            if !answered && first.ends_ms > now_ms {
                break;
            }
            self.deadlines.pop_front();
            if let Some(waiter) = self.take(first.id) {
                expired.push((first, waiter));
            }
        }
        expired
    }

    /// Takes every waiter, for the end of the member.
    pub(crate) fn drain(&mut self) -> Vec<Waiter> {
        self.deadlines.clear();
        let mut ids: Vec<u64> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.take(*id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(token: u64) -> Waiter {
        Waiter::Client {
            token: Token(token),
            request: Request::AuthEnable(Default::default()),
        }
    }

    fn deadline(id: u64, ends_ms: u64) -> Deadline {
        Deadline {
            id,
            started_ms: 0,
            ends_ms,
        }
    }

    #[test]
    fn only_waiters_past_their_deadline_expire() {
        let mut waiters = Waiters::default();
        waiters.register(deadline(1, 10), client(100));
        waiters.register(deadline(2, 10), client(101));
        waiters.register(deadline(3, 11), client(102));
        waiters.cancel(Token(100));
        let expired = waiters.expire(10);
        assert_eq!(expired.iter().map(|(d, _)| d.id).collect::<Vec<_>>(), [2]);
        assert_eq!(waiters.len(), 1);
        assert!(waiters.take(3).is_some() && waiters.take(3).is_none());
    }

    #[test]
    fn only_changes_of_members_are_open_and_in_the_order_in_which_they_came() {
        let mut waiters = Waiters::default();
        let change = |token, data: &'static [u8]| Waiter::Change {
            token: Token(token),
            id: MemberId(9),
            data: Bytes::from_static(data),
        };
        waiters.register_endless(7, change(100, b"second"));
        waiters.register_endless(5, change(101, b"first"));
        waiters.register(deadline(6, 10), client(102));
        let open = waiters.open_changes();
        assert_eq!(
            open,
            [
                (5, Bytes::from_static(b"first")),
                (7, Bytes::from_static(b"second"))
            ]
        );
        waiters.cancel(Token(101));
        assert_eq!(waiters.open_changes().len(), 1);
    }

    #[test]
    fn answered_waiters_leave_nothing_behind() {
        let mut waiters = Waiters::default();
        for id in 0..100 {
            waiters.register(deadline(id, 1_000), client(id));
            waiters.take(id);
        }
        assert!(waiters.expire(1).is_empty());
        assert!(waiters.deadlines.is_empty() && waiters.by_token.is_empty());
    }
}
