//! Replays: how one begins, and how it ends.
//!
//! What always holds: a replay that somebody was told of is durable, and so is everything that its ids depend on; and
//! its number is never another one's, because what the destination's own queue says of it is durable before it goes.

use super::redriving::leave_out;
use super::{Keeping, Queues, Set};
use crate::queue::balance::{Books, Count, End};
use crate::queue::cursor::Cursor;
use crate::queue::floor_file::{Extra, FloorEntry, FloorError};
use crate::queue::kept_plans::{KeptPlans, Whose, each_kept};
use crate::queue::limits::{QUEUES_MAX, REPLAY_PLANS_MAX, SETTLED_RANGES_MAX};
use crate::queue::reading::{offset_at_time, total_at};
use crate::queue::replay::{self, Bounds, ReplayError, ReplayFrom, ReplayMode, ReplayRequest};
use crate::queue::window::Plan;
use crate::queue::{Balance, Inner, Queue, lock};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, PoisonError};
use crate::{PLANS_STREAM, StreamId};
use std::ops::Range;

/// Boundaries under which records went out before.
pub(super) type OldPlans = Vec<(Range<u64>, Plan)>;

impl Queues {
    /// Sends records of a destination's stream once more that its queue has settled: makes a queue of their own for them,
    /// beside the live one, which goes on as it is. Hand it to whoever sends for the destination; it hands out batches
    /// like any other, until its records are settled. With the next tick it is gone then. It outlives restarts, keeps
    /// its records from being let go, and counts in its own balance; see [`Queue::replay`] and [`Queue::replayed`].
    /// What was given up where it lies is left out: see [`redrive`](Self::redrive).
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
    /// # use forebay::{ReplayFrom, ReplayMode, ReplayRequest};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// let limits = BatchLimits { records_max: 5, bytes_max: 1 << 20 };
    /// let sent = queue.next_batch(limits)?.expect("ten records wait");
    /// queue.plan(&sent, Box::new(|planned| planned.expect("the log is sound")));
    /// queue.settle(&sent, Settled::Delivered);
    ///
    /// // The receiver has lost them. What it still has it tells by the id.
    /// let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
    /// let replay = queues.replay("acme-hook", "acme-prod", request)?;
    /// let again = replay.next_batch(limits)?.expect("five records were settled");
    /// assert_eq!((&again.id, &again.offsets), (&sent.id, &sent.offsets));
    /// replay.settle(&again, Settled::Delivered);
    /// queues.tick()?;
    /// assert_eq!(queue.replayed().delivered.records, 5);
    /// assert_eq!(queue.balance().delivered.records, 5, "the books of the queue count each record once");
    /// assert!(queues.replays().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When there is nothing to replay, a replay of that queue is under way, or the disk refuses.
    pub fn replay(&self, destination: &str, stream: &str, request: ReplayRequest) -> Result<Queue, ReplayError> {
        let mut keeping = lock(&self.set.keeping);
        let inner = self.set.start_replay(&mut keeping, (destination, stream), request)?;
        Ok(Queue::of(inner))
    }

    /// The queues of the replays that are under way, by destination and stream.
    #[must_use]
    pub fn replays(&self) -> Vec<Queue> {
        let index = self.set.index_read();
        let replays = index.by_name.values().filter(|inner| inner.replay.is_some());
        replays.map(|inner| Queue::of(Arc::clone(inner))).collect()
    }

    /// Ends a replay that is under way, and says what became of its records. `None` when there is none, and for one that is a
    /// [redrive](Self::redrive): that ends when all of it is settled. What is on its way is not called back.
    ///
    /// # Errors
    /// When the floor cannot be written. From now on it hands out nothing all the same, and ends with the next tick that
    /// succeeds; only after a crash before that it goes on.
    pub fn cancel_replay(&self, destination: &str, stream: &str) -> Result<Option<Balance>, FloorError> {
        let mut keeping = lock(&self.set.keeping);
        let Some(inner) = self.set.replay_of(destination, stream) else { return Ok(None) };
        // One that sends what was given up knows no other place for it.
        let Some(bounds) = inner.replay.as_deref().filter(|bounds| !bounds.redrive) else { return Ok(None) };
        // What it settled so far counts, and is durable before its number is taken.
        let committed = self.set.commit(&mut keeping);
        let balance = Queue::of(Arc::clone(&inner)).balance();
        // Whoever sends it finds nothing any more. A tick that meets it writes that down.
        bounds.cancelled.store(true, Ordering::Release);
        committed.and_then(|()| self.set.end_replay(&mut keeping, &inner)).inspect_err(|_| inner.touch())?;
        Ok(Some(balance))
    }
}

impl Set {
    /// See [`Queues::replay`](super::Queues::replay).
    pub(super) fn start_replay(
        &self,
        keeping: &mut Keeping,
        (destination, stream): (&str, &str),
        request: ReplayRequest,
    ) -> Result<Arc<Inner>, ReplayError> {
        let live = self.live(destination, stream)?;
        let stream_id = live.stream_id().ok_or(ReplayError::Nothing { from: 0, to: 0, first_kept: 0 })?;
        let made = self.make_replay(keeping, &live, stream_id, request);
        if made.is_err() {
            // What was kept for it may go again.
            keeping.trim_all = true;
            lock(&self.unrouted).any_may_be();
        }
        made
    }

    /// A destination's own queue, which no replay of is under way.
    pub(super) fn live(&self, destination: &str, stream: &str) -> Result<Arc<Inner>, ReplayError> {
        let live = self.find(destination, stream).filter(|inner| inner.replay.is_none());
        let no_queue = || ReplayError::NoQueue { destination: destination.into(), stream: stream.into() };
        let live = live.ok_or_else(no_queue)?;
        if let Some(number) = self.replay_of(destination, stream).and_then(|inner| Some(inner.replay.as_ref()?.number))
        {
            return Err(ReplayError::UnderWay { number });
        }
        Ok(live)
    }

    fn make_replay(
        &self,
        keeping: &mut Keeping,
        live: &Arc<Inner>,
        stream_id: StreamId,
        request: ReplayRequest,
    ) -> Result<Arc<Inner>, ReplayError> {
        let (log, again) = (&self.context.log, request.mode == ReplayMode::Again);
        // Whatever is counted by the incarnation so far, durably: see deleting.rs. And before anything is kept for the
        // replay: a commit lets go what nobody is known to need.
        self.commit(keeping).map_err(ReplayError::NotDurable)?;
        let mut incarnation = live.incarnation;
        if again {
            keeping.incarnation = keeping.incarnation.max(incarnation).saturating_add(1);
            incarnation = keeping.incarnation;
            keeping.floor.hold_fast(keeping.plans);
            self.commit(keeping).map_err(ReplayError::NotDurable)?;
        }
        let (range, plans) = self.range(live, stream_id, request)?;
        let (start_bytes, end_bytes) = (total_at(log, stream_id, range.start)?, total_at(log, stream_id, range.end)?);
        let (mut cursor, mut books) = (Cursor::at(range.start, start_bytes), Books::from(range.start, start_bytes));
        // What was given up where it lies was never sent, and is sent in a way of its own.
        let marked: Vec<Range<u64>> = live.window().marked_in(&range);
        leave_out(log, stream_id, (&mut cursor, &mut books), marked.into_iter())?;
        if cursor.low >= range.end {
            let first_kept = log.first_kept(stream_id);
            return Err(ReplayError::Nothing { from: range.start, to: range.end, first_kept });
        }
        let number = lock(&live.replays).as_ref().map_or(0, |replays| replays.over.replays) + 1;
        let entry = FloorEntry {
            destination: replay::name(&live.destination, number).into(),
            stream: Arc::clone(&live.stream),
            stream_id: Some(stream_id),
            incarnation,
            epoch: keeping.first_epoch(),
            books,
            cursor,
            extra: Some(Box::new(Extra::Replay {
                again,
                redrive: false,
                end: End { offset: range.end, bytes: end_bytes },
            })),
        };
        self.begin_replay(keeping, live, entry, plans)
    }

    /// Makes the queue of a replay, durably, with the boundaries that its records went out under before.
    pub(super) fn begin_replay(
        &self,
        keeping: &mut Keeping,
        live: &Arc<Inner>,
        entry: FloorEntry,
        plans: OldPlans,
    ) -> Result<Arc<Inner>, ReplayError> {
        let too_many = ReplayError::TooMany { limit: QUEUES_MAX };
        let id = keeping.floor.add(entry.clone()).ok_or(too_many)?;
        let inner = linked(Inner::new(&self.context, id, entry), live);
        for (offsets, plan) in plans {
            keeping.fills_low = keeping.fills_low.min(plan.offset);
            inner.adopt_old(offsets, plan);
        }
        inner.touch();
        self.index.write().unwrap_or_else(PoisonError::into_inner).add(Arc::clone(&inner));
        if let Err(error) = self.commit(keeping) {
            self.forget(keeping, &inner);
            return Err(ReplayError::NotDurable(error));
        }
        inner.wake();
        Ok(inner)
    }

    /// The records of a replay, which the log keeps from now on, and the plans that they went out under.
    fn range(
        &self,
        live: &Inner,
        stream: StreamId,
        request: ReplayRequest,
    ) -> Result<(Range<u64>, OldPlans), ReplayError> {
        let log = &self.context.log;
        let low = live.window().cursor().low;
        let asked = match request.from {
            ReplayFrom::Earliest => 0,
            ReplayFrom::Offset(offset) => offset,
            ReplayFrom::Time(ms) => offset_at_time(log, stream, ms)?,
        };
        let to = request.to.unwrap_or(low);
        if to > low {
            return Err(ReplayError::NotSettled { to, low });
        }
        // A batch before it may have to come along whole; so all that is kept is, until its place is known.
        let first_kept = log.keep(stream, 0);
        let nothing = ReplayError::Nothing { from: asked, to, first_kept };
        let range = asked.max(first_kept)..to;
        if range.is_empty() {
            return Err(nothing);
        }
        if request.mode == ReplayMode::Again {
            return Ok((range, Vec::new()));
        }
        // What is trimmed is still there as long as its segment is; and from now on it stays.
        if let Some(plans) = log.stream(PLANS_STREAM) {
            log.keep(plans, 0);
        }
        let whose = Whose { destination: &live.destination, incarnation: live.incarnation, stream };
        let mut kept = KeptPlans::new(range, REPLAY_PLANS_MAX);
        each_kept(log, |offset, plan| {
            if whose.are(&plan) {
                kept.add(plan.offsets, Plan { offset, revision: plan.revision });
            }
        })?;
        let range = kept.widened(first_kept..low);
        if range.is_empty() {
            return Err(nothing);
        }
        Ok((range.clone(), kept.within(range).collect()))
    }

    /// The replay of a destination's stream that is under way.
    pub(super) fn replay_of(&self, destination: &str, stream: &str) -> Option<Arc<Inner>> {
        let ours = |inner: &&Arc<Inner>| inner.replay.as_ref().is_some_and(|bounds| *bounds.of == *destination);
        self.index_read().by_stream.get(stream).into_iter().flatten().find(ours).cloned()
    }

    /// Ends a replay, done or not: its queue is gone, and what it delivered is known to the live one.
    pub(super) fn end_replay(&self, keeping: &mut Keeping, inner: &Arc<Inner>) -> Result<(), FloorError> {
        let ended = self.try_end_replay(keeping, inner);
        if ended.is_err() {
            inner.touch(); // the next tick is to meet it
        }
        ended
    }

    fn try_end_replay(&self, keeping: &mut Keeping, inner: &Arc<Inner>) -> Result<(), FloorError> {
        let Some(bounds) = &inner.replay else { return Ok(()) };
        if inner.gone.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(live) = self.find(&bounds.of, &inner.stream) {
            let (start, delivered) = {
                let window = inner.window();
                (window.books().start, window.books().delivered())
            };
            if bounds.redrive {
                // Once: then there is nothing marked in that range any more.
                let became = Queue::of(Arc::clone(inner)).balance();
                live.window().resolve_marked(&(start..bounds.end.offset), &became);
            }
            let mut replays = lock(&live.replays);
            let over = &mut replays.get_or_insert_default().over;
            if over.replays < bounds.number {
                over.replays = bounds.number;
                over.delivered += if bounds.redrive { Count::default() } else { delivered };
            }
            live.touch();
        }
        // Its number is taken for good before its entry goes: the plans of this replay are still in the log.
        self.commit(keeping)?;
        if inner.gone.load(Ordering::Acquire) {
            return Ok(()); // that commit met it, too
        }
        self.forget(keeping, inner);
        inner.wake(); // whoever sends it finds nothing any more
        if !bounds.cancelled.load(Ordering::Acquire) {
            tracing::info!(destination = %bounds.of, stream = %inner.stream, number = bounds.number, "a replay is done");
        }
        self.commit(keeping)
    }
}

impl Inner {
    /// It is the queue of a replay that fills gaps: it goes by plans of others.
    pub(super) fn fills_gaps(&self) -> bool {
        self.replay.as_ref().is_some_and(|bounds| !bounds.again)
    }

    /// Takes over the plan of a batch that was sent before.
    pub(super) fn adopt_old(&self, offsets: Range<u64>, plan: Plan) {
        if let Some(bounds) = &self.replay {
            bounds.under_old_ids.fetch_add(offsets.end - offsets.start, Ordering::Relaxed);
        }
        self.window().adopt(offsets, plan);
    }
}

/// The replay, known to the queue that it replays and the other way round.
pub(super) fn linked(mut replay: Inner, live: &Arc<Inner>) -> Arc<Inner> {
    if let Some(bounds) = &mut replay.replay {
        bounds.live = Arc::downgrade(live);
    }
    let replay = Arc::new(replay);
    if let Some(again) = Queue::of(Arc::clone(&replay)).redrives() {
        live.window().send_again(&again);
    }
    lock(&live.replays).get_or_insert_default().under_way = Some(Arc::clone(&replay));
    replay
}

/// Plans that a replay goes by when it is resumed: as many as when it began, and those of its own that are open, since what
/// it has settled needs none.
pub(super) const RESUMED_PLANS_MAX: usize = REPLAY_PLANS_MAX + 2 * SETTLED_RANGES_MAX;

/// Hands the replays that fill gaps the boundaries of the batches that they are to send again, at most `plans_max` each.
pub(super) fn resume_fills<'a>(
    log: &crate::Log,
    replays: impl Iterator<Item = &'a Arc<Inner>>,
    plans_max: usize,
) -> Result<(), crate::ReadError> {
    let mut fills: Vec<(&Arc<Inner>, &Bounds, Whose<'_>, KeptPlans)> = Vec::new();
    for inner in replays {
        let (Some(whose), Some(bounds)) = (Whose::of_fill(inner), inner.replay.as_deref()) else { continue };
        // Below the low mark all is settled. Its own plans for what had none are among them by now.
        let range = inner.window().cursor().low..bounds.end.offset;
        fills.push((inner, bounds, whose, KeptPlans::new(range, plans_max)));
    }
    if fills.is_empty() {
        return Ok(());
    }
    each_kept(log, |offset, plan| {
        for (_, _, whose, kept) in &mut fills {
            if whose.are(&plan) {
                kept.add(plan.offsets.clone(), Plan { offset, revision: plan.revision });
            }
        }
    })?;
    for (inner, bounds, _, kept) in fills {
        let range = inner.window().books().start..bounds.end.offset;
        kept.within(range).for_each(|(offsets, plan)| inner.adopt_old(offsets, plan));
    }
    Ok(())
}
