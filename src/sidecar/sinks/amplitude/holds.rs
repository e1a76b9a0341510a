//! The users and devices that Amplitude asked to leave alone, and until when: new events of theirs join the wait
//! instead of being sent, refused, and with them the request that they are in.
//!
//! What always holds: bounded, whatever is answered. Whom there is no room for is sent, and throttled once more; nobody
//! waits longer than was asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::delivery::outcome::{Failure, HeldRecord, Outcome, Partial};
use crate::delivery::sink::Encoded;

/// As many are remembered, in 24 bytes each.
const IDS_MAX: usize = 10_000;

/// Less than this is over: what was held for the same moment must not be held again for what rounding leaves.
const SLACK: Duration = Duration::from_millis(100);

/// Who waits, as [`Encoded::subjects`] has them.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    until: HashMap<u64, Duration>,
}

impl Holds {
    /// Whether anybody waits.
    pub(super) fn any(&self, now: Duration) -> bool {
        let mut waits = self.lock();
        if waits.until.is_empty() {
            return false;
        }
        waits.until.retain(|_, until| *until > now + SLACK);
        if waits.until.is_empty() {
            // A rare storm leaves no room taken behind.
            waits.until = HashMap::new();
        }
        !waits.until.is_empty()
    }

    /// The outcome for a request that must not be sent as it is, since some of its events are of those who wait.
    pub(super) fn apart(&self, encoded: &Encoded, now: Duration) -> Option<Outcome> {
        let waits = self.lock();
        let held: Vec<HeldRecord> = (0..)
            .zip(encoded.subjects.iter())
            .filter_map(|(index, subject)| {
                let until = waits.until.get(subject)?;
                let wait = until.checked_sub(now).filter(|wait| *wait > SLACK)?;
                Some(HeldRecord { offset: encoded.offset_at(index)?, wait })
            })
            .collect();
        drop(waits);
        if held.is_empty() {
            return None;
        }
        let why = format!("{} of {} events are of users or devices that have to wait", held.len(), encoded.records());
        let why = Failure::Local(why);
        Some(Outcome::Partial(Partial { rejected: Vec::new(), held, why }))
    }

    /// Remembers whose events an answer asks to hold.
    pub(super) fn learn(&self, encoded: &Encoded, held: &[HeldRecord], now: Duration) {
        if held.is_empty() {
            return;
        }
        let until = &mut self.lock().until;
        let mut held = held.iter().peekable();
        for (index, subject) in (0..).zip(encoded.subjects.iter()) {
            let offset = encoded.offset_at(index);
            while held.next_if(|record| Some(record.offset) < offset).is_some() {}
            let Some(record) = held.next_if(|record| Some(record.offset) == offset) else { continue };
            if until.len() < IDS_MAX || until.contains_key(subject) {
                let known = until.entry(*subject).or_default();
                *known = (now + record.wait).max(*known);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        // A panic under this lock leaves at most an entry out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmplitudeConfig;
    use crate::delivery::sink::Job;
    use crate::sinks::amplitude::encode::Events;
    use crate::sinks::sample::{job, job_of};

    fn encoded(job: &Job) -> Encoded {
        Events::new(&AmplitudeConfig::new("key")).encode(job).unwrap()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(outcome: Option<Outcome>) -> Vec<(u64, u64)> {
        let Some(outcome) = outcome else { return Vec::new() };
        let Outcome::Partial(partial) = outcome else { panic!("{outcome:?}") };
        assert_eq!(partial.rejected, []);
        partial.held.iter().map(|record| (record.offset, record.wait.as_secs())).collect()
    }

    /// Keys a, b, a, c from offset 100 on.
    const BULK: &str = r#"[{"f":"x","i":[{"k":"a"},{"k":"b"},{"k":"\u0061"},{"k":"c"}]}]"#;

    #[test]
    fn new_events_of_who_waits_join_the_wait_until_the_same_moment() {
        let (holds, batch) = (Holds::default(), encoded(&job_of(BULK)));
        assert!(!holds.any(secs(0)));
        assert_eq!(held(holds.apart(&batch, secs(0))), []);
        holds.learn(&batch, &[HeldRecord { offset: 100, wait: secs(15) }], secs(10));
        assert!(holds.any(secs(10)));
        assert_eq!(held(holds.apart(&batch, secs(10))), [(100, 15), (102, 15)]);
        assert_eq!(held(holds.apart(&batch, secs(20))), [(100, 5), (102, 5)], "however it is spelled");
        assert_eq!(held(holds.apart(&batch, secs(25))), []);
        assert!(!holds.any(secs(25)));
    }

    #[test]
    fn the_longest_wait_counts_and_each_is_found_by_its_own_offset() {
        let (holds, batch) = (Holds::default(), encoded(&Job { except: [101].into(), ..job_of(BULK) }));
        let wait = |offset, seconds| HeldRecord { offset, wait: secs(seconds) };
        holds.learn(&batch, &[wait(101, 99), wait(102, 3600), wait(103, 15)], secs(0));
        holds.learn(&batch, &[wait(100, 15)], secs(0));
        assert_eq!(held(holds.apart(&encoded(&job_of(BULK)), secs(1))), [(100, 3599), (102, 3599), (103, 14)]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_comes_back() {
        let holds = Holds::default();
        for batch in 0..(IDS_MAX as u64 / 1000 + 2) {
            let job = job(batch * 1000..(batch + 1) * 1000);
            let all: Vec<_> = job.origin.offsets.clone().map(|offset| HeldRecord { offset, wait: secs(60) }).collect();
            holds.learn(&encoded(&job), &all, secs(0));
        }
        assert_eq!(holds.lock().until.len(), IDS_MAX);
        assert!(!holds.any(secs(60)));
        assert_eq!(holds.lock().until.capacity(), 0);
    }
}
