//! What the member answers without the log: read confirmations, leases, and the duties of a leader.
use quorate_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use quorate_proto::{LeaseId, etcdserverpb as pb};
use raft::StateRole;

use super::change::ParkedWork;
use super::{Member, Publication};
use crate::actions::Notice;
use crate::read_index::{Then, Waiting};
use crate::waiters::Waiter;
use crate::{DowngradeAction, Error, Outcome, Request, Token};

/// Ticks without one after which this member may have slept. Source: etcd v3.7.1 server.go isActive.
const PAUSE_TICKS: u64 = 3;
/// Ticks after which a heartbeat is late. Source: etcd v3.7.1 server/etcdserver/raft.go newRaftNode.
const LATE_TICKS: u64 = 2;

impl Member {
    pub(super) fn join_read(&mut self, token: Token, then: Then) {
        if self.reads.len() >= self.config.bounds.reads {
            return self.reply(token, Outcome::Failed(Error::TooManyRequests));
        }
        let ends_ms = self.now_ms + self.config.request_timeout_ms();
        self.reads.join(token, then, ends_ms);
    }

    /// Asks raft for the current round, unless raft would drop the question.
    pub(super) fn ask_read_index(&mut self, at_once: bool) {
        let raft = &self.node.raft;
        let can_ask = raft.leader_id != 0
            && (raft.state != StateRole::Leader || raft.commit_to_current_term());
        if !can_ask {
            return;
        }
        let ids = &mut self.ids;
        if let Some(id) = self.reads.ask(self.now_ms, at_once, || ids.next()) {
            self.node.read_index(id.to_be_bytes().to_vec());
            self.measure_read_index(id, at_once);
        }
    }

    pub(super) fn release_reads(&mut self) {
        for waiting in self.reads.ready(self.applied.index) {
            let token = waiting.token;
            match waiting.then {
                Then::Tell => self.reply(token, Outcome::ReadReady),
                Then::Renew(id) => self.renew_now(token, id),
                Then::Downgrade(action, target) => self.downgrade_now(token, action, target),
            }
        }
    }

    /// Tells a caller that reads could not be made linearizable for it.
    pub(super) fn fail_read(&mut self, waiting: Waiting, error: Error) {
        let outcome = match waiting.then {
            Then::Renew(_) => Outcome::Failed(Error::NotPrimaryLessor),
            Then::Downgrade(DowngradeAction::Cancel, _) => Outcome::Done,
            Then::Tell | Then::Downgrade(..) => Outcome::Failed(error),
        };
        self.reply(waiting.token, outcome);
    }

    /// Counts ticks since the last pause: after one, others may have chosen another leader unnoticed.
    pub(super) fn note_tick(&mut self) {
        let is_pause = self.now_ms > self.ticked_ms + PAUSE_TICKS * self.config.tick_ms;
        let allowed_ms = self.ticked_ms + LATE_TICKS * self.config.tick_ms;
        if self.now_ms > allowed_ms && self.is_leader() && !self.is_sole_voter() {
            let exceeded_ms = self.now_ms - allowed_ms;
            self.view.tally().late_heartbeats.add(1);
            let notice = Notice::LateHeartbeat { exceeded_ms };
            self.actions.notices.push(notice);
        }
        // Ticks that are made up for at once say nothing about the time since.
        let is_made_up = self.now_ms == self.ticked_ms;
        self.steady_ticks = match (is_pause, is_made_up) {
            (true, _) => 0,
            (false, true) => self.steady_ticks,
            (false, false) => self.steady_ticks + 1,
        };
        self.ticked_ms = self.now_ms;
    }

    /// Says whether this member may take itself for the leader without asking: it has been awake for long enough that
    /// raft would have noticed a loss of its quorum.
    fn is_surely_leading(&self) -> bool {
        let slept = self.now_ms > self.ticked_ms + PAUSE_TICKS * self.config.tick_ms;
        !slept && self.steady_ticks >= self.config.election_ticks || self.is_sole_voter()
    }

    /// Renews a lease, on a leader that has asked its followers first if it may have slept through the end of its term.
    ///
    /// Source: etcd v3.7.1 v3_server.go LeaseRenew, ensureLeadership.
    pub(super) fn renew(&mut self, token: Token, id: LeaseId) {
        if !self.is_leader() {
            let error = self.not_leader();
            return self.reply(token, Outcome::Failed(error));
        }
        if !self.is_surely_leading() {
            return self.join_read(token, Then::Renew(id));
        }
        if !self.stores.lessor.exists(id) && self.must_wait_for_applied() {
            return self.park(token, ParkedWork::Renew(id));
        }
        self.renew_now(token, id);
    }

    pub(super) fn renew_now(&mut self, token: Token, id: LeaseId) {
        if self.is_checkpoint_under_way(id) {
            return self.clear_checkpoint(token, id);
        }
        let outcome = match self.stores.lessor.renew(id, self.now_ms) {
            Ok(ttl_s) => {
                self.view.tally().leases_renewed.add(1);
                Outcome::LeaseRenewed { ttl_s }
            }
            Err(quorate_lease::Error::NotFound) => Outcome::LeaseRenewed { ttl_s: 0 },
            Err(quorate_lease::Error::Expired) => {
                self.late_renewals.push((id, token));
                return;
            }
            Err(quorate_lease::Error::CheckpointStored) => return self.clear_checkpoint(token, id),
            Err(_) => Outcome::Failed(self.not_leader()),
        };
        self.reply(token, outcome);
    }

    /// Clears a lease's replicated remaining time before it is renewed, so that no later leader ends it too early.
    fn clear_checkpoint(&mut self, token: Token, id: LeaseId) {
        let checkpoints = vec![pb::LeaseCheckpoint {
            id: id.0,
            remaining_ttl: 0,
        }];
        let request = Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints });
        let mut entries = Vec::new();
        self.propose_own(&request, Waiter::Renewal(id, token), &mut entries);
        self.propose(entries);
    }

    pub(super) fn time_to_live(&mut self, token: Token, id: LeaseId, keys: bool) {
        if !self.is_leader() {
            let error = self.not_leader();
            self.reply(token, Outcome::Failed(error));
        } else if self.must_wait_for_applied() {
            self.park(token, ParkedWork::TimeToLive { id, keys });
        } else {
            self.time_to_live_now(token, id, keys);
        }
    }

    pub(super) fn time_to_live_now(&mut self, token: Token, id: LeaseId, keys: bool) {
        let outcome = match self.stores.lessor.time_to_live(id, self.now_ms) {
            None => Outcome::LeaseTimeToLive {
                remaining_s: -1,
                granted_s: 0,
                keys: Vec::new(),
            },
            Some(time) => {
                let keys = if keys {
                    self.stores.lessor.keys_as_attached(id).unwrap_or_default()
                } else {
                    Vec::new()
                };
                Outcome::LeaseTimeToLive {
                    remaining_s: time.remaining_s,
                    granted_s: time.granted_s,
                    keys,
                }
            }
        };
        self.reply(token, outcome);
    }

    pub(super) fn lease_keys(&mut self, token: Token, id: Option<LeaseId>) {
        let lessor = &self.stores.lessor;
        let keys = match id {
            Some(id) => lessor.keys(id).unwrap_or_default(),
            None => {
                let of_lease = |id: &LeaseId| lessor.keys(*id);
                lessor
                    .leases()
                    .iter()
                    .filter_map(of_lease)
                    .flatten()
                    .collect()
            }
        };
        self.reply(token, Outcome::LeaseKeys(keys));
    }

    pub(super) fn tell_digest(&mut self, token: Token, index: u64) {
        let index = if index == 0 {
            self.applied.index
        } else {
            index
        };
        let digest = self.digest_at(index);
        self.reply(token, Outcome::Digest { index, digest });
    }

    /// Does what only a leader does on a tick: expire and checkpoint leases, publish, settle the cluster version.
    pub(super) fn lead(&mut self) {
        let mut entries = Vec::new();
        if self.has_begun_term() {
            let expired = if self.is_surely_leading() {
                self.stores
                    .lessor
                    .expired(self.now_ms, self.config.bounds.revokes)
            } else {
                Vec::new()
            };
            if !expired.is_empty() {
                self.actions.notices.push(Notice::LeasesExpired {
                    count: expired.len(),
                });
            }
            let tally = self.view.tally();
            tally.leases_expired.add(expired.len() as u64);
            for id in expired {
                let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: id.0 });
                self.propose_own(&revoke, Waiter::Internal, &mut entries);
            }
            if self.config.lease_checkpoint {
                self.propose_checkpoints();
            }
            self.watch_versions(&mut entries);
        }
        let revision = self.stores.kv.current_revision();
        if let Some(revision) = self
            .auto_compactor
            .tick(self.now_ms, revision, self.is_leader())
        {
            let compact = Request::Compaction(pb::CompactionRequest {
                revision,
                physical: false,
            });
            self.propose_own(&compact, Waiter::AutoCompaction(revision), &mut entries);
        }
        if self.published == Publication::NotYet && self.node.raft.leader_id != 0 {
            self.published = Publication::Proposed;
            let attributes = Attributes {
                name: self.config.name.clone(),
                client_urls: self.config.client_urls.clone(),
            };
            let request = Request::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
                member_id: self.config.member_id.0,
                member_attributes: Some(attributes),
            });
            self.propose_own(&request, Waiter::Publish, &mut entries);
        }
        self.propose(entries);
    }

    /// Proposes what is left of leases, and remembers which those are until that is applied. Leases whose renewal waits for the
    /// log are left out until the next time: it would have to wait again, and again as long as the log is slower than that.
    fn propose_checkpoints(&mut self) {
        let mut due = self
            .stores
            .lessor
            .checkpoints_due(self.now_ms, self.config.bounds.checkpoints);
        if due.is_empty() {
            return;
        }
        let renewals = self.waiters.renewals();
        due.retain(|(id, _)| !renewals.contains(id));
        if due.is_empty() {
            return;
        }
        let ids: Vec<LeaseId> = due.iter().map(|(id, _)| *id).collect();
        let checkpoints = due
            .into_iter()
            .map(|(id, remaining_ttl)| pb::LeaseCheckpoint {
                id: id.0,
                remaining_ttl,
            })
            .collect();
        let request = Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints });
        let mut entries = Vec::new();
        self.propose_own(&request, Waiter::Internal, &mut entries);
        self.propose(entries);
        // It is in the leader's log by now, or dropped.
        let last = self.node.raft.raft_log.last_index();
        let applied = self.applied.index;
        self.checkpoints.retain(|_, index| *index > applied);
        self.checkpoints
            .extend(ids.into_iter().map(|id| (id, last)));
    }

    /// Says whether what was left of a lease is in the log, and not applied: a renewal now would be answered for, and then
    /// forgotten by a later leader, which goes by the older checkpoint. So it counts as stored already.
    ///
    /// Differs from etcd, whose renewals look at what is applied alone.
    fn is_checkpoint_under_way(&self, id: LeaseId) -> bool {
        let index = self.checkpoints.get(&id);
        index.is_some_and(|index| *index > self.applied.index)
    }
}
