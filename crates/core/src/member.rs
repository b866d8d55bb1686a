//! The member: raft driven with asynchronous persistence, proposals, reads, applying.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_backend::Applied as AppliedPoint;
use quorate_proto::{LeaseId, raftpb};
use quorate_wal::{Batch, Synced};
use raft::eraftpb::{Entry, HardState, Message};
use raft::{RawNode, StateRole};

use self::change::{Parked, Versions};
use self::install::{Receiving, Sending};
use self::parts::{
    Compaction, Flush, Persisting, Publication, SnapshotState, raft_config, set_election_timeout,
};
use self::peers::{Move, Refused};
use crate::actions::Actions;
use crate::apply::Stores;
use crate::auto_compaction::AutoCompactor;
use crate::config::Config;
use crate::convert::{to_conf_state, to_raft};
use crate::digest::RecentDigests;
use crate::gate::{Current, LiveStores};
use crate::ids::RequestIds;
use crate::log::{MemoryLog, Position};
use crate::membership::Links;
use crate::quota::Quota;
use crate::read_index::{ReadRounds, Then};
use crate::rng::Rng;
use crate::view::View;
use crate::waiters::Waiters;
use crate::{Error, Outcome, Submission, Token};

mod change;
mod commit;
mod drive;
mod install;
mod measure;
mod parts;
mod peers;
mod propose;
mod serve;
mod upkeep;

pub use install::align_snapshot;
pub use measure::Stopwatch;

/// The log as recovered, or as written at bootstrap.
#[derive(Debug, Default)]
pub struct LogStart {
    /// Index and term of the last snapshot mark; 0 without one.
    pub snapshot: quorate_wal::SnapshotMark,
    /// Entries after it.
    pub entries: Vec<quorate_wal::Entry>,
    /// Term, vote, commit.
    pub hard_state: quorate_wal::HardState,
    /// The configuration at the backend's applied index.
    pub conf_state: raftpb::ConfState,
}

/// One cluster member. See the crate page for how it is driven.
pub struct Member {
    config: Config,
    node: RawNode<MemoryLog>,
    stores: Stores,
    quota: Quota,
    /// Where readers on other threads find the stores.
    live: LiveStores,
    view: Arc<View>,
    rng: Rng,
    ids: RequestIds,
    now_ms: u64,
    started_ms: u64,
    /// When the last tick came, and how many have come since the last pause.
    ticked_ms: u64,
    steady_ticks: usize,
    waiters: Waiters,
    reads: ReadRounds,
    /// Questions of followers that came before anything was committed in the term.
    early_reads: Vec<Message>,
    /// Proposals that no leader has taken yet.
    unproposed: VecDeque<Entry>,
    /// Renewals of leases that have run out but are not revoked yet.
    late_renewals: Vec<(LeaseId, Token)>,
    /// By lease, up to which entry this leader has put what is left of it into the log; applied ones may be there too.
    checkpoints: BTreeMap<LeaseId, u64>,
    /// Readies handed to the log, in order, and what waits for them.
    persisting: VecDeque<Persisting>,
    next_ticket: u64,
    /// Term and vote as handed to the log last.
    voted: (u64, u64),
    /// Changes of term or vote on their way to the disk.
    unsynced_votes: usize,
    /// Until when the first election may be brought forward.
    advance_until_ms: Option<u64>,
    links: Links,
    refused: Refused,
    moves: Vec<Move>,
    parked: Vec<Parked>,
    versions: Versions,
    /// A received snapshot that is not durable yet.
    receiving: Option<Receiving>,
    /// The same, until its mark is durable.
    install_pending: Option<Position>,
    /// A durable received snapshot that the stores do not hold yet.
    installing: Option<Position>,
    /// What is committed behind it.
    backlog: Vec<Entry>,
    /// Snapshots on their way to followers.
    sending: BTreeMap<u64, Sending>,
    /// Followers whose snapshot could not be sent now.
    unsent_snapshots: Vec<u64>,
    digests: RecentDigests,
    applied: AppliedPoint,
    /// Index of the last applied configuration change.
    conf_index: u64,
    /// The last term whose first entry was applied as its leader.
    term_begun: u64,
    /// The leader known last; 0 before the first.
    leader: u64,
    /// The leader told of last; 0 for none.
    told_leader: u64,
    /// Whether the backend's flushes cannot keep up: nothing more is admitted.
    is_behind_disk: bool,
    /// When the leader known now was first known.
    leader_since_ms: u64,
    published: Publication,
    flush: Flush,
    compaction: Compaction,
    snapshot: SnapshotState,
    auto_compactor: AutoCompactor,
    actions: Actions,
    laps: measure::Laps,
    /// Set when applying failed half way: nothing more is done, and a restart recovers.
    dead: bool,
}

impl Member {
    /// Starts a member on restored stores and a recovered log.
    ///
    /// # Errors
    /// When raft refuses its configuration or the log.
    ///
    /// # Panics
    /// When the stores are ahead of the log, which recovery refuses before.
    #[expect(
        clippy::too_many_lines,
        reason = "it names each field once, and does little else"
    )]
    pub fn new(
        config: Config,
        log: LogStart,
        stores: Stores,
        logger: &slog::Logger,
        now_ms: u64,
    ) -> raft::Result<Self> {
        config.bounds.check();
        let applied = stores.backend.applied();
        let entries: Vec<Entry> = log.entries.into_iter().map(to_raft).collect();
        let log_bytes = entries.iter().map(|e| e.data.len() as u64).sum();
        let base = Position {
            index: log.snapshot.index,
            term: log.snapshot.term,
        };
        let hard_state = HardState {
            term: log.hard_state.term,
            vote: log.hard_state.vote,
            commit: log.hard_state.commit.max(applied.index),
            ..HardState::default()
        };
        let memory = MemoryLog::new(base, entries, hard_state, to_conf_state(&log.conf_state));
        assert!(
            applied.index >= base.index && applied.index <= memory.last().index,
            "recovery let a gap pass"
        );
        let mut node = RawNode::new(&raft_config(&config, applied.index), memory, logger)?;
        let view = Arc::new(View::new(config.cluster_id, config.member_id));
        let rng = Rng::new(config.seed);
        let quota = Quota::new(stores.backend.clone(), config.quota_bytes);
        let live = LiveStores::new(Current {
            reader: stores.kv.reader(),
            backend: stores.backend.clone(),
            quota: quota.clone(),
        });
        node.mut_store().set_snapshot_at(Some(Position {
            index: applied.index,
            term: applied.term,
        }));
        let mut member = Self {
            ids: RequestIds::new(config.member_id, config.start_unix_ms),
            flush: Flush {
                running: false,
                last_ms: now_ms,
            },
            snapshot: SnapshotState {
                last_index: base.index,
                last_mark: base.index,
                saving: false,
                log_bytes,
                trimmed: 0,
                forced: None,
            },
            compaction: Compaction::default(),
            versions: Versions::new(now_ms + config.downgrade_check_ms),
            auto_compactor: AutoCompactor::new(config.auto_compaction, now_ms),
            config,
            node,
            stores,
            quota,
            live,
            view,
            rng,
            now_ms,
            started_ms: now_ms,
            ticked_ms: now_ms,
            steady_ticks: usize::MAX / 2,
            waiters: Waiters::default(),
            reads: ReadRounds::default(),
            early_reads: Vec::new(),
            unproposed: VecDeque::new(),
            late_renewals: Vec::new(),
            checkpoints: BTreeMap::new(),
            persisting: VecDeque::new(),
            next_ticket: 1,
            voted: (log.hard_state.term, log.hard_state.vote),
            unsynced_votes: 0,
            advance_until_ms: Some(now_ms + peers::ADVANCE_MS),
            links: Links::default(),
            refused: Refused::default(),
            moves: Vec::new(),
            parked: Vec::new(),
            receiving: None,
            install_pending: None,
            installing: None,
            backlog: Vec::new(),
            sending: BTreeMap::new(),
            unsent_snapshots: Vec::new(),
            digests: RecentDigests::new(applied.index, applied.digest),
            applied,
            conf_index: 0,
            term_begun: 0,
            leader: 0,
            told_leader: 0,
            is_behind_disk: false,
            leader_since_ms: now_ms,
            published: Publication::NotYet,
            actions: Actions::default(),
            laps: measure::Laps::default(),
            dead: false,
        };
        member.start();
        Ok(member)
    }

    fn start(&mut self) {
        self.note_needed_versions();
        if let Some(job) = self.stores.kv.pending_compaction() {
            self.compaction.waiting.push_back((0, job));
            self.compaction.scheduled += 1;
        }
        self.show_cluster();
        self.view.set_alarms(self.stores.alarm_list());
        self.view.set_applied(self.applied.index);
        self.add_peers();
        self.check_cluster_version();
        self.trim_log();
        // What is committed is applied first: raft holds no election over unapplied configuration changes.
        self.drive();
        if self.stores.cluster.members().count() == 1 {
            self.advance_until_ms = None;
        }
        if self.config.initial_election_tick_advance && self.is_sole_voter() && !self.dead {
            // Nobody else could be leading, so there is nothing to wait for.
            let _ = self.node.campaign();
        }
        self.drive();
    }

    /// Returns the place where other threads find the stores.
    pub fn live(&self) -> LiveStores {
        self.live.clone()
    }

    /// Returns the running digest after an entry: what was applied up to there and what it left behind.
    ///
    /// Members that differ in it have diverged. `None` when the entry is not among the last few thousand, or when the
    /// digest is not known because this member began with an image that did not say; then it is again some time later.
    pub fn digest_at(&self, index: u64) -> Option<u64> {
        self.digests.at(index)
    }

    /// Returns the member's window for other threads.
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Returns the quota, for checks before proposing.
    pub fn quota(&self) -> Quota {
        self.quota.clone()
    }

    /// Returns the stores, for handles that read them.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Takes what has come up since the last call.
    pub fn take_actions(&mut self) -> Actions {
        std::mem::take(&mut self.actions)
    }

    /// Takes the time; to be called before the other `handle_*` whenever it may have moved. It never goes back.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Takes a batch of submissions in; each is answered exactly once unless it is cancelled.
    pub fn handle_submissions(&mut self, submissions: Vec<Submission>) {
        let unflushed = self.stores.backend.pending_bytes();
        self.is_behind_disk =
            unflushed > self.config.bounds.unflushed_flushes * self.config.flush_bytes;
        let mut entries = Vec::new();
        let mut entry_bytes = 0;
        for submission in submissions {
            if entry_bytes > self.config.bounds.proposed_bytes {
                self.propose(std::mem::take(&mut entries));
                self.drive();
                entry_bytes = 0;
            }
            match submission {
                Submission::Propose(proposal) => {
                    self.admit(proposal, &mut entries);
                    entry_bytes += entries.last().map_or(0, |e| e.data.len());
                }
                Submission::ReadIndex { token } => self.join_read(token, Then::Tell),
                Submission::LeaseRenew { token, id } => self.renew(token, id),
                Submission::LeaseTimeToLive { token, id, keys } => {
                    self.time_to_live(token, id, keys)
                }
                Submission::LeaseLeases { token } => {
                    let leases = self.stores.lessor.leases();
                    self.reply(token, Outcome::LeaseLeases(leases));
                }
                Submission::LeaseKeys { token, id } => self.lease_keys(token, id),
                Submission::ChangeMembers { token, change } => {
                    self.change_members(token, change, &mut entries);
                }
                Submission::Downgrade {
                    token,
                    action,
                    version,
                } => self.downgrade(token, action, &version),
                Submission::Digest { token, index } => self.tell_digest(token, index),
                Submission::MoveLeader { token, target } => self.move_leader(token, target),
                Submission::Cancel { token } => self.cancel(token),
            }
        }
        self.propose(entries);
        self.drive();
    }

    /// Takes the passing of one tick; `now_ms` is monotonic.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.handle_time(now_ms);
        self.end_when_unreadable();
        if self.dead {
            return;
        }
        self.note_tick();
        self.tick_raft();
        self.advance_first_election();
        self.hand_over_when_stalled();
        self.end_sending();
        self.expire_waiters();
        let late = self.reads.expire(self.now_ms);
        self.measure_late_reads(late.len());
        for waiting in late {
            self.fail_read(waiting, Error::Timeout);
        }
        self.lead();
        self.drive();
        if self.dead {
            return;
        }
        self.flush_when_due();
        self.snapshot_when_due();
    }

    /// Takes the log's word that everything up to the token's ticket is on stable storage.
    pub fn handle_synced(&mut self, synced: &Synced) {
        self.finish_persisting(synced.ticket());
        self.drive();
    }

    /// Takes the end of a flush. A failed one is fatal: the caller stops the member instead of calling this.
    pub fn handle_flushed(&mut self) {
        self.flush.running = false;
        self.start_compaction();
        self.snapshot_when_due();
    }

    /// Takes the end of a compaction.
    pub fn handle_compacted(&mut self) {
        self.compaction.running = false;
        if std::mem::take(&mut self.compaction.is_orphan) {
            return self.start_compaction();
        }
        self.compaction.done += 1;
        let done = self.compaction.done;
        while let Some(caller) = self
            .compaction
            .callers
            .pop_front_if(|(number, ..)| *number <= done)
        {
            self.reply(caller.1, caller.2);
        }
        self.start_compaction();
    }

    /// Takes the end of saving a snapshot file: it is durable under its name.
    pub fn handle_snapshot_saved(&mut self, index: u64, term: u64) {
        if self.finish_receiving(index, term) {
            return;
        }
        self.snapshot.saving = false;
        // One that was received meanwhile is newer, or what its mark must come behind.
        if index <= self.snapshot.last_mark || self.is_installing() {
            return;
        }
        self.note_saved_snapshot(index);
        let ticket = self.ticket();
        self.actions.persist.push(Batch {
            ticket,
            entries: Vec::new(),
            hard_state: None,
            snapshot: Some(quorate_wal::SnapshotMark { index, term }),
            must_sync: true,
        });
        self.persisting.push_back(Persisting {
            ticket,
            on_disk: true,
            ready: None,
            release: Some(index),
            install: None,
            is_vote: false,
            messages: Vec::new(),
            started_ms: self.now_ms,
        });
    }

    /// Ends the member: every caller is told that it stops. Only actions may be taken afterwards.
    pub fn stop(&mut self) {
        self.view.set_stopping();
        self.view.set_sole_leader(false);
        for waiter in self.waiters.drain() {
            self.fail(waiter, Error::Stopped);
        }
        for (_, token, outcome) in std::mem::take(&mut self.compaction.callers) {
            // Applied it was; only its physical end is not waited for.
            self.reply(token, outcome);
        }
        let mut tokens: Vec<Token> = self.reads.drain().iter().map(|w| w.token).collect();
        tokens.extend(self.drain_moves());
        tokens.extend(self.drain_parked());
        for token in tokens {
            self.reply(token, Outcome::Failed(Error::Stopped));
        }
        for (_, token) in std::mem::take(&mut self.late_renewals) {
            self.reply(token, Outcome::Failed(Error::Stopped));
        }
    }

    /// Forgets a caller that went away, wherever it waits.
    fn cancel(&mut self, token: Token) {
        self.waiters.cancel(token);
        self.reads.cancel(token);
        self.cancel_move(token);
        self.cancel_parked(token);
        self.late_renewals.retain(|(_, t)| *t != token);
        self.compaction.callers.retain(|(_, t, _)| *t != token);
    }

    fn reply(&mut self, token: Token, outcome: Outcome) {
        self.actions.replies.push((token, outcome));
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn is_sole_voter(&self) -> bool {
        let conf = self.node.store().conf_state();
        conf.voters == [self.config.member_id.0] && conf.voters_outgoing.is_empty()
    }
}
