//! Says when something that goes wrong again and again may be logged: once in an interval for each cause and SDK key.
//! Pure.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::environments::{Environments, KeyOwner};
use super::limits::COMPLAINT_INTERVAL;

/// What the log has a line about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A post showed no key that is configured; counted in posts.
    UnknownKey,
    /// A body was refused for what it is; counted in posts.
    Body,
    /// Elements of a body cannot be impressions; counted in elements.
    Elements,
}

const CAUSES: usize = 3;

/// The turnstiles of each configured key, and those of all strangers together.
pub(crate) struct Complaints {
    /// By the environment's place and the key's. Only grows.
    by_key: RwLock<Vec<Vec<Turnstiles>>>,
    strangers: Turnstiles,
}

/// One for each cause.
type Turnstiles = [Turnstile; CAUSES];

#[derive(Default)]
struct Turnstile(Mutex<Passed>);

#[derive(Default)]
struct Passed {
    last: Option<Duration>,
    held_back: u64,
}

impl Complaints {
    pub(crate) fn new(environments: &Environments) -> Self {
        let complaints = Self { by_key: RwLock::default(), strangers: Turnstiles::default() };
        complaints.make_room(environments);
        complaints
    }

    /// Makes turnstiles for what is new among the environments and their keys.
    pub(crate) fn make_room(&self, environments: &Environments) {
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        let room = by_key.len().max(environments.all().len());
        by_key.resize_with(room, Vec::new);
        for (keys, environment) in by_key.iter_mut().zip(environments.all()) {
            let room = keys.len().max(environment.keys());
            keys.resize_with(room, Turnstiles::default);
        }
    }

    /// Of `count` more. `Some` when they may be logged, with the number of those held back since the last line.
    pub(crate) fn due(&self, cause: Cause, owner: Option<KeyOwner>, count: u64, now: Duration) -> Option<u64> {
        let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        let of_key = owner.and_then(|owner| by_key.get(owner.environment)?.get(owner.key as usize));
        of_key.unwrap_or(&self.strangers)[cause as usize].due(count, now)
    }
}

impl Turnstile {
    fn due(&self, count: u64, now: Duration) -> Option<u64> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.last.is_some_and(|last| now.saturating_sub(last) < COMPLAINT_INTERVAL) {
            passed.held_back = passed.held_back.saturating_add(count);
            return None;
        }
        passed.last = Some(now);
        Some(std::mem::take(&mut passed.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_of_each_key_is_heard_once_a_minute_with_the_number_held_back() {
        let environments = Environments::new([("prod".to_owned(), vec!["a", "b"])]).unwrap();
        let complaints = Complaints::new(&environments);
        let key = |key| Some(KeyOwner { environment: 0, key });
        let due = |owner, count, at| complaints.due(Cause::Body, owner, count, Duration::from_secs(at));
        assert_eq!(due(key(0), 1, 0), Some(0));
        assert_eq!(due(key(0), 1, 1), None);
        assert_eq!(due(key(0), 7, 59), None);
        assert_eq!(due(key(1), 1, 59), Some(0), "another key");
        assert_eq!(due(None, 1, 59), Some(0), "a stranger");
        let of_another_cause = complaints.due(Cause::Elements, key(0), 1, Duration::from_secs(59));
        assert_eq!(of_another_cause, Some(0));
        assert_eq!(due(key(0), 1, 60), Some(8));
    }
}
