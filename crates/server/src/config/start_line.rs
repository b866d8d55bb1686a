//! The line that shows the configuration at the start; tools search it.

use std::thread::available_parallelism;
use std::time::Duration;

use super::compaction::AutoCompaction;
use super::feature_gates::Gate;
use super::go::GoDuration;
use super::member_config::Config;
use super::url::Url;
use crate::log::{Level, Record};
use crate::version;

/// What a quota of 0 means. Source: etcd v3.7.1 server/storage/quota.go.
const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

impl Config {
    /// Returns the line with which a member starts. Source: etcd v3.7.1 server/embed/etcd.go `print`.
    pub fn start_line(&self, member_initialized: bool) -> Record {
        let cpus = available_parallelism().map_or(1, |count| count.get() as u64);
        let wal_dir = self.wal_dir.clone().unwrap_or_default();
        let unread = |text: &str| {
            if member_initialized {
                String::new()
            } else {
                text.to_owned()
            }
        };
        let local_address = self.links.local_address;
        let local_address = local_address.map_or_else(String::new, |ip| ip.to_string());
        let state = if self.joins_existing_cluster {
            "existing"
        } else {
            "new"
        };
        let record = Record::new(Level::Info, "starting an etcd server")
            .text("etcd-version", version::ETCD_VERSION)
            .text("quorate-version", version::RELEASE)
            .text("git-sha", version::GIT_SHA)
            .text("go-os", version::os())
            .text("go-arch", version::arch())
            .uint("max-cpu-available", cpus)
            .switch("member-initialized", member_initialized)
            .text("name", self.name.as_str())
            .text("data-dir", self.data_dir.to_string_lossy())
            .text("wal-dir", wal_dir.to_string_lossy())
            .text("member-dir", self.data_dir.join("member").to_string_lossy())
            .switch("force-new-cluster", self.force_new_cluster)
            .text("heartbeat-interval", print(self.heartbeat_interval))
            .text("election-timeout", print(self.election_timeout()))
            .switch(
                "initial-election-tick-advance",
                self.initial_election_tick_advance,
            )
            .uint("snapshot-count", self.snapshot_count)
            .uint("max-wals", self.max_wals.unwrap_or(0))
            .uint("max-snapshots", self.max_snapshots.unwrap_or(0))
            .uint("snapshot-catchup-entries", self.snapshot_catchup_entries)
            .list(
                "initial-advertise-peer-urls",
                texts(&self.initial_advertise_peer_urls),
            )
            .list("listen-peer-urls", texts(&self.listen_peer_urls))
            .list("advertise-client-urls", texts(&self.advertise_client_urls))
            .list("listen-client-urls", texts(&self.listen_client_urls))
            .list("listen-metrics-urls", texts(&self.listen_metrics_urls))
            .text("local-address", local_address)
            .list("cors", ["*"])
            .list("host-whitelist", ["*"])
            .text("initial-cluster", unread(&self.initial_cluster))
            .text("initial-cluster-state", state)
            .text("initial-cluster-token", unread(&self.initial_cluster_token));
        self.limits(record)
    }

    fn limits(&self, record: Record) -> Record {
        let (mode, retention) = match self.auto_compaction {
            AutoCompaction::Off => ("periodic", "0s".to_owned()),
            AutoCompaction::Periodic(time) => ("periodic", print(time)),
            AutoCompaction::Revision(count) => ("revision", count.to_string()),
        };
        let quota = if self.quota_backend_bytes == 0 {
            QUOTA_BYTES_DEFAULT
        } else {
            self.quota_backend_bytes
        };
        record
            .int("quota-backend-bytes", quota)
            .uint("max-txn-ops", self.max_txn_ops as u64)
            .uint("max-request-bytes", self.max_request_bytes as u64)
            .uint("max-concurrent-streams", self.max_concurrent_streams.into())
            .switch("pre-vote", self.pre_vote)
            .text("feature-gates", self.feature_gates.to_string())
            .switch(
                "initial-corrupt-check",
                self.feature_gates.is_enabled(Gate::InitialCorruptCheck),
            )
            .text(
                "corrupt-check-time-interval",
                print(self.corrupt_check_time),
            )
            .text(
                "compact-check-time-interval",
                print(self.compact_hash_check_time),
            )
            .text("auto-compaction-mode", mode)
            .text("auto-compaction-retention", retention.as_str())
            .text("auto-compaction-interval", retention)
            .text("backend-batch-interval", print(self.backend_batch_interval))
            .switch("unsafe-no-fsync", self.unsafe_no_fsync)
            .text("downgrade-check-interval", print(self.downgrade_check_time))
            .uint("max-learners", self.max_learners as u64)
            .text("v2-deprecation", "write-only")
    }
}

fn print(duration: Duration) -> String {
    GoDuration::from(duration).to_string()
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}
