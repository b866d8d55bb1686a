//! How fast images may leave.
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets bytes pass at a rate, however many snapshots share it.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the next piece may go.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.filter(|rate| *rate > 0),
            free_at: Mutex::new(None),
        }
    }

    /// Books the time a piece takes and returns when it may go.
    pub(crate) fn book(&self, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let took = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let mut free_at = self.free_at.lock();
        let start = free_at.unwrap_or(now).max(now);
        *free_at = Some(start + took);
        Some(start)
    }
}
