//! How many requests one destination may have in flight: additive increase, multiplicative decrease on failures and on
//! slowness, and one probe at a time while it fails. Pure; knows no clock.
//!
//! Requests to wait (429) lower no limit here: they speak of the rate, which has a limit of its own
//! ([`learned`](super::rate::learned)), and while they last one probe is in flight as with any failure.

/// Answers that take twice as long as usual, by and large, come from a queue at the receiver: more requests at once would
/// only wait there. The logarithm of two.
const CROWDED: f32 = std::f32::consts::LN_2;

/// Of a limit that is crowded a tenth is taken back, one at least.
const CROWDED_DIVISOR: u16 = 10;

/// The limit of one destination. Starts at one, so that a restart never meets a weak receiver with a volley.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    limit: u16,
    max: u16,
    /// Successes since the limit last changed: one more request is allowed after as many as the limit.
    successes: u16,
    failing: bool,
}

impl Concurrency {
    /// How many may be in flight at the most.
    #[must_use]
    pub fn most(&self) -> u32 {
        u32::from(self.max)
    }

    /// A limit that grows from 1 to `max`; a `max` of 0 is taken as 1.
    #[must_use]
    pub fn new(max: u32) -> Self {
        let max = u16::try_from(max).unwrap_or(u16::MAX).max(1);
        Self { limit: 1, max, successes: 0, failing: false }
    }

    /// Requests that may be in flight now: 1 while the destination fails.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        if self.failing { 1 } else { u32::from(self.limit) }
    }

    /// Whether the last that was heard of the destination was a failure.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.failing
    }

    /// A request was answered well: the circuit closes, and the limit grows by one a round; or it shrinks, where answers
    /// have become slow. `slowness` is by what factor they take longer than usual, as a logarithm.
    pub fn succeeded(&mut self, slowness: f32) {
        self.failing = false;
        self.successes = self.successes.saturating_add(1);
        if self.successes < self.limit {
            return;
        }
        self.successes = 0;
        if slowness > CROWDED {
            self.limit = (self.limit - (self.limit / CROWDED_DIVISOR).max(1)).max(1);
        } else {
            self.limit = self.limit.saturating_add(1).min(self.max);
        }
    }

    /// A request was answered, though the answer was about its records: the circuit closes, and nothing grows.
    pub fn answered(&mut self) {
        self.failing = false;
    }

    /// A request was answered with the wish to wait: one probe at a time until one succeeds, and then as before.
    pub fn throttled(&mut self) {
        self.failing = true;
        self.successes = 0;
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
    use crate::delivery::latency::Latency;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds_and_failing_means_one(max in 0u32..100, events: Vec<Option<f32>>) {
            let mut concurrency = Concurrency::new(max);
            for event in events {
                match event {
                    Some(slowness) if slowness.is_finite() => concurrency.succeeded(slowness),
                    Some(_) => concurrency.throttled(),
                    None => concurrency.failed(),
                }
                prop_assert!((1..=max.max(1)).contains(&concurrency.allowed()));
                prop_assert!(!concurrency.failing() || concurrency.allowed() == 1);
            }
        }
    }

    #[test]
    fn it_grows_by_one_a_round_and_falls_by_half() {
        let mut concurrency = Concurrency::new(4);
        let allowed: Vec<u32> = (0..7)
            .map(|_| {
                concurrency.succeeded(0.0);
                concurrency.allowed()
            })
            .collect();
        assert_eq!(allowed, [2, 2, 3, 3, 3, 4, 4]);
        concurrency.failed();
        assert_eq!(concurrency.allowed(), 1, "one probe");
        concurrency.succeeded(0.0);
        assert_eq!(concurrency.allowed(), 2, "half of four");
    }

    #[test]
    fn a_failing_probe_lowers_what_it_comes_back_to() {
        let mut concurrency = Concurrency::new(8);
        (0..100).for_each(|_| concurrency.succeeded(0.0));
        (0..3).for_each(|_| concurrency.failed());
        concurrency.succeeded(0.0);
        assert_eq!(concurrency.allowed(), 2, "limit 1 after three failures, and one success");
    }

    #[test]
    fn a_request_to_wait_means_one_probe_and_takes_nothing_back() {
        let mut concurrency = Concurrency::new(4);
        (0..100).for_each(|_| concurrency.succeeded(0.0));
        concurrency.throttled();
        assert_eq!((concurrency.allowed(), concurrency.failing()), (1, true));
        concurrency.succeeded(0.0);
        assert_eq!(concurrency.allowed(), 4);
    }

    /// The limits over 4,000 requests to a receiver that works at `width` requests at once, and lets the others wait.
    fn limits(width: f32, max: u32) -> Vec<u32> {
        let (mut concurrency, mut latency) = (Concurrency::new(max), Latency::default());
        let request = |_| {
            let wait = (concurrency.allowed() as f32 / width).max(1.0);
            let alone = concurrency.allowed() == 1;
            concurrency.succeeded(latency.sample(100, Duration::from_secs_f32(0.05 * wait), alone));
            concurrency.allowed()
        };
        (0..4_000).map(request).collect()
    }

    #[test]
    fn it_does_not_fill_the_queue_of_a_receiver_that_works_at_few_at_once() {
        assert_eq!(limits(1000.0, 64).last(), Some(&64), "one that has room is given all");
        let few = limits(8.0, 64);
        assert!(few[200..1_000].iter().all(|limit| (8..=24).contains(limit)), "{few:?}");
    }
}
