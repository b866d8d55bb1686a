//! Measurements of the server's own threads.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quorate_rpc::{Histogram, MetricKind, Text};

/// Bounds of times on disk. Source: etcd v3.7.1 wal/metrics.go, backend/metrics.go.
const FIRST_BOUND_S: f64 = 0.001;
const BUCKETS: usize = 14;

#[derive(Debug)]
struct Shared {
    wal_sync: Histogram,
    wal_bytes: AtomicU64,
    backend_commit: Histogram,
}

/// The server's measurements. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Shared>);

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::exponential(FIRST_BOUND_S, 2.0, BUCKETS);
        Self(Arc::new(Shared {
            wal_sync: histogram(),
            wal_bytes: AtomicU64::new(0),
            backend_commit: histogram(),
        }))
    }

    pub(crate) fn clock(&self) -> Instant {
        Instant::now()
    }

    /// Counts one gathered write and its sync.
    pub(crate) fn wal_append(&self, started: Instant, bytes: usize) {
        self.0.wal_sync.observe(started.elapsed().as_secs_f64());
        self.0.wal_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts one flush of the backend.
    pub(crate) fn backend_commit(&self, started: Instant) {
        self.0
            .backend_commit
            .observe(started.elapsed().as_secs_f64());
    }

    /// Writes everything in Prometheus' text format.
    pub(crate) fn render(&self, out: &mut Text) {
        let shared = &self.0;
        let times = [
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "Write and sync of the log.",
                &shared.wal_sync,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "Flush of the backend.",
                &shared.backend_commit,
            ),
        ];
        for (name, help, histogram) in times {
            out.metric(name, MetricKind::Histogram, help)
                .histogram(&[], &histogram.snapshot());
        }
        let bytes = shared.wal_bytes.load(Ordering::Relaxed);
        out.simple(
            "etcd_disk_wal_write_bytes_total",
            MetricKind::Gauge,
            "Bytes written to the log.",
            bytes,
        );
    }
}
