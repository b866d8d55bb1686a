//! Proposals: admission, framing, waiting, timing out.
use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_auth::Identity;
use quorate_proto::{LeaseId, MemberId};
use raft::eraftpb::{Entry, EntryType};

use super::{Member, Publication};
use crate::convert::normal_entry;
use crate::waiters::{Deadline, Waiter};
use crate::{DowngradeAction, Error, Outcome, Proposal, Request, edge, envelope};

impl Member {
    /// Admits a proposal: limits, id, framing, waiter. Source: etcd v3.7.1 v3_server.go processInternalRaftRequestOnce.
    pub(super) fn admit(&mut self, proposal: Proposal, entries: &mut Vec<Entry>) {
        let Proposal {
            token,
            mut request,
            mut raw,
            identity,
        } = proposal;
        let gap = self.view.committed().saturating_sub(self.applied.index);
        let bounds = &self.config.bounds;
        let is_full = gap > bounds.apply_gap || self.waiters.len() >= bounds.waiters;
        if is_full || self.is_behind_disk {
            return self.reply(token, Outcome::Failed(Error::TooManyRequests));
        }
        let id = self.ids.next();
        if let Request::LeaseGrant(grant) = &mut request
            && grant.id == 0
        {
            grant.id = self.pick_lease_id();
            raw = None;
        }
        let data = envelope::encode(id, &identity, &request, raw.as_ref());
        if data.len() > self.config.max_request_bytes {
            return self.reply(token, Outcome::Failed(Error::RequestTooLarge));
        }
        self.register(id, Waiter::Client { token, request });
        entries.push(normal_entry(data));
    }

    /// Picks an unused positive id. Source: etcd v3.7.1 v3_server.go LeaseGrant.
    pub(super) fn pick_lease_id(&mut self) -> i64 {
        loop {
            let id = (self.ids.next() & (u64::MAX >> 1)).cast_signed();
            if id != 0 && !self.stores.lessor.exists(LeaseId(id)) {
                return id;
            }
        }
    }

    /// Adds a proposal of the member's own.
    pub(super) fn propose_own(
        &mut self,
        request: &Request,
        waiter: Waiter,
        entries: &mut Vec<Entry>,
    ) {
        let identity = if self.stores.auth.is_enabled() {
            Identity {
                username: "root".to_owned(),
                revision: self.stores.auth.revision(),
            }
        } else {
            Identity {
                username: String::new(),
                revision: 0,
            }
        };
        let id = self.ids.next();
        self.register(id, waiter);
        entries.push(normal_entry(envelope::encode(id, &identity, request, None)));
    }

    pub(super) fn register(&mut self, id: u64, waiter: Waiter) {
        let ends_ms = self.now_ms + self.config.request_timeout_ms();
        self.waiters.register(
            Deadline {
                id,
                started_ms: self.now_ms,
                ends_ms,
            },
            waiter,
        );
        self.view.set_pending(self.waiters.len() as u64);
    }

    pub(super) fn propose(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        if self.node.raft.leader_id == 0 {
            self.unproposed.extend(entries);
            return;
        }
        // Only a dropped proposal is looked into.
        let proposed: Vec<(EntryType, Bytes)> = entries
            .iter()
            .map(|e| (e.get_entry_type(), e.data.clone()))
            .collect();
        if !self.step_proposal(entries, self.config.member_id.0) {
            // A leader that hands over takes nothing; any other refuses only what is too much to hold.
            let is_full = self.is_leader() && self.node.raft.lead_transferee.is_none();
            for (kind, data) in proposed {
                if let Some(waiter) = self.waiters.take(request_id(kind, &data)) {
                    let error = if is_full {
                        Error::TooManyRequests
                    } else {
                        Error::ProposalDropped
                    };
                    self.fail(waiter, error);
                }
            }
        }
    }

    /// Tells a waiter that what it waits for will not come, or not from here.
    pub(super) fn fail(&mut self, waiter: Waiter, error: Error) {
        self.view.add_failed();
        match waiter {
            Waiter::Client { token, .. }
            | Waiter::Renewal(_, token)
            | Waiter::Change { token, .. }
            | Waiter::Downgrade(token, DowngradeAction::Validate | DowngradeAction::Enable) => {
                self.reply(token, Outcome::Failed(error));
            }
            // That a downgrade could not be ended is only worth a line in etcd's log.
            Waiter::Downgrade(token, DowngradeAction::Cancel) => self.reply(token, Outcome::Done),
            // They were refused already, whatever becomes of the alarm.
            Waiter::Alarm(callers) => self.actions.replies.extend(callers),
            Waiter::Publish if self.published != Publication::Done => {
                self.published = Publication::NotYet;
            }
            Waiter::Publish | Waiter::AutoCompaction(_) | Waiter::Internal => {}
        }
    }

    /// Has changes of members proposed again that may have been lost with the leader they were sent to: nobody else ends
    /// the wait of those who asked for them.
    ///
    /// One that was not lost is refused when it is applied for the second time, and has no effect: an id is added, removed
    /// and promoted only once. Differs from etcd, whose callers wait until they give up.
    pub(super) fn propose_changes_again(&mut self) {
        for (id, data) in self.waiters.open_changes() {
            let is_waiting = |e: &Entry| request_id(e.get_entry_type(), &e.data) == id;
            if !self.unproposed.iter().any(is_waiting) {
                let mut entry = normal_entry(data);
                entry.set_entry_type(EntryType::EntryConfChange);
                self.unproposed.push_back(entry);
            }
        }
    }

    /// Proposes what waited for a leader.
    pub(super) fn propose_waiting(&mut self) {
        if self.node.raft.leader_id != 0 && !self.unproposed.is_empty() {
            let entries = std::mem::take(&mut self.unproposed).into();
            self.propose(entries);
        }
    }

    /// Ends what has waited too long. Source: etcd v3.7.1 server.go parseProposeCtxErr.
    pub(super) fn expire_waiters(&mut self) {
        let expired = self.waiters.expire(self.now_ms);
        if !expired.is_empty() {
            let unproposed: BTreeSet<u64> = self
                .unproposed
                .iter()
                .map(|e| request_id(e.get_entry_type(), &e.data))
                .collect();
            for (deadline, waiter) in expired {
                let error = if unproposed.contains(&deadline.id) {
                    Error::DeadlineExceeded
                } else {
                    self.timeout_cause(deadline.started_ms)
                };
                self.fail(waiter, error);
            }
        }
        // Callers that went away count no more either.
        self.view.set_pending(self.waiters.len() as u64);
        // What nobody waits for any longer does not wait for a leader either: its caller may know that it was not done.
        let waiters = &self.waiters;
        self.unproposed
            .retain(|e| waiters.contains(request_id(e.get_entry_type(), &e.data)));
    }

    /// Tells whether a request that began then may have been lost with the leader before this one.
    pub(super) fn timeout_cause(&self, started_ms: u64) -> Error {
        let lost_ms = self
            .leader_since_ms
            .saturating_sub(2 * self.config.election_timeout_ms());
        if started_ms > lost_ms && started_ms < self.leader_since_ms {
            return Error::TimeoutLeaderFail;
        }
        let own = self.config.member_id;
        let leader = MemberId(self.node.raft.leader_id);
        let is_connected = if leader.0 == 0 {
            true
        } else if leader == own {
            let cluster = &self.stores.cluster;
            let connected = self
                .links
                .connected_since(own, cluster.voters(), started_ms);
            connected > cluster.voters().count() / 2
        } else {
            self.links.is_connected_since(leader, started_ms)
        };
        if is_connected {
            Error::Timeout
        } else {
            Error::TimeoutConnectionLost
        }
    }
}

/// Finds the id under which the proposer of an entry waits; 0 when there is none.
fn request_id(kind: EntryType, data: &[u8]) -> u64 {
    if kind == EntryType::EntryNormal {
        envelope::peek_id(data)
    } else {
        edge::change_id(data)
    }
}
