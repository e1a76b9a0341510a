//! How often each user or device may be sent: Amplitude takes so many events of one a second, and refuses the requests
//! that hold more. Counted beforehand, so that nobody is refused for another.
//!
//! What always holds: bounded, whoever comes. Kept are those that are sent most; of the others Amplitude may still
//! refuse one, which [`holds`](super::holds) sees to. A short excess is waited out; a longer one is set apart, and the
//! others go.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::AmplitudeApi;
use crate::delivery::bucket::Bucket;
use crate::delivery::outcome::{Failure, HeldRecord, Outcome, Partial};
use crate::delivery::sink::Encoded;

/// As many are remembered, in some 40 bytes each.
const IDS_MAX: usize = 1_024;

/// Amplitude averages over 30 seconds. With nine tenths of its rate and three seconds' worth at once no 30 seconds hold
/// more than it takes.
const RATE_USED: f64 = 0.9;
const BURST: Duration = Duration::from_secs(3);

/// An excess that is over so soon is waited out by the whole request.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What one user or device was sent of late.
#[derive(Debug)]
pub(super) struct Rates {
    cost: Duration,
    buckets: Mutex<HashMap<u64, Bucket>>,
}

/// What is to be done with a request.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// Send it when this has passed; it is counted already.
    After(Duration),
    /// Not as it is.
    Not(Outcome),
}

impl Rates {
    pub(super) fn new(api: AmplitudeApi) -> Self {
        let a_second = match api {
            AmplitudeApi::Batch => 1_000.0,
            AmplitudeApi::HttpV2 => 30.0,
        };
        Self { cost: Duration::from_secs_f64(1.0 / (a_second * RATE_USED)), buckets: Mutex::default() }
    }

    /// Whether all of a request may be sent, which has so much `patience`. Counts it if so.
    pub(super) fn ask(&self, encoded: &Encoded, patience: Duration, now: Duration) -> Asked {
        let mut known = self.lock();
        let mut then: HashMap<u64, Bucket> = HashMap::with_capacity(encoded.subjects.len());
        let (mut longest, mut held) = (Duration::ZERO, Vec::new());
        for (index, subject) in (0..).zip(encoded.subjects.iter()) {
            let bucket = then.entry(*subject).or_insert_with(|| known.get(subject).copied().unwrap_or_default());
            let at = bucket.ready_at().max(now);
            bucket.take(self.cost, BURST, at);
            let wait = at - now;
            longest = longest.max(wait);
            if wait > patience
                && let Some(offset) = encoded.offset_at(index)
            {
                held.push(HeldRecord { offset, wait });
            }
        }
        if !held.is_empty() {
            let why = format!("{} of {} events are of users or devices over their rate", held.len(), encoded.records());
            let (rejected, why) = (Vec::new(), Failure::Local(why));
            return Asked::Not(Outcome::Partial(Partial { rejected, held, why }));
        }
        remember(&mut known, then);
        Asked::After(longest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Bucket>> {
        // A panic under this lock leaves at most a bucket out.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in who was sent now; those who were sent least are forgotten where there is no room.
fn remember(known: &mut HashMap<u64, Bucket>, then: HashMap<u64, Bucket>) {
    known.extend(then);
    if known.len() <= IDS_MAX {
        return;
    }
    let mut by_use: Vec<(Duration, u64)> =
        known.iter().map(|(subject, bucket)| (bucket.ready_at(), *subject)).collect();
    let kept = IDS_MAX / 2;
    let forgotten = by_use.len() - kept;
    by_use.select_nth_unstable(forgotten);
    *known = by_use[forgotten..].iter().filter_map(|(_, subject)| Some((*subject, *known.get(subject)?))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmplitudeConfig;
    use crate::sinks::amplitude::encode::Events;
    use crate::sinks::sample::{job, job_of};
    use std::fmt::Write as _;

    /// Events of these users, each so often, in turns.
    fn batch(users: &[(&str, usize)]) -> Encoded {
        let mut text = String::new();
        for round in 0..users.iter().map(|(_, n)| *n).max().unwrap_or(0) {
            for (user, _) in users.iter().filter(|(_, n)| round < *n) {
                write!(text, "{}{{\"k\":\"{user}\"}}", if text.is_empty() { "" } else { "," }).unwrap();
            }
        }
        let job = job_of(&format!("[{{\"f\":\"x\",\"i\":[{text}]}}]"));
        Events::new(&AmplitudeConfig::new("key")).encode(&job).unwrap()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(asked: &Asked) -> Vec<u64> {
        let Asked::Not(Outcome::Partial(partial)) = asked else { return Vec::new() };
        assert_eq!(partial.rejected, []);
        partial.held.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn who_is_within_the_rate_waits_for_nothing() {
        let rates = Rates::new(AmplitudeApi::HttpV2);
        for second in 0..100 {
            let asked = rates.ask(&batch(&[("often", 27), ("seldom", 1)]), PATIENCE, secs(1_000 + second));
            assert_eq!(asked, Asked::After(Duration::ZERO), "{second}");
        }
    }

    #[test]
    fn a_short_excess_is_waited_out_and_counted() {
        let rates = Rates::new(AmplitudeApi::HttpV2);
        let full = batch(&[("a", 81)]);
        assert_eq!(rates.ask(&full, PATIENCE, secs(1_000)), Asked::After(Duration::ZERO));
        let Asked::After(wait) = rates.ask(&batch(&[("a", 27), ("b", 5)]), PATIENCE, secs(1_000)) else { panic!() };
        assert!((wait.as_secs_f64() - 1.0).abs() < 0.01, "{wait:?}");
    }

    #[test]
    fn a_long_excess_is_set_apart_and_the_others_go() {
        let rates = Rates::new(AmplitudeApi::HttpV2);
        let asked = rates.ask(&batch(&[("a", 200), ("b", 50)]), PATIENCE, secs(1_000));
        let over = held(&asked);
        // Three seconds' worth and two more to wait out.
        assert!((62..=66).contains(&over.len()), "{}", over.len());
        assert!(over.iter().all(|offset| *offset >= 100 + 100), "none of b's: {over:?}");
        let again = rates.ask(&batch(&[("a", 200), ("b", 50)]), PATIENCE, secs(1_000));
        assert_eq!(held(&again), over, "what was not sent is not counted");
    }

    #[test]
    fn no_thirty_seconds_hold_more_than_amplitude_takes_of_one() {
        for (api, a_second) in [(AmplitudeApi::HttpV2, 30), (AmplitudeApi::Batch, 1_000)] {
            let (rates, one) = (Rates::new(api), batch(&[("a", 10)]));
            let (mut now, mut sent) = (secs(1_000), Vec::new());
            while now < secs(1_060) {
                match rates.ask(&one, Duration::MAX, now) {
                    Asked::After(wait) => now += wait,
                    Asked::Not(_) => unreachable!("it is patient"),
                }
                sent.push(now);
            }
            let in_thirty = |from: usize| sent[from..].iter().filter(|at| **at < sent[from] + secs(30)).count() * 10;
            let most = (0..sent.len()).map(in_thirty).max().unwrap();
            assert!(most <= a_second * 30 && most > a_second * 26, "{most}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_is_sent_most_stays() {
        let rates = Rates::new(AmplitudeApi::HttpV2);
        let events = Events::new(&AmplitudeConfig::new("key"));
        let (often, mut over) = (batch(&[("often", 12)]), false);
        for n in 0..20 {
            let strangers = events.encode(&job(n * 900..(n + 1) * 900)).unwrap();
            rates.ask(&strangers, PATIENCE, secs(1_000));
            over |= rates.ask(&often, Duration::ZERO, secs(1_000)) != Asked::After(Duration::ZERO);
            assert!(rates.lock().len() <= IDS_MAX);
        }
        assert!(over, "whoever is sent often is found among thousands");
    }
}
