//! Driving raft: what it has ready goes to the log, to the stores, to other members and to those who wait.
use quorate_proto::{MemberId, raftpb};
use quorate_wal::Batch;
use raft::StateRole;
use raft::eraftpb::{Entry, Message, MessageType, Snapshot};

use super::install::Receiving;
use super::{Member, Persisting, set_election_timeout};
use crate::actions::{Notice, SnapshotInstall, SnapshotSource};
use crate::convert::{from_raft, message_from_raft};
use crate::log::Position;
use crate::{Error, Outcome};

/// What one ready of raft's wants to have stored.
struct ToPersist {
    number: u64,
    entries: Vec<Entry>,
    must_sync: bool,
    /// Whether term or vote changed: nothing is said before that is durable.
    is_vote: bool,
    snapshot: Option<Position>,
    messages: Vec<raftpb::Message>,
}

impl Member {
    /// Works off everything raft has ready, unless the member ends.
    pub(super) fn drive(&mut self) {
        loop {
            if self.dead {
                // What was applied may be more than what is published: nobody may be told to read it.
                return self.show_raft();
            }
            self.propose_waiting();
            self.ask_early_reads();
            self.ask_read_index(false);
            if !self.node.has_ready() {
                break;
            }
            self.handle_ready();
        }
        self.show_raft();
        self.release_reads();
        self.finish_moves();
        self.finish_parked();
    }

    fn handle_ready(&mut self) {
        let mut ready = self.node.ready();
        if let Some(state) = ready.ss() {
            let (leader, role) = (state.leader_id, state.raft_state);
            self.handle_role(leader, role);
        }
        for state in ready.take_read_states() {
            if let Ok(id) = <[u8; 8]>::try_from(&state.request_ctx[..]) {
                self.reads.confirm(u64::from_be_bytes(id), state.index);
            }
        }
        let entries = ready.take_entries();
        let (number, must_sync) = (ready.number(), ready.must_sync());
        // A commit index alone is not worth a write: it is learned again from the log and the applied index.
        let hard_state = ready.hs().cloned();
        let mut is_vote = false;
        if let Some(hard_state) = hard_state {
            is_vote = (hard_state.term, hard_state.vote) != self.voted;
            self.voted = (hard_state.term, hard_state.vote);
            self.node.mut_store().set_hard_state(hard_state);
        }
        // Of a leader they may go before its own log is written, of any other only what is no promise.
        let messages = ready.take_messages();
        let promises = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        let snapshot = self.restart_log(ready.snapshot());
        self.node.mut_store().append(entries.clone());
        self.node.advance_append_async(ready);
        self.unsynced_votes += usize::from(is_vote);
        let mut waiting = self.send(messages, false);
        waiting.extend(self.send(promises, true));
        self.persist(ToPersist {
            number,
            entries,
            must_sync,
            is_vote,
            snapshot,
            messages: waiting,
        });
        if self.is_installing() {
            self.backlog.extend(committed);
        } else {
            self.apply_committed(&committed);
        }
    }

    /// Lets the log in memory begin anew behind a received snapshot.
    fn restart_log(&mut self, snapshot: &Snapshot) -> Option<Position> {
        let metadata = snapshot.get_metadata();
        let position = Position {
            index: metadata.index,
            term: metadata.term,
        };
        if position.index == 0 {
            return None;
        }
        let conf_state = metadata.get_conf_state().clone();
        self.node.mut_store().restart(position, conf_state);
        Some(position)
    }

    /// Sends what may go now and returns what must wait for the log.
    ///
    /// While a change of term or vote is not durable nothing is said at all: a member that forgot it could lead the same
    /// term twice. Besides that, a member that does not lead waits only with what acknowledges its log or asks for votes.
    fn send(&mut self, messages: Vec<Message>, after_log: bool) -> Vec<raftpb::Message> {
        let mut waiting = Vec::new();
        for message in messages {
            if self.stores.cluster.is_removed(message.to) {
                continue;
            }
            let kind = message.get_msg_type();
            let waits = self.unsynced_votes > 0 || after_log && is_promise(kind);
            if kind == MessageType::MsgSnapshot {
                self.send_snapshot(message, waits);
                continue;
            }
            let message = message_from_raft(message);
            let to = if waits {
                &mut waiting
            } else {
                &mut self.actions.send
            };
            push_message(to, message);
        }
        waiting
    }

    /// Sends a snapshot with the state that it stands for, which is the state now.
    fn send_snapshot(&mut self, message: Message, waits: bool) {
        let (to, index) = (message.to, message.get_snapshot().get_metadata().index);
        let is_now = index == self.stores.backend.applied().index;
        match self.stores.backend.read() {
            Ok(state) if is_now && !waits => {
                self.note_sending(to, index);
                self.actions.images.push(SnapshotSource {
                    to: MemberId(to),
                    index,
                    state,
                });
                self.actions.send.push(message_from_raft(message));
            }
            // It is asked for again with the next answer to a heartbeat.
            _ => self.unsent_snapshots.push(to),
        }
    }

    fn persist(&mut self, what: ToPersist) {
        let ticket = self.ticket();
        self.install_pending = what.snapshot.or(self.install_pending);
        let on_disk = what.must_sync || !what.entries.is_empty();
        if on_disk {
            let hard_state = self.node.raft.hard_state();
            let bytes = what
                .entries
                .iter()
                .map(|e| e.data.len() as u64)
                .sum::<u64>();
            self.snapshot.log_bytes += bytes;
            let batch = Batch {
                ticket,
                entries: what.entries.into_iter().map(from_raft).collect(),
                hard_state: Some(quorate_wal::HardState {
                    term: hard_state.term,
                    vote: hard_state.vote,
                    commit: hard_state.commit,
                }),
                snapshot: what.snapshot.map(Position::mark),
                must_sync: what.must_sync,
            };
            match (&mut self.receiving, what.snapshot) {
                (None, Some(position)) => self.receive(Receiving::new(position, batch)),
                (Some(receiving), _) => receiving.batches.push(batch),
                (None, None) => self.actions.persist.push(batch),
            }
        }
        self.persisting.push_back(Persisting {
            ticket,
            on_disk,
            ready: Some(what.number),
            release: None,
            install: what.snapshot,
            is_vote: what.is_vote,
            messages: what.messages,
            started_ms: self.now_ms,
        });
        self.finish_persisting(0);
    }

    /// Tells raft about readies that are durable: those up to `ticket`, and those after it that need no disk.
    pub(super) fn finish_persisting(&mut self, ticket: u64) {
        let mut last = None;
        let mut install = None;
        while self
            .persisting
            .front()
            .is_some_and(|p| p.ticket <= ticket || !p.on_disk)
        {
            let done = self.persisting.pop_front().expect("just seen");
            last = done.ready.or(last);
            install = done.install.or(install);
            self.unsynced_votes -= usize::from(done.is_vote);
            for message in done.messages {
                push_message(&mut self.actions.send, message);
            }
            if let Some(index) = done.release {
                self.actions.release_log = Some(index);
            }
        }
        if let Some(number) = last {
            self.node.on_persist_ready(number);
        }
        if let Some(Position { index, term }) = install {
            // Raft takes it for applied from here on, so that it can vote and lead; what follows waits in the backlog.
            self.node.advance_apply_to(index);
            self.install_pending = None;
            self.installing = Some(Position { index, term });
            // A defragmentation under way must not put the old state back in the place of the new one.
            self.stores.backend.leave_name();
            self.actions.install = Some(SnapshotInstall { index, term });
        }
        for to in std::mem::take(&mut self.unsent_snapshots) {
            self.node.report_snapshot(to, raft::SnapshotStatus::Failure);
        }
    }

    fn handle_role(&mut self, leader: u64, role: StateRole) {
        let term = self.node.raft.term;
        // What was asked of another leader, or of this one in another term, is asked again by those who asked.
        self.early_reads.clear();
        let before = std::mem::replace(&mut self.told_leader, leader);
        if before != leader {
            self.actions.notices.push(Notice::LeaderChanged {
                before,
                leader,
                term,
            });
            if leader != 0 {
                self.propose_changes_again();
            }
        }
        if role == StateRole::Leader {
            self.actions.notices.push(Notice::BecameLeader { term });
        } else {
            self.checkpoints.clear();
            self.stores.lessor.demote();
            let leader = MemberId(leader);
            for (_, token) in std::mem::take(&mut self.late_renewals) {
                self.reply(token, Outcome::Failed(Error::NotLeader { leader }));
            }
        }
        // Losing the leader is no change of leader yet: a read under way may still be answered by the same one.
        if leader != 0 && leader != self.leader {
            self.leader = leader;
            self.leader_since_ms = self.now_ms;
            let failed = self.reads.fail_current();
            let is_failed = u64::from(!failed.is_empty());
            self.view.tally().read_indexes_failed.add(is_failed);
            for waiting in failed {
                self.fail_read(waiting, Error::LeaderChanged);
            }
        }
    }

    /// Draws the election timeout anew whenever raft has drawn one, which no seed repeats: it does so each time it begins
    /// to count from 0, also within one term and role.
    pub(super) fn draw_election_timeout(&mut self) {
        if self.node.raft.election_elapsed == 0 {
            set_election_timeout(&mut self.node, &mut self.rng, self.config.election_ticks);
        }
    }

    fn show_raft(&self) {
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        self.view.set_raft(
            raft.term,
            MemberId(raft.leader_id),
            log.last_index(),
            log.committed,
        );
        self.view
            .set_sole_leader(self.has_begun_term() && self.is_sole_voter());
    }

    pub(super) fn show_cluster(&self) {
        self.view.set_cluster(&self.stores.cluster);
    }
}

/// Says whether a message of a member that does not lead promises something about its log or its vote.
fn is_promise(kind: MessageType) -> bool {
    !matches!(
        kind,
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgTransferLeader
    )
}

/// Adds a message; an acknowledgement takes the place of the one before it, which says less.
fn push_message(to: &mut Vec<raftpb::Message>, message: raftpb::Message) {
    let kind = Some(raftpb::MessageType::MsgAppResp.into());
    let is_acknowledgement = |m: &raftpb::Message| m.r#type == kind && m.reject != Some(true);
    if is_acknowledgement(&message)
        && let Some(last) = to.last_mut()
        && is_acknowledgement(last)
        && (last.to, last.term) == (message.to, message.term)
        && last.index <= message.index
    {
        *last = message;
    } else {
        to.push(message);
    }
}
