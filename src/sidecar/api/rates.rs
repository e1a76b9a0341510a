//! How fast counters grow, averaged so that the recent past weighs most.
//!
//! Pure: samples come with their time, in any rhythm. Not a histogram and not exact: for people and forecasts.
//! What always holds: a rate lies between the slowest and the fastest interval that was seen.

use std::time::Duration;

/// After this long an interval weighs a third (1/e) of what it weighed: long enough to even out batches, short enough that a
/// destination that comes back is seen to come back.
const MEMORY: Duration = Duration::from_secs(30);

/// Below this span a rate says more about one batch than about the destination.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// The rates of `N` counters that are read together.
#[derive(Debug, Clone)]
pub(super) struct Rates<const N: usize> {
    /// When they were last read.
    at: Duration,
    /// For how long up to then.
    watched: Duration,
    counters: [Counter; N],
}

#[derive(Debug, Clone)]
struct Counter {
    count: u64,
    /// The weighted sum of the intervals' rates. The sum of their weights follows from the time they cover.
    sum: f64,
}

impl<const N: usize> Rates<N> {
    /// The counters stand at `counts` at the time `now`, and that is all that is known of them.
    pub(super) fn from(now: Duration, counts: [u64; N]) -> Self {
        Self { at: now, watched: Duration::ZERO, counters: counts.map(|count| Counter { count, sum: 0.0 }) }
    }

    /// The counters stand at `counts` at the time `now`.
    ///
    /// Where one went back they have been made anew, and so are the rates. A sample no later than the last one is left
    /// out: the next one will cover its time.
    pub(super) fn sample(&mut self, now: Duration, counts: [u64; N]) {
        if self.counters.iter().zip(counts).any(|(before, count)| count < before.count) {
            *self = Self::from(now, counts);
            return;
        }
        let Some(interval) = now.checked_sub(self.at).filter(|interval| !interval.is_zero()) else { return };
        let fresh = weight_of(interval);
        for (counter, count) in self.counters.iter_mut().zip(counts) {
            let per_second = (count - counter.count) as f64 / interval.as_secs_f64();
            counter.sum += fresh * (per_second - counter.sum);
            counter.count = count;
        }
        self.watched += interval;
        self.at = now;
    }

    /// When the counters were last read.
    pub(super) fn at(&self) -> Duration {
        self.at
    }

    /// Counts per second. `None` until the counters have been watched for a second.
    pub(super) fn per_second(&self) -> [Option<f64>; N] {
        // The weights approach 1. Dividing by them keeps a young average from leaning towards zero.
        let weight = weight_of(self.watched);
        let known = self.watched >= KNOWN_AFTER;
        self.counters.each_ref().map(|counter| known.then(|| counter.sum / weight))
    }
}

/// What the last `time` weighs of all that was ever seen.
fn weight_of(time: Duration) -> f64 {
    -(-time.as_secs_f64() / MEMORY.as_secs_f64()).exp_m1()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rate: &Rates<1>) -> Option<f64> {
        let [per_second] = rate.per_second();
        per_second
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_unknown_until_it_was_watched_for_a_second() {
        let mut rate = Rates::from(ms(0), [5]);
        assert_eq!(of(&rate), None);
        rate.sample(ms(999), [1_000]);
        assert_eq!(of(&rate), None);
        rate.sample(ms(1_000), [1_005]);
        assert!(of(&rate).is_some());
    }

    #[test]
    fn a_steady_counter_has_its_rate_from_the_first_second() {
        let mut rate = Rates::from(ms(0), [0]);
        for tick in 1..=10 {
            rate.sample(ms(tick * 100), [tick * 50]);
        }
        let per_second = of(&rate).unwrap();
        assert!((per_second - 500.0).abs() < 1e-6, "{per_second}");
    }

    #[test]
    fn a_change_is_mostly_seen_after_half_a_minute_and_wholly_after_minutes() {
        let mut rate = Rates::from(ms(0), [1_000]);
        let mut count = 1_000;
        for second in 1..300 {
            count += 1_000;
            rate.sample(ms(second * 1_000), [count]);
        }
        rate.sample(ms(330_000), [count]);
        let soon = of(&rate).unwrap();
        assert!((300.0..450.0).contains(&soon), "a stop leaves a third after the memory's length: {soon}");
        rate.sample(ms(600_000), [count]);
        assert!(of(&rate).unwrap() < 1.0);
    }

    #[test]
    fn a_counter_that_went_back_starts_afresh() {
        let mut rate = Rates::from(ms(0), [0]);
        rate.sample(ms(5_000), [1_000_000]);
        rate.sample(ms(6_000), [3]);
        assert_eq!(of(&rate), None);
        rate.sample(ms(8_000), [5]);
        assert!((of(&rate).unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn two_samples_of_one_moment_do_no_harm() {
        let mut rate = Rates::from(ms(1_000), [0]);
        rate.sample(ms(1_000), [500]);
        rate.sample(ms(500), [700]);
        rate.sample(ms(2_000), [1_000]);
        assert!((of(&rate).unwrap() - 1_000.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn a_rate_lies_between_the_slowest_and_the_fastest_interval(
            steps in proptest::collection::vec((1_u64..100_000, 0_u64..1_000_000_000), 1..50)
        ) {
            let (mut now, mut count) = (0, 0);
            let mut rate = Rates::from(ms(now), [count]);
            let (mut slowest, mut fastest) = (f64::MAX, 0.0_f64);
            for (interval_ms, more) in steps {
                now += interval_ms;
                count += more;
                rate.sample(ms(now), [count]);
                let per_second = more as f64 * 1_000.0 / interval_ms as f64;
                slowest = slowest.min(per_second);
                fastest = fastest.max(per_second);
            }
            if let Some(per_second) = of(&rate) {
                let slack = 1e-6 * fastest + 1e-9;
                prop_assert!(per_second >= slowest - slack && per_second <= fastest + slack);
            }
        }
    }
}
