//! A member's clock over the true time.

/// Parts in a million.
const MILLION: i128 = 1_000_000;

/// A clock that may run fast or slow and may jump forward; never back, as a monotonic clock.
#[derive(Clone, Debug)]
pub struct Clock {
    /// True time since which the rate holds, and what the clock said then.
    since_ms: u64,
    then_ms: u64,
    /// How much faster than true time, in parts in a million; negative is slower.
    rate_ppm: i64,
    /// How far the wall clock of this machine is off, in milliseconds.
    pub wall_offset_ms: i64,
}

impl Clock {
    /// Makes a clock that is right.
    pub fn new(now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            then_ms: now_ms,
            rate_ppm: 0,
            wall_offset_ms: 0,
        }
    }

    /// Returns what the clock says at a true time.
    pub fn at(&self, now_ms: u64) -> u64 {
        let passed = i128::from(now_ms.saturating_sub(self.since_ms));
        let gone = passed * (MILLION + i128::from(self.rate_ppm)) / MILLION;
        self.then_ms + u64::try_from(gone).unwrap_or(0)
    }

    /// Returns how long it truly takes until the clock has gone on by so much, at least 1.
    pub fn true_ms(&self, ms: u64) -> u64 {
        let rate = (MILLION + i128::from(self.rate_ppm)).max(1);
        let true_ms = i128::from(ms) * MILLION / rate;
        u64::try_from(true_ms).unwrap_or(ms).max(1)
    }

    /// Returns how much faster than true time it runs, in parts in a million.
    pub fn rate_ppm(&self) -> i64 {
        self.rate_ppm
    }

    /// Goes on at another rate.
    pub(crate) fn set_rate(&mut self, now_ms: u64, rate_ppm: i64) {
        self.then_ms = self.at(now_ms);
        self.since_ms = now_ms;
        self.rate_ppm = rate_ppm;
    }

    /// Jumps forward.
    pub(crate) fn jump(&mut self, ms: u64) {
        self.then_ms += ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_gains_and_never_goes_back() {
        let mut clock = Clock::new(1_000);
        assert_eq!(clock.at(1_500), 1_500);
        clock.set_rate(2_000, 100_000);
        assert_eq!((clock.at(2_000), clock.at(3_000)), (2_000, 3_100));
        assert_eq!(clock.true_ms(110), 100);
        clock.set_rate(3_000, -100_000);
        assert_eq!((clock.at(3_000), clock.at(4_000)), (3_100, 4_000));
        clock.jump(50);
        assert_eq!(clock.at(4_000), 4_050);
    }
}
