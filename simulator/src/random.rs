//! The only source of chance.

/// A generator of numbers (SplitMix64); the same seed gives the same ones.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Makes the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Makes a generator for one purpose: what is drawn from it changes nothing for the others.
    #[must_use]
    pub fn of(seed: u64, purpose: &str) -> Self {
        let mut mixed = seed ^ 0x5157_4f52_4154_4531;
        for byte in purpose.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut random = Self(mixed);
        random.number();
        random
    }

    /// Draws any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Draws a number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Says yes once in so many times; never for 0.
    pub fn one_in(&mut self, times: u64) -> bool {
        let number = self.number();
        times > 0 && number.is_multiple_of(times)
    }

    /// Says yes so many times of a thousand.
    pub fn per_mille(&mut self, times: u64) -> bool {
        self.below(1_000) < times
    }

    /// Draws one of several; `None` when there is none.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        let at = self.below(among.len() as u64);
        usize::try_from(at)
            .ok()
            .and_then(|at| among.get(at))
            .copied()
    }

    /// Draws one of several numbers.
    pub fn choose(&mut self, among: &[u64]) -> u64 {
        self.pick(among).unwrap_or(0)
    }
}
