//! Where a lag leads if nothing changes: when it drains, or that it never does.
//!
//! Pure arithmetic on a backlog and two rates. Promises nothing about a future in which the rates change.

use std::time::Duration;

/// A backlog that is less than this much of its destination's work is what is always under way, not a backlog. Without this
/// line a destination that keeps up would flicker between "an hour" and "never", as its two rates differ by noise alone.
const KEEPS_UP: Duration = Duration::from_secs(5);

/// A century: beyond it a number of seconds is noise.
pub(super) const DRAINS_IN_MAX_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

/// What becomes of a backlog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Forecast {
    /// The rates are not known yet.
    Unknown,
    /// Settled after this time; zero when nothing waits.
    DrainsIn(Duration),
    /// The backlog is a few seconds of the destination's work: it keeps up.
    KeepsUp,
    /// As much arrives as is settled, or more.
    Never,
}

/// The forecast for `backlog` records, of which `settled` go and to which `arrived` come each second.
///
/// `settled` is everything that takes records off the backlog: a destination whose filter leaves most out drains by that too.
#[must_use]
pub fn forecast(backlog: u64, settled: Option<f64>, arrived: Option<f64>) -> Forecast {
    if backlog == 0 {
        return Forecast::DrainsIn(Duration::ZERO);
    }
    let (Some(settled), Some(arrived)) = (settled, arrived) else { return Forecast::Unknown };
    let backlog = backlog as f64;
    let net = settled - arrived;
    let drained_after = (net > 0.0).then(|| backlog / net);
    match drained_after {
        Some(seconds) if seconds <= KEEPS_UP.as_secs_f64() => Forecast::DrainsIn(Duration::from_secs_f64(seconds)),
        _ if backlog <= settled * KEEPS_UP.as_secs_f64() => Forecast::KeepsUp,
        Some(seconds) if seconds <= DRAINS_IN_MAX_SECONDS => Forecast::DrainsIn(Duration::from_secs_f64(seconds)),
        _ => Forecast::Never,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_behind_is_drained_whatever_the_rates() {
        assert_eq!(forecast(0, None, None), Forecast::DrainsIn(Duration::ZERO));
        assert_eq!(forecast(0, Some(1.0), Some(9.0)), Forecast::DrainsIn(Duration::ZERO));
    }

    #[test]
    fn a_backlog_without_rates_is_unknown() {
        assert_eq!(forecast(1, None, Some(1.0)), Forecast::Unknown);
        assert_eq!(forecast(1, Some(1.0), None), Forecast::Unknown);
    }

    #[test]
    fn a_backlog_drains_by_the_difference_of_the_rates() {
        assert_eq!(forecast(60_000, Some(300.0), Some(200.0)), Forecast::DrainsIn(Duration::from_secs(600)));
    }

    #[test]
    fn a_destination_that_takes_nothing_never_drains() {
        assert_eq!(forecast(1, Some(0.0), Some(0.0)), Forecast::Never);
        assert_eq!(forecast(1_000_000, Some(500.0), Some(500.0)), Forecast::Never);
    }

    #[test]
    fn what_is_always_under_way_is_no_backlog() {
        assert_eq!(forecast(800, Some(1_000.0), Some(1_001.0)), Forecast::KeepsUp);
        assert_eq!(forecast(800, Some(1_000.0), Some(999.9)), Forecast::KeepsUp, "not a quarter of a day");
        assert_eq!(forecast(5_001, Some(1_000.0), Some(1_001.0)), Forecast::Never, "more than five seconds of work");
    }

    proptest! {
        #[test]
        fn a_faster_destination_never_drains_later(
            backlog in 1_u64..1_000_000_000, arrived in 0.0_f64..1e6, settled in 0.0_f64..1e6, more in 0.0_f64..1e6
        ) {
            let slow = forecast(backlog, Some(settled), Some(arrived));
            let fast = forecast(backlog, Some(settled + more), Some(arrived));
            prop_assert!(worse(fast) <= worse(slow), "{slow:?} then {fast:?}");
        }

        #[test]
        fn more_arriving_never_drains_earlier(
            backlog in 1_u64..1_000_000_000, arrived in 0.0_f64..1e6, settled in 0.0_f64..1e6, more in 0.0_f64..1e6
        ) {
            let few = forecast(backlog, Some(settled), Some(arrived));
            let many = forecast(backlog, Some(settled), Some(arrived + more));
            prop_assert!(worse(few) <= worse(many), "{few:?} then {many:?}");
        }

        #[test]
        fn any_numbers_have_a_forecast(backlog: u64, settled in 0.0_f64..f64::MAX, arrived in 0.0_f64..f64::MAX) {
            let known = forecast(backlog, Some(settled), Some(arrived));
            prop_assert_ne!(known, Forecast::Unknown);
        }

        #[test]
        fn never_means_that_the_backlog_does_not_shrink(backlog in 1_u64..1_000_000, settled in 0.0_f64..1e6, arrived in 0.0_f64..1e6) {
            if forecast(backlog, Some(settled), Some(arrived)) == Forecast::Never {
                prop_assert!(settled <= arrived || backlog as f64 / (settled - arrived) > DRAINS_IN_MAX_SECONDS);
            }
        }
    }

    /// How bad a forecast is, as seconds; keeping up counts as the most it can stand for.
    fn worse(forecast: Forecast) -> f64 {
        match forecast {
            Forecast::DrainsIn(time) => time.as_secs_f64(),
            Forecast::KeepsUp => KEEPS_UP.as_secs_f64(),
            Forecast::Never | Forecast::Unknown => f64::INFINITY,
        }
    }
}
