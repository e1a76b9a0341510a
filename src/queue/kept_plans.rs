//! The plans of a range of records that were sent already, as far as the log still has them: the boundaries under which
//! a replay sends the same batches once more.
//!
//! What always holds: plans do not overlap; of those that do the later one counts, as when they were made (a batch was
//! split, or given up for damage and planned anew).

use super::plan;
use super::replay;
use super::window::Plan;
use super::{Inner, plan::PlanRecord};
use crate::{Item, Log, PLANS_STREAM, ReadError, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Plans that may concern a range, by first offset.
pub(crate) struct KeptPlans {
    range: Range<u64>,
    plans: BTreeMap<u64, (u64, Plan)>,
    plans_max: usize,
}

/// Whose plans are looked for.
pub(crate) struct Whose<'a> {
    pub(crate) destination: &'a str,
    pub(crate) incarnation: u32,
    pub(crate) stream: StreamId,
}

impl<'a> Whose<'a> {
    /// Those that a replay which fills gaps goes by: of the destination, and of its replays before.
    pub(crate) fn of_fill(inner: &'a Inner) -> Option<Self> {
        let bounds = inner.replay.as_deref().filter(|bounds| !bounds.again)?;
        Some(Self { destination: &bounds.of, incarnation: inner.incarnation, stream: *inner.stream_id.get()? })
    }

    pub(crate) fn are(&self, plan: &PlanRecord) -> bool {
        (plan.incarnation, plan.stream_id) == (self.incarnation, self.stream)
            && replay::is_of(&plan.destination, self.destination)
    }
}

impl KeptPlans {
    /// For the plans that touch `range`, at most so many: where there are more, the range ends before them.
    pub(crate) fn new(range: Range<u64>, plans_max: usize) -> Self {
        Self { range, plans: BTreeMap::new(), plans_max }
    }

    /// Takes a plan up; they come in the order in which they were made.
    pub(crate) fn add(&mut self, offsets: Range<u64>, plan: Plan) {
        if offsets.is_empty() {
            return;
        }
        let before = self.plans.range(..offsets.start).next_back().filter(|(_, (end, _))| *end > offsets.start);
        let overlapped = before.into_iter().chain(self.plans.range(offsets.clone())).map(|(start, _)| *start);
        for start in overlapped.collect::<Vec<u64>>() {
            self.plans.remove(&start);
        }
        // One beside the range may have replaced one that reached into it.
        if offsets.end <= self.range.start || offsets.start >= self.range.end {
            return;
        }
        self.plans.insert(offsets.start, (offsets.end, plan));
        if self.plans.len() > self.plans_max {
            let (start, _) = self.plans.pop_last().expect("one was just taken up");
            self.range.end = start;
        }
    }

    /// The range, moved so that it begins and ends where batches do: the whole batches that it touches, but nothing
    /// outside of `bounds`.
    pub(crate) fn widened(&self, bounds: Range<u64>) -> Range<u64> {
        let across = |at: u64| {
            let (start, (end, _)) = self.plans.range(..at).next_back()?;
            (*end > at).then_some(*start..*end)
        };
        let Range { start, end } = self.range.clone();
        let first =
            across(start).map_or(start, |batch| if batch.start < bounds.start { batch.end } else { batch.start });
        let last = across(end).map_or(end, |batch| if batch.end > bounds.end { batch.start } else { batch.end });
        first..last
    }

    /// The plans that lie in `range` as a whole, in order.
    pub(crate) fn within(self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Plan)> {
        let plans = self.plans.into_iter().map(|(start, (end, plan))| (start..end, plan));
        plans.filter(move |(offsets, _)| range.start <= offsets.start && offsets.end <= range.end)
    }
}

/// Calls `each` with every plan that the log still has, in the order in which they were made. What damage took is passed
/// over: its batches get other boundaries.
pub(crate) fn each_kept(log: &Log, mut each: impl FnMut(u64, PlanRecord)) -> Result<(), ReadError> {
    let Some(stream) = log.stream(PLANS_STREAM) else { return Ok(()) };
    let mut reader = log.reader(stream, log.first_kept(stream));
    while let Some(item) = reader.next()? {
        let Item::Frame(frame) = item else { continue };
        let plans = plan::decode(frame.payload()).unwrap_or_default();
        if plans.len() as u64 == frame.offsets().end - frame.offsets().start {
            frame.offsets().zip(plans).for_each(|(offset, plan)| each(offset, plan));
        }
    }
    Ok(())
}

/// Revisions of settings, by destination.
pub(crate) type Revisions = BTreeMap<Arc<str>, BTreeSet<u32>>;

/// The revisions that plans name which the log still has, by destination: those of a replay count as its destination's.
/// `None` if any plan can't be read now: it may be another time.
pub(crate) fn revisions(log: &Log) -> Result<Option<Revisions>, ReadError> {
    let mut named = Revisions::new();
    let Some(stream) = log.stream(PLANS_STREAM) else { return Ok(Some(named)) };
    let mut reader = log.reader(stream, log.first_kept(stream));
    while let Some(item) = reader.next()? {
        let Item::Frame(frame) = item else { return Ok(None) };
        let plans = plan::decode(frame.payload()).unwrap_or_default();
        if plans.len() as u64 != frame.offsets().end - frame.offsets().start {
            return Ok(None);
        }
        for plan in plans {
            let destination = replay::parse(&plan.destination).map_or(&*plan.destination, |(of, _)| of);
            match named.get_mut(destination) {
                Some(revisions) => _ = revisions.insert(plan.revision),
                None => _ = named.insert(destination.into(), BTreeSet::from([plan.revision])),
            }
        }
    }
    Ok(Some(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::disk::Disk;
    use crate::disk::mem::MemDisk;
    use crate::{LogOptions, Payload};
    use std::io::IoSlice;
    use std::path::Path;

    fn kept(range: Range<u64>, plans: &[Range<u64>]) -> KeptPlans {
        let mut kept = KeptPlans::new(range, 4);
        for (offset, offsets) in (0..).zip(plans) {
            kept.add(offsets.clone(), Plan { offset, revision: 0 });
        }
        kept
    }

    fn within(kept: KeptPlans, range: Range<u64>) -> Vec<Range<u64>> {
        kept.within(range).map(|(offsets, _)| offsets).collect()
    }

    #[test]
    fn of_plans_that_overlap_the_last_ones_count() {
        let plans = [0..10, 10..20, 10..15, 15..20, 30..40];
        assert_eq!(within(kept(0..40, &plans), 0..40), [0..10, 10..15, 15..20, 30..40]);
        assert_eq!(within(kept(0..40, &plans), 5..35), [10..15, 15..20], "whole ones only");
    }

    /// None is made so; but a plan is what a frame says.
    #[test]
    fn a_plan_of_no_records_replaces_none() {
        assert_eq!(within(kept(0..40, &[0..10, 20..30, 5..5, 10..10]), 0..40), [0..10, 20..30]);
    }

    #[test]
    fn plans_are_those_of_one_life_of_a_destination_and_of_its_replays() {
        let whose = Whose { destination: "hook", incarnation: 3, stream: StreamId(7) };
        let are = |destination: &str, incarnation, stream| {
            let destination = destination.into();
            let plan = PlanRecord { destination, incarnation, stream_id: StreamId(stream), offsets: 0..1, revision: 0 };
            whose.are(&plan)
        };
        assert!(are("hook", 3, 7) && are("hook!replay-1", 3, 7));
        assert!(!are("hook", 2, 7), "of one that was deleted");
        assert!(!are("hook", 3, 8) && !are("other", 3, 7));
    }

    /// Holds no plans.
    const NONE: &[u8] = &[9; 90];
    /// Is damaged.
    const DAMAGED: &[u8] = b"to be damaged";

    /// A log in whose stream of plans stand two sound frames, and these between them.
    fn log_of_plans(odd: &[&[u8]]) -> Log {
        let disk = Arc::new(MemDisk::new());
        let open = || {
            let options = LogOptions { tail_cache_bytes: 0, ..LogOptions::small() };
            Log::open(Arc::clone(&disk) as Arc<dyn Disk>, Arc::new(ManualClock::at(0)), Path::new("log"), options)
        };
        let plan = |first: u64, revision| {
            let offsets = first..first + 10;
            PlanRecord { destination: "hook".into(), incarnation: 0, stream_id: StreamId(1), offsets, revision }
        };
        let log = open().expect("it opens");
        let two = plan::encode(&[plan(0, 1), plan(10, 1)]);
        for bytes in [&[&two[..]], odd, &[&plan::encode(&[plan(20, 2), plan(30, 2)])[..]]].concat() {
            log.append_wait(PLANS_STREAM, vec![Payload { bytes: bytes.to_vec(), records: 2 }]).expect("it is taken");
        }
        log.close().expect("memory closes");
        drop(log);
        let segment = disk.open(Path::new("log/0000000000000000.seg")).expect("it is there");
        let bytes = crate::disk::read_all(&*segment).expect("memory reads");
        if let Some(at) = bytes.windows(DAMAGED.len()).position(|window| window == DAMAGED) {
            segment.write_all_at(&[IoSlice::new(b"is")], at as u64).expect("memory writes");
        }
        open().expect("damage is no error")
    }

    #[test]
    fn plans_that_cannot_be_read_are_passed_over_and_those_behind_them_are_not() {
        let mut seen = Vec::new();
        each_kept(&log_of_plans(&[NONE, DAMAGED]), |offset, plan| seen.push((offset, plan.offsets.start)))
            .expect("memory reads");
        assert_eq!(seen, [(0, 0), (1, 10), (6, 20), (7, 30)]);
    }

    /// Settings that are forgotten for a plan that could not be read are those that its batch is finished under.
    #[test]
    fn which_revisions_are_named_is_not_known_where_a_plan_cannot_be_read() {
        let told = |odd| revisions(&log_of_plans(odd)).expect("memory reads");
        assert_eq!(told(&[]), Some(Revisions::from([(Arc::from("hook"), BTreeSet::from([1, 2]))])));
        assert_eq!([told(&[NONE]), told(&[DAMAGED])], [None, None]);
    }

    #[test]
    fn a_plan_beside_the_range_replaces_one_that_reaches_into_it() {
        assert_eq!(within(kept(6..20, &[0..10, 0..6, 10..15, 15..20]), 0..20), [10..15, 15..20]);
        assert_eq!(within(kept(6..20, &[0..10, 10..20]), 0..20), [0..10, 10..20], "whole, though a part is settled");
    }

    #[test]
    fn a_range_takes_the_batches_that_it_touches_whole_where_it_may() {
        let plans = [0..10, 10..20, 20..30, 30..40];
        assert_eq!(kept(13..25, &plans).widened(0..40), 10..30);
        assert_eq!(kept(10..30, &plans).widened(0..40), 10..30);
        assert_eq!(kept(13..25, &plans).widened(10..30), 10..30, "up to where they may");
        assert_eq!(kept(13..25, &plans).widened(12..26), 20..20, "what is not kept, or not settled, is left out");
        assert_eq!(kept(50..60, &plans).widened(0..60), 50..60, "without plans it stays as it is");
    }

    #[test]
    fn with_too_many_plans_the_range_ends_before_the_first_that_has_no_place() {
        let plans = [0..10, 10..20, 20..30, 30..40, 40..50, 50..60];
        assert_eq!(kept(0..60, &plans).widened(0..60), 0..40);
        assert_eq!(within(kept(0..60, &plans), 0..40), [0..10, 10..20, 20..30, 30..40]);
    }
}
