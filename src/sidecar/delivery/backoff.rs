//! How long to wait after a failure: exponential, with full jitter, capped. Pure; knows no clock and gives nothing up.
//!
//! The n-th failure in a row waits a uniformly drawn part of `base · 2ⁿ⁻¹`, at most of `cap`. Full jitter, because
//! destinations of one vendor fail together and must not come back together.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The first wait is drawn from up to this long: short, as most failures are one lost connection.
pub const BASE: Duration = Duration::from_millis(200);

/// No wait is drawn from more than this: a destination that came back is found within a minute.
pub const CAP: Duration = Duration::from_secs(60);

/// Counts failures in a row and draws the wait after each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more failure and draws the wait that follows it.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let span = self.span();
        self.failures = self.failures.saturating_add(1);
        Duration::from_micros(rng.random_range(0..=micros(span)))
    }

    /// The longest wait that [`next`](Self::next) can draw now.
    #[must_use]
    pub fn span(&self) -> Duration {
        // 2^16 · BASE is hours: far above CAP, and far from overflow.
        BASE.saturating_mul(1 << self.failures.min(16)).min(CAP)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_its_span_nor_the_cap(seed: u64, failures in 0u32..200) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff { failures };
            let span = backoff.span();
            prop_assert!(span >= BASE && span <= CAP);
            prop_assert!(backoff.next(&mut rng) <= span);
            prop_assert!(backoff.span() >= span, "spans never shrink while failing");
        }
    }

    #[test]
    fn spans_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let mut spans = Vec::new();
        for _ in 0..11 {
            spans.push(backoff.span().as_millis());
            backoff.next(&mut rng);
        }
        assert_eq!(spans, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        backoff.reset();
        assert_eq!(backoff, Backoff::default());
    }

    #[test]
    fn a_failure_count_at_its_end_does_not_wrap() {
        let mut backoff = Backoff { failures: u32::MAX };
        backoff.next(&mut SmallRng::seed_from_u64(1));
        assert_eq!(backoff.failures(), u32::MAX);
        assert_eq!(backoff.span(), CAP);
    }

    #[test]
    fn waits_use_the_whole_span() {
        let mut rng = SmallRng::seed_from_u64(7);
        let draws: Vec<_> = (0..1000).map(|_| Backoff { failures: 20 }.next(&mut rng)).collect();
        assert!(draws.iter().any(|wait| *wait < CAP / 10));
        assert!(draws.iter().any(|wait| *wait > CAP - CAP / 10));
    }
}
