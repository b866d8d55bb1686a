//! Driving raft: what it has ready goes to the log, to the stores and to those who wait.
use quorate_proto::MemberId;
use quorate_wal::Batch;
use raft::StateRole;
use raft::eraftpb::Entry;

use super::{Member, Persisting, set_election_timeout};
use crate::actions::Notice;
use crate::convert::from_raft;
use crate::{Error, Outcome};

impl Member {
    /// Works off everything raft has ready.
    pub(super) fn drive(&mut self) {
        loop {
            self.propose_waiting();
            self.ask_read_index(false);
            if self.dead || !self.node.has_ready() {
                break;
            }
            self.handle_ready();
        }
        self.show_raft();
        self.release_reads();
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
        if let Some(hard_state) = &hard_state {
            self.node.mut_store().set_hard_state(hard_state.clone());
        }
        // Nobody to send to yet: what a sole voter emits has no receiver.
        drop((ready.take_persisted_messages(), ready.take_messages()));
        let committed = ready.take_committed_entries();
        self.node.mut_store().append(entries.clone());
        self.node.advance_append_async(ready);
        self.persist(number, entries, must_sync);
        self.apply_committed(&committed);
    }

    fn persist(&mut self, number: u64, entries: Vec<Entry>, must_sync: bool) {
        let ticket = self.ticket();
        let on_disk = must_sync || !entries.is_empty();
        if on_disk {
            let hard_state = self.node.raft.hard_state();
            self.snapshot.log_bytes += entries.iter().map(|e| e.data.len() as u64).sum::<u64>();
            self.actions.persist.push(Batch {
                ticket,
                entries: entries.into_iter().map(from_raft).collect(),
                hard_state: Some(quorate_wal::HardState {
                    term: hard_state.term,
                    vote: hard_state.vote,
                    commit: hard_state.commit,
                }),
                snapshot: None,
                must_sync,
            });
        }
        self.persisting.push_back(Persisting {
            ticket,
            on_disk,
            ready: Some(number),
            release: None,
        });
        self.finish_persisting(0);
    }

    /// Tells raft about readies that are durable: those up to `ticket`, and those after it that need no disk.
    pub(super) fn finish_persisting(&mut self, ticket: u64) {
        let mut last = None;
        while self
            .persisting
            .front()
            .is_some_and(|p| p.ticket <= ticket || !p.on_disk)
        {
            let done = self.persisting.pop_front().expect("just seen");
            last = done.ready.or(last);
            if let Some(index) = done.release {
                self.actions.release_log = Some(index);
            }
        }
        if let Some(number) = last {
            self.node.on_persist_ready(number);
        }
    }

    fn handle_role(&mut self, leader: u64, role: StateRole) {
        set_election_timeout(&mut self.node, &mut self.rng, self.config.election_ticks);
        let term = self.node.raft.term;
        if role == StateRole::Leader {
            self.actions.notices.push(Notice::BecameLeader { term });
        } else {
            self.first_commit_in_term = false;
            self.stores.lessor.demote();
            for (_, token) in std::mem::take(&mut self.late_renewals) {
                self.reply(token, Outcome::Failed(Error::NotPrimaryLessor));
            }
            self.actions
                .notices
                .push(Notice::LeaderChanged { leader, term });
        }
        // Losing the leader is no change of leader yet: a read under way may still be answered by the same one.
        if leader != 0 && leader != self.leader {
            self.leader = leader;
            self.leader_since_ms = self.now_ms;
            let failed = self.reads.fail_current();
            let is_failed = u64::from(!failed.is_empty());
            self.view.tally().read_indexes_failed.add(is_failed);
            for token in failed {
                self.reply(token, Outcome::Failed(Error::LeaderChanged));
            }
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
            .set_sole_leader(self.is_leader() && self.first_commit_in_term && self.is_sole_voter());
    }

    pub(super) fn show_cluster(&self) {
        let cluster = &self.stores.cluster;
        self.view.set_cluster(
            cluster.to_wire(),
            cluster.version(),
            cluster.storage_version(),
        );
    }
}
