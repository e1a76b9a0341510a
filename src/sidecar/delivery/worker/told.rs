//! What the log has heard of a destination's troubles: a line when it begins to fail and one when it is back, and at most one
//! such pair a minute, since one that fails by turns would fill it. Pure.

use std::time::Duration;

/// From one line of a failure to the next.
const QUIET: Duration = Duration::from_secs(60);

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    failing: bool,
    quiet_until: Duration,
}

impl Told {
    /// It fails. Whether that is to be said: one that still does when the minute is over is told of then.
    pub(super) fn fails(&mut self, now: Duration) -> bool {
        !self.failing && now >= self.quiet_until && self.refuses(now)
    }

    /// It refuses, which is always said: somebody has to see to it.
    pub(super) fn refuses(&mut self, now: Duration) -> bool {
        (self.failing, self.quiet_until) = (true, now.saturating_add(QUIET));
        true
    }

    /// It takes batches. Whether that is to be said: nobody who did not hear of the failure has to hear of its end.
    pub(super) fn takes(&mut self) -> bool {
        std::mem::take(&mut self.failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_outage_is_two_lines_and_the_next_one_two_more() {
        let mut told = Told::default();
        assert!(!told.takes());
        assert_eq!([1, 2, 500].map(|at| told.fails(secs(at))), [true, false, false]);
        assert!(told.takes() && !told.takes());
        assert!(told.fails(secs(501)) && told.takes());
    }

    /// Before, one whose connections were cut now and then wrote two lines a failure.
    #[test]
    fn who_fails_by_turns_is_told_of_once_a_minute_and_one_that_stays_away_within_the_minute() {
        let mut told = Told::default();
        let lines = (0..600).filter(|second| told.fails(secs(*second)) | told.takes()).count();
        assert_eq!(lines, 10);
        assert!(told.fails(secs(600)) && told.takes());
        assert_eq!([601, 659, 660, 661].map(|at| told.fails(secs(at))), [false, false, true, false]);
    }

    #[test]
    fn a_refusal_is_told_of_whatever_was_said_before() {
        let mut told = Told::default();
        assert!(told.fails(secs(0)) && told.takes() && told.refuses(secs(1)));
        assert!(!told.fails(secs(100)) && told.takes());
    }
}
