//! What goes into the log and what comes out of it.

use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;

/// Says whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "member {:x} of cluster {:x}",
            self.member_id, self.cluster_id
        )
    }
}

/// One entry of the raft log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term in which a leader appended it.
    pub term: u64,
    /// Its position in the log, from 1.
    pub index: u64,
    /// The number of its raft entry type; the log does not look at it.
    pub kind: u8,
    /// Its data; the log does not look at it.
    pub data: Bytes,
}

/// Raft's hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Whom this member voted for in that term, 0 for nobody.
    pub vote: u64,
    /// The newest index known to be committed.
    pub commit: u64,
}

/// Says that a snapshot with all entries up to an index is durable elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotMark {
    /// The last index the snapshot holds.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
}

/// What one raft ready wants to be durable; after a crash it is there whole or not at all.
///
/// Within a batch the snapshot mark comes first, then the entries, then the hard state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The caller's number of the batch, given back by [`Synced::ticket`].
    pub ticket: u64,
    /// Entries in order of index, without gaps. The first replaces, with all behind it, what the log holds at its index.
    pub entries: Vec<Entry>,
    /// The hard state; written only when it differs from the one written last.
    pub hard_state: Option<HardState>,
    /// A snapshot that is durable. If the log holds no entry with its index and term, the log starts anew behind it.
    pub snapshot: Option<SnapshotMark>,
    /// Whether the batch must be durable when `append` returns; one with a snapshot mark always is.
    pub must_sync: bool,
}

/// The proof that batches are durable; only [`Wal::append`](crate::Wal::append) makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what waits for durability takes this token"]
pub struct Synced {
    pub(crate) ticket: u64,
}

impl Synced {
    /// Returns the ticket of the newest batch covered: it and all before it that asked to be durable are.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }
}

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// The hard state written last. **Invariant:** `commit` is at most the last index.
    pub hard_state: HardState,
    /// The newest snapshot mark.
    pub snapshot: Option<SnapshotMark>,
    /// The entries behind the snapshot mark, contiguous, the first at the index after it (1 without a mark).
    pub entries: Vec<Entry>,
    /// What was cut, if the last write was not complete.
    pub torn_tail: Option<TornTail>,
}

/// Bytes of an append that never was durable, which opening cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Byte offset behind the last complete batch.
    pub offset: u64,
    /// How many bytes from there were set to zero.
    pub bytes: u64,
}
