//! Numbers from a seed.

/// A small generator of seeded numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below the limit; 0 when that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// Returns a place below the limit.
    pub(crate) fn place(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    /// Returns a byte below the limit.
    pub(crate) fn byte(&mut self, limit: u64) -> u8 {
        self.below(limit.min(256)).to_le_bytes()[0]
    }

    /// Returns fewer bytes than the limit.
    pub(crate) fn bytes(&mut self, limit: u64) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.byte(256)).collect()
    }
}
