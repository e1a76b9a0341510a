//! Which impressions arrived at one end, and how often: every one of the demo has a number. Pure.

/// Impressions that can be told apart. Far more than a demo sends: what is above it is a stranger.
const NUMBERS_MAX: u64 = 10_000_000;

/// The key of the impression of this number, as the SDK evaluates it.
pub(super) fn key(number: u64) -> String {
    format!("user-{number}")
}

/// The number in a key; `None` if the demo never made it.
pub(super) fn number(key: &str) -> Option<u64> {
    key.strip_prefix("user-")?.parse().ok()
}

/// Counts what arrives.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How often each number came; enough is 255.
    times: Vec<u8>,
    strangers: u64,
}

/// What a ledger comes to, for the impressions `0..total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audit {
    /// Came exactly once.
    pub(super) once: u64,
    /// Never came.
    pub(super) missing: u64,
    /// Came more than once.
    pub(super) repeated: u64,
    /// Came, and nobody sent it.
    pub(super) strangers: u64,
}

impl Ledger {
    /// Notes an arrival. No number: a stranger.
    pub(super) fn note(&mut self, number: Option<u64>) {
        let Some(at) = number.filter(|number| *number < NUMBERS_MAX).and_then(|number| usize::try_from(number).ok())
        else {
            self.strangers += 1;
            return;
        };
        if self.times.len() <= at {
            self.times.resize(at + 1, 0);
        }
        self.times[at] = self.times[at].saturating_add(1);
    }

    /// Holds it against what was sent.
    pub(super) fn audit(&self, total: u64) -> Audit {
        let count = |wanted: fn(u8) -> bool| {
            self.times.iter().zip(0..total).filter(|(times, _)| wanted(**times)).count() as u64
        };
        let (once, repeated) = (count(|times| times == 1), count(|times| times > 1));
        let beyond = self.times.iter().skip(usize::try_from(total).unwrap_or(usize::MAX));
        Audit {
            once,
            repeated,
            missing: total - once - repeated,
            strangers: self.strangers + beyond.map(|times| u64::from(*times)).sum::<u64>(),
        }
    }
}

impl Audit {
    /// Whether everything came exactly once, and nothing else came.
    pub(super) fn is_exact(&self) -> bool {
        self.missing == 0 && self.repeated == 0 && self.strangers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_number() {
        assert_eq!(number(&key(42)), Some(42));
        for odd in ["", "user-", "user-x", "User-1", "7"] {
            assert_eq!(number(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_once_each_is_exact() {
        let mut ledger = Ledger::default();
        for number in [2, 0, 1] {
            ledger.note(Some(number));
        }
        assert_eq!(ledger.audit(3), Audit { once: 3, missing: 0, repeated: 0, strangers: 0 });
        assert!(ledger.audit(3).is_exact());
        assert_eq!(ledger.audit(5), Audit { once: 3, missing: 2, repeated: 0, strangers: 0 });
        assert_eq!(ledger.audit(2).strangers, 1, "more came than was sent");
        ledger.note(Some(1));
        ledger.note(None);
        ledger.note(Some(u64::MAX));
        assert_eq!(ledger.audit(3), Audit { once: 2, missing: 0, repeated: 1, strangers: 2 });
        assert!(!ledger.audit(3).is_exact());
    }
}
