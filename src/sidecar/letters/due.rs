//! When which held letters may be sent: runs of offsets, each with the earliest moment among its letters. Pure.
//!
//! The letters themselves stay in the log; neighbours share an entry, so that a million of them cost some hundred
//! kilobytes. What always holds: no letter is due before its run is. A run may be due before any of its letters is:
//! then whoever reads it [notes](Due::note) what it found. Nobody asks for a wait of more than [`WAIT_MAX`]: a moment that
//! lies further ahead by more than the little that clocks are set back by was written under one that went ahead, and has
//! come.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::delivery::retry_after::WAIT_MAX;

/// Letters of a run that still takes neighbours in.
const RUN_LETTERS_MAX: u64 = 256;

/// The wall clock is set back by so much now and then, by whoever keeps it right: what was to wait for [`WAIT_MAX`] waits on.
const SET_BACK_MAX: Duration = Duration::from_secs(60);

/// Whether this moment has come at `now_ms`.
pub(super) fn has_come(moment_ms: u64, now_ms: u64) -> bool {
    moment_ms <= now_ms || moment_ms - now_ms > (WAIT_MAX + SET_BACK_MAX).as_millis() as u64
}

/// The runs, by first offset; they do not overlap.
#[derive(Debug, Default)]
pub(super) struct Due {
    runs: BTreeMap<u64, Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    end: u64,
    /// [`BEING_READ`] is no moment.
    earliest_ms: u64,
}

/// Whoever reads a run says when it is due again.
const BEING_READ: u64 = u64::MAX;

impl Run {
    fn is_due(&self, now_ms: u64) -> bool {
        self.earliest_ms != BEING_READ && has_come(self.earliest_ms, now_ms)
    }
}

impl Due {
    /// The letter at `offset` may be sent from `earliest_ms` on.
    pub(super) fn insert(&mut self, offset: u64, earliest_ms: u64) {
        let earliest_ms = earliest_ms.min(BEING_READ - 1);
        let before = self.runs.range_mut(..=offset).next_back();
        if let Some((start, run)) = before {
            let inside = offset < run.end;
            if inside || (offset == run.end && offset - start < RUN_LETTERS_MAX) {
                run.end = run.end.max(offset + 1);
                run.earliest_ms = run.earliest_ms.min(earliest_ms);
                return;
            }
        }
        self.runs.insert(offset, Run { end: offset + 1, earliest_ms });
    }

    /// The first run that is due.
    pub(super) fn first(&self, now_ms: u64) -> Option<Range<u64>> {
        let due = self.runs.iter().find(|(_, run)| run.is_due(now_ms));
        due.map(|(&start, run)| start..run.end)
    }

    /// The first run that is due, which is read from now on until it is [noted](Self::note). It is not due meanwhile,
    /// save for what is [inserted](Self::insert) then.
    pub(super) fn begin(&mut self, now_ms: u64) -> Option<Range<u64>> {
        let (&start, run) = self.runs.iter_mut().find(|(_, run)| run.is_due(now_ms))?;
        run.earliest_ms = BEING_READ;
        Some(start..run.end)
    }

    /// The part of the run at `read` was read: what is left of it may be sent from `earliest_ms` on, `None` if nothing
    /// is left. What was inserted since the reading began stays due: the reader may have passed it before.
    pub(super) fn note(&mut self, read: Range<u64>, earliest_ms: Option<u64>) {
        let Some(run) = self.runs.remove(&read.start) else { return };
        if read.end < run.end {
            self.runs.insert(read.end, Run { end: run.end, earliest_ms: 0 });
        }
        if read.is_empty() {
            return;
        }
        let inserted_ms = (run.earliest_ms != BEING_READ).then_some(run.earliest_ms);
        let earliest_ms = earliest_ms.into_iter().chain(inserted_ms).min();
        if let Some(earliest_ms) = earliest_ms {
            self.runs.insert(read.start, Run { end: read.end.min(run.end), earliest_ms });
        }
    }

    /// Any that lies there may be due: who reads it notes what it found.
    pub(super) fn look_at(&mut self, places: Range<u64>) {
        let before = self.runs.range_mut(..places.end).rev();
        before.take_while(|(_, run)| run.end > places.start).for_each(|(_, run)| run.earliest_ms = 0);
    }

    /// Runs that there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Before, a step back of the clock by a millisecond let all go at once that was to wait for a day.
    #[test]
    fn a_wait_is_a_day_at_most_and_a_little_more_by_a_clock_that_was_set_back() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        for (moment, now, come) in [
            (1_000, 1_000, true),
            (1_000, 999, false),
            (1_000 + DAY_MS, 1_000, false),
            (1_000 + DAY_MS, 999, false),
            (60_000 + DAY_MS, 0, false),
            (60_001 + DAY_MS, 0, true),
            (u64::MAX - 1, 0, true),
        ] {
            assert_eq!(has_come(moment, now), come, "{moment} at {now}");
        }
    }

    #[test]
    fn neighbours_share_a_run_that_is_due_with_the_first_of_them() {
        let mut due = Due::default();
        (0..1000).for_each(|offset| due.insert(offset, 1000 + offset));
        assert_eq!(due.len(), 4);
        assert_eq!(due.first(999), None);
        assert_eq!(due.begin(1000), Some(0..256));
        due.note(0..256, Some(5000));
        assert_eq!(due.first(1255), None, "the next begins at 1256");
        assert_eq!(due.begin(1256), Some(256..512));
        assert_eq!(due.first(1256), None, "it is being read");
        due.note(256..300, None);
        assert_eq!(due.first(1256), Some(300..512), "the rest is still to be read");
    }

    #[test]
    fn what_comes_back_while_its_run_is_read_is_due_afterwards() {
        let mut due = Due::default();
        (0..10).for_each(|offset| due.insert(offset, 1000));
        assert_eq!(due.begin(1000), Some(0..10));
        // The reader has passed 3, which was in flight then; another waits until 9000.
        due.insert(3, 0);
        due.note(0..10, Some(9000));
        assert_eq!(due.begin(1000), Some(0..10));
        due.insert(3, 0);
        due.note(0..10, None);
        assert_eq!(due.begin(1000), Some(0..10));
        due.note(0..0, None);
        assert_eq!(due.begin(1000), Some(0..10), "it could not be read");
        due.note(0..10, None);
        assert_eq!(due.first(u64::MAX), None);
    }

    #[test]
    fn only_runs_with_a_letter_in_the_places_are_looked_at_again() {
        let mut due = Due::default();
        (0..1024).for_each(|offset| due.insert(offset, 1000));
        due.look_at(256..513);
        assert_eq!((due.begin(0), due.begin(0), due.begin(0)), (Some(256..512), Some(512..768), None));
        due.look_at(0..1);
        due.look_at(767..768);
        due.note(512..768, Some(1000));
        assert_eq!((due.begin(0), due.begin(0), due.begin(0)), (Some(0..256), Some(512..768), None));
    }

    proptest! {
        #[test]
        fn whoever_reads_what_is_due_finds_every_letter_when_its_time_has_come(
            letters in prop::collection::btree_map(0u64..600, 0u64..50, 0..200),
        ) {
            let mut due = Due::default();
            letters.iter().for_each(|(&offset, &ms)| due.insert(offset, ms));
            let (mut left, mut now) = (letters.clone(), 0);
            while now <= 50 {
                let Some(run) = due.begin(now) else {
                    prop_assert!(left.values().all(|&ms| ms > now), "a letter is due and its run is not");
                    now += 1;
                    continue;
                };
                let found: Vec<u64> = left.range(run.clone()).filter(|(_, ms)| **ms <= now).map(|(o, _)| *o).collect();
                found.iter().for_each(|offset| _ = left.remove(offset));
                due.note(run.clone(), left.range(run).map(|(_, ms)| *ms).min());
            }
            prop_assert!(left.is_empty() && due.first(u64::MAX).is_none());
        }
    }
}
