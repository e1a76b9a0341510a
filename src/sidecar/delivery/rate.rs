//! How fast one destination may be sent to: no faster than its operator allows, than its answers say, and than was
//! learned of it. Pure: `now` is an argument, counted from any fixed moment.
//!
//! What always holds: nothing starts before all three let it, and all three let something start again in time.

pub mod learned;
mod meter;

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::bucket::Bucket;
use super::source::Limits;
use learned::{Learned, Speed};

/// What an operator allows a second. What is not set is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RateLimits {
    /// Requests.
    pub requests: Option<NonZeroU32>,
    /// Records.
    pub records: Option<NonZeroU32>,
    /// Bytes of records, as stored.
    pub bytes: Option<NonZeroU64>,
}

/// So much time counts that nothing was sent in: a second's worth of requests may follow one another at once.
const BURST: Duration = Duration::from_secs(1);

/// What one request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its records.
    pub records: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The operator's limit.
    Operator,
    /// What was learned.
    Learned,
    /// What the destination said is left.
    Told,
}

/// The rate of one destination.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    limits: RateLimits,
    requests: Bucket,
    records: Bucket,
    bytes: Bucket,
    told: Option<Told>,
    learned: Learned,
}

/// What a destination said of its own accord, in an answer that was none about limits.
#[derive(Debug, Clone, Copy)]
struct Told {
    left: u64,
    until: Duration,
}

impl RateLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How large a batch may be: no larger than what a second allows, or it would be sent in one go and then waited for.
    #[must_use]
    pub fn batch(&self, limits: Limits) -> Limits {
        let records = self.records.map_or(u64::MAX, |records| u64::from(records.get()));
        let bytes = self.bytes.map_or(u64::MAX, NonZeroU64::get);
        Limits { records_max: limits.records_max.min(records), bytes_max: limits.bytes_max.min(bytes) }
    }
}

impl Rate {
    /// A destination with these limits, of which `kept` was learned before.
    #[must_use]
    pub fn new(limits: RateLimits, kept: Option<Speed>) -> Self {
        Self { limits, learned: kept.map_or_else(Learned::default, Learned::kept), ..Self::default() }
    }

    /// The moment from which on a request may start, and what it waits for until then.
    #[must_use]
    pub fn ready_at(&self) -> (Duration, By) {
        let operator = self.requests.ready_at().max(self.records.ready_at()).max(self.bytes.ready_at());
        let told = self.told.filter(|told| told.left == 0).map_or(Duration::ZERO, |told| told.until);
        let waits = [(told, By::Told), (self.learned.ready_at(), By::Learned), (operator, By::Operator)];
        waits.into_iter().max_by_key(|(at, _)| *at).expect("there are three")
    }

    /// What a request of this size takes of the limit that it takes most of, as a time. `None` where there is no limit.
    #[must_use]
    pub fn cost(&self, size: Size) -> Option<Duration> {
        let RateLimits { requests, records, bytes } = self.limits;
        let learned = self.learned.limit().map(|speed| Duration::from_secs_f64(speed.seconds(size.records)));
        let set = [
            requests.map(|requests| cost(1, requests.get().into())),
            records.map(|records| cost(size.records, records.get().into())),
            bytes.map(|bytes| cost(size.bytes, bytes.get())),
        ];
        set.into_iter().flatten().chain(learned).max()
    }

    /// A request starts.
    pub fn sending(&mut self, size: Size, now: Duration) {
        let RateLimits { requests, records, bytes } = self.limits;
        if let Some(requests) = requests {
            self.requests.take(cost(1, requests.get().into()), BURST, now);
        }
        if let Some(records) = records {
            self.records.take(cost(size.records, records.get().into()), BURST, now);
        }
        if let Some(bytes) = bytes {
            self.bytes.take(cost(size.bytes, bytes.get()), BURST, now);
        }
        self.told = self.told.filter(|told| told.until > now);
        if let Some(told) = &mut self.told {
            told.left = told.left.saturating_sub(1);
        }
        self.learned.sending(size.records, now);
    }

    /// The destination said that so many requests are left until a moment.
    pub fn told(&mut self, left: u64, until: Duration) {
        self.told = Some(Told { left, until });
    }

    /// An operator knows better: the next request waits neither for what it said is left nor for what was learned.
    pub fn probe(&mut self, now: Duration) {
        self.told = None;
        self.learned.probe(now);
    }

    /// What the operator allows.
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        self.limits
    }

    /// What of it is learned.
    #[must_use]
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// The same, to learn more.
    pub fn learned_mut(&mut self) -> &mut Learned {
        &mut self.learned
    }
}

/// The time that so many take of a limit.
fn cost(n: u64, a_second: u64) -> Duration {
    Duration::from_secs_f64(n as f64 / a_second as f64)
}

#[cfg(test)]
mod tests;
