//! Chance from a seed: the same seed gives the same numbers on every machine and in every version.
//!
//! Splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Good enough to choose
//! faults; not for secrets. `below` has a bias of less than 2^-32 for the small bounds used here.

/// A stream of numbers that follows from its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Starts the stream of `seed`. Seeds that differ by one give unrelated streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `0..bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % bound as u64).expect("less than a usize")
    }

    /// True `n` times of `of`.
    pub fn chance(&mut self, n: usize, of: usize) -> bool {
        self.below(of) < n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_are_fixed_for_ever() {
        let mut rng = Rng::new(1_234_567);
        // The test vector of the reference implementation (prng.di.unimi.it/splitmix64.c).
        assert_eq!([rng.bits(), rng.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let mut rng = Rng::new(7);
        let hits = (0..10_000).filter(|_| rng.chance(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
