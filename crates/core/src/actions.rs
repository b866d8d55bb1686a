//! What a member wants done by those who have threads, files and sockets.
use bytes::Bytes;
use quorate_backend::{FlushJob, ReadTxn};
use quorate_mvcc::CompactionJob;
use quorate_proto::{MemberId, raftpb};
use quorate_wal::Batch;

use crate::edge::Refusal;
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
    /// Save each as a snapshot file; answer with [`crate::Member::handle_snapshot_saved`].
    pub save_snapshots: Vec<SnapshotToSave>,
    /// Send to other members, in order. A snapshot has no data yet: see [`Self::images`].
    pub send: Vec<raftpb::Message>,
    /// The state that each `MsgSnap` in [`Self::send`] stands for, in the same order; in which form it travels is not decided here.
    pub images: Vec<SnapshotSource>,
    /// Links to other members are to be made, changed and ended, in order.
    pub peers: Vec<PeerChange>,
    /// Install a received snapshot; answer with [`crate::Member::handle_installed`].
    pub install: Option<SnapshotInstall>,
    /// Received snapshots, by index, whose images or databases nobody needs: to be deleted.
    pub unused_images: Vec<u64>,
    /// This member was removed from the cluster: it ends, and its data is of no use any more.
    pub removed: bool,
    /// Ask all members for their versions; answer with [`crate::Member::handle_member_versions`].
    pub ask_versions: bool,
    /// Log segments whose entries all lie at or before this index are no longer needed.
    pub release_log: Option<u64>,
    /// The member has published itself: clients may be served.
    pub ready: bool,
    /// The member cannot go on: end the process. Nothing of the batch under way was answered or stored.
    pub fatal: Option<String>,
    /// Things an operator should read.
    pub notices: Vec<Notice>,
}

/// A change of the links to other members. Learners are peers too; this member itself never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// A member is there.
    Add {
        /// Its id.
        id: MemberId,
        /// Where it listens for peers.
        urls: Vec<String>,
    },
    /// A member listens elsewhere.
    Update {
        /// Its id.
        id: MemberId,
        /// Where it listens for peers.
        urls: Vec<String>,
    },
    /// A member is gone for good.
    Remove {
        /// Its id.
        id: MemberId,
    },
    /// All members are forgotten; those that are there follow.
    Clear,
}

/// A received snapshot whose position is in the log: the next start would install it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInstall {
    /// Last entry it covers; its image, or the database made of it as it came, is named by it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// The state that a snapshot for a follower stands for.
pub struct SnapshotSource {
    /// Who is to get it.
    pub to: MemberId,
    /// Last entry it covers.
    pub index: u64,
    /// Exactly the state at that index. It holds up memory and pages: not to be kept after it is sent.
    pub state: ReadTxn,
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

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChangeKind {
    /// It was added.
    Added,
    /// A learner may vote now.
    Promoted,
    /// It is gone for good.
    Removed,
    /// It listens elsewhere.
    Updated,
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
        /// The one known before; 0 for none.
        before: u64,
        /// The leader's member id.
        leader: u64,
        /// The term.
        term: u64,
    },
    /// The first election is brought forward.
    ElectionAdvanced {
        /// By how many ticks.
        ticks: usize,
        /// Links to other members that are active.
        links: usize,
    },
    /// Leadership is to move.
    TransferStarted {
        /// To whom.
        to: u64,
    },
    /// Leadership has moved where it was to go.
    TransferFinished {
        /// To whom.
        to: u64,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// This member, which leads, sent its heartbeats late.
    LateHeartbeat {
        /// Time above what is allowed, in milliseconds.
        exceeded_ms: u64,
    },
    /// What this member says of itself is in the log and applied.
    Published,
    /// This member, which leads, proposes a cluster version.
    VersionProposed {
        /// The version now; empty while undecided.
        before: String,
        /// The version to be.
        version: String,
    },
    /// The cluster agreed on a version.
    ClusterVersion {
        /// The version before; empty while undecided.
        before: String,
        /// The version now.
        version: String,
    },
    /// The storage version follows the cluster's.
    StorageVersion {
        /// The version before; empty while unset.
        before: String,
        /// The version now; empty for none.
        version: String,
    },
    /// The storage version cannot follow the cluster's yet: the log holds what the lower version does not know.
    StorageVersionKept {
        /// The version it is to become; empty for none.
        version: String,
        /// The version that the log needs.
        needed: String,
    },
    /// Every member runs the version that the cluster is downgraded to.
    Downgraded(String),
    /// A snapshot of the log is saved.
    SnapshotTriggered {
        /// Last entry it covers.
        index: u64,
        /// Last entry that the one before covers.
        before: u64,
        /// Whether it is due before its time.
        is_forced: bool,
    },
    /// A snapshot of the log is on disk.
    SnapshotSaved {
        /// Last entry it covers.
        index: u64,
    },
    /// Members of the cluster are others, or say something else of themselves.
    MemberChanged {
        /// What became of it.
        kind: MemberChangeKind,
        /// Which.
        id: u64,
        /// Where it listens, or listened, for peers.
        urls: Vec<String>,
        /// Whether it is, or was, a learner.
        is_learner: bool,
    },
    /// A configuration change that was asked for here was applied.
    ChangeApplied {
        /// Its type, in etcd's words.
        kind: &'static str,
        /// The member it is about.
        id: u64,
    },
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
    /// A message from another member was not taken. Told once for each kind of refusal in a row.
    MessageRefused {
        /// Who sent it.
        from: u64,
        /// Why.
        why: Refusal,
    },
    /// The log was not stored for an election timeout: leadership is handed over.
    SlowDisk {
        /// To whom.
        to: u64,
    },
    /// A snapshot from the leader has taken the place of everything.
    SnapshotInstalled {
        /// Last entry it covers.
        index: u64,
        /// What was applied before.
        applied_before: u64,
    },
    /// Leases ended because nobody renewed them.
    LeasesExpired {
        /// How many were found in this pass.
        count: usize,
    },
}
