//! Chance from a seed: the same seed gives the same numbers on every machine and in every version.
//!
//! Splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Good enough to choose
//! faults; not for secrets. `below` has a bias of less than 2^-32 for the small bounds used here.

/// A stream of numbers that follows from its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
    /// What comes before the stream, backwards.
    given: Vec<u8>,
}

impl Rng {
    /// Starts the stream of `seed`. Seeds that differ by one give unrelated streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, given: Vec::new() }
    }

    /// A stream that begins with these bytes: one a number, two of them for one of more than 256, so that who changes a
    /// byte changes one choice.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { state: 0, given: bytes.iter().rev().copied().collect() }
    }

    /// Whether all bytes that were given have been drawn, if any.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.given.is_empty()
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        if let Some(byte) = self.given.pop() {
            return u64::from(byte);
        }
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
        let given = !self.given.is_empty() && bound > 256;
        let bits = if given { self.bits() << 8 | self.bits() } else { self.bits() };
        usize::try_from(bits % bound as u64).expect("less than a usize")
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
    fn bytes_come_first_and_then_the_stream_of_zero() {
        let mut rng = Rng::of_bytes(&[3, 200, 1, 2]);
        assert!(!rng.spent());
        assert_eq!([rng.bits(), rng.below(7) as u64, rng.below(1_000) as u64], [3, 200 % 7, 258]);
        assert!(rng.spent());
        assert_eq!(rng.bits(), Rng::new(0).bits());
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let mut rng = Rng::new(7);
        let hits = (0..10_000).filter(|_| rng.chance(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
