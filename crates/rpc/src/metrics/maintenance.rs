//! What maintenance of the store takes: hashes, defragmentations, snapshots.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::histogram::Histogram;
use super::text::Text;

/// Times of maintenance; any thread may measure.
#[derive(Debug)]
pub struct Maintenance {
    hash: Histogram,
    hash_kv: Histogram,
    defragment: Histogram,
    snapshot: Histogram,
    defragmenting: AtomicU64,
}

impl Default for Maintenance {
    /// Source: etcd v3.7.1 server/storage/mvcc/metrics.go, server/storage/backend/metrics.go.
    fn default() -> Self {
        Self {
            hash: Histogram::exponential(0.01, 2.0, 15),
            hash_kv: Histogram::exponential(0.01, 2.0, 15),
            defragment: Histogram::exponential(0.1, 2.0, 13),
            snapshot: Histogram::exponential(0.01, 2.0, 17),
            defragmenting: AtomicU64::new(0),
        }
    }
}

/// A defragmentation under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Defragmenting<'a> {
    maintenance: &'a Maintenance,
    started: Instant,
}

impl Drop for Defragmenting<'_> {
    fn drop(&mut self) {
        let Maintenance {
            defragment,
            defragmenting,
            ..
        } = self.maintenance;
        defragmenting.fetch_sub(1, Ordering::Relaxed);
        defragment.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Maintenance {
    /// Counts a hash of the whole store that was begun then.
    pub(crate) fn hashed(&self, started: Instant) {
        self.hash.observe(started.elapsed().as_secs_f64());
    }

    /// Counts a hash up to a revision that was begun then.
    pub(crate) fn hashed_kv(&self, started: Instant) {
        self.hash_kv.observe(started.elapsed().as_secs_f64());
    }

    /// Counts a snapshot of the database that was begun then and written out now.
    pub fn snapshot_written(&self, started: Instant) {
        self.snapshot.observe(started.elapsed().as_secs_f64());
    }

    /// Shows a defragmentation until what is returned is dropped.
    pub fn defragmenting(&self) -> Defragmenting<'_> {
        self.defragmenting.fetch_add(1, Ordering::Relaxed);
        Defragmenting {
            maintenance: self,
            started: Instant::now(),
        }
    }

    /// Says whether one is under way.
    pub(crate) fn is_defragmenting(&self) -> bool {
        self.defragmenting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn write(&self, text: &mut Text) {
        for (name, histogram) in [
            ("etcd_mvcc_hash_duration_seconds", &self.hash),
            ("etcd_mvcc_hash_rev_duration_seconds", &self.hash_kv),
            (
                "etcd_disk_backend_defrag_duration_seconds",
                &self.defragment,
            ),
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                &self.snapshot,
            ),
        ] {
            text.known(name).histogram(&[], &histogram.snapshot());
        }
        let defragmenting = self.defragmenting.load(Ordering::Relaxed);
        text.known("etcd_disk_defrag_inflight")
            .sample(&[], defragmenting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defragmentation_is_shown_while_it_runs_and_counted_when_it_ends() {
        let maintenance = Maintenance::default();
        let scrape = || {
            let mut text = Text::default();
            maintenance.write(&mut text);
            text.finish()
        };
        let running = maintenance.defragmenting();
        assert!(scrape().contains("\netcd_disk_defrag_inflight 1\n"));
        drop(running);
        let after = scrape();
        assert!(after.contains("\netcd_disk_defrag_inflight 0\n"));
        assert!(after.contains("\netcd_disk_backend_defrag_duration_seconds_count 1\n"));
    }
}
