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
    /// Longest silence of a stream, of a request's body and of a connection between requests. Link heartbeats go out at least
    /// three times in it.
    ///
    /// Differs from etcd, whose dialing side never gives up: its timeout transport sets `Dial` beside a `DialContext`, which wins.
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

/// Both timeouts of members that were not told others.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/peer.go `DefaultConnReadTimeout`, `DefaultConnWriteTimeout`.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a post, a probe and a batch of questions about leases, and for the rest of the answer to a snapshot, whatever
/// the timeouts of the links are.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/snapshot_sender.go `snapResponseReadTimeout`.
/// Differs from etcd, which waits without end for a peer that takes a post or a probe.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Link heartbeats in the time in which a peer gives a silent stream up.
const HEARTBEATS_PER_TIMEOUT: u32 = 3;
/// Shortest time between two of them, however short the read timeout is.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(1);

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
        let interval = self.read_timeout.min(LINK_TIMEOUT) / HEARTBEATS_PER_TIMEOUT;
        interval.max(HEARTBEAT_INTERVAL_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_heartbeats_go_out_three_times_in_the_shorter_of_both_members_timeouts() {
        let interval = |read_timeout| {
            let config = Config {
                read_timeout,
                ..Config::new(MemberId(1), ClusterId(1))
            };
            config.link_heartbeat_interval()
        };
        assert_eq!(interval(Duration::from_secs(60)), LINK_TIMEOUT / 3);
        assert_eq!(interval(Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(interval(Duration::from_nanos(1)), HEARTBEAT_INTERVAL_MIN);
    }
}
