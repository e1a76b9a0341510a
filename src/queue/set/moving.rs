//! Plans that are open for long are written again, behind those that were made since: else a single one would keep all of them.
//!
//! The stream of plans is let go from its beginning, up to the oldest one that somebody needs. A batch that its destination
//! does not take for days would keep the plans of all other destinations for as long.
//!
//! What always holds: the old one goes only once the new one is durable and its queue knows it; and no plan is written
//! behind one that replaces it. The second is why each batch is asked while nobody else can submit a plan: from when a
//! batch is to be split, or its boundaries are given up, it does not say yes any more, and what replaces it comes later. A crash
//! in between leaves both, which say the same.

use super::{Keeping, Set};
use crate::PLANS_STREAM;
use crate::queue::plan::PlanRecord;
use crate::queue::planner::{PlanError, Planned};
use crate::queue::{Inner, lock};
use crate::sync::Arc;
use std::ops::Range;

/// A batch whose plan is to be written again: its queue, its boundaries, and where its plan lies.
type Old = (Arc<Inner>, Range<u64>, u64);

impl Set {
    /// Writes old plans again where they keep many others. Those that fill gaps go by plans of others, and are not looked at.
    pub(super) fn move_plans(&self, keeping: &mut Keeping) {
        let log = &self.context.log;
        let Some(plans) = log.stream(PLANS_STREAM) else { return };
        let tail = log.durable(plans).offset;
        let kept = tail.saturating_sub(keeping.plan_mark);
        // What was moved last time lies there, too: moving it each time would bring in more than goes.
        if kept <= self.plans_kept_min + 4 * keeping.plans_moved {
            return;
        }
        // The last ones are still on their way: with a slow disk they would pile up, and take the place of plans that are new.
        if keeping.plans_moving.upgrade().is_some() {
            return;
        }
        let before = tail - kept / 2;
        let old = keeping.plan_lows.values().filter(|(inner, low)| !inner.fills_gaps() && *low < before);
        let queues: Vec<Arc<Inner>> = old.map(|(inner, _)| Arc::clone(inner)).collect();
        let of_queue = |inner: Arc<Inner>| {
            let below = inner.window().plans_below(before);
            below.into_iter().map(move |(offsets, plan)| (Arc::clone(&inner), offsets, plan.offset))
        };
        let old: Vec<Old> = queues.into_iter().flat_map(of_queue).collect();
        keeping.plans_moved = old.len() as u64;
        lock(&self.stats).plans_moved += old.len() as u64;
        let moving = Arc::new(());
        keeping.plans_moving = Arc::downgrade(&moving);
        self.context.planner.submit_again(tail, old.into_iter().map(|old| again(old, Arc::clone(&moving))));
    }
}

/// Asks the batch whether it is still so, and if so gives what is to be written. Until its queue knows the answer it holds
/// `moving`: a plan that is thought to lie where it lay would be written a second time.
fn again<M: Send + 'static>((inner, offsets, from): Old, moving: M) -> impl FnOnce() -> Option<(PlanRecord, Planned)> {
    move || {
        let stream = inner.stream_id()?;
        let window = inner.window();
        let revision = window.plan_at(&offsets, from)?.revision;
        drop(window);
        let record = inner.plan_record(stream, offsets.clone(), revision);
        let planned: Planned = Box::new(move |result: Result<u64, PlanError>| {
            // What failed lies where it lay, and has its turn again.
            if let Ok(to) = result {
                inner.window().moved(&offsets, from, to);
                inner.touch();
            }
            drop(moving);
        });
        Some((record, planned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::mem::MemDisk;
    use crate::sync::atomic::{AtomicBool, Ordering};
    use crate::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Start};
    use std::path::Path;

    /// Held while a plan is on its way; looks where its queue has it when it is let go.
    struct OnItsWay {
        of: (Arc<Inner>, Range<u64>),
        known_there: u64,
        was_known: Arc<AtomicBool>,
    }

    impl Drop for OnItsWay {
        fn drop(&mut self) {
            let (inner, offsets) = &self.of;
            self.was_known.store(inner.window().plan_at(offsets, self.known_there).is_some(), Ordering::Release);
        }
    }

    /// Before: it was let go first, and a tick that came in between wrote the plan again.
    #[test]
    fn a_plan_is_on_its_way_until_its_queue_knows_where_it_lies() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(SystemClock::new()));
        let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline());
        let queues = queues.expect("it opens");
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        queues.log().append_wait("acme", vec![Payload { bytes: vec![1; 100], records: 10 }]).expect("it is taken");
        let batch = queue.next_batch(BatchLimits { records_max: 5, bytes_max: 100 }).expect("reads").expect("more");
        queue.plan(&batch, Box::new(|planned| planned.expect("memory writes")));
        let (of, was_known) = ((Arc::clone(&queue.inner), batch.offsets.clone()), Arc::<AtomicBool>::default());
        let moving = OnItsWay { of: of.clone(), known_there: 7, was_known: Arc::clone(&was_known) };
        let (_, planned) = again((of.0, of.1, 0), moving)().expect("it is still so");
        planned(Ok(7));
        assert!(was_known.load(Ordering::Acquire));
    }
}
