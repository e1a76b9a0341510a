//! What a destination took in the last seconds. Pure.

use std::time::Duration;

use super::learned::Speed;

/// Half of what is looked back at: long enough that single requests make no difference, short enough to be now.
const HALF: Duration = Duration::from_secs(2);

/// Counts what is taken over the last two to four seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Meter {
    /// When the half before began, and when this one did.
    from: Duration,
    mark: Duration,
    before: Taken,
    since: Taken,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Taken {
    requests: u64,
    records: u64,
}

impl Meter {
    /// Counts anew, from a moment that may lie ahead.
    pub(super) fn restart(&mut self, at: Duration) {
        *self = Self { from: at, mark: at, ..Self::default() };
    }

    pub(super) fn taken(&mut self, records: u64, now: Duration) {
        match now.saturating_sub(self.mark) {
            // Whatever came before a pause of that length is no measure of now.
            pause if pause >= HALF * 2 => self.restart(now),
            half if half >= HALF => {
                (self.from, self.before) = (self.mark, self.since);
                (self.mark, self.since) = (now, Taken::default());
            }
            _ => {}
        }
        self.since.requests += 1;
        self.since.records = self.since.records.saturating_add(records);
    }

    pub(super) fn requests(&self) -> u64 {
        self.before.requests + self.since.requests
    }

    /// What was taken a second, over a fifth of one at least. Counts one request more than there were: who is just refused has
    /// waited for it, and else few requests would measure too little.
    pub(super) fn speed(&self, now: Duration) -> Speed {
        let seconds = now.saturating_sub(self.from).as_secs_f64().max(0.2);
        let requests = self.requests() as f64;
        let records = self.before.records.saturating_add(self.since.records) as f64;
        let more = if requests > 0.0 { (requests + 1.0) / requests } else { 1.0 };
        Speed { requests: requests * more / seconds, records: records * more / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn an_even_flow_measures_as_what_it_is_at_any_time() {
        let (mut meter, mut now) = (Meter::default(), Duration::from_secs(50));
        for n in 0..1000 {
            now += ms(50);
            meter.taken(10, now);
            let speed = meter.speed(now);
            let even =
                n < 40 || ((speed.requests / 20.0 - 1.0).abs() < 0.06 && (speed.records / 200.0 - 1.0).abs() < 0.06);
            assert!(even, "{n}: {speed:?}");
        }
        assert!(meter.requests() <= 81);
    }

    #[test]
    fn what_lies_before_a_pause_or_a_restart_does_not_count() {
        let mut meter = Meter::default();
        (0..100).for_each(|n| meter.taken(10, ms(n)));
        meter.taken(10, Duration::from_secs(60));
        assert_eq!(meter.requests(), 1);
        meter.restart(Duration::from_secs(61));
        assert_eq!((meter.requests(), meter.speed(Duration::from_secs(61)).records), (0, 0.0));
    }
}
