//! How fast a counter grows, averaged so that the recent past weighs most.
//!
//! Pure: samples come with their time, in any rhythm. Not a histogram and not exact: for people and forecasts.
//! What always holds: a rate lies between the slowest and the fastest interval that was seen.

use std::time::Duration;

/// After this long an interval weighs a third (1/e) of what it weighed: long enough to even out batches, short enough that a
/// destination that comes back is seen to come back.
const MEMORY: Duration = Duration::from_secs(30);

/// Below this span a rate says more about one batch than about the destination.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// The rate of one counter.
#[derive(Debug, Clone, Default)]
pub(super) struct Rate {
    last: Option<(Duration, u64)>,
    /// The weighted sum of the intervals' rates.
    sum: f64,
    /// The sum of their weights, which approaches 1. Dividing by it keeps a young average from leaning towards zero.
    weight: f64,
    watched: Duration,
}

impl Rate {
    /// The counter stands at `count` at the time `now`.
    ///
    /// A counter that went back has been made anew, and so is the rate. A sample no later than the last one is left out:
    /// the next one will cover its time.
    pub(super) fn sample(&mut self, now: Duration, count: u64) {
        let Some((at, before)) = self.last else {
            self.last = Some((now, count));
            return;
        };
        if count < before {
            *self = Self { last: Some((now, count)), ..Self::default() };
            return;
        }
        let Some(interval) = now.checked_sub(at).filter(|interval| !interval.is_zero()) else { return };
        let fresh = 1.0 - (-interval.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let per_second = (count - before) as f64 / interval.as_secs_f64();
        self.sum += fresh * (per_second - self.sum);
        self.weight += fresh * (1.0 - self.weight);
        self.watched += interval;
        self.last = Some((now, count));
    }

    /// Counts per second. `None` until the counter has been watched for a second.
    pub(super) fn per_second(&self) -> Option<f64> {
        (self.watched >= KNOWN_AFTER && self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_unknown_until_it_was_watched_for_a_second() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), None);
        rate.sample(ms(0), 5);
        rate.sample(ms(999), 1_000);
        assert_eq!(rate.per_second(), None);
        rate.sample(ms(1_000), 1_005);
        assert!(rate.per_second().is_some());
    }

    #[test]
    fn a_steady_counter_has_its_rate_from_the_first_second() {
        let mut rate = Rate::default();
        for tick in 0..=10 {
            rate.sample(ms(tick * 100), tick * 50);
        }
        let per_second = rate.per_second().unwrap();
        assert!((per_second - 500.0).abs() < 1e-6, "{per_second}");
    }

    #[test]
    fn a_change_is_mostly_seen_after_half_a_minute_and_wholly_after_minutes() {
        let mut rate = Rate::default();
        let mut count = 0;
        for second in 0..300 {
            count += 1_000;
            rate.sample(ms(second * 1_000), count);
        }
        rate.sample(ms(330_000), count);
        let soon = rate.per_second().unwrap();
        assert!((300.0..450.0).contains(&soon), "a stop leaves a third after the memory's length: {soon}");
        rate.sample(ms(600_000), count);
        assert!(rate.per_second().unwrap() < 1.0);
    }

    #[test]
    fn a_counter_that_went_back_starts_afresh() {
        let mut rate = Rate::default();
        rate.sample(ms(0), 0);
        rate.sample(ms(5_000), 1_000_000);
        rate.sample(ms(6_000), 3);
        assert_eq!(rate.per_second(), None);
        rate.sample(ms(8_000), 5);
        assert!((rate.per_second().unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn two_samples_of_one_moment_do_no_harm() {
        let mut rate = Rate::default();
        rate.sample(ms(1_000), 0);
        rate.sample(ms(1_000), 500);
        rate.sample(ms(500), 700);
        rate.sample(ms(2_000), 1_000);
        assert!((rate.per_second().unwrap() - 1_000.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn a_rate_lies_between_the_slowest_and_the_fastest_interval(
            steps in proptest::collection::vec((1_u64..100_000, 0_u64..1_000_000_000), 1..50)
        ) {
            let mut rate = Rate::default();
            let (mut now, mut count) = (0, 0);
            rate.sample(ms(now), count);
            let (mut slowest, mut fastest) = (f64::MAX, 0.0_f64);
            for (interval_ms, more) in steps {
                now += interval_ms;
                count += more;
                rate.sample(ms(now), count);
                let per_second = more as f64 * 1_000.0 / interval_ms as f64;
                slowest = slowest.min(per_second);
                fastest = fastest.max(per_second);
            }
            if let Some(per_second) = rate.per_second() {
                let slack = 1e-6 * fastest + 1e-9;
                prop_assert!(per_second >= slowest - slack && per_second <= fastest + slack);
            }
        }
    }
}
