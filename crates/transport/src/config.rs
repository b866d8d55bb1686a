//! What a member says of itself to others, and the times of its links.
use std::net::IpAddr;
use std::time::Duration;

use quorate_proto::{ClusterId, MemberId};

/// Settings of a [`Transport`](crate::Transport).
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member_id: MemberId,
    /// Its cluster; members of other clusters are refused.
    pub cluster_id: ClusterId,
    /// Version this member speaks, as `major.minor.patch`.
    pub server_version: String,
    /// Oldest version it accepts in others.
    pub min_cluster_version: String,
    /// Where others reach it; told to members that do not know it yet.
    pub peer_urls: Vec<String>,
    /// Election timeout: a dial, up to the head of its answer, takes no longer, so that a link which comes back is
    /// used within one of them; attempts follow each other at most half of one apart.
    pub election_timeout: Duration,
    /// Longest silence of a stream and of a connection between requests, and longest wait for an answer. Link heartbeats go
    /// out three times in it.
    pub read_timeout: Duration,
    /// Longest time in which nothing can be written.
    pub write_timeout: Duration,
    /// Shortest time between two dials of a stream; after failures it doubles up to half an election timeout.
    pub redial_interval: Duration,
    /// Time between two probes of a peer.
    pub probe_interval: Duration,
    /// Longest silence while a snapshot is sent or received, and longest wait for its acknowledgement's first byte
    /// times ten.
    pub snapshot_timeout: Duration,
    /// Whether streams, posts and snapshots have checksums towards members that know them; etcd's do not.
    pub checksums: bool,
    /// Address from which others are dialed; the system's choice if `None`.
    pub local_address: Option<IpAddr>,
}

/// The read timeout of members that were not told another.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/peer.go `DefaultConnReadTimeout`, `DefaultConnWriteTimeout`.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);
/// Link heartbeats in the time in which a peer gives a silent stream up.
const HEARTBEATS_PER_TIMEOUT: u32 = 3;

impl Config {
    /// Returns etcd's settings for a member.
    #[must_use]
    pub fn new(member_id: MemberId, cluster_id: ClusterId) -> Self {
        Self {
            member_id,
            cluster_id,
            server_version: "3.7.1".to_owned(),
            min_cluster_version: "3.0.0".to_owned(),
            peer_urls: Vec::new(),
            election_timeout: Duration::from_secs(1),
            read_timeout: LINK_TIMEOUT,
            write_timeout: LINK_TIMEOUT,
            redial_interval: Duration::from_millis(100),
            probe_interval: Duration::from_secs(4),
            snapshot_timeout: Duration::from_secs(30),
            checksums: true,
            local_address: None,
        }
    }

    /// Returns the time between two link heartbeats.
    ///
    /// Differs from etcd, where a longer read timeout makes them rarer: peers that were not told of it would give the streams up.
    pub(crate) fn link_heartbeat_interval(&self) -> Duration {
        self.read_timeout.min(LINK_TIMEOUT) / HEARTBEATS_PER_TIMEOUT
    }
}
