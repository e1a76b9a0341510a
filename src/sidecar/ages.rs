//! The clock that ages run on. Pure.
//!
//! It never moves faster than the monotonic clock, so that no jump of the wall clock makes a record old. What always holds:
//! after a jump, and at the start of a process, when nobody can say how far the wall clock went meanwhile, ages do not count
//! for an hour: time enough for somebody to notice.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use tracing::warn;

/// So long ages do not count after a jump.
const HELD_FOR: Duration = Duration::from_secs(3_600);

/// More than any clock is set by in a second that is kept by a time server.
const JUMP_MS: u64 = 60_000;

/// Now, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Since some moment of this process.
    pub monotonic: Duration,
}

impl Now {
    /// What these clocks say.
    #[must_use]
    pub fn of(clock: &dyn Clock) -> Self {
        Self { wall_ms: clock.wall_ms(), monotonic: clock.monotonic() }
    }
}

/// One for all that give up something for its age: a jump is told once, and holds for everybody.
#[derive(Debug, Default)]
pub struct SharedAges(Mutex<Ages>);

impl SharedAges {
    /// See [`Ages::at`].
    pub fn at(&self, now: Now) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at(now)
    }

    /// See [`Ages::held_until`].
    pub fn held_until(&self, now: Now) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held_until(now)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ages {
    last: Option<Now>,
    age_ms: u64,
    held_until: Duration,
}

impl Ages {
    /// The time by which ages count, in milliseconds since 1970; `None` while they do not.
    pub fn at(&mut self, now: Now) -> Option<u64> {
        let Some(last) = self.last.replace(now) else {
            self.held_until = now.monotonic + HELD_FOR;
            self.age_ms = now.wall_ms;
            return None;
        };
        // Whoever shares it may have been held up: what he saw then is no jump.
        let Some(elapsed) = now.monotonic.checked_sub(last.monotonic) else {
            self.last = Some(last);
            return (last.monotonic >= self.held_until).then_some(self.age_ms);
        };
        let elapsed_ms = ms(elapsed);
        let jump_ms = now.wall_ms.abs_diff(last.wall_ms.saturating_add(elapsed_ms));
        if jump_ms > JUMP_MS {
            warn!(
                jump_ms,
                elapsed_ms,
                from_ms = last.wall_ms,
                to_ms = now.wall_ms,
                "the wall clock jumped: for an hour nothing is given up for its age"
            );
            self.held_until = now.monotonic + HELD_FOR;
        }
        let was_held = last.monotonic < self.held_until;
        self.age_ms = if was_held { now.wall_ms } else { now.wall_ms.min(self.age_ms.saturating_add(elapsed_ms)) };
        (now.monotonic >= self.held_until).then_some(self.age_ms)
    }

    /// When ages count again, in milliseconds since 1970; `None` when they do.
    pub fn held_until(&self, now: Now) -> Option<u64> {
        let left = self.held_until.checked_sub(now.monotonic).filter(|left| !left.is_zero())?;
        Some(now.wall_ms.saturating_add(ms(left)))
    }
}

/// Whole milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, wall_ms: u64) -> Now {
        Now { wall_ms, monotonic: Duration::from_secs(seconds) }
    }

    const DAY_MS: u64 = 24 * 3_600_000;

    #[test]
    fn ages_count_an_hour_after_the_start() {
        let mut ages = Ages::default();
        assert_eq!((ages.at(at(5, DAY_MS)), ages.held_until(at(5, DAY_MS))), (None, Some(DAY_MS + 3_600_000)));
        for second in 6..3_605 {
            assert_eq!(ages.at(at(second, DAY_MS + (second - 5) * 1_000)), None);
        }
        let now = at(3_605, DAY_MS + 3_600_000);
        assert_eq!((ages.at(now), ages.held_until(now)), (Some(DAY_MS + 3_600_000), None));
    }

    #[test]
    fn a_jump_makes_nothing_old_for_an_hour() {
        for jump in [2 * DAY_MS, DAY_MS / 2] {
            let mut ages = Ages::default();
            ages.at(at(0, DAY_MS));
            assert_eq!(ages.at(at(3_600, DAY_MS + 3_600_000)), Some(DAY_MS + 3_600_000));
            let jumped = |second: u64| at(second, jump + second * 1_000);
            assert_eq!(ages.at(jumped(3_601)), None, "it jumped");
            assert_eq!(ages.at(jumped(7_200)), None);
            assert_eq!(ages.at(jumped(7_201)), Some(jump + 7_201_000), "whoever set it knew");
        }
    }

    #[test]
    fn who_was_held_up_since_he_looked_at_the_clocks_sees_no_jump() {
        let mut ages = Ages::default();
        ages.at(at(0, DAY_MS));
        let now = at(3_700, DAY_MS + 3_700_000);
        assert_eq!(ages.at(now), Some(DAY_MS + 3_700_000));
        assert_eq!(ages.at(at(3_601, DAY_MS + 3_601_000)), Some(DAY_MS + 3_700_000));
        assert_eq!((ages.at(now), ages.held_until(now)), (Some(DAY_MS + 3_700_000), None));
    }

    #[test]
    fn small_steps_never_outrun_the_monotonic_clock() {
        let mut ages = Ages::default();
        ages.at(at(0, DAY_MS));
        ages.at(at(3_600, DAY_MS + 3_600_000));
        let mut wall_ms = DAY_MS + 3_600_000;
        for second in 3_601..3_701 {
            wall_ms += 60_000; // a minute a second, below what is a jump
            assert_eq!(ages.at(at(second, wall_ms)), Some(DAY_MS + second * 1_000));
        }
        assert_eq!(ages.at(at(3_701, DAY_MS + 3_650_000)), None, "and back is a jump again");
    }
}
