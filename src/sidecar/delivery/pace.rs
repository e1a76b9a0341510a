//! When one destination may be sent to, and how many requests at once: backoff, `Retry-After`, probes and concurrency
//! put together. Pure: `now` is an argument, counted from any fixed moment.
//!
//! What always holds: no request starts before the moment that the destination named; while it fails one probe is in
//! flight at most; a volley that fails together counts as one failure; and a destination that refuses is only probed,
//! until it takes something.

use std::time::Duration;

use rand::{Rng, RngExt};

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

/// The first probe of a destination that refuses comes within this time, and each waits twice as long as the one before.
pub const PROBE_FIRST: Duration = Duration::from_secs(60);

/// No probe waits longer: a key that was mended is found within ten minutes.
pub const PROBE_CAP: Duration = Duration::from_secs(600);

/// Draws the waits between probes: half of a span that doubles, and a part of the other half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probes(u32);

impl Probes {
    /// The wait for the next probe.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let half = PROBE_FIRST.saturating_mul(1 << self.0.min(8)).min(PROBE_CAP) / 2;
        self.0 = self.0.saturating_add(1);
        half + half.mul_f64(rng.random_range(0.0..=1.0))
    }
}

/// Why a destination is only probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It says so: any other answer shows that it does not any more.
    Told,
    /// It rejects whatever is sent: only what it takes shows that it does not any more.
    Rejects,
}

/// The pace of one destination.
#[derive(Debug, Clone)]
pub struct Pace {
    refusal: Option<(Refusal, Probes)>,
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
            refusal: None,
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
                self.refusal = None;
                self.backoff.reset();
                self.concurrency.succeeded();
                return;
            }
            // Who asks to wait with some records finds nothing wrong with what it is sent.
            Outcome::Partial(partial) if partial.rejected.is_empty() && current => {
                self.refusal = None;
                return self.answered(current, now, rng);
            }
            Outcome::TooLarge { .. } | Outcome::Rejected { .. } | Outcome::Partial(_) => {
                return self.answered(current, now, rng);
            }
            Outcome::Refused { .. } if !current => return,
            Outcome::Refused { .. } => return self.refuse(Refusal::Told, now, rng),
            Outcome::Throttled { retry_after, .. } => *retry_after,
            Outcome::Retry { .. } => None,
        };
        let floor = retry_after.unwrap_or(Duration::ZERO);
        // The rest of a volley that failed already moves the floor, and nothing else.
        let jitter = if current { self.backoff.next(rng) } else { Duration::ZERO };
        self.not_before = self.not_before.max(now.saturating_add(floor).saturating_add(jitter));
        if current {
            self.fail(now, rng);
        }
    }

    /// The destination refuses whatever is sent: one probe at a time, now and then.
    pub fn refuse(&mut self, why: Refusal, now: Duration, rng: &mut impl Rng) {
        // What is known already, and waited out, is not held against it twice.
        let known = self.refusal.is_some_and(|(before, _)| before == why) && now < self.not_before;
        if !known {
            self.refusal.get_or_insert((why, Probes::default())).0 = why;
            self.fail(now, rng);
        }
    }

    /// An answer about the records of a request: the destination is there.
    fn answered(&mut self, current: bool, now: Duration, rng: &mut impl Rng) {
        if !current {
            return;
        }
        if self.refusal.is_some_and(|(why, _)| why == Refusal::Rejects) {
            return self.fail(now, rng);
        }
        self.refusal = None;
        self.backoff.reset();
        self.concurrency.answered();
    }

    /// A volley failed.
    fn fail(&mut self, now: Duration, rng: &mut impl Rng) {
        if let Some((_, probes)) = &mut self.refusal {
            self.not_before = self.not_before.max(now.saturating_add(probes.next(rng)));
        }
        self.concurrency.failed();
        self.epoch += 1;
    }

    /// An operator wants to see now whether it takes anything.
    pub fn probe(&mut self, now: Duration) {
        self.not_before = self.not_before.min(now);
    }

    /// Whether it is only probed.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.refusal.is_some()
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

    fn refused() -> Outcome {
        Outcome::Refused { why: Failure::Timeout }
    }

    fn rejected() -> Outcome {
        Outcome::Rejected { why: Failure::Timeout }
    }

    #[test]
    fn who_refuses_is_probed_in_a_minute_and_then_ever_more_rarely() {
        let (mut pace, mut rng, mut now, mut waits) = (Pace::new(4), rng(), Duration::ZERO, Vec::new());
        for _ in 0..7 {
            assert_eq!(pace.verdict(now, 0), Verdict::Start);
            pace.heard(&refused(), pace.epoch(), now, &mut rng);
            let Verdict::NotBefore(until) = pace.verdict(now, 0) else { panic!("it may start") };
            waits.push(until - now);
            now = until;
        }
        for (nth, wait) in waits.into_iter().enumerate() {
            let span = PROBE_CAP.min(PROBE_FIRST * (1 << nth));
            assert!(wait >= span / 2 && wait <= span, "{nth}: {wait:?}");
        }
        pace.heard(&Outcome::Delivered, pace.epoch(), now, &mut rng);
        assert!(!pace.refused() && pace.verdict(now, 0) == Verdict::Start);
    }

    #[test]
    fn an_answer_about_records_ends_a_refusal_that_was_told_but_not_one_by_rejections() {
        let mut pace = Pace::new(4);
        pace.heard(&refused(), pace.epoch(), Duration::ZERO, &mut rng());
        pace.heard(&rejected(), pace.epoch(), Duration::ZERO, &mut rng());
        assert!(!pace.refused());
        pace.refuse(Refusal::Rejects, Duration::ZERO, &mut rng());
        pace.heard(&rejected(), pace.epoch(), HOUR, &mut rng());
        assert!(pace.refused() && matches!(pace.verdict(HOUR, 0), Verdict::NotBefore(_)));
        pace.probe(HOUR);
        assert_eq!(pace.verdict(HOUR, 0), Verdict::Start);
    }

    #[test]
    fn an_answer_about_records_is_no_failure() {
        let mut pace = Pace::new(4);
        pace.heard(&retry(), pace.epoch(), Duration::ZERO, &mut rng());
        pace.heard(&rejected(), pace.epoch(), HOUR, &mut rng());
        assert_eq!((pace.failing(), pace.failures(), pace.verdict(HOUR, 0)), (false, 0, Verdict::Start));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Rejected,
        Refused,
        Delivered,
        Retry,
        Throttled(Option<u64>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Delivered),
            Just(Event::Retry),
            Just(Event::Rejected),
            Just(Event::Refused),
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
                    prop_assert!(until <= named.max(now) + CAP.max(PROBE_CAP), "the wait ends");
                    now = until;
                }
                prop_assert_eq!(pace.verdict(now, 0), Verdict::Start);
                prop_assert!(!pace.failing() || pace.verdict(now, 1) == Verdict::Full);
                let outcome = match event {
                    Event::Delivered => Outcome::Delivered,
                    Event::Retry => retry(),
                    Event::Rejected => rejected(),
                    Event::Refused => refused(),
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
