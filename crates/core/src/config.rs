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
