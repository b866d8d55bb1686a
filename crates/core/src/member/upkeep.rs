//! Flushes, compactions and snapshots of the log.
use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;

use super::{Flush, Member};
use crate::ClusterMember;
use crate::actions::{Notice, SnapshotToSave};
use crate::convert::from_conf_state;

/// Milliseconds between flushes that only move the applied index.
const IDLE_FLUSH_MS: u64 = 5_000;
/// Unflushed bytes that are worth a flush of their own; fewer wait longer, since a flush costs several syncs of the disk that
/// the log waits for too, and the log makes them durable in any case.
const FLUSH_SOON_BYTES: u64 = 4 << 20;
/// Milliseconds that fewer bytes wait for.
const SMALL_FLUSH_MS: u64 = 1_000;

impl Member {
    /// Ends the member, for the first reason there is: raft is driven no further, and who waits hears of it by [`Self::stop`].
    /// What was asked for already is still done.
    pub(super) fn die(&mut self, why: String) {
        self.dead = true;
        self.actions.fatal.get_or_insert(why);
    }

    /// Ends after a failed read of the database, which gives nothing more: whoever asked was told so, and others are better
    /// served elsewhere.
    pub(super) fn end_when_unreadable(&mut self) {
        if !self.dead && self.stores.backend.is_unreadable() {
            self.die("the database cannot be read any more".to_owned());
        }
    }

    /// Starts a flush when there is something to make durable: rows soon, a mere move of the applied index at leisure,
    /// unless a compaction waits for it.
    pub(super) fn flush_when_due(&mut self) {
        let backend = &self.stores.backend;
        let pending = backend.pending_bytes();
        let interval_ms = self.config.flush_interval_ms;
        let interval_ms = if pending >= FLUSH_SOON_BYTES || !self.compaction.waiting.is_empty() {
            interval_ms
        } else if pending > 0 {
            interval_ms.max(SMALL_FLUSH_MS)
        } else {
            interval_ms.max(IDLE_FLUSH_MS)
        };
        let is_behind = backend.durable().index < backend.applied().index;
        // A snapshot that is due before its time waits for nothing else.
        let forced = self.snapshot.forced;
        let is_forced = forced.is_some_and(|index| backend.durable().index < index);
        if is_behind && (is_forced || self.now_ms >= self.flush.last_ms + interval_ms) {
            self.start_flush();
        }
    }

    pub(super) fn start_flush(&mut self) {
        if self.flush.running {
            return;
        }
        if let Some(job) = self.stores.backend.seal() {
            self.flush = Flush {
                running: true,
                last_ms: self.now_ms,
            };
            self.actions.flush = Some(job);
        }
    }

    /// Starts the next compaction once what scheduled it is durable: it deletes only what is on disk. Until then a flush
    /// is hurried along.
    pub(super) fn start_compaction(&mut self) {
        let under_way = self.compaction.running || !self.compaction.waiting.is_empty();
        self.view.set_compacting(under_way);
        let Some((scheduled, _)) = self.compaction.waiting.front() else {
            return;
        };
        if self.compaction.running {
            return;
        }
        if *scheduled > self.stores.backend.durable().index {
            return self.start_flush();
        }
        self.compaction.running = true;
        self.actions.compact = self.compaction.waiting.pop_front().map(|(_, job)| job);
    }

    /// Asks for a snapshot of the log at what the backend holds durably, when enough entries were applied since the last.
    pub(super) fn snapshot_when_due(&mut self) {
        let durable = self.stores.backend.durable();
        let entries = durable.index.saturating_sub(self.snapshot.last_index);
        let forced = self.snapshot.forced;
        let is_forced = forced.is_some_and(|index| durable.index >= index) && entries > 0;
        let due = is_forced
            || entries > self.config.snapshot_count
            || entries > 0 && self.snapshot.log_bytes > self.config.bounds.snapshot_log_bytes;
        // The configuration stored with it must be the one at its index.
        if self.snapshot.saving || !due || self.conf_index > durable.index || self.is_installing() {
            return;
        }
        let members: Vec<_> = self.stores.cluster.members().collect();
        let conf_state = from_conf_state(self.node.store().conf_state());
        let body = snapshot_body(durable.index, durable.term, conf_state, &members);
        self.actions.notices.push(Notice::SnapshotTriggered {
            index: durable.index,
            before: self.snapshot.last_index,
            is_forced,
        });
        self.snapshot
            .forced
            .take_if(|index| *index <= durable.index);
        self.snapshot.saving = true;
        self.snapshot.log_bytes = 0;
        self.actions.save_snapshots.push(SnapshotToSave {
            index: durable.index,
            term: durable.term,
            body,
        });
    }

    /// Takes that a snapshot of the log is on disk.
    pub(super) fn note_saved_snapshot(&mut self, index: u64) {
        self.snapshot.last_index = index;
        self.snapshot.last_mark = index;
        self.actions.notices.push(Notice::SnapshotSaved { index });
        self.forget_needed_version(index);
    }

    pub(super) fn trim_log(&mut self) {
        if self.applied.index < self.snapshot.trimmed + self.config.bounds.trim_entries {
            return;
        }
        self.snapshot.trimmed = self.applied.index;
        let limit = self.cut_limit();
        let conf = self.node.store().conf_state();
        let is_alone = self.is_sole_voter() && conf.learners.is_empty();
        let bounds = &self.config.bounds;
        let bytes = if is_alone {
            bounds.alone_bytes
        } else {
            bounds.catchup_bytes
        };
        let log = self.node.mut_store();
        let point = log.compact_point(self.applied.index, self.config.catchup_entries, bytes);
        log.compact(point.min(limit));
    }
}

/// Makes the body of a snapshot file: position, configuration, and members as JSON.
pub(super) fn snapshot_body(
    index: u64,
    term: u64,
    conf_state: raftpb::ConfState,
    members: &[&ClusterMember],
) -> Bytes {
    let json = serde_json::to_vec(members).expect("members are plain data");
    let snapshot = raftpb::Snapshot {
        data: Some(json.into()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state),
            index: Some(index),
            term: Some(term),
        }),
    };
    snapshot.encode_to_vec().into()
}
