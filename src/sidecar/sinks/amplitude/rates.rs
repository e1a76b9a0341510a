//! How often each user or device may be sent: Amplitude takes so many events of one a second, and refuses the requests
//! that hold more. Counted beforehand, so that nobody is refused for another.
//!
//! What always holds: bounded, whoever comes. Kept are those that are sent most; of the others Amplitude may still
//! refuse one, which [`holds`](super::holds) sees to. A short excess is waited out; a longer one is set apart, and the
//! others go. What is set apart is promised a place behind all that were promised before, at the rate: a backlog comes back
//! as it can go, and is set apart about once. A promise is no right: when its time has come, it is what was sent that
//! decides. So nothing is lost with what is forgotten here, by a restart or for want of room: whoever comes back with others
//! is promised another place.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::AmplitudeApi;
use crate::delivery::bucket::Bucket;
use crate::delivery::outcome::{Failure, HeldRecord, Outcome, Partial};
use crate::delivery::retry_after::WAIT_MAX;
use crate::delivery::sink::Encoded;

/// As many are remembered, in some 70 bytes each.
const IDS_MAX: usize = 1_024;

/// Amplitude averages over 30 seconds. With nine tenths of its rate and three seconds' worth at once no 30 seconds hold
/// more than it takes.
const RATE_USED: f64 = 0.9;
const BURST: Duration = Duration::from_secs(3);

/// An excess that is over so soon is waited out by the whole request.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Who comes so little before the promised time is on time: that is told by the wall clock, in milliseconds.
const SLACK: Duration = Duration::from_millis(100);

/// What is known of users and devices, as [`Encoded::subjects`] has them.
#[derive(Debug)]
pub(super) struct Rates {
    cost: Duration,
    lines: Mutex<HashMap<u64, Line>>,
}

/// One user or device: what it was sent of late, and those of its events that stand in line.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    sent: Bucket,
    /// The first promised place that nobody has come for, and where the next one would be: one behind the other. None is
    /// promised where these meet.
    first: Duration,
    end: Duration,
}

/// A line as a request that is looked at leaves it, if all that may go goes.
struct Then {
    line: Line,
    /// The same, if nothing goes.
    unsent: Line,
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
        Self { cost: Duration::from_secs_f64(1.0 / (a_second * RATE_USED)), lines: Mutex::default() }
    }

    /// Whether all of a request may be sent, which has so much `patience`. Counts it if so; else counts what is held.
    pub(super) fn ask(&self, encoded: &Encoded, patience: Duration, now: Duration) -> Asked {
        let mut known = self.lock();
        let mut then: HashMap<u64, Then> = HashMap::with_capacity(encoded.subjects.len());
        let (mut longest, mut held) = (Duration::ZERO, Vec::new());
        for (index, subject) in (0..).zip(encoded.subjects.iter()) {
            let then = then.entry(*subject).or_insert_with(|| {
                let line = known.get(subject).copied().unwrap_or_default();
                Then { line, unsent: line }
            });
            let wait = then.line.wait(now);
            let Some(offset) = encoded.offset_at(index).filter(|_| wait > patience || !then.line.may_go(now)) else {
                then.line.go(self.cost, now);
                longest = longest.max(wait);
                continue;
            };
            let place = then.line.place(now);
            [&mut then.line, &mut then.unsent].into_iter().for_each(|line| line.promise(place, self.cost, now));
            held.push(HeldRecord { offset, wait: place - now });
        }
        if !held.is_empty() {
            remember(&mut known, then.into_iter().map(|(subject, then)| (subject, then.unsent)));
            let why = format!("{} of {} events are of users or devices over their rate", held.len(), encoded.records());
            let (rejected, why) = (Vec::new(), Failure::Local(why));
            return Asked::Not(Outcome::Partial(Partial { rejected, held, why }));
        }
        remember(&mut known, then.into_iter().map(|(subject, then)| (subject, then.line)));
        Asked::After(longest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Line>> {
        // A panic under this lock leaves at most a line out.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// How long the next event would wait.
    fn wait(&self, now: Duration) -> Duration {
        self.sent.ready_at().saturating_sub(now)
    }

    /// Whether it would take nobody's place: it goes before all that are promised, or may be the one that was promised a place
    /// whose time has come. Letters and new events look the same here; where a new one goes in a letter's place, it is the letter
    /// that joins the end.
    fn may_go(&self, now: Duration) -> bool {
        self.is_empty() || self.is_due(now) || self.sent.ready_at().max(now) < self.first
    }

    fn is_empty(&self) -> bool {
        self.first >= self.end
    }

    /// Somebody is to come for a place now.
    fn is_due(&self, now: Duration) -> bool {
        !self.is_empty() && self.first <= now + SLACK
    }

    fn go(&mut self, cost: Duration, now: Duration) {
        self.come(cost, now);
        self.sent.take(cost, BURST, self.sent.ready_at().max(now));
    }

    /// Where the line ends: behind what may be sent until then.
    fn place(&self, now: Duration) -> Duration {
        let end = if self.is_empty() { Duration::ZERO } else { self.end };
        end.max(self.sent.ready_at()).max(now).min(now + WAIT_MAX)
    }

    /// This place, the last one, is taken.
    fn promise(&mut self, place: Duration, cost: Duration, now: Duration) {
        self.come(cost, now);
        if self.is_empty() {
            self.first = place;
        }
        self.end = place + cost;
    }

    /// Somebody is here for the place whose time has come, if there is one.
    fn come(&mut self, cost: Duration, now: Duration) {
        if self.is_due(now) {
            self.first = (self.first + cost).min(self.end);
        }
    }
}

/// Takes in what became of lines; those that end first are forgotten where there is no room.
fn remember(known: &mut HashMap<u64, Line>, then: impl Iterator<Item = (u64, Line)>) {
    known.extend(then);
    if known.len() <= IDS_MAX {
        return;
    }
    let mut by_end: Vec<(Duration, u64)> =
        known.iter().map(|(subject, line)| (line.sent.ready_at().max(line.end), *subject)).collect();
    let kept = IDS_MAX / 2;
    let forgotten = by_end.len() - kept;
    by_end.select_nth_unstable(forgotten);
    *known = by_end[forgotten..].iter().filter_map(|(_, subject)| Some((*subject, *known.get(subject)?))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmplitudeConfig;
    use crate::sinks::amplitude::encode::Events;
    use crate::sinks::sample::{job, job_of};
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
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
        let rest = rates.ask(&batch(&[("a", 200 - over.len()), ("b", 50)]), PATIENCE, secs(1_000));
        assert!(matches!(rest, Asked::After(wait) if wait <= PATIENCE), "what was not sent is not counted: {rest:?}");
    }

    /// Events of one user against the rates: some come anew, those that were held come when their time has come.
    struct Flow {
        rates: Rates,
        now: Duration,
        /// When those are due that are held.
        due: BinaryHeap<Reverse<Duration>>,
        sent: u64,
        holds: u64,
    }

    impl Flow {
        fn new() -> Self {
            let rates = Rates::new(AmplitudeApi::HttpV2);
            Self { rates, now: secs(1_000), due: BinaryHeap::new(), sent: 0, holds: 0 }
        }

        /// So many are to be sent, in requests of a thousand: without those that are held each comes again at once.
        fn ask(&mut self, events: usize) {
            for first in (0..events).step_by(1_000) {
                let mut left = (events - first).min(1_000);
                while left > 0 {
                    let asked = self.rates.ask(&batch(&[("a", left)]), PATIENCE, self.now);
                    let Asked::Not(Outcome::Partial(partial)) = asked else {
                        self.sent += left as u64;
                        break;
                    };
                    left -= partial.held.len();
                    self.holds += partial.held.len() as u64;
                    self.due.extend(partial.held.iter().map(|record| Reverse(self.now + record.wait)));
                }
            }
        }

        /// Half a second later: what is due by then, and so many new ones.
        fn step(&mut self, fresh: usize) {
            self.now += Duration::from_millis(500);
            let mut due = 0;
            while self.due.peek().is_some_and(|at| at.0 <= self.now) {
                self.due.pop();
                due += 1;
            }
            self.ask(due.min(fresh));
            self.ask(fresh);
            self.ask(due - due.min(fresh));
        }
    }

    /// Before, each was told a wait as if it were the only one that waits: a backlog was due as a whole within seconds, and was
    /// held again, every few seconds, until it was gone.
    #[test]
    fn each_event_of_a_backlog_is_held_about_once_and_leaves_at_the_rate() {
        let mut flow = Flow::new();
        flow.ask(20_000);
        assert!(flow.holds >= 20_000 - 140, "{}", flow.holds);
        let mut half_seconds = 0;
        while !flow.due.is_empty() {
            flow.step(0);
            half_seconds += 1;
        }
        assert_eq!(flow.sent, 20_000);
        assert!(flow.holds <= 20_200, "{}", flow.holds);
        // 27 a second, less the burst.
        assert!((1_400..1_500).contains(&half_seconds), "{half_seconds}");
    }

    /// Whoever goes in the place of one that was held has that one held once more: both together no oftener than there are
    /// events.
    #[test]
    fn new_events_beside_a_backlog_join_its_end() {
        let mut flow = Flow::new();
        flow.ask(2_000);
        (0..600).for_each(|_| flow.step(30));
        let came = 2_000 + 600 * 30;
        assert!(flow.holds <= came, "{} of {came}", flow.holds);
        while !flow.due.is_empty() {
            flow.step(0);
        }
        assert_eq!(flow.sent, came);
        assert!(flow.holds <= came + came / 20, "{} of {came}", flow.holds);
    }

    /// A restart, or so many others that there was no room.
    #[test]
    fn what_was_promised_and_is_forgotten_costs_each_event_one_more_hold_at_most() {
        let mut flow = Flow::new();
        flow.ask(3_000);
        flow.rates = Rates::new(AmplitudeApi::HttpV2);
        flow.ask(3_000);
        while !flow.due.is_empty() {
            flow.step(0);
        }
        assert_eq!(flow.sent, 6_000);
        assert!(flow.holds <= 2 * 6_000, "{}", flow.holds);
    }

    #[test]
    fn nobody_is_told_to_wait_for_more_than_a_day() {
        let rates = Rates::new(AmplitudeApi::HttpV2);
        let all = batch(&[("a", 10_000)]);
        let mut longest = Duration::ZERO;
        for _ in 0..300 {
            let Asked::Not(Outcome::Partial(partial)) = rates.ask(&all, PATIENCE, secs(1_000)) else { panic!() };
            longest = partial.held.iter().map(|record| record.wait).max().unwrap();
        }
        assert_eq!(longest, WAIT_MAX);
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
