//! When one destination may be sent to, and how many requests at once: backoff, `Retry-After` and concurrency put
//! together. Pure: `now` is an argument, counted from any fixed moment.
//!
//! What always holds: no request starts before the moment that the destination named; while it fails one probe is in
//! flight at most; and a volley that fails together counts as one failure.

use std::time::Duration;

use rand::Rng;

use super::backoff::Backoff;
use super::concurrency::Concurrency;
use super::outcome::Outcome;

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One more request may start.
    Start,
    /// Nothing may start before this moment.
    NotBefore(Duration),
    /// As many requests are in flight as are allowed.
    Full,
}

/// Marks the requests that started between the same two failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// How many volleys failed before it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The pace of one destination.
#[derive(Debug, Clone)]
pub struct Pace {
    backoff: Backoff,
    concurrency: Concurrency,
    not_before: Duration,
    epoch: u64,
}

impl Pace {
    /// A destination of which nothing is known yet, with at most `concurrency_max` requests at once.
    #[must_use]
    pub fn new(concurrency_max: u32) -> Self {
        Self {
            backoff: Backoff::default(),
            concurrency: Concurrency::new(concurrency_max),
            not_before: Duration::ZERO,
            epoch: 0,
        }
    }

    /// Whether one more request may start.
    #[must_use]
    pub fn verdict(&self, now: Duration, in_flight: usize) -> Verdict {
        if now < self.not_before {
            Verdict::NotBefore(self.not_before)
        } else if in_flight >= self.concurrency.allowed() as usize {
            Verdict::Full
        } else {
            Verdict::Start
        }
    }

    /// The mark for a request that starts now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Takes in what came of a request that started in `epoch`.
    pub fn heard(&mut self, outcome: &Outcome, epoch: Epoch, now: Duration, rng: &mut impl Rng) {
        let current = epoch.0 == self.epoch;
        let retry_after = match outcome {
            // A success that was sent before the failure says nothing of the time after it.
            Outcome::Delivered if !current => return,
            Outcome::Delivered => {
                self.backoff.reset();
                self.concurrency.succeeded();
                return;
            }
            Outcome::Throttled { retry_after, .. } => *retry_after,
            Outcome::Retry { .. }
            | Outcome::TooLarge { .. }
            | Outcome::Rejected { .. }
            | Outcome::Partial(_)
            | Outcome::Refused { .. } => None,
        };
        let floor = retry_after.unwrap_or(Duration::ZERO);
        // The rest of a volley that failed already moves the floor, and nothing else.
        let jitter = if current { self.backoff.next(rng) } else { Duration::ZERO };
        self.not_before = self.not_before.max(now.saturating_add(floor).saturating_add(jitter));
        if current {
            self.concurrency.failed();
            self.epoch += 1;
        }
    }

    /// Whether the last that was heard was a failure.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.concurrency.failing()
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::backoff::CAP;
    use crate::delivery::outcome::Failure;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const HOUR: Duration = Duration::from_secs(3600);

    fn retry() -> Outcome {
        Outcome::Retry { why: Failure::Timeout }
    }

    fn throttled(retry_after: Option<Duration>) -> Outcome {
        Outcome::Throttled { retry_after, why: Failure::Timeout }
    }

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(3)
    }

    #[test]
    fn a_named_moment_is_kept_to_the_second_and_jitter_only_adds() {
        let mut pace = Pace::new(4);
        pace.heard(&throttled(Some(HOUR)), pace.epoch(), Duration::from_secs(10), &mut rng());
        let Verdict::NotBefore(until) = pace.verdict(Duration::from_secs(10), 0) else { panic!("it may start") };
        assert!(until >= Duration::from_secs(10) + HOUR);
        assert!(until <= Duration::from_secs(11) + HOUR);
        assert_eq!(pace.verdict(until, 0), Verdict::Start);
    }

    #[test]
    fn a_success_sent_before_a_throttle_does_not_lift_it() {
        let mut pace = Pace::new(4);
        let early = pace.epoch();
        pace.heard(&throttled(Some(HOUR)), early, Duration::ZERO, &mut rng());
        pace.heard(&Outcome::Delivered, early, Duration::ZERO, &mut rng());
        assert!(pace.failing());
        assert!(matches!(pace.verdict(HOUR / 2, 0), Verdict::NotBefore(_)));
    }

    #[test]
    fn a_volley_that_fails_together_counts_once_but_the_longest_wait_holds() {
        let mut pace = Pace::new(8);
        let early = pace.epoch();
        for _ in 0..7 {
            pace.heard(&retry(), early, Duration::ZERO, &mut rng());
        }
        assert_eq!(pace.failures(), 1);
        pace.heard(&throttled(Some(HOUR)), early, Duration::ZERO, &mut rng());
        assert!(matches!(pace.verdict(HOUR - Duration::from_secs(1), 0), Verdict::NotBefore(_)));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Delivered,
        Retry,
        Throttled(Option<u64>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Delivered),
            Just(Event::Retry),
            proptest::option::of(0u64..10_000).prop_map(Event::Throttled),
        ]
    }

    proptest! {
        /// Against any sequence of answers: one probe while failing, never before a named moment, never stuck.
        #[test]
        fn no_request_starts_before_its_time(seed: u64, events in proptest::collection::vec(event(), 1..60)) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut pace = Pace::new(4);
            let mut now = Duration::ZERO;
            let mut named = Duration::ZERO;
            for event in events {
                if let Verdict::NotBefore(until) = pace.verdict(now, 0) {
                    prop_assert!(until >= named);
                    prop_assert!(until <= named.max(now) + CAP, "the wait ends");
                    now = until;
                }
                prop_assert_eq!(pace.verdict(now, 0), Verdict::Start);
                prop_assert!(!pace.failing() || pace.verdict(now, 1) == Verdict::Full);
                let outcome = match event {
                    Event::Delivered => Outcome::Delivered,
                    Event::Retry => retry(),
                    Event::Throttled(seconds) => {
                        let wait = seconds.map(Duration::from_secs);
                        named = named.max(now + wait.unwrap_or_default());
                        throttled(wait)
                    }
                };
                pace.heard(&outcome, pace.epoch(), now, &mut rng);
            }
        }
    }
}
