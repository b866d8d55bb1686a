//! Sampling of equal messages.
//!
//! Source: go.uber.org/zap zapcore/sampler.go, with etcd's settings (client/pkg/logutil/zap.go): of equal messages of a
//! level within a second the first 100 pass, then every 100th. Messages are told apart by hash alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Level;

/// Messages a second that always pass.
const FIRST: u64 = 100;
/// Of the others, one in so many passes.
const THEREAFTER: u64 = 100;
/// Counters for each level.
const COUNTERS_PER_LEVEL: usize = 4096;
const PERIOD_MICROS: u64 = 1_000_000;

pub(crate) struct Sampler {
    counters: Box<[Counter]>,
}

#[derive(Default)]
struct Counter {
    resets_at_micros: AtomicU64,
    count: AtomicU64,
}

impl Sampler {
    pub(crate) fn new() -> Sampler {
        let counters = (0..COUNTERS_PER_LEVEL * Level::ALL.len())
            .map(|_| Counter::default())
            .collect();
        Sampler { counters }
    }

    /// Counts a message and returns whether it is to be written.
    pub(crate) fn admit(&self, level: Level, message: &str, now_micros: u64) -> bool {
        let slot = fnv32a(message) as usize % COUNTERS_PER_LEVEL;
        let count = self.counters[level as usize * COUNTERS_PER_LEVEL + slot].count(now_micros);
        count <= FIRST || (count - FIRST).is_multiple_of(THEREAFTER)
    }
}

impl Counter {
    /// Counts one in the running period and returns how many there are now.
    fn count(&self, now_micros: u64) -> u64 {
        let resets_at = self.resets_at_micros.load(Relaxed);
        if resets_at > now_micros {
            return self.count.fetch_add(1, Relaxed) + 1;
        }
        self.count.store(1, Relaxed);
        let next = now_micros + PERIOD_MICROS;
        if self
            .resets_at_micros
            .compare_exchange(resets_at, next, Relaxed, Relaxed)
            .is_err()
        {
            // Another thread began the period first.
            return self.count.fetch_add(1, Relaxed) + 1;
        }
        1
    }
}

fn fnv32a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_hundred_and_then_every_hundredth_pass_in_a_second() {
        let sampler = Sampler::new();
        let passed = |now| {
            (0..350)
                .filter(|_| sampler.admit(Level::Info, "m", now))
                .count()
        };
        assert_eq!(passed(5), 102);
        assert!(
            sampler.admit(Level::Warn, "m", 6),
            "levels are counted apart"
        );
        assert!(
            sampler.admit(Level::Info, "another", 6),
            "messages are counted apart"
        );
        assert_eq!(
            passed(5 + PERIOD_MICROS),
            102,
            "the next second starts anew"
        );
    }
}
