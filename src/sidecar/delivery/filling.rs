//! Whether it is time to make a batch of what waits, or to let it fill. Pure.
//!
//! What always holds: what was begun before is never held back, and no record waits longer than it is told to.

use std::time::Duration;

use forebay::Waiting;

use super::source::Limits;

/// While a batch fills it is looked at so often within its longest wait, within these bounds: an append wakes nobody who
/// has looked a moment ago.
const LOOKS: u32 = 16;
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How a batch fills.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    pub(super) limits: Limits,
    pub(super) wait_max: Duration,
    /// A batch never spans two of these.
    pub(super) partition_ms: Option<u64>,
}

impl Filling {
    /// `None`: now is the time. Else how long to leave it alone. `now_ms` is the wall clock's.
    pub(super) fn look_again(&self, waiting: &Waiting, now_ms: u64) -> Option<Duration> {
        let full = waiting.records >= self.limits.records_max || waiting.bytes >= self.limits.bytes_max;
        if waiting.comes_again || waiting.bounded || full {
            return None;
        }
        // Nothing waits, or it cannot be said since when: whoever claims finds out.
        let oldest_ms = waiting.oldest_ingest_ms?;
        // Taken in while the clock was ahead: since when, nobody knows.
        let waited = Duration::from_millis(now_ms.checked_sub(oldest_ms)?);
        let left = self.wait_max.checked_sub(waited).filter(|left| !left.is_zero())?;
        let left = match self.partition_ms.filter(|span| *span > 0) {
            Some(span) if oldest_ms / span != now_ms / span => return None,
            Some(span) => left.min(Duration::from_millis(span - now_ms % span)),
            None => left,
        };
        Some(left.min((self.wait_max / LOOKS).clamp(LOOK_MIN, LOOK_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;

    fn filling() -> Filling {
        let limits = Limits { records_max: 100, bytes_max: 1000 };
        Filling { limits, wait_max: Duration::from_secs(300), partition_ms: Some(HOUR_MS) }
    }

    fn waiting(records: u64, bytes: u64, oldest_ms: u64) -> Waiting {
        Waiting { records, bytes, oldest_ingest_ms: Some(oldest_ms), ..Waiting::default() }
    }

    #[test]
    fn what_is_full_old_begun_or_of_another_hour_goes_at_once() {
        let (filling, at) = (filling(), 10 * HOUR_MS + 1_000_000);
        assert_eq!(filling.look_again(&waiting(5, 50, at), at), Some(LOOK_MAX));
        let at_once = [
            waiting(100, 50, at),
            waiting(5, 1000, at),
            waiting(5, 50, at - 300_000),
            waiting(5, 50, 10 * HOUR_MS - 1),
            // Of a clock that was ahead: it was to wait for that.
            waiting(5, 50, at + 1),
            Waiting { comes_again: true, ..waiting(5, 50, at) },
            Waiting { bounded: true, ..waiting(5, 50, at) },
            Waiting::default(),
        ];
        for waiting in at_once {
            assert_eq!(filling.look_again(&waiting, at), None, "{waiting:?}");
        }
    }

    #[test]
    fn an_hour_that_ends_is_not_slept_through() {
        let at = 11 * HOUR_MS - 400;
        assert_eq!(filling().look_again(&waiting(5, 50, at), at), Some(Duration::from_millis(400)));
    }

    proptest! {
        #[test]
        fn no_record_waits_longer_than_told_and_every_look_is_some_way_off(
            wait_ms in 1u64..1_000_000,
            oldest_ms in 0u64..10_000_000,
            partition in any::<bool>(),
        ) {
            let partition_ms = partition.then_some(HOUR_MS);
            let filling = Filling { wait_max: Duration::from_millis(wait_ms), partition_ms, ..filling() };
            let (mut now, mut looks) = (oldest_ms, 0u64);
            while let Some(wait) = filling.look_again(&waiting(1, 1, oldest_ms), now) {
                prop_assert!(wait >= Duration::from_millis(1));
                now += wait.as_millis() as u64;
                looks += 1;
                prop_assert!(now <= oldest_ms + wait_ms);
            }
            prop_assert!(looks <= u64::from(LOOKS) + 2 + wait_ms / 1000);
        }
    }
}
