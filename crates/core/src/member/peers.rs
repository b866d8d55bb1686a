//! What other members send, what is known of the links to them, and handing leadership over.
use std::collections::BTreeMap;

use quorate_proto::{MemberId, raftpb};
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Member;
use crate::actions::Notice;
use crate::convert::message_to_raft;
use crate::edge::{self, Refusal};
use crate::membership::Links;
use crate::{Error, Outcome, Token};

/// Heartbeats in a row about entries that were never here, after which this member has lost its data.
const AHEAD_MAX: u32 = 10;
/// How long links are waited for before the first election is brought forward. Source: etcd v3.7.1 rafthttp
/// ConnReadTimeout.
pub(super) const ADVANCE_MS: u64 = 5_000;

/// A leadership that is to move.
#[derive(Debug)]
pub(super) struct Move {
    token: Token,
    target: MemberId,
    started_ms: u64,
}

/// What was refused last, so that a flood of the same is told once.
#[derive(Debug, Default)]
pub(super) struct Refused {
    last: Option<(u64, Refusal)>,
    ahead: u32,
}

impl Member {
    /// Takes messages from other members, in the order in which they came.
    ///
    /// A `MsgSnap` comes when its image, or the database made of it as it came, is durable. Messages that no member should send are dropped.
    pub fn handle_messages(&mut self, mut messages: Vec<raftpb::Message>) {
        if self.dead {
            return;
        }
        edge::sort_appends(&mut messages);
        for message in messages {
            let from = message.from.unwrap_or(0);
            let snapshot_index = snapshot_index(&message);
            let taken = self.take_message(message);
            if let Err(why) = taken {
                self.refuse(from, why);
            } else {
                self.refused.last = None;
            }
            if let Some(index) = snapshot_index
                && !self.is_snapshot_wanted(index)
            {
                self.actions.unused_images.push(index);
            }
        }
        self.drive();
    }

    fn take_message(&mut self, message: raftpb::Message) -> Result<(), Refusal> {
        let cluster = &self.stores.cluster;
        let own = self.config.member_id;
        let kind = edge::check(&message, own, |id| cluster.is_removed(id))?;
        self.check_against_log(kind, &message)?;
        let is_leader = self.is_leader();
        let message = message_to_raft(message).ok_or(Refusal::UnknownType)?;
        match message.get_msg_type() {
            MessageType::MsgPropose => {
                let from = message.from;
                let entries: Vec<Entry> = message.entries.into();
                // The proposer's own time runs; it is told nothing, as by a message that was lost.
                let _ = self.step_proposal(entries, from);
            }
            MessageType::MsgReadIndex if is_leader && !self.node.raft.commit_to_current_term() => {
                if self.early_reads.len() < self.config.bounds.early_reads {
                    self.early_reads.push(message);
                }
            }
            _ => {
                // An answer of a stranger is the only thing refused here, and of no use.
                let _ = self.node.step(message);
            }
        }
        Ok(())
    }

    /// Checks what would end the process inside raft, or undo what is committed.
    fn check_against_log(
        &mut self,
        kind: raftpb::MessageType,
        message: &raftpb::Message,
    ) -> Result<(), Refusal> {
        use raftpb::MessageType as T;
        let raft = &self.node.raft;
        let (term, index) = (message.term.unwrap_or(0), message.index.unwrap_or(0));
        let last = raft.raft_log.last_index();
        match kind {
            T::MsgAppResp if term == raft.term && message.reject != Some(true) && index > last => {
                Err(Refusal::Ahead)
            }
            T::MsgHeartbeat if term >= raft.term => {
                let is_ahead = message.commit.unwrap_or(0) > last;
                self.refused.ahead = if is_ahead { self.refused.ahead + 1 } else { 0 };
                if is_ahead {
                    Err(Refusal::Ahead)
                } else {
                    Ok(())
                }
            }
            T::MsgApp if term >= raft.term => {
                let committed = raft.raft_log.committed;
                let conflicts = |e: &raftpb::Entry| {
                    let (index, term) = (e.index.unwrap_or(0), e.term.unwrap_or(0));
                    let kept = raft.raft_log.term(index).ok().filter(|t| *t != 0);
                    kept.is_some_and(|kept| kept != term)
                };
                let known = message
                    .entries
                    .iter()
                    .take_while(|e| e.index.unwrap_or(0) <= committed);
                let has_room = self.node.store().entry_bytes() < self.config.bounds.backlog_bytes;
                if known.into_iter().any(conflicts) {
                    Err(Refusal::Conflict)
                } else if !message.entries.is_empty() && !has_room && self.is_installing() {
                    Err(Refusal::Busy)
                } else {
                    Ok(())
                }
            }
            T::MsgSnap | T::MsgTimeoutNow if self.is_installing() => Err(Refusal::Busy),
            _ => Ok(()),
        }
    }

    /// Says whether what was received for a snapshot belongs to the one that raft took.
    fn is_snapshot_wanted(&self, index: u64) -> bool {
        let unstable = self.node.snap().map(|s| s.get_metadata().index);
        let pending = self.install_pending.map(|p| p.index);
        let installing = self.installing.map(|p| p.index);
        [unstable, pending, installing].contains(&Some(index))
    }

    fn refuse(&mut self, from: u64, why: Refusal) {
        self.view.add_refused();
        if self.refused.last != Some((from, why)) {
            self.refused.last = Some((from, why));
            self.actions
                .notices
                .push(Notice::MessageRefused { from, why });
        }
        if self.refused.ahead >= AHEAD_MAX {
            let last = self.node.raft.raft_log.last_index();
            self.die(format!(
                "the leader knows of entries that were stored here, but the log ends at {last}: data was lost; \
                 remove this member and add it anew"
            ));
        }
    }

    /// Asks raft what followers asked before anything was committed in the term, when raft would have dropped it.
    pub(super) fn ask_early_reads(&mut self) {
        if !self.early_reads.is_empty()
            && self.is_leader()
            && self.node.raft.commit_to_current_term()
        {
            for message in std::mem::take(&mut self.early_reads) {
                let _ = self.node.step(message);
            }
        }
    }

    /// Takes that a member cannot be reached: what was sent to it last may be lost.
    pub fn handle_unreachable(&mut self, id: MemberId) {
        self.node.report_unreachable(id.0);
        self.drive();
    }

    /// Takes since when links to other members are active, in milliseconds of the member's clock. Those left out are not.
    pub fn set_links(&mut self, active_since_ms: BTreeMap<MemberId, u64>) {
        self.links = Links(active_since_ms);
    }

    /// Moves leadership away because this member is to stop: to the voter that has been connected for the longest time.
    /// Returns which, or `None` when there is nobody or this member does not lead.
    ///
    /// The caller goes on driving the member until [`Self::leads`] says no, or for as long as it likes to wait.
    pub fn transfer_leadership_for_stop(&mut self) -> Option<MemberId> {
        if !self.is_leader() {
            return None;
        }
        let own = self.config.member_id.0;
        let others = self.stores.cluster.voters().filter(|m| m.id != own);
        let target = self.links.longest_active(others.map(|m| MemberId(m.id)))?;
        self.node.transfer_leader(target.0);
        self.drive();
        Some(target)
    }

    /// Says whether this member leads.
    pub fn leads(&self) -> bool {
        self.is_leader()
    }

    pub(super) fn move_leader(&mut self, token: Token, target: MemberId) {
        if !self.is_leader() {
            let error = self.not_leader();
            return self.reply(token, Outcome::Failed(error));
        }
        let is_voter = self
            .stores
            .cluster
            .member(target.0)
            .is_some_and(|m| !m.is_learner);
        if !is_voter {
            return self.reply(token, Outcome::Failed(Error::BadLeaderTransferee));
        }
        let notice = Notice::TransferStarted { to: target.0 };
        self.actions.notices.push(notice);
        self.node.transfer_leader(target.0);
        self.moves.push(Move {
            token,
            target,
            started_ms: self.now_ms,
        });
    }

    /// Tells those whose leader is where they wanted it, or who have waited too long.
    pub(super) fn finish_moves(&mut self) {
        if self.moves.is_empty() {
            return;
        }
        let (now_ms, leader) = (self.now_ms, self.node.raft.leader_id);
        let limit_ms = self.config.request_timeout_ms();
        for waiting in std::mem::take(&mut self.moves) {
            let took_ms = now_ms - waiting.started_ms;
            if waiting.target.0 == leader {
                let notice = Notice::TransferFinished {
                    to: leader,
                    took_ms,
                };
                self.actions.notices.push(notice);
                self.reply(waiting.token, Outcome::LeaderMoved);
            } else if took_ms >= limit_ms {
                let error = Error::TimeoutLeaderTransfer;
                self.reply(waiting.token, Outcome::Failed(error));
            } else {
                self.moves.push(waiting);
            }
        }
    }

    /// Forgets a caller that waits for a new leader.
    pub(super) fn cancel_move(&mut self, token: Token) {
        self.moves.retain(|m| m.token != token);
    }

    pub(super) fn drain_moves(&mut self) -> Vec<Token> {
        let moves = std::mem::take(&mut self.moves);
        moves.into_iter().map(|m| m.token).collect()
    }

    pub(super) fn not_leader(&self) -> Error {
        Error::NotLeader {
            leader: MemberId(self.node.raft.leader_id),
        }
    }

    /// Lets raft's clock go one tick, unless an election now would break its promises.
    pub(super) fn tick_raft(&mut self) {
        self.draw_election_timeout();
        let raft = &self.node.raft;
        let is_unwritten = raft.raft_log.persisted < raft.raft_log.last_index();
        // A sole voter that campaigns leads at once, which raft allows only on a log that is all durable.
        let must_wait = self.is_installing() || self.is_sole_voter() && is_unwritten;
        if raft.state != StateRole::Leader && must_wait {
            // It goes on counting, so that votes of others are answered as if it had ticked.
            self.node.raft.election_elapsed += 1;
        } else {
            self.node.tick();
        }
    }

    /// Brings the first election forward when there was time enough to hear of a leader.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/server.go adjustTicks.
    pub(super) fn advance_first_election(&mut self) {
        let Some(until_ms) = self.advance_until_ms else {
            return;
        };
        let has_links = self.links.0.len() > 1;
        if has_links && self.config.initial_election_tick_advance {
            let (ticks, links) = (
                self.config.election_ticks.saturating_sub(2),
                self.links.0.len(),
            );
            let notice = Notice::ElectionAdvanced { ticks, links };
            self.actions.notices.push(notice);
            for _ in 0..ticks {
                self.tick_raft();
            }
        }
        if has_links || self.now_ms >= until_ms {
            self.advance_until_ms = None;
        }
    }

    /// Hands leadership over when the log was not stored for a whole election timeout: a leader that stores nothing holds
    /// everybody up.
    pub(super) fn hand_over_when_stalled(&mut self) {
        let limit_ms = self.config.election_timeout_ms();
        let is_stalled = self
            .persisting
            .front()
            .is_some_and(|p| self.now_ms >= p.started_ms + limit_ms);
        if !is_stalled || !self.is_leader() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let own = self.config.member_id.0;
        let prs = self.node.raft.prs();
        let best = prs
            .iter()
            .filter(|(id, p)| **id != own && p.recent_active && prs.conf().voters().contains(**id))
            .max_by_key(|(id, p)| (p.matched, std::cmp::Reverse(**id)))
            .map(|(id, _)| *id);
        if let Some(to) = best {
            self.actions.notices.push(Notice::SlowDisk { to });
            self.node.transfer_leader(to);
        }
    }

    /// Gives entries to raft. `false` when it takes none; nothing of them is in the log then.
    ///
    /// Configuration changes do not pass through raft's own proposing on a leader: it reads their bytes by numbers that
    /// are not etcd's. Its checks are made here instead. Source: `interop.md`, must 2.
    pub(super) fn step_proposal(&mut self, entries: Vec<Entry>, from: u64) -> bool {
        let is_change = |e: &Entry| e.get_entry_type() != EntryType::EntryNormal;
        if self.is_leader() && entries.iter().any(is_change) {
            return self.append_changes(entries);
        }
        let mut message = Message {
            from,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.node.step(message).is_ok()
    }

    fn append_changes(&mut self, mut entries: Vec<Entry>) -> bool {
        let own = self.config.member_id.0;
        let raft = &mut self.node.raft;
        if raft.prs().get(own).is_none() || raft.lead_transferee.is_some() {
            return false;
        }
        let mut pending = raft.pending_conf_index;
        for (index, entry) in (raft.raft_log.last_index() + 1..).zip(&mut entries) {
            if entry.get_entry_type() == EntryType::EntryNormal {
                continue;
            }
            if pending > raft.raft_log.applied {
                // One change at a time: this one becomes an entry without effect, as in etcd.
                *entry = Entry::default();
            } else {
                pending = index;
            }
        }
        if !raft.append_entry(&mut entries) {
            return false;
        }
        raft.pending_conf_index = pending;
        raft.bcast_append();
        true
    }
}

fn snapshot_index(message: &raftpb::Message) -> Option<u64> {
    if message.r#type != Some(raftpb::MessageType::MsgSnap.into()) {
        return None;
    }
    message.snapshot.as_ref()?.metadata.as_ref()?.index
}
