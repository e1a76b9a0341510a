//! One token bucket, kept as the moment from which on the next one may start. Pure: it knows neither rate nor unit; who
//! takes says what that costs, as a time.
//!
//! What always holds: in any span of time no more is taken than that span and the burst, so long as all cost the same;
//! what costs more than the burst goes alone, and is paid for afterwards. And nobody waits longer than for what was
//! taken last.

use std::time::Duration;

/// No request costs more time than this: whatever the rate, one goes out in a day.
const COST_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A bucket. A new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    ready_at: Duration,
}

impl Bucket {
    /// From when on something may be taken.
    #[must_use]
    pub fn ready_at(self) -> Duration {
        self.ready_at
    }

    /// Lets one be taken now, at the latest.
    pub fn refill(&mut self, now: Duration) {
        self.ready_at = self.ready_at.min(now);
    }

    /// Takes `cost`: what comes next waits so long, as far as nothing is left of the `burst`: that much of the time in
    /// which nothing was taken counts.
    pub fn take(&mut self, cost: Duration, burst: Duration, now: Duration) {
        let cost = cost.min(COST_MAX);
        // So that a burst holds exactly as many as fit into it, this one included.
        let saved = burst.saturating_sub(cost);
        self.ready_at = self.ready_at.max(now.saturating_sub(saved)).saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_burst_holds_as_many_as_fit_and_then_one_comes_after_the_other() {
        let (mut bucket, now) = (Bucket::default(), Duration::from_secs(100));
        for taken in 0..10 {
            assert!(bucket.ready_at() <= now, "{taken}");
            bucket.take(ms(100), SECOND, now);
        }
        assert_eq!(bucket.ready_at(), now + ms(100));
    }

    #[test]
    fn what_costs_more_than_the_burst_goes_alone_and_is_paid_for() {
        let (mut bucket, now) = (Bucket::default(), Duration::from_secs(100));
        bucket.take(SECOND * 5, SECOND, now);
        assert_eq!(bucket.ready_at(), now + SECOND * 5);
        bucket.take(Duration::MAX, SECOND, now + SECOND * 5);
        assert_eq!(bucket.ready_at(), now + SECOND * 5 + COST_MAX);
    }

    proptest! {
        /// Whoever comes takes as soon as the bucket lets it.
        #[test]
        fn no_span_holds_more_than_its_time_and_the_burst_and_nobody_waits_for_more_than_the_last(
            burst in 0u64..3_000,
            takes in proptest::collection::vec((0u64..2_000, 1u64..1_500), 1..60),
            even in proptest::option::of(1u64..1_500),
        ) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::from_secs(10));
            let mut taken: Vec<(Duration, Duration)> = Vec::new();
            for (pause, cost) in takes {
                let cost = ms(even.unwrap_or(cost));
                now += ms(pause);
                if let Some((at, last)) = taken.last() {
                    prop_assert!(bucket.ready_at() <= *at + *last, "waits for the last one at most");
                }
                now = now.max(bucket.ready_at());
                bucket.take(cost, ms(burst), now);
                taken.push((now, cost));
            }
            for (from, first) in taken.iter().enumerate() {
                let mut sum = Duration::ZERO;
                for last in &taken[from..] {
                    sum += last.1;
                    let most = (last.0 - first.0) + ms(burst).max(first.1) + last.1.saturating_sub(first.1);
                    prop_assert!(sum <= most, "{sum:?} of {most:?}");
                }
            }
        }
    }
}
