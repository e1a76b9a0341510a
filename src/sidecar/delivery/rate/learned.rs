//! What a destination takes, learned from its requests to wait: requests and records a second. Pure.
//!
//! Nothing is limited before it is first asked to wait. Then the limit falls to what it took, and comes back in three
//! phases: **hold** what it is known to take, for as long as the last look was dear; then **probe** for more, slowly at
//! first and faster while nothing stands against it, until it asks to wait again. After an outage and after a restart it
//! **climbs** from a part of what is known, doubling. Time in these phases is time spent at the limit: while there is
//! little to send, nothing is learned, and the limit stays.
//!
//! What always holds: requests to wait cost about one request in [`HOLD_REQUESTS`] and a thirtieth of the time, whatever
//! the rate; where nothing was taken since the last one, another lowers nothing, and an outage that answers 429 or 503
//! leaves what was known as it was.

use std::time::Duration;

use super::meter::Meter;
use crate::delivery::bucket::Bucket;

/// After a request to wait so many requests go well, for each that was refused, before more is tried: of a hundred
/// requests less than two are refused.
pub const HOLD_REQUESTS: u32 = 56;

/// And so much time passes at the limit, and so much for each second that it asked to wait, at most.
const HOLD_MIN: f64 = 2.0;
const HOLD_PER_PAUSE: f64 = 32.0;
const HOLD_MAX: f64 = 900.0;

/// What is measured counts from so many requests on.
const MEASURED_MIN: u64 = 8;

/// Before that the first limit is so many requests a second at least.
const FIRST_MIN: f64 = 10.0;

/// No request to wait lowers the limit to less than this part of it at once.
const FALL_MAX: f64 = 0.5;

/// Where too little was measured to tell, it falls to this part: almost all, where more was tried than was known.
const FALL: f64 = 0.7;
const FALL_PROBING: f64 = 0.95;

/// It falls to no less than so many requests a second: who takes fewer says when to come again, which is kept to. Else
/// refusals that have nothing to do with the rate, one a restart, would bring it down to one a minute.
const FALL_END: f64 = 1.0;

/// So many times the records that were allowed are taken of requests that are larger than before.
const RESIZED: f64 = 2.0;

/// It begins with this part of what is known: a receiver that was overrun has something to work off.
const RESUME: f64 = 0.95;
const RESUME_PROBING: f64 = 0.98;
const RESUME_CLIMBING: f64 = 0.9;

/// And comes back to all of it by so much a second.
const RECOVERY: f64 = 0.02;

/// While more is tried, the limit grows by this part a second, which doubles in this time, up to doubling the limit each
/// second.
const PROBE_START: f64 = 0.01;
const PROBE_DOUBLES: f64 = 1.0;
const PROBE_MAX: f64 = std::f64::consts::LN_2;

/// Who failed so often in a row, and for so long, was out of order: that says nothing of what it takes, and what it takes
/// then is found out anew. A rate that is asked for, however long the wait, is kept to at the next try.
const OUTAGE: Duration = Duration::from_secs(10);
const OUTAGE_FAILURES: u32 = 3;

/// The part of what is known that a climb begins with: after an outage, after a restart.
const CLIMB_AFTER_OUTAGE: f64 = 1.0 / 8.0;
const CLIMB_AFTER_RESTART: f64 = 1.0 / 2.0;

/// Where nothing is known it begins with so many requests a second.
const CLIMB_REQUESTS: f64 = 2.0;

/// A climb without a goal is over where what is sent is less than this part of what is allowed.
const UNUSED: f64 = 0.25;

/// By its records no request costs more than so many seconds: what small ones were refused for says little of large ones,
/// and a limit in records that is lower than that says when to come again, as one in requests does.
const RECORDS_SECONDS: f64 = 2.0;

/// No limit is learned below this: it asks to wait after every request then.
const SLOWEST: Speed = Speed { requests: 1.0 / 60.0, records: 1.0 / 60.0 };

/// So much time in which less was sent than allowed counts: timers are no finer than a millisecond. More would be a volley
/// against a receiver that allows none.
const SLACK: Duration = Duration::from_millis(2);

/// Requests and records a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Requests a second.
    pub requests: f64,
    /// Records a second.
    pub records: f64,
}

impl Speed {
    fn times(self, factor: f64) -> Self {
        Self { requests: self.requests * factor, records: self.records * factor }
    }

    /// The time, in seconds, that a request of so many records takes of it.
    pub(super) fn seconds(self, records: u64) -> f64 {
        (1.0 / self.requests).max((records as f64 / self.records).min(RECORDS_SECONDS))
    }

    fn at_least(self, least: Self) -> Self {
        Self { requests: self.requests.max(least.requests), records: self.records.max(least.records) }
    }

    /// Whether it is one that can be kept to.
    #[must_use]
    pub fn is_sound(self) -> bool {
        let sound = |n: f64, least: f64| n.is_finite() && n >= least;
        sound(self.requests, SLOWEST.requests) && sound(self.records, SLOWEST.records)
    }
}

/// What was learned.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    limit: Option<Limit>,
    bucket: Bucket,
    meter: Meter,
    /// Since it last took something.
    failing: Option<Failing>,
    /// What the last request to wait cost.
    price: Price,
    /// Taken since.
    taken: u32,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    /// What it takes, as far as is known.
    known: Speed,
    /// The part of it that is used.
    share: f64,
    phase: Phase,
    /// Time spent at the limit in this phase, in seconds.
    worth: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Twice as much each second, up to what is known.
    Climb,
    /// The same where nothing is known, since then.
    ClimbFreely(Duration),
    /// What is known.
    Hold,
    /// More than that: how much more a second.
    Probe(f64),
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Duration,
    times: u32,
    /// The limit before.
    before: Option<Limit>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Price {
    refused: u32,
    /// In seconds.
    pause: f64,
}

impl Learned {
    /// What was learned before a restart.
    #[must_use]
    pub fn kept(known: Speed) -> Self {
        let limit = Limit { known, share: CLIMB_AFTER_RESTART, phase: Phase::Climb, worth: 0.0 };
        Self { limit: known.is_sound().then_some(limit), ..Self::default() }
    }

    /// What may be sent now, if there is a limit. Infinitely many records, where that is one of requests alone.
    #[must_use]
    pub fn limit(&self) -> Option<Speed> {
        self.limit.as_ref().map(Limit::now)
    }

    /// What is worth to be kept over a restart: what the destination is known to take.
    #[must_use]
    pub fn known(&self) -> Option<Speed> {
        self.limit.filter(|limit| !limit.is_free()).map(|limit| limit.known)
    }

    /// From when on a request may start.
    #[must_use]
    pub fn ready_at(&self) -> Duration {
        if self.limit.is_some() { self.bucket.ready_at() } else { Duration::ZERO }
    }

    /// One request may start now, whatever the last one cost.
    pub(super) fn probe(&mut self, now: Duration) {
        self.bucket.refill(now);
    }

    /// A request starts.
    pub(super) fn sending(&mut self, records: u64, now: Duration) {
        if let Some(limit) = &self.limit {
            let cost = Duration::try_from_secs_f64(limit.now().seconds(records)).unwrap_or(Duration::MAX);
            self.bucket.take(cost, cost + SLACK, now);
        }
    }

    /// The destination took a request; `current`: one that was sent after it last failed.
    pub fn taken(&mut self, records: u64, current: bool, now: Duration) {
        self.meter.taken(records, now);
        if !current {
            return;
        }
        if let Some(failing) = self.failing.take()
            && failing.is_outage(now)
        {
            self.came_back(failing.before, records, now);
        }
        self.taken = self.taken.saturating_add(1);
        let (price, taken, measured) = (self.price, self.taken, self.meter.speed(now));
        let Some(limit) = &mut self.limit else { return };
        let worth = limit.now().seconds(records);
        // A single request is never a reason to trust it with twice as much.
        let step = worth.min(1.0);
        limit.worth += worth;
        match limit.phase {
            Phase::Climb => {
                limit.share *= step.exp2();
                if limit.share >= 1.0 {
                    limit.enter(Phase::Hold);
                    limit.share = 1.0;
                }
            }
            Phase::ClimbFreely(since) => {
                limit.share *= step.exp2();
                let waited = now.saturating_sub(since);
                if waited >= Duration::from_secs(2) && measured.requests < limit.now().requests * UNUSED {
                    // It stands in nobody's way any more.
                    self.limit = None;
                }
            }
            Phase::Hold => {
                limit.share = (limit.share + RECOVERY * worth).min(1.0);
                if taken >= HOLD_REQUESTS.saturating_mul(price.refused) && limit.worth >= price.hold() {
                    limit.enter(Phase::Probe(PROBE_START));
                    self.meter.restart(now);
                }
            }
            Phase::Probe(growth) => {
                limit.known = limit.known.times((growth * step).exp());
                limit.phase = Phase::Probe((growth * (step / PROBE_DOUBLES).exp2()).min(PROBE_MAX));
            }
        }
    }

    /// The destination asks to wait, so long; `current`: nobody asked since the request was sent.
    pub fn asked_to_wait(&mut self, pause: Duration, current: bool, now: Duration) {
        if self.price.refused > 0 {
            self.price.refused = self.price.refused.saturating_add(1);
        }
        self.price.pause = self.price.pause.max(pause.as_secs_f64());
        if !current {
            return;
        }
        if self.fails(now) > 1 {
            return;
        }
        // Who refuses the first few may have other reasons than the rate: that is tried again soon.
        let refused = u32::from(u64::from(self.taken) >= MEASURED_MIN);
        self.price = Price { refused, pause: pause.as_secs_f64() };
        self.taken = 0;
        let enough = self.meter.recent(now) >= MEASURED_MIN;
        let measured = self.meter.speed(now);
        self.limit = match self.limit {
            Some(limit) => Some(limit.lowered(measured, enough)),
            None if self.meter.requests() == 0 => None,
            None => Some(Limit::first(measured, enough)),
        };
        self.meter.restart(now.saturating_add(pause));
    }

    /// The destination failed otherwise.
    pub fn failed(&mut self, now: Duration) {
        self.fails(now);
    }

    /// How often now, since it last took something.
    fn fails(&mut self, now: Duration) -> u32 {
        let failing = self.failing.get_or_insert(Failing { since: now, times: 0, before: self.limit });
        failing.times = failing.times.saturating_add(1);
        failing.times
    }

    /// It takes something after an outage: a request of so many records.
    fn came_back(&mut self, before: Option<Limit>, records: u64, now: Duration) {
        self.limit = Some(match before {
            Some(limit) if !limit.is_free() => {
                Limit { share: limit.share.min(CLIMB_AFTER_OUTAGE), phase: Phase::Climb, worth: 0.0, ..limit }
            }
            _ => {
                let known = Speed { requests: CLIMB_REQUESTS, records: CLIMB_REQUESTS * records.max(1) as f64 };
                Limit { known, share: 1.0, phase: Phase::ClimbFreely(now), worth: 0.0 }
            }
        });
        self.price = Price::default();
        self.taken = 0;
        self.meter.restart(now);
    }
}

impl Failing {
    fn is_outage(self, now: Duration) -> bool {
        self.times >= OUTAGE_FAILURES && now.saturating_sub(self.since) >= OUTAGE
    }
}

impl Limit {
    /// The first one: what was taken just now. If that is not `enough` to tell, no less than what hurts few.
    fn first(measured: Speed, enough: bool) -> Self {
        let a_request = measured.records / measured.requests;
        let least = Speed { requests: FIRST_MIN, records: FIRST_MIN * a_request };
        let known = if enough { measured } else { measured.at_least(least) };
        Self { known: known.at_least(SLOWEST), share: RESUME, phase: Phase::Hold, worth: 0.0 }
    }

    /// Where nothing is known, one of requests alone: the first batch after an outage may be a small one.
    fn now(&self) -> Speed {
        let now = self.known.times(self.share);
        if self.is_free() { Speed { records: f64::INFINITY, ..now } } else { now }
    }

    fn is_free(&self) -> bool {
        matches!(self.phase, Phase::ClimbFreely(_))
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.worth) = (phase, 0.0);
    }

    /// It was too much. `measured` is what was taken of late, if that is `enough` to tell.
    fn lowered(self, measured: Speed, enough: bool) -> Self {
        let now = self.now();
        let (fall, resume) = match self.phase {
            Phase::Climb | Phase::ClimbFreely(_) => (FALL, RESUME_CLIMBING),
            Phase::Hold => (FALL, RESUME),
            Phase::Probe(_) => (FALL_PROBING, RESUME_PROBING),
        };
        // Of requests that are larger than those that it was learned of, its records say nothing.
        let resized = measured.requests > 0.0 && (self.is_free() || measured.records > now.records * RESIZED);
        // The larger one: that is the one at which the limit was met.
        let by_requests = measured.requests / now.requests;
        let met = if resized { by_requests } else { by_requests.max(measured.records / now.records) };
        let part = if enough { met } else { fall };
        let part = part.clamp(FALL_MAX, 1.0).max((FALL_END / now.requests).min(1.0));
        let mut known = self.known.times(self.share * part);
        if resized {
            known.records = known.requests * (measured.records / measured.requests);
        }
        let known = known.at_least(SLOWEST);
        Self { known, share: resume, phase: Phase::Hold, worth: 0.0 }
    }
}

impl Price {
    /// How long to be content with what is known, in seconds.
    fn hold(self) -> f64 {
        (self.pause * HOLD_PER_PAUSE).clamp(HOLD_MIN, HOLD_MAX)
    }
}

#[cfg(test)]
mod tests;
