//! What a member keeps of work under way, and its settings for raft.
use std::collections::VecDeque;

use quorate_mvcc::CompactionJob;
use quorate_proto::raftpb;
use raft::RawNode;

use crate::config::Config;
use crate::log::{MemoryLog, Position};
use crate::rng::Rng;
use crate::{Outcome, Token};

/// A ready of raft's on its way to the disk.
#[derive(Debug)]
pub(super) struct Persisting {
    pub(super) ticket: u64,
    /// Whether something of it goes to the log; else it only keeps its place in the order.
    pub(super) on_disk: bool,
    pub(super) ready: Option<u64>,
    /// Set when this is the mark of a saved snapshot: the log is released up to it.
    pub(super) release: Option<u64>,
    /// Set when this is the mark of a received snapshot: it is installed.
    pub(super) install: Option<Position>,
    /// Whether term or vote changed.
    pub(super) is_vote: bool,
    /// What may be sent when it is durable.
    pub(super) messages: Vec<raftpb::Message>,
    pub(super) started_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Publication {
    NotYet,
    Proposed,
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Flush {
    pub(super) running: bool,
    pub(super) last_ms: u64,
}

/// A compaction waits until what scheduled it is durable, runs, and is answered to those who asked for its end.
#[derive(Default)]
pub(super) struct Compaction {
    pub(super) waiting: VecDeque<(u64, CompactionJob)>,
    pub(super) running: bool,
    /// Callers to be told when all compactions up to their number are done.
    pub(super) callers: VecDeque<(u64, Token, Outcome)>,
    pub(super) scheduled: u64,
    pub(super) done: u64,
    /// Whether the one that runs belongs to stores that were replaced.
    pub(super) is_orphan: bool,
}

#[derive(Debug, Default)]
pub(super) struct SnapshotState {
    pub(super) last_index: u64,
    /// Index of the newest mark handed to the log.
    pub(super) last_mark: u64,
    pub(super) saving: bool,
    /// Bytes of entries handed to the log since the last snapshot.
    pub(super) log_bytes: u64,
    pub(super) trimmed: u64,
    /// Index that the next one must reach, however few entries there are since the last.
    pub(super) forced: Option<u64>,
}

/// Draws the next election timeout from the member's own generator: raft's is not seeded.
pub(crate) fn set_election_timeout(
    node: &mut RawNode<MemoryLog>,
    rng: &mut Rng,
    election_ticks: usize,
) {
    let jitter = usize::try_from(rng.below(election_ticks as u64)).expect("below a usize");
    node.raft
        .set_randomized_election_timeout(election_ticks + jitter);
}

pub(super) fn raft_config(config: &Config, applied: u64) -> raft::Config {
    raft::Config {
        id: config.member_id.0,
        election_tick: config.election_ticks,
        heartbeat_tick: 1,
        applied,
        max_size_per_msg: config.batch_bytes,
        max_inflight_msgs: config.bounds.inflight_messages,
        check_quorum: true,
        pre_vote: config.pre_vote,
        max_committed_size_per_ready: config.batch_bytes,
        max_uncommitted_size: config.bounds.uncommitted_bytes,
        ..raft::Config::default()
    }
}
