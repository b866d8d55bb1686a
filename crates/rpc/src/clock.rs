//! The monotonic clock that every thread of the process shares.
use std::time::{Duration, Instant};

/// Counts milliseconds since one fixed moment; copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self {
            base: Instant::now(),
        }
    }

    /// Returns the milliseconds since the start; never goes back.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the moment that is `ms` milliseconds after the start.
    pub fn instant_of(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }
}
