//! What a member wants done by those who have threads, files and sockets.
use bytes::Bytes;
use quorate_backend::FlushJob;
use quorate_mvcc::CompactionJob;
use quorate_wal::Batch;

use crate::{Outcome, Token};

/// Work for the outside, in the order in which it came up. Nothing here may be dropped.
#[derive(Default)]
pub struct Actions {
    /// Append to the write-ahead log, in order; answer with [`crate::Member::handle_synced`].
    pub persist: Vec<Batch>,
    /// Tell these callers.
    pub replies: Vec<(Token, Outcome)>,
    /// New state is visible: let watch streams look.
    pub published: bool,
    /// Run off the engine's thread; answer with [`crate::Member::handle_flushed`].
    pub flush: Option<FlushJob>,
    /// Step off the engine's thread until done; answer with [`crate::Member::handle_compacted`].
    pub compact: Option<CompactionJob>,
    /// Save as a snapshot file; answer with [`crate::Member::handle_snapshot_saved`].
    pub save_snapshot: Option<SnapshotToSave>,
    /// Log segments whose entries all lie at or before this index are no longer needed.
    pub release_log: Option<u64>,
    /// The member has published itself: clients may be served.
    pub ready: bool,
    /// The member cannot go on: end the process. Nothing of the batch under way was answered or stored.
    pub fatal: Option<String>,
    /// Things an operator should read.
    pub notices: Vec<Notice>,
}

/// A snapshot of the log's position and of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToSave {
    /// Last entry it covers.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The serialized `raftpb.Snapshot`: position, configuration, and members as JSON.
    pub body: Bytes,
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// This member became leader of the term.
    BecameLeader {
        /// The term.
        term: u64,
    },
    /// Another leader, or none (0), is known.
    LeaderChanged {
        /// The leader's member id.
        leader: u64,
        /// The term.
        term: u64,
    },
    /// The cluster agreed on a version.
    ClusterVersion(String),
    /// A put came while the quota was used up.
    QuotaExceeded,
    /// A configuration change was applied.
    ConfigurationChanged {
        /// Voters after it.
        voters: Vec<u64>,
        /// Learners after it.
        learners: Vec<u64>,
    },
    /// A configuration change was refused when applied, and had no effect.
    ConfigurationRefused(String),
    /// History was compacted by itself.
    AutoCompacted {
        /// Where.
        revision: i64,
    },
    /// Applying a request took longer than it should.
    SlowApply {
        /// How long, in nanoseconds.
        took_ns: u64,
        /// How long it should have taken at most, in nanoseconds.
        expected_ns: u64,
        /// The request, without values.
        request: String,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// A request failed when it was applied.
    FailedApply {
        /// How long it took, in nanoseconds.
        took_ns: u64,
        /// The request, without values.
        request: String,
        /// Why.
        error: String,
    },
    /// Raft has not answered a question for the commit index; it is asked again.
    ReadIndexLate {
        /// The new question's id.
        request_id: u64,
        /// Time after which it is asked once more, in milliseconds.
        retry_ms: u64,
    },
    /// Linearizable reads waited for the commit index until their time was over.
    ReadIndexTimedOut {
        /// How many.
        count: usize,
    },
    /// Leases ended because nobody renewed them.
    LeasesExpired {
        /// How many were found in this pass.
        count: usize,
    },
}
