//! The rates of the last moments and where they lead, in place of the API's. Pure.
//!
//! The API averages over half a minute, and calls five seconds of work no backlog, as an operator wants it. The demo's
//! whole life is shorter than the one, and its whole story little longer than the other.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::v1::forecast::Outcome;
use crate::proto::v1::{Count, Forecast, KeepsUp, Lag, NeverAtThisRate};

/// Over how long.
const SPAN: Duration = Duration::from_millis(1_500);

/// This much of a destination's work is what is always under way.
const KEEPS_UP_SECONDS: f64 = 0.5;

/// Below this a rate says more about one batch than about the destination.
const KNOWN_AFTER: Duration = Duration::from_millis(900);

/// The counters of one queue in the last [`SPAN`].
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    accepted: u64,
    delivered: u64,
    settled: u64,
}

impl Meter {
    /// Takes in a lag that was read at `now`, and puts the recent rates and what follows from them into it.
    pub(super) fn refresh(&mut self, lag: &mut Lag, now: Duration) {
        let balance = lag.balance.unwrap_or_default();
        let accepted = records(balance.accepted);
        self.samples.push_back(Sample {
            at: now,
            accepted,
            delivered: records(balance.delivered),
            settled: accepted.saturating_sub(records(balance.pending)),
        });
        // The last one outside of the span stays: the rates are measured from it.
        while self.samples.get(1).is_some_and(|second| now.saturating_sub(second.at) >= SPAN) {
            self.samples.pop_front();
        }
        lag.arrived_per_second = self.rate(|sample| sample.accepted);
        lag.delivered_per_second = self.rate(|sample| sample.delivered);
        lag.settled_per_second = self.rate(|sample| sample.settled);
        let rates = lag.settled_per_second.zip(lag.arrived_per_second);
        lag.forecast = rates.map(|(settled, arrived)| forecast(lag.records_behind, settled, arrived));
    }

    fn rate(&self, counter: impl Fn(&Sample) -> u64) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.at.saturating_sub(first.at);
        let grown = counter(last).saturating_sub(counter(first));
        (span >= KNOWN_AFTER).then(|| grown as f64 / span.as_secs_f64())
    }
}

/// How many records a count of the API stands for.
pub(super) fn records(count: Option<Count>) -> u64 {
    count.map_or(0, |count| count.records)
}

fn forecast(behind: u64, settled: f64, arrived: f64) -> Forecast {
    let (behind, net) = (behind as f64, settled - arrived);
    let outcome = if behind == 0.0 {
        Outcome::DrainsInSeconds(0.0)
    } else if behind <= settled * KEEPS_UP_SECONDS {
        Outcome::KeepsUp(KeepsUp {})
    } else if net > 0.0 {
        Outcome::DrainsInSeconds(behind / net)
    } else {
        Outcome::NeverAtThisRate(NeverAtThisRate {})
    };
    Forecast { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Balance;

    /// After so many ms: 4,000 a second accepted all the time, 8,000 a second delivered from the tenth second on.
    fn at(meter: &mut Meter, ms: u64) -> Lag {
        let (accepted, delivered) = (4 * ms, 8 * ms.saturating_sub(10_000));
        let count = |records| Some(Count { records, bytes: 0 });
        let (accepted_count, delivered_count, pending) =
            (count(accepted), count(delivered), count(accepted - delivered));
        let balance = Balance { accepted: accepted_count, delivered: delivered_count, pending, ..Balance::default() };
        let mut lag = Lag { records_behind: accepted - delivered, balance: Some(balance), ..Lag::default() };
        meter.refresh(&mut lag, Duration::from_millis(ms));
        lag
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut meter = Meter::default();
        assert_eq!(at(&mut meter, 0).delivered_per_second, None);
        let lags: Vec<Lag> = (1..=28).map(|tick| at(&mut meter, tick * 500)).collect();
        let stalled = &lags[17];
        assert_eq!((stalled.delivered_per_second, stalled.arrived_per_second), (Some(0.0), Some(4_000.0)));
        assert!(matches!(stalled.forecast.unwrap().outcome, Some(Outcome::NeverAtThisRate(_))));
        let draining = &lags[27];
        assert_eq!((draining.delivered_per_second, draining.settled_per_second), (Some(8_000.0), Some(8_000.0)));
        let Some(Outcome::DrainsInSeconds(seconds)) = draining.forecast.unwrap().outcome else {
            panic!("{draining:?}")
        };
        assert!((seconds - 6.0).abs() < 1e-6, "24,000 records at 4,000 a second: {seconds}");
        assert!(meter.samples.len() <= 4);
    }

    #[test]
    fn what_is_always_under_way_is_no_backlog() {
        let outcome = |behind, settled| forecast(behind, settled, 4_000.0).outcome.unwrap();
        assert!(matches!(outcome(1_000, 4_000.0), Outcome::KeepsUp(_)));
        assert!(matches!(outcome(3_000, 4_000.0), Outcome::NeverAtThisRate(_)));
        assert_eq!(outcome(0, 0.0), Outcome::DrainsInSeconds(0.0));
    }
}
