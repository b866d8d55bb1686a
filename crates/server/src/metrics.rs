//! Measurements of the server's own threads, and of the process as a whole.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_mvcc::{CompactionJob, CompactionSummary, Progress};
use quorate_rpc::{Histogram, Text};

use crate::config::GoDuration;

mod disk;
mod process;

pub(crate) use disk::MeteredDisk;
pub(crate) use process::{ProcessSource, open_file_limit};

/// Bounds of times on disk. Source: etcd v3.7.1 wal/metrics.go, backend/metrics.go.
const FIRST_BOUND_S: f64 = 0.001;
const BUCKETS: usize = 14;

#[derive(Debug)]
struct Shared {
    wal_write: Histogram,
    wal_sync: Histogram,
    wal_bytes: AtomicU64,
    backend_commit: Histogram,
    snapshot_sync: Histogram,
    snapshot_save: Histogram,
    received_sync: Histogram,
    received_save: Histogram,
    installing: AtomicU64,
    compaction: Compactions,
}

/// What compactions of the history took. Source: etcd v3.7.1 server/storage/mvcc/metrics.go.
#[derive(Debug)]
struct Compactions {
    /// The first step of each compaction, which goes through the index.
    index: Histogram,
    steps: Histogram,
    total: Histogram,
    rows: AtomicU64,
    /// Seconds since 1970 of the end of the last one; 0 before the first.
    last_unix_s: AtomicU64,
}

/// The server's measurements. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Shared>);

/// A compaction that is being measured.
#[derive(Debug)]
pub(crate) struct CompactionTimer {
    metrics: Metrics,
    started: Instant,
    has_stepped: bool,
}

impl CompactionTimer {
    /// Steps the compaction, and counts the step unless it had to wait.
    pub(crate) fn step(
        &mut self,
        job: &mut CompactionJob,
    ) -> Result<Progress, quorate_mvcc::Error> {
        let started = Instant::now();
        let progress = job.step()?;
        if progress != Progress::Blocked {
            let compaction = &self.metrics.0.compaction;
            let took_ms = started.elapsed().as_secs_f64() * 1e3;
            if !std::mem::replace(&mut self.has_stepped, true) {
                compaction.index.observe(took_ms);
            }
            compaction.steps.observe(took_ms);
        }
        Ok(progress)
    }

    /// Counts the end and tells of it.
    pub(crate) fn end(self, summary: &CompactionSummary) {
        let compaction = &self.metrics.0.compaction;
        let took = self.started.elapsed();
        compaction.total.observe(took.as_secs_f64() * 1e3);
        compaction
            .rows
            .fetch_add(summary.deleted_rows, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.unwrap_or_default().as_secs();
        compaction.last_unix_s.store(now_s, Ordering::Relaxed);
        tracing::info!(
            "compact-revision" = summary.revision,
            took = %GoDuration::from(took),
            "number-of-keys-compacted" = summary.deleted_rows,
            hash = summary.hash.unwrap_or_default(),
            "finished scheduled compaction"
        );
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::exponential(FIRST_BOUND_S, 2.0, BUCKETS);
        Self(Arc::new(Shared {
            wal_write: histogram(),
            wal_sync: histogram(),
            wal_bytes: AtomicU64::new(0),
            backend_commit: histogram(),
            snapshot_sync: histogram(),
            snapshot_save: histogram(),
            received_sync: histogram(),
            received_save: Histogram::exponential(0.1, 2.0, 10),
            installing: AtomicU64::new(0),
            compaction: Compactions {
                index: Histogram::exponential(0.5, 2.0, 14),
                steps: Histogram::exponential(1.0, 2.0, 13),
                total: Histogram::exponential(100.0, 2.0, 14),
                rows: AtomicU64::new(0),
                last_unix_s: AtomicU64::new(0),
            },
        }))
    }

    pub(crate) fn clock(&self) -> Instant {
        Instant::now()
    }

    /// Counts one gathered write to the log.
    fn wal_written(&self, took: Duration, bytes: u64) {
        self.0.wal_write.observe(took.as_secs_f64());
        self.0.wal_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one sync of the log.
    fn wal_synced(&self, took: Duration) {
        self.0.wal_sync.observe(took.as_secs_f64());
    }

    /// Counts one sync of a snapshot file.
    fn snapshot_synced(&self, took: Duration) {
        self.0.snapshot_sync.observe(took.as_secs_f64());
    }

    /// Counts one snapshot file from its opening to its name.
    fn snapshot_saved(&self, took: Duration) {
        self.0.snapshot_save.observe(took.as_secs_f64());
    }

    /// Counts one snapshot received from another member being made durable, whether that went well or not.
    pub(crate) fn received_synced(&self, started: Instant) {
        let took = started.elapsed();
        self.0.received_sync.observe(took.as_secs_f64());
    }

    /// Counts one snapshot received from another member, from its first byte to its name.
    pub(crate) fn received_saved(&self, started: Instant) {
        let took = started.elapsed();
        self.0.received_save.observe(took.as_secs_f64());
    }

    /// Shows that a received snapshot is being installed, or that none is any more.
    pub(crate) fn set_installing(&self, is_installing: bool) {
        let count = u64::from(is_installing);
        self.0.installing.store(count, Ordering::Relaxed);
    }

    /// Counts one flush of the backend.
    pub(crate) fn backend_commit(&self, started: Instant) {
        self.0
            .backend_commit
            .observe(started.elapsed().as_secs_f64());
    }

    /// Starts to measure a compaction.
    pub(crate) fn compaction(&self) -> CompactionTimer {
        CompactionTimer {
            metrics: self.clone(),
            started: Instant::now(),
            has_stepped: false,
        }
    }

    /// Writes everything in Prometheus' text format.
    pub(crate) fn render(&self, out: &mut Text) {
        let shared = &self.0;
        let compaction = &shared.compaction;
        for (name, histogram) in [
            ("etcd_disk_wal_write_duration_seconds", &shared.wal_write),
            ("etcd_disk_wal_fsync_duration_seconds", &shared.wal_sync),
            ("etcd_snap_fsync_duration_seconds", &shared.snapshot_sync),
            (
                "etcd_debugging_snap_save_total_duration_seconds",
                &shared.snapshot_save,
            ),
            ("etcd_snap_db_fsync_duration_seconds", &shared.received_sync),
            (
                "etcd_snap_db_save_total_duration_seconds",
                &shared.received_save,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                &shared.backend_commit,
            ),
            // A flush is nothing but its write: what it writes was put together when it was applied.
            (
                "etcd_debugging_disk_backend_commit_write_duration_seconds",
                &shared.backend_commit,
            ),
            (
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                &compaction.index,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                &compaction.steps,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                &compaction.total,
            ),
        ] {
            out.known(name).histogram(&[], &histogram.snapshot());
        }
        for (name, value) in [
            ("etcd_disk_wal_write_bytes_total", &shared.wal_bytes),
            (
                "etcd_debugging_mvcc_db_compaction_keys_total",
                &compaction.rows,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_last",
                &compaction.last_unix_s,
            ),
            (
                "etcd_server_snapshot_apply_in_progress_total",
                &shared.installing,
            ),
        ] {
            out.known(name).sample(&[], value.load(Ordering::Relaxed));
        }
    }
}

/// Nanoseconds since the process first asked; for measuring only.
pub(crate) fn stopwatch_ns() -> u64 {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since: Duration = BASE.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
