//! For how long somebody has waited. Pure: `now` is an argument.

use std::time::Duration;

/// For how long all in all somebody has waited.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    before: Duration,
    since: Option<Duration>,
}

impl Pressure {
    /// How long that is by now.
    pub(super) fn until(&self, now: Duration) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// From now on somebody waits, or nobody.
    pub(super) fn set(&mut self, somebody_waits: bool, now: Duration) {
        match (somebody_waits, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(_)) => *self = Self { before: self.until(now), since: None },
            _ => {}
        }
    }
}
