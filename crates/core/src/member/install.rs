//! Snapshots between members: sent when a follower needs what the log no longer holds, received, and installed.
//!
//! What is on disk when a member that installs one is killed, and what the next start does:
//!
//! | state found | killed | action |
//! |---|---|---|
//! | image or received database under a temporary name | before it was whole and durable | it is deleted; the old state goes on |
//! | image or received database, no mark in the log | before the snapshot file and the mark were durable | it is deleted; the old state goes on |
//! | mark in the log, database behind it, received database | before the database was replaced | the start renames the received one over it |
//! | mark in the log, database behind it, image | before the database was replaced | the start replaces it with the image |
//! | mark in the log, database at it | after that | the start goes on; an image or received database still there is deleted |
//! | mark in the log, database behind it, neither | never | the start refuses |
//!
//! A received database needs no image beside it: it gets its name when all of it, the index and term of the log included, is
//! synced, which is when an image would get its own, and before raft knows of it. From then on it is what the image would be
//! made into, and takes the database's name in one rename.
use quorate_proto::{MemberId, raftpb};
use quorate_wal::Batch;

use super::upkeep::snapshot_body;
use super::{Member, Stores};
use crate::actions::{Notice, PeerChange, SnapshotToSave};
use crate::convert::from_conf_state;
use crate::digest::RecentDigests;
use crate::gate::Current;
use crate::log::Position;
use crate::quota::Quota;

/// How long the log behind a snapshot is kept after it was sent. Source: etcd v3.7.1 releaseDelayAfterSnapshot.
const GRACE_MS: u64 = 30_000;
/// How long a snapshot may be under way before the log behind it is no longer kept for it.
const SENDING_MS_MAX: u64 = 30 * 60 * 1_000;

/// A received snapshot whose file is being saved: the log may not name it before, and all that follows it must wait.
pub(super) struct Receiving {
    pub(super) position: Position,
    /// The batch with the mark, then those after it.
    pub(super) batches: Vec<Batch>,
}

impl Receiving {
    pub(super) fn new(position: Position, batch: Batch) -> Self {
        Self {
            position,
            batches: vec![batch],
        }
    }
}

/// A snapshot on its way to a follower.
#[derive(Debug)]
pub(super) struct Sending {
    index: u64,
    /// When the log behind it need not be kept any longer.
    ends_ms: u64,
}

impl Member {
    /// Says whether a received snapshot is not yet what the stores hold.
    pub(super) fn is_installing(&self) -> bool {
        self.install_pending.is_some() || self.installing.is_some()
    }

    /// Has the file of a received snapshot saved, as the step before its mark goes into the log.
    pub(super) fn receive(&mut self, receiving: Receiving) {
        let Position { index, term } = receiving.position;
        let conf_state = from_conf_state(self.node.store().conf_state());
        // The members are in what was received; those known here may be older.
        let body = snapshot_body(index, term, conf_state, &[]);
        self.receiving = Some(receiving);
        self.actions
            .save_snapshots
            .push(SnapshotToSave { index, term, body });
    }

    /// Takes the end of saving a received snapshot's file; says whether it was one.
    pub(super) fn finish_receiving(&mut self, index: u64, term: u64) -> bool {
        let is_it = |r: &mut Receiving| r.position == Position { index, term };
        let Some(receiving) = self.receiving.take_if(is_it) else {
            return false;
        };
        self.snapshot.last_mark = index;
        self.actions.persist.extend(receiving.batches);
        true
    }

    /// Takes the stores of an installed snapshot and gives back those they replace, to be closed at leisure.
    ///
    /// Everything moves at once: readers, leases, users, alarms, members, applied index and configuration. Whatever
    /// followed the snapshot in the log meanwhile is applied now.
    ///
    /// # Panics
    /// When no snapshot was asked to be installed.
    pub fn handle_installed(&mut self, stores: Stores) -> Stores {
        let position = self.installing.expect("installing was asked for");
        let applied = stores.backend.applied();
        if applied.index != position.index {
            self.die(format!(
                "what was received for snapshot {} holds the state of entry {}",
                position.index, applied.index
            ));
            return stores;
        }
        self.installing = None;
        let applied_before = self.applied.index;
        let mut old = std::mem::replace(&mut self.stores, stores);
        self.stores.auth.adopt(&old.auth.reader());
        self.quota = Quota::new(self.stores.backend.clone(), self.config.quota_bytes);
        self.live.replace(Current {
            reader: self.stores.kv.reader(),
            backend: self.stores.backend.clone(),
            quota: self.quota.clone(),
        });
        old.lessor.demote();
        self.applied = applied;
        self.conf_index = position.index;
        self.digests = RecentDigests::new(applied.index, applied.digest);
        self.snapshot.last_index = position.index;
        self.snapshot.trimmed = position.index;
        self.node.mut_store().set_snapshot_at(Some(position));
        self.replace_compactions();
        self.show_cluster();
        self.find_published();
        self.view.set_alarms(self.stores.alarm_list());
        self.view.set_applied(applied.index);
        self.actions.peers.push(PeerChange::Clear);
        self.add_peers();
        self.actions.published = true;
        self.actions.release_log = Some(position.index);
        // What came of the same snapshot while it was being installed was kept, and is of no use any more.
        self.actions.unused_images.push(position.index);
        self.actions.notices.push(Notice::SnapshotInstalled {
            index: position.index,
            applied_before,
        });
        self.check_cluster_version();
        let at_once = self.config.bounds.backlog_entries;
        for entries in std::mem::take(&mut self.backlog).chunks(at_once) {
            if !self.dead {
                self.apply_committed(entries);
            }
        }
        self.drive();
        old
    }

    /// Ends the wait for what this member publishes of itself when the snapshot has it: the entry may be one of those that it
    /// stands for, which will not be applied here.
    fn find_published(&mut self) {
        let config = &self.config;
        let is_there = self.stores.cluster.members().any(|member| {
            member.id == config.member_id.0
                && member.name == config.name
                && member.client_urls == config.client_urls
        });
        if is_there {
            self.finish_publishing();
        }
    }

    /// Links to all members as they are.
    pub(super) fn add_peers(&mut self) {
        for member in self.stores.cluster.members() {
            if member.id != self.config.member_id.0 {
                self.actions.peers.push(PeerChange::Add {
                    id: MemberId(member.id),
                    urls: member.peer_urls.clone(),
                });
            }
        }
    }

    /// Lets go of compactions of stores that are gone; whoever waits for their end waits for nothing any more.
    fn replace_compactions(&mut self) {
        self.compaction.is_orphan = self.compaction.running;
        for (_, token, outcome) in std::mem::take(&mut self.compaction.callers) {
            self.reply(token, outcome);
        }
        self.compaction.waiting.clear();
        self.compaction.done = self.compaction.scheduled;
        if let Some(job) = self.stores.kv.pending_compaction() {
            self.compaction.waiting.push_back((0, job));
            self.compaction.scheduled += 1;
        }
        self.start_compaction();
    }

    /// Notes that a snapshot goes to a follower: the log behind it is kept.
    pub(super) fn note_sending(&mut self, to: u64, index: u64) {
        let ends_ms = self.now_ms + SENDING_MS_MAX;
        self.sending.insert(to, Sending { index, ends_ms });
    }

    /// Takes the end of sending a snapshot to a member.
    pub fn handle_snapshot_sent(&mut self, id: MemberId, ok: bool) {
        if ok {
            if let Some(sending) = self.sending.get_mut(&id.0) {
                sending.ends_ms = sending.ends_ms.min(self.now_ms + GRACE_MS);
            }
            self.node
                .report_snapshot(id.0, raft::SnapshotStatus::Finish);
        } else {
            self.sending.remove(&id.0);
            self.node
                .report_snapshot(id.0, raft::SnapshotStatus::Failure);
        }
        self.drive();
    }

    /// Forgets snapshots that have arrived or take too long.
    pub(super) fn end_sending(&mut self) {
        let (now_ms, is_leader, node) = (self.now_ms, self.is_leader(), &self.node);
        self.sending.retain(|id, sending| {
            let progress = node.raft.prs().get(*id);
            let is_behind = progress.is_some_and(|p| p.matched < sending.index);
            is_leader && is_behind && now_ms < sending.ends_ms
        });
    }

    /// Returns the index up to which the log may be cut for the sake of snapshots under way.
    pub(super) fn cut_limit(&self) -> u64 {
        if self.node.store().entry_bytes() > self.config.bounds.held_bytes {
            return u64::MAX;
        }
        let indexes = self.sending.values().map(|s| s.index);
        indexes.min().unwrap_or(u64::MAX)
    }
}

/// Brings a message with a snapshot in line with what was received for it, which may be newer than the message says, never older.
///
/// `index`, `term` and `conf_state` are what its `meta` table holds. The state at a later entry that its sender
/// has applied is as good: it is committed.
pub fn align_snapshot(
    message: &mut raftpb::Message,
    index: u64,
    term: u64,
    conf_state: raftpb::ConfState,
) -> bool {
    let snapshot = message.snapshot.get_or_insert_default();
    let metadata = snapshot.metadata.get_or_insert_default();
    let said = metadata.index.unwrap_or(0);
    if index > said {
        *metadata = raftpb::SnapshotMetadata {
            conf_state: Some(conf_state),
            index: Some(index),
            term: Some(term),
        };
    }
    index >= said
}
