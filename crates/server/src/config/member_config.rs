//! The configuration of a member, as the rest of the server takes it.

use std::path::PathBuf;
use std::time::Duration;

use super::compaction::AutoCompaction;
use super::error::Error;
use super::feature_gates::FeatureGates;
use super::flag_set::FlagSet;
use super::links::LinkOptions;
use super::url::Url;
use crate::log;

/// Everything a member is told at its start. Every value is checked and has its default filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the member.
    pub name: String,
    /// Directory of all that is kept.
    pub data_dir: PathBuf,
    /// Directory of the log, when it is not within `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries between snapshots.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_catchup_entries: u64,
    /// Snapshot files kept; `None`: all.
    pub max_snapshots: Option<u64>,
    /// Released log files kept; `None`: all.
    pub max_wals: Option<u64>,
    /// Time of a tick of Raft. **Invariant:** at least 1 ms.
    pub heartbeat_interval: Duration,
    /// Ticks without a leader before an election. **Invariant:** at least 5.
    pub election_ticks: u32,
    /// Whether the first election comes sooner.
    pub initial_election_tick_advance: bool,
    /// Whether an election is probed first.
    pub pre_vote: bool,
    /// Listeners for clients; sorted, all of them plain HTTP.
    pub listen_client_urls: Vec<Url>,
    /// Listeners for metrics and health alone; sorted, all of them plain HTTP.
    pub listen_metrics_urls: Vec<Url>,
    /// Client URLs published; sorted.
    pub advertise_client_urls: Vec<Url>,
    /// Listeners for members; sorted.
    pub listen_peer_urls: Vec<Url>,
    /// Peer URLs published, of which the member id is made; sorted.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Connections to other members.
    pub links: LinkOptions,
    /// Members of a new cluster, not read yet: see [`Config::bootstrap`].
    pub initial_cluster: String,
    /// Whether a member without data joins a cluster.
    pub joins_existing_cluster: bool,
    /// Text mixed into ids.
    pub initial_cluster_token: String,
    /// Whether changes of members that cost the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Bytes that defragmenting must free for it to be done at the start; 0 is never.
    pub bootstrap_defragment_bytes: u64,
    /// Time between looks at whether a downgrade is complete; zero: never.
    pub downgrade_check_time: Duration,
    /// Most learners among the members.
    pub max_learners: usize,
    /// Size of the database above which writes are refused, as set: 0 is the default of 2 GiB, negative is none.
    pub quota_backend_bytes: i64,
    /// Longest time between commits of the database.
    pub backend_batch_interval: Duration,
    /// Most operations between commits of the database.
    pub backend_batch_limit: usize,
    /// Most operations in a transaction.
    pub max_txn_ops: usize,
    /// Largest replicated request.
    pub max_request_bytes: usize,
    /// Most streams of a client connection.
    pub max_concurrent_streams: u32,
    /// Shortest time between pings of a client.
    pub grpc_keepalive_min_time: Duration,
    /// Pings to idle clients, if any.
    pub grpc_keepalive: Option<Keepalive>,
    /// Compaction by itself.
    pub auto_compaction: AutoCompaction,
    /// Most revisions removed in a step of a compaction.
    pub compaction_batch_limit: usize,
    /// Pause between steps of a compaction.
    pub compaction_sleep_interval: Duration,
    /// Time between progress notifications of watchers.
    pub watch_progress_notify_interval: Duration,
    /// Kind of tokens.
    pub auth_token: AuthToken,
    /// Cost of hashing a password, from 4 to 31.
    pub bcrypt_cost: u32,
    /// Time for which an unused token stays valid.
    pub auth_token_ttl: Duration,
    /// Time above which applying or reading is slow.
    pub warning_apply_duration: Duration,
    /// Whether this member is to be the only one of its cluster.
    pub force_new_cluster: bool,
    /// Time between comparisons of all members' data; zero is never.
    pub corrupt_check_time: Duration,
    /// Time between comparisons of the members' hashes of compactions.
    pub compact_hash_check_time: Duration,
    /// Time above which a call is slow.
    pub warning_unary_request_duration: Duration,
    /// How much is measured.
    pub metrics: Metrics,
    /// Switches.
    pub feature_gates: FeatureGates,
    /// Whether syncs are left out.
    pub unsafe_no_fsync: bool,
    /// Where to log.
    pub log: log::Options,
}

/// Pings of the server to clients that are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before a ping.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// Kind of tokens given to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthToken {
    /// Random ones, known to the member that gave them.
    Simple,
    /// None can be had.
    Disabled,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Counts.
    Basic,
    /// Times of calls too.
    Extensive,
}

/// The default of `backend-batch-interval`. Source: etcd v3.7.1 server/storage/backend/backend.go.
const BACKEND_BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The default of `backend-batch-limit`. Source: the same.
const BACKEND_BATCH_LIMIT: usize = 10_000;
/// The default of `compaction-batch-limit`. Source: etcd v3.7.1 server/storage/mvcc/kvstore.go.
const COMPACTION_BATCH_LIMIT: usize = 1_000;
/// The default of `compaction-sleep-interval`. Source: the same.
const COMPACTION_SLEEP_INTERVAL: Duration = Duration::from_millis(10);
/// The default of `watch-progress-notify-interval`. Source: etcd v3.7.1 server/etcdserver/api/v3rpc/watch.go.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// The least progress interval. Source: the same.
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The default of `warning-unary-request-duration`.
const WARNING_UNARY_REQUEST: Duration = Duration::from_millis(300);
/// The default of `bcrypt-cost`, which also replaces values outside of the range.
const BCRYPT_COST: u32 = 10;

impl Config {
    /// Reads flags that passed the rules.
    ///
    /// # Errors
    ///
    /// Texts with a grammar of their own that do not parse.
    #[expect(
        clippy::too_many_lines,
        reason = "one line a field, and nothing branches"
    )]
    pub(crate) fn from_flags(flags: &FlagSet, log: log::Options) -> Result<Config, Error> {
        let heartbeat_ms = flags.uint("heartbeat-interval");
        let name = flags.text("name").to_owned();
        let data_dir = match flags.text("data-dir") {
            "" => format!("{name}.etcd"),
            given => given.to_owned(),
        };
        let or_default = |name, default| {
            if flags.nanos(name) == 0 {
                default
            } else {
                duration(flags, name)
            }
        };
        let progress = or_default("watch-progress-notify-interval", WATCH_PROGRESS_INTERVAL);
        let interval = duration(flags, "grpc-keepalive-interval");
        let timeout = duration(flags, "grpc-keepalive-timeout");
        Ok(Config {
            name,
            data_dir: PathBuf::from(data_dir),
            wal_dir: Some(flags.text("wal-dir"))
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from),
            snapshot_count: flags.uint("snapshot-count"),
            snapshot_catchup_entries: flags.uint("snapshot-catchup-entries"),
            max_snapshots: Some(flags.uint("max-snapshots")).filter(|&files| files > 0),
            max_wals: Some(flags.uint("max-wals")).filter(|&files| files > 0),
            heartbeat_interval: Duration::from_millis(heartbeat_ms),
            election_ticks: u32::try_from(flags.uint("election-timeout") / heartbeat_ms)
                .expect("the timeout is at most 50000 and a heartbeat at least 1"),
            initial_election_tick_advance: flags.switch("initial-election-tick-advance"),
            pre_vote: flags.switch("pre-vote"),
            listen_client_urls: flags.urls("listen-client-urls").to_vec(),
            listen_metrics_urls: flags.urls("listen-metrics-urls").to_vec(),
            advertise_client_urls: flags.urls("advertise-client-urls").to_vec(),
            listen_peer_urls: flags.urls("listen-peer-urls").to_vec(),
            initial_advertise_peer_urls: flags.urls("initial-advertise-peer-urls").to_vec(),
            links: LinkOptions::from_flags(flags),
            initial_cluster: flags.text("initial-cluster").to_owned(),
            joins_existing_cluster: flags.text("initial-cluster-state") == "existing",
            initial_cluster_token: flags.text("initial-cluster-token").to_owned(),
            strict_reconfig_check: flags.switch("strict-reconfig-check"),
            max_learners: usize::try_from(flags.int("max-learners")).unwrap_or(0),
            quota_backend_bytes: flags.int("quota-backend-bytes"),
            backend_batch_interval: or_default("backend-batch-interval", BACKEND_BATCH_INTERVAL),
            backend_batch_limit: limit(flags.int("backend-batch-limit"), BACKEND_BATCH_LIMIT),
            max_txn_ops: saturate(flags.uint("max-txn-ops")),
            max_request_bytes: saturate(flags.uint("max-request-bytes")),
            max_concurrent_streams: u32::try_from(flags.uint("max-concurrent-streams"))
                .expect("the flag has 32 bits"),
            grpc_keepalive_min_time: duration(flags, "grpc-keepalive-min-time"),
            grpc_keepalive: (!interval.is_zero() && !timeout.is_zero())
                .then_some(Keepalive { interval, timeout }),
            auto_compaction: AutoCompaction::parse(
                flags.text("auto-compaction-mode"),
                flags.text("auto-compaction-retention"),
            )?,
            compaction_batch_limit: limit(
                flags.int("compaction-batch-limit"),
                COMPACTION_BATCH_LIMIT,
            ),
            compaction_sleep_interval: or_default(
                "compaction-sleep-interval",
                COMPACTION_SLEEP_INTERVAL,
            ),
            watch_progress_notify_interval: progress.max(WATCH_PROGRESS_INTERVAL_MIN),
            auth_token: AuthToken::parse(flags.text("auth-token"))?,
            bcrypt_cost: bcrypt_cost(flags).unwrap_or(BCRYPT_COST),
            auth_token_ttl: Duration::from_secs(flags.uint("auth-token-ttl")),
            warning_apply_duration: duration(flags, "warning-apply-duration"),
            force_new_cluster: flags.switch("force-new-cluster"),
            bootstrap_defragment_bytes: flags
                .uint("bootstrap-defrag-threshold-megabytes")
                .saturating_mul(1 << 20),
            downgrade_check_time: duration(flags, "downgrade-check-time"),
            corrupt_check_time: duration(flags, "corrupt-check-time"),
            compact_hash_check_time: duration(flags, "compact-hash-check-time"),
            warning_unary_request_duration: or_default(
                "warning-unary-request-duration",
                WARNING_UNARY_REQUEST,
            ),
            metrics: if flags.text("metrics") == "extensive" {
                Metrics::Extensive
            } else {
                Metrics::Basic
            },
            feature_gates: flags.gates().clone(),
            unsafe_no_fsync: flags.switch("unsafe-no-fsync"),
            log,
        })
    }

    /// Returns the directory of the log.
    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir
            .clone()
            .unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// Returns the time without a leader after which an election starts: a whole number of heartbeats.
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat_interval * self.election_ticks
    }
}

impl AuthToken {
    /// Reads a kind with its options. Source: etcd v3.7.1 server/auth/store.go `NewTokenProvider`.
    fn parse(text: &str) -> Result<AuthToken, Error> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or("");
        let mut seen = Vec::new();
        for option in parts {
            match option.split_once('=') {
                Some((name, value)) if !value.contains('=') && !seen.contains(&name) => {
                    seen.push(name)
                }
                _ => return Err(Error::Invalid("auth: invalid auth options".to_owned())),
            }
        }
        match kind {
            "simple" => Ok(AuthToken::Simple),
            "" => Ok(AuthToken::Disabled),
            _ => Err(Error::Invalid("auth: invalid auth options".to_owned())),
        }
    }
}

/// Returns the cost given, unless it is outside of what bcrypt takes.
pub(crate) fn bcrypt_cost(flags: &FlagSet) -> Option<u32> {
    u32::try_from(flags.uint("bcrypt-cost"))
        .ok()
        .filter(|cost| (4..=31).contains(cost))
}

/// Negative times mean what zero means wherever zero has no meaning of its own.
fn duration(flags: &FlagSet, name: &str) -> Duration {
    Duration::from_nanos(u64::try_from(flags.nanos(name)).unwrap_or(0))
}

fn limit(value: i64, default: usize) -> usize {
    match usize::try_from(value) {
        Ok(0) => default,
        Ok(limit) => limit,
        Err(_) => 1,
    }
}

fn saturate(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
