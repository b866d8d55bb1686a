//! A member's settings.
use crate::auto_compaction::AutoCompaction;
use quorate_proto::{ClusterId, MemberId};

/// Settings of a member that do not change while it runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Name published to the cluster.
    pub name: String,
    /// Client URLs published to the cluster.
    pub client_urls: Vec<String>,
    /// Milliseconds a tick; a heartbeat is sent every tick.
    pub tick_ms: u64,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Whether an election is probed before the term is raised.
    pub pre_vote: bool,
    /// Whether the first election need not wait its full time.
    pub initial_election_tick_advance: bool,
    /// Largest replicated request, in bytes.
    pub max_request_bytes: usize,
    /// Applied entries between snapshots of the log.
    pub snapshot_count: u64,
    /// Entries kept in memory behind the applied index.
    pub catchup_entries: u64,
    /// Milliseconds between flushes of the backend.
    pub flush_interval_ms: u64,
    /// Unflushed bytes that start a flush at once.
    pub flush_bytes: u64,
    /// Backend quota as set: 0 is the default, negative is none.
    pub quota_bytes: i64,
    /// Whether remaining times of leases are replicated.
    pub lease_checkpoint: bool,
    /// Whether and how history is compacted by itself.
    pub auto_compaction: AutoCompaction,
    /// Seed of all the member's randomness.
    pub seed: u64,
    /// Wall clock at the start in milliseconds since 1970; makes request ids differ between starts.
    pub start_unix_ms: u64,
    /// Largest batch of entries handed to the log or applied at once, in bytes.
    pub batch_bytes: u64,
    /// Whether changes of members that would endanger the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Milliseconds between looks at whether a downgrade is complete; 0: never.
    pub downgrade_check_ms: u64,
    /// Version that a cluster of members like this one agrees on, as `X.Y.0`.
    pub cluster_version: String,
    /// Bounds of its queues and batches.
    pub bounds: Bounds,
}

/// Bounds of a member's queues and batches; no answer is another for them, only whether and when there is one.
///
/// **Invariant:** none is 0 but [`Self::parked`], [`Self::early_reads`] and those of bytes in memory: nothing would get ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Proposals that may wait at once; above it new ones are refused as too many requests.
    pub waiters: usize,
    /// Callers that may wait for the leader's word at once; more are refused as too many requests.
    pub reads: usize,
    /// Callers that may wait at once for what is committed to be applied; more are refused as too many requests.
    pub parked: usize,
    /// Questions of followers kept by a leader that has committed nothing in its term; more are dropped.
    pub early_reads: usize,
    /// Committed but unapplied entries at which new requests are refused. Source: etcd v3.7.1 maxGapBetweenApplyAndCommitIndex.
    pub apply_gap: u64,
    /// Flushes' worth of unflushed bytes at which nothing more is admitted until the disk has caught up.
    pub unflushed_flushes: u64,
    /// Bytes of entries that may wait to be committed; beyond it nothing more is taken. At least [`Config::batch_bytes`].
    pub uncommitted_bytes: u64,
    /// Bytes proposed at once; more go in several steps, so that no batch outgrows what the log takes.
    pub proposed_bytes: usize,
    /// Messages one follower may have under way. Source: etcd v3.7.1 maxInflightMsgs.
    pub inflight_messages: usize,
    /// Expired leases proposed for revocation in one tick.
    pub revokes: usize,
    /// Checkpoints proposed in one tick. Source: etcd v3.7.1 maxLeaseCheckpointBatchSize.
    pub checkpoints: usize,
    /// Bytes of entries in memory beyond which a follower refuses more while it installs a snapshot.
    pub backlog_bytes: usize,
    /// Entries applied at once of what came during an installation.
    pub backlog_entries: usize,
    /// Bytes of entries in memory beyond which none are kept for the sake of snapshots under way.
    pub held_bytes: usize,
    /// Entries between trims of the log in memory.
    pub trim_entries: u64,
    /// Entry bytes kept in memory behind the applied index, whatever the count says.
    pub catchup_bytes: usize,
    /// The same for a member that has nobody to send them to.
    pub alone_bytes: usize,
    /// Bytes of entries since the last snapshot of the log that make the next one due, whatever their count.
    pub snapshot_log_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            waiters: 200_000,
            reads: 200_000,
            parked: 100_000,
            early_reads: 1_024,
            apply_gap: 5_000,
            unflushed_flushes: 32,
            uncommitted_bytes: 256 << 20,
            proposed_bytes: 8 << 20,
            inflight_messages: 512,
            revokes: 2_000,
            checkpoints: 1_000,
            backlog_bytes: 256 << 20,
            backlog_entries: 4_096,
            held_bytes: 1 << 30,
            trim_entries: 100,
            catchup_bytes: 32 << 20,
            alone_bytes: 2 << 20,
            snapshot_log_bytes: 128 << 20,
        }
    }
}

impl Bounds {
    /// Panics when a bound lets nothing through.
    pub(crate) fn check(&self) {
        let counts = [
            self.waiters,
            self.reads,
            self.proposed_bytes,
            self.inflight_messages,
            self.revokes,
            self.checkpoints,
            self.backlog_entries,
        ];
        let has_room = counts.iter().all(|bound| *bound > 0);
        assert!(
            has_room && self.apply_gap > 0 && self.unflushed_flushes > 0,
            "bounds that let nothing through: {self:?}"
        );
    }
}

impl Config {
    /// Returns how long a request may wait.
    pub fn request_timeout_ms(&self) -> u64 {
        request_timeout_ms(self.election_timeout_ms())
    }

    /// Returns the election timeout.
    pub fn election_timeout_ms(&self) -> u64 {
        self.tick_ms * self.election_ticks as u64
    }
}

/// Returns how long a request may wait, in milliseconds. Source: etcd v3.7.1 server/config ReqTimeout.
pub fn request_timeout_ms(election_timeout_ms: u64) -> u64 {
    const BASE_MS: u64 = 5_000;
    BASE_MS + 2 * election_timeout_ms
}
