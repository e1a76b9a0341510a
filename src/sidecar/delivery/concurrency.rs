//! How many requests one destination may have in flight: additive increase, multiplicative decrease, and one probe
//! at a time while it fails. Pure; knows no clock.

/// The limit of one destination. Starts at one, so that a restart never meets a weak receiver with a volley.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    limit: u32,
    max: u32,
    /// Successes since the limit last changed: one more request is allowed after as many as the limit.
    successes: u32,
    failing: bool,
}

impl Concurrency {
    /// A limit that grows from 1 to `max`; a `max` of 0 is taken as 1.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { limit: 1, max: max.max(1), successes: 0, failing: false }
    }

    /// Requests that may be in flight now: 1 while the destination fails.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        if self.failing { 1 } else { self.limit }
    }

    /// Whether the last that was heard of the destination was a failure.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.failing
    }

    /// A request was answered well: the circuit closes, and the limit grows by one a round.
    pub fn succeeded(&mut self) {
        self.failing = false;
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(self.max);
        }
    }

    /// A request was answered, though the answer was about its records: the circuit closes, and nothing grows.
    pub fn answered(&mut self) {
        self.failing = false;
    }

    /// A request failed: half the limit, and one probe at a time until one succeeds.
    pub fn failed(&mut self) {
        self.failing = true;
        self.successes = 0;
        self.limit = (self.limit / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds_and_failing_means_one(max in 0u32..100, events: Vec<bool>) {
            let mut concurrency = Concurrency::new(max);
            for success in events {
                if success { concurrency.succeeded() } else { concurrency.failed() }
                prop_assert!((1..=max.max(1)).contains(&concurrency.allowed()));
                prop_assert!(success || concurrency.allowed() == 1);
                prop_assert_eq!(concurrency.failing(), !success);
            }
        }
    }

    #[test]
    fn it_grows_by_one_a_round_and_falls_by_half() {
        let mut concurrency = Concurrency::new(4);
        let allowed: Vec<u32> = (0..7)
            .map(|_| {
                concurrency.succeeded();
                concurrency.allowed()
            })
            .collect();
        assert_eq!(allowed, [2, 2, 3, 3, 3, 4, 4]);
        concurrency.failed();
        assert_eq!(concurrency.allowed(), 1, "one probe");
        concurrency.succeeded();
        assert_eq!(concurrency.allowed(), 2, "half of four");
    }

    #[test]
    fn a_failing_probe_lowers_what_it_comes_back_to() {
        let mut concurrency = Concurrency::new(8);
        (0..100).for_each(|_| concurrency.succeeded());
        (0..3).for_each(|_| concurrency.failed());
        concurrency.succeeded();
        assert_eq!(concurrency.allowed(), 2, "limit 1 after three failures, and one success");
    }
}
