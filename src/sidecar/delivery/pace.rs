//! When one destination may be sent to, and how many requests at once: backoff, `Retry-After`, probes, rate and
//! concurrency put together. Pure: `now` is an argument, counted from any fixed moment.
//!
//! What always holds: no request starts before the moment that the destination named; while it fails one probe is in
//! flight at most; a volley that fails together counts as one failure; and a destination that refuses is only probed,
//! until it takes something.

use std::time::Duration;

use forebay::mutants::{self, Mutant};
use rand::{Rng, RngExt};

use super::backoff::Backoff;
use super::concurrency::Concurrency;
use super::latency::Latency;
use super::outcome::{Failure, Outcome};
use super::rate::learned::Speed;
use super::rate::{By, Rate, RateLimits, Size};
use super::source::Limits;

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One more request may start.
    Start,
    /// Nothing may start before this moment: it failed, or asked to wait.
    NotBefore(Duration),
    /// Nothing may start before this moment, for the rate's sake.
    Paced(Duration, By),
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
    /// Made when it is first sent to, unless there is something to know before: most destinations of a large sidecar are
    /// idle.
    flow: Option<Box<Flow>>,
}

/// How much it takes, and how fast.
#[derive(Debug, Clone, Default)]
struct Flow {
    rate: Rate,
    latency: Latency,
}

impl Pace {
    /// A destination of which nothing is known yet, with at most `concurrency_max` requests at once.
    #[must_use]
    pub fn new(concurrency_max: u32) -> Self {
        Self::with(concurrency_max, RateLimits::default(), None)
    }

    /// The same, sent to no faster than `limits`; `kept` was learned of it before.
    #[must_use]
    pub fn with(concurrency_max: u32, limits: RateLimits, kept: Option<Speed>) -> Self {
        let known = !limits.is_empty() || kept.is_some();
        let flow = known.then(|| Box::new(Flow { rate: Rate::new(limits, kept), latency: Latency::default() }));
        Self {
            refusal: None,
            backoff: Backoff::default(),
            concurrency: Concurrency::new(concurrency_max),
            not_before: Duration::ZERO,
            epoch: 0,
            flow,
        }
    }

    /// One of the same settings, that knows of the rate what this one did and until when it was asked to wait, and nothing
    /// else. What was started before fails no more, and is told apart.
    #[must_use]
    pub fn anew(&self) -> Self {
        let limits = self.flow.as_ref().map(|flow| flow.rate.limits()).unwrap_or_default();
        let (epoch, not_before) = (self.epoch + 1, self.not_before);
        Self { epoch, not_before, ..Self::with(self.concurrency.most(), limits, self.known()) }
    }

    /// Whether one more request may start.
    #[must_use]
    pub fn verdict(&self, now: Duration, in_flight: usize) -> Verdict {
        if now < self.not_before {
            Verdict::NotBefore(self.not_before)
        } else if in_flight >= self.allowed() {
            Verdict::Full
        } else {
            let ready = self.flow.as_ref().map(|flow| flow.rate.ready_at());
            match ready.filter(|(at, _)| now < *at) {
                Some((at, by)) => Verdict::Paced(at, by),
                None => Verdict::Start,
            }
        }
    }

    /// How large a batch may be, of what its settings let it be.
    #[must_use]
    pub fn batch(&self, limits: Limits) -> Limits {
        self.flow.as_ref().map_or(limits, |flow| flow.rate.limits().batch(limits))
    }

    /// Requests that may be in flight now.
    #[must_use]
    pub fn allowed(&self) -> usize {
        self.concurrency.allowed() as usize
    }

    /// What a request of this size takes of what the destination takes, as a time; `None` where no limit is known.
    #[must_use]
    pub fn cost(&self, size: Size) -> Option<Duration> {
        self.flow.as_ref()?.rate.cost(size)
    }

    /// A request of this size starts.
    pub fn sending(&mut self, size: Size, now: Duration) {
        self.flow().rate.sending(size, now);
    }

    /// A request of so many records, started in `epoch`, was taken; its answer came after `took`. To be told after it was
    /// [`heard`](Self::heard) that it was delivered.
    pub fn taken(&mut self, records: u64, took: Duration, epoch: Epoch, now: Duration) {
        let current = epoch.0 == self.epoch;
        self.flow().rate.learned_mut().taken(records, current, now);
        if current {
            let alone = self.concurrency.allowed() == 1;
            let slowness = self.flow().latency.sample(records, took, alone);
            self.concurrency.succeeded(slowness);
        }
    }

    /// The destination said how many requests it still takes until a moment, while so many were under way that it may not
    /// have counted.
    pub fn told(&mut self, requests: u64, until: Duration, in_flight: usize) {
        self.flow().rate.told(requests.saturating_sub(in_flight as u64), until);
    }

    /// What was learned of it: what it may be sent now.
    #[must_use]
    pub fn learned(&self) -> Option<Speed> {
        self.flow.as_ref()?.rate.learned().limit()
    }

    /// What was learned of it and is worth to be kept: what it takes.
    #[must_use]
    pub fn known(&self) -> Option<Speed> {
        self.flow.as_ref()?.rate.learned().known()
    }

    fn flow(&mut self) -> &mut Flow {
        self.flow.get_or_insert_default()
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
                self.concurrency.answered();
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
            // One sender's key: that says nothing of an address that is wrong.
            Outcome::QueueRefused { .. } if self.refusal.is_some() => return,
            Outcome::QueueRefused { .. } => return self.answered(current, now, rng),
            Outcome::Refused { .. } if !current => return,
            Outcome::Refused { .. } => return self.refuse(Refusal::Told, now, rng),
            Outcome::Throttled { retry_after, .. } => *retry_after,
            Outcome::Retry { .. } => None,
        };
        let floor = retry_after.filter(|_| !mutants::on(Mutant::RetryAfterIgnored)).unwrap_or(Duration::ZERO);
        // The rest of a volley that failed already moves the floor, and nothing else.
        let jitter = if current { self.backoff.next(rng) } else { Duration::ZERO };
        let jitter = if self.rate_answers(outcome) { Duration::ZERO } else { jitter };
        self.not_before = self.not_before.max(now.saturating_add(floor).saturating_add(jitter));
        if speaks_of_rate(outcome) {
            let pause = self.not_before.saturating_sub(now);
            self.flow().rate.learned_mut().asked_to_wait(pause, current, now);
            if current {
                self.concurrency.throttled();
                self.failed(now, rng);
            }
        } else if current {
            self.fail(now, rng);
        }
    }

    /// Who is first asked to wait, and not for how long, by a destination whose rate is known, slows down: that is answer
    /// enough. A wait on top would cost what the destination takes meanwhile.
    fn rate_answers(&self, outcome: &Outcome) -> bool {
        let asks = matches!(outcome, Outcome::Throttled { retry_after: None, .. }) && speaks_of_rate(outcome);
        asks && self.backoff.failures() <= 1 && self.learned().is_some()
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
        if let Some(flow) = &mut self.flow {
            flow.rate.learned_mut().failed(now);
        }
        self.concurrency.failed();
        self.failed(now, rng);
    }

    /// A volley failed, or was asked to wait.
    fn failed(&mut self, now: Duration, rng: &mut impl Rng) {
        if let Some((_, probes)) = &mut self.refusal {
            self.not_before = self.not_before.max(now.saturating_add(probes.next(rng)));
        }
        self.epoch += 1;
    }

    /// An operator wants to see now whether it takes anything.
    pub fn probe(&mut self, now: Duration) {
        self.not_before = self.not_before.min(now);
        if let Some(flow) = &mut self.flow {
            flow.rate.probe(now);
        }
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

/// Whether it was sent too much. A 503 that says no more is of a destination that is unwell.
fn speaks_of_rate(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Throttled { retry_after: None, why: Failure::Status { status: 503, .. } } => false,
        Outcome::Throttled { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
