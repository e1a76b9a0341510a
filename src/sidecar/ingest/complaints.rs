//! Says when something that goes wrong again and again may be logged: once in an interval for each SDK key. Pure.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::environments::{Environments, KeyOwner};
use super::limits::COMPLAINT_INTERVAL;

/// One turnstile per configured key, and one for all strangers together.
pub(crate) struct Complaints {
    by_key: Vec<Vec<Turnstile>>,
    strangers: Turnstile,
}

#[derive(Default)]
struct Turnstile(Mutex<Passed>);

#[derive(Default)]
struct Passed {
    last: Option<Duration>,
    held_back: u64,
}

impl Complaints {
    pub(crate) fn new(environments: &Environments) -> Self {
        let by_key = environments.all().iter().map(|environment| {
            let keys = 0..environment.keys();
            keys.map(|_| Turnstile::default()).collect()
        });
        Self { by_key: by_key.collect(), strangers: Turnstile::default() }
    }

    /// `Some` when this one may be logged, with the number of those held back since the last.
    pub(crate) fn due(&self, owner: Option<KeyOwner>, now: Duration) -> Option<u64> {
        let of_key = owner.and_then(|owner| self.by_key.get(owner.environment)?.get(owner.key as usize));
        of_key.unwrap_or(&self.strangers).due(now)
    }
}

impl Turnstile {
    fn due(&self, now: Duration) -> Option<u64> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.last.is_some_and(|last| now.saturating_sub(last) < COMPLAINT_INTERVAL) {
            passed.held_back += 1;
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
    fn each_key_is_heard_once_a_minute_with_the_number_held_back() {
        let environments = Environments::new([("prod".to_owned(), vec!["a", "b"])]).unwrap();
        let complaints = Complaints::new(&environments);
        let key = |key| Some(KeyOwner { environment: 0, key });
        let at = Duration::from_secs;
        assert_eq!(complaints.due(key(0), at(0)), Some(0));
        assert_eq!(complaints.due(key(0), at(1)), None);
        assert_eq!(complaints.due(key(0), at(59)), None);
        assert_eq!(complaints.due(key(1), at(59)), Some(0), "another key");
        assert_eq!(complaints.due(None, at(59)), Some(0), "a stranger");
        assert_eq!(complaints.due(key(0), at(60)), Some(2));
    }
}
