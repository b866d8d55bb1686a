//! What the flags say, in the terms of each part.
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_rpc::ServiceOptions;

use crate::bootstrap::{self, Opened, Start};
use crate::config::{AuthToken, AutoCompaction, Config, Gate};
use crate::{defragment, recovery, version};

/// Unflushed bytes that start a flush at once: fewer than the backend's cache takes before it writes pages that the same
/// flush then has to read again.
const FLUSH_BYTES: u64 = 8 << 20;
/// Largest batch of entries handed to the log or applied at once. Source: etcd v3.7.1 maxSizePerMsg.
const BATCH_BYTES: u64 = 1 << 20;
/// Simple tokens held at once.
const TOKENS_MAX: usize = 1_000_000;
/// Connection threads at most; each is a runtime of its own.
const CONNECTION_THREADS_MAX: usize = 64;

/// How long calls under way are waited for at the end; streams never end by themselves.
const DRAIN_MS: u64 = 1_000;
/// Settings of opening the data directory.
pub(crate) fn bootstrap(config: &Config, start: Start) -> bootstrap::Options {
    let election_ms = ms(config.election_timeout());
    bootstrap::Options {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        start,
        alone: config.force_new_cluster,
        wal: quorate_wal::Options::default(),
        backend: quorate_backend::Options::default(),
        recovery: recovery::Options {
            kv: quorate_mvcc::Options {
                compaction_batch_rows: config.compaction_batch_limit,
                ..quorate_mvcc::Options::default()
            },
            lease: quorate_lease::Options {
                min_ttl_s: min_ttl_s(election_ms),
                revoke_retry_ms: quorate_core::request_timeout_ms(election_ms),
                checkpoint_interval_ms: config
                    .feature_gates
                    .is_enabled(Gate::LeaseCheckpoint)
                    .then_some(quorate_lease::CHECKPOINT_INTERVAL_MS),
                ..quorate_lease::Options::default()
            },
            auth: quorate_auth::Options {
                bcrypt_cost: config.bcrypt_cost,
                token_provider: match config.auth_token {
                    AuthToken::Simple => quorate_auth::TokenProvider::Simple {
                        ttl_ms: ms(config.auth_token_ttl),
                        tokens_max: TOKENS_MAX,
                    },
                    AuthToken::Disabled => quorate_auth::TokenProvider::Noop,
                },
            },
            max_learners: config.max_learners,
        },
    }
}

/// The smallest time to live. Source: etcd v3.7.1 server.go, minTTL: three halves of the election time-out, rounded up.
fn min_ttl_s(election_ms: u64) -> i64 {
    i64::try_from((3 * election_ms / 2).div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// Settings of the member.
pub(crate) fn member_config(config: &Config, opened: &Opened) -> quorate_core::Config {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unix_ns = u64::try_from(unix.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    quorate_core::Config {
        member_id: opened.member_id,
        cluster_id: opened.cluster_id,
        name: config.name.clone(),
        client_urls: config
            .advertise_client_urls
            .iter()
            .map(|u| u.as_str().to_owned())
            .collect(),
        tick_ms: ms(config.heartbeat_interval),
        election_ticks: config.election_ticks as usize,
        pre_vote: config.pre_vote,
        initial_election_tick_advance: config.initial_election_tick_advance,
        max_request_bytes: config.max_request_bytes,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        flush_interval_ms: ms(config.backend_batch_interval),
        flush_bytes: FLUSH_BYTES,
        quota_bytes: config.quota_backend_bytes,
        lease_checkpoint: config.feature_gates.is_enabled(Gate::LeaseCheckpoint),
        auto_compaction: match config.auto_compaction {
            AutoCompaction::Off => quorate_core::AutoCompaction::Off,
            AutoCompaction::Periodic(period) => quorate_core::AutoCompaction::Periodic {
                period_ms: ms(period),
            },
            AutoCompaction::Revision(retention) => {
                quorate_core::AutoCompaction::Revision { retention }
            }
        },
        seed: unix_ns ^ opened.member_id.0,
        start_unix_ms: ms(unix),
        batch_bytes: BATCH_BYTES,
        strict_reconfig_check: config.strict_reconfig_check,
        downgrade_check_ms: ms(config.downgrade_check_time),
        cluster_version: version::CLUSTER_VERSION.to_owned(),
        bounds: quorate_core::Bounds::default(),
    }
}

/// Whole milliseconds of a duration.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns how many threads serve connections.
pub(crate) fn connection_threads() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(CONNECTION_THREADS_MAX)
}

/// Settings of the front door.
pub(crate) fn door_options(config: &Config, threads: usize) -> quorate_rpc::Options {
    let defaults = quorate_rpc::Options::default();
    quorate_rpc::Options {
        threads,
        max_request_bytes: config.max_request_bytes,
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_min_ms: ms(config.grpc_keepalive_min_time),
        // With either of the two at 0 what grpc-go does by itself stays; more often than every second it never pings.
        keepalive_interval_ms: config
            .grpc_keepalive
            .map_or(defaults.keepalive_interval_ms, |k| {
                ms(k.interval).max(1_000)
            }),
        keepalive_timeout_ms: config
            .grpc_keepalive
            .map_or(defaults.keepalive_timeout_ms, |k| ms(k.timeout)),
        drain_ms: DRAIN_MS,
        max_connections: max_connections(),
        ..defaults
    }
}

/// Descriptors kept for files and the process itself. Source: etcd v3.7.1 server/embed/serve.go, reservedInternalFDNum.
const RESERVED_FILES: u64 = 150;

/// Raises the limit of open files as far as it goes, and leaves what files need to the files.
fn max_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // The limit as it was does too.
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(RESERVED_FILES).max(1);
    usize::try_from(connections)
        .unwrap_or(usize::MAX)
        .min(quorate_rpc::Options::default().max_connections)
}

/// Settings of the services.
pub(crate) fn service_options(config: &Config) -> ServiceOptions {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ServiceOptions {
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        election_timeout_ms: ms(config.election_timeout()),
        quota_bytes: config.quota_backend_bytes,
        server_version: version::ETCD_VERSION.to_owned(),
        watch_progress_interval_ms: ms(config.watch_progress_notify_interval),
        unhealthy_while_defragmenting: config
            .feature_gates
            .is_enabled(Gate::StopGRPCServiceOnDefrag),
        defragment_log: defragment::log(&config.data_dir),
        seed: u64::from(unix.subsec_nanos()) ^ unix.as_secs(),
        ..ServiceOptions::default()
    }
}
