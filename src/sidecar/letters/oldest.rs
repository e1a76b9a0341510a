//! How old the oldest dead letter may be, so that letters are read when one may have become too old and not every second.
//! Pure.
//!
//! They lie about in the order of their times: some are moved behind the others, and clocks are set back. What always holds:
//! no letter is older than is known here; where nothing is known yet, all are looked through once.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The oldest goes so much late, that letters which die steadily are looked through once a minute.
const LATE_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oldest(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the oldest was taken out, or earlier, in milliseconds since 1970. None before the first look, and after one
    /// that failed.
    at_ms: Option<u64>,
    /// A look through all of them.
    look: Option<Look>,
}

/// A look that goes on a stretch at a time.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Where it goes on.
    from: u64,
    /// The oldest of what it passed over, and of what came meanwhile.
    left_ms: u64,
}

impl Oldest {
    /// A letter of this time lies there now.
    pub(super) fn put(&self, at_ms: u64) {
        let mut known = self.lock();
        known.at_ms = known.at_ms.map(|oldest| oldest.min(at_ms));
        if let Some(look) = &mut known.look {
            look.left_ms = look.left_ms.min(at_ms);
        }
    }

    /// From where on letters are to be read, if one may be of before `until_ms`, or nobody knows. Then either
    /// [`looked`](Self::looked) or [`failed`](Self::failed) is to be called.
    pub(super) fn look(&self, until_ms: u64) -> Option<u64> {
        let mut known = self.lock();
        let is_due = known.at_ms.is_none_or(|oldest| oldest.saturating_add(LATE_MS) <= until_ms);
        if known.look.is_none() && is_due {
            known.look = Some(Look { from: 0, left_ms: u64::MAX });
        }
        Some(known.look?.from)
    }

    /// What was read has left letters of `left_ms` and later; `next` is where to go on, unless that was the end.
    pub(super) fn looked(&self, left_ms: Option<u64>, next: Option<u64>) {
        let mut known = self.lock();
        let Some(look) = &mut known.look else { return };
        look.left_ms = look.left_ms.min(left_ms.unwrap_or(u64::MAX));
        match next {
            Some(from) => look.from = from,
            None => {
                known.at_ms = Some(look.left_ms);
                known.look = None;
            }
        }
    }

    /// What was to be read could not be, or not all of it.
    pub(super) fn failed(&self) {
        *self.lock() = Known::default();
    }

    /// When the oldest was taken out at the earliest, in milliseconds since 1970; `None` where nobody knows or there is none.
    pub(super) fn at_ms(&self) -> Option<u64> {
        self.lock().at_ms.filter(|at_ms| *at_ms < u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change under this lock is whole or has not begun.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks through `letters` (times by offset) as it is told to, `most` at a time, and takes out what is of before `until_ms`.
    /// Says how many it read.
    fn look(oldest: &Oldest, letters: &mut [Option<u64>], until_ms: u64, most: usize) -> usize {
        let Some(from) = oldest.look(until_ms) else { return 0 };
        let (from, end) = (from as usize, letters.len().min(from as usize + most));
        let mut left = None;
        for letter in &mut letters[from..end] {
            letter.take_if(|at_ms| *at_ms < until_ms);
            left = letter.map_or(left, |at_ms| Some(left.unwrap_or(u64::MAX).min(at_ms)));
        }
        oldest.looked(left, (end < letters.len()).then_some(end as u64));
        end - from
    }

    #[test]
    fn letters_are_read_once_and_then_when_the_oldest_is_too_old() {
        let oldest = Oldest::default();
        let mut letters: Vec<Option<u64>> = (0..1_000).map(|at| Some(1_000_000 + at * 1_000)).collect();
        assert_eq!((oldest.at_ms(), look(&oldest, &mut letters, 0, 5_000)), (None, 1_000), "nobody knows yet");
        assert_eq!(oldest.at_ms(), Some(1_000_000));
        let mut read = 0;
        for until_ms in (0..1_000_000 + LATE_MS).step_by(1_000) {
            read += look(&oldest, &mut letters, until_ms, 5_000);
        }
        assert_eq!(read, 0, "none is too old");
        for until_ms in (1_000_000 + LATE_MS..2_000_000).step_by(1_000) {
            read += look(&oldest, &mut letters, until_ms, 5_000);
        }
        assert!((10_000..20_000).contains(&read), "{read}: once a minute, not every second");
        oldest.failed();
        assert_eq!((oldest.at_ms(), oldest.look(0)), (None, Some(0)));
    }

    proptest! {
        /// However letters are moved behind each other, and whatever their times: what is too old goes, though late.
        #[test]
        fn what_is_too_old_goes_wherever_it_lies(
            steps in prop::collection::vec((0..3u8, 0..100u64, any::<prop::sample::Index>()), 1..60),
            most in 1..7usize,
        ) {
            let (oldest, mut letters, mut now) = (Oldest::default(), Vec::<Option<u64>>::new(), 200 * 60_000);
            let until = |now: u64| now - 150 * 60_000;
            for (step, minutes, which) in steps {
                match step {
                    0 => {
                        oldest.put(now - minutes * 60_000);
                        letters.push(Some(now - minutes * 60_000));
                    }
                    1 if !letters.is_empty() => {
                        let which = which.index(letters.len());
                        if let Some(at_ms) = letters[which].take() {
                            oldest.put(at_ms);
                            letters.push(Some(at_ms));
                        }
                    }
                    _ => {
                        now += minutes * 60_000;
                        look(&oldest, &mut letters, until(now), most);
                    }
                }
                let known = oldest.at_ms();
                prop_assert!(letters.iter().flatten().all(|at_ms| known.is_none_or(|oldest| oldest <= *at_ms)));
            }
            for _ in 0..2 * letters.len() + 2 {
                look(&oldest, &mut letters, until(now), most);
            }
            prop_assert!(letters.iter().flatten().all(|at_ms| at_ms + LATE_MS > until(now)));
        }
    }
}
