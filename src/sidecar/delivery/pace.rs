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
mod tests;
