//! A tick: makes what moved durable, then lets the log go what nobody needs.
//!
//! The order is what makes it safe: cursors are taken, the floor is synced, and only then does the log hear
//! what may go, and the cursor store what it may remember. A floor that cannot be written withholds all trimming. The log is
//! trimmed by cursors that are in both slots of their page, which they are with the commit after the one that brought
//! them: should the newer slot rot, the older one must not say that what is gone was never settled.
//! Plans are let go one tick after the cursors that settled them: the floor's pages may land in any order, and a plan
//! must not be gone while the cursor is still below it.

use super::arrivals::goes_by_age;
use super::opening::plan_entry;
use super::{Keeping, Set};
use crate::PLANS_STREAM;
use crate::failpoints::{self, Point};
use crate::log::or_abort;
use crate::mutants::{self, Mutant};
use crate::queue::balance::End;
use crate::queue::floor_file::{Extra, FloorEntry, FloorError};
use crate::queue::hint::{self, Hint};
use crate::queue::hours::{HOUR_MS, Hours};
use crate::queue::marked::Marked;
use crate::queue::replay::{Bounds, Replayed};
use crate::queue::{Balance, Count, Inner, KeyValue, Queue, lock};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use crate::sync::thread::JoinHandle;
use std::io;
use std::time::Duration;

/// The thread that ticks.
pub(super) struct Ticker {
    pub(super) stop: SyncSender<()>,
    pub(super) thread: JoinHandle<()>,
}

impl Set {
    /// A tick, by whoever holds what it keeps.
    pub(super) fn commit(&self, keeping: &mut Keeping) -> Result<(), FloorError> {
        let log = &self.context.log;
        // In this order: a plan that is durable now is below the tail; one that its queue does not know yet is not
        // below what is on its way; every other one its queue knows.
        let plans_tail = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
        let on_its_way = self.context.planner.on_its_way().unwrap_or(u64::MAX);
        let touched = std::mem::take(&mut *lock(&self.context.touched));
        let touched: Vec<Arc<Inner>> = {
            let index = self.index_read();
            // The others are gone.
            touched.iter().filter_map(|(of, stream)| index.by_name.get(of, stream).cloned()).collect()
        };
        let mut hints = Vec::new();
        failpoints::before(Point::TickCollect);
        for inner in touched {
            // Before it is looked at: what moves from now on is for the next tick.
            inner.noted.swap(false, Ordering::AcqRel);
            let (entry, plan_low) = inner.snapshot();
            match plan_low {
                Some(plan_low) => keeping.plan_lows.insert(inner.entry, (Arc::clone(&inner), plan_low)),
                None => keeping.plan_lows.remove(&inner.entry),
            };
            // One that settled nothing yet is where the floor has it; and the store keeps in memory what it is given, of
            // thousands of destinations that never had anything. What was given up where it lies no hint knows: one that
            // is believed beside an older floor would have it settled and forgotten.
            let marks = matches!(entry.extra.as_deref(), Some(Extra::Marked(..)));
            if entry.books.settled() != Count::default() && !marks {
                let hint = Hint::of(self.context.log_id, &entry).encode();
                hints.push((hint::key(&entry.destination, &entry.stream), hint));
            }
            hints.extend(inner.first_hours());
            let needed = entry.first_needed();
            keeping.floor.set(inner.entry, entry);
            keeping.unconfirmed.insert(inner.entry, (inner, needed));
        }
        let hour = self.context.clock.wall_ms() / HOUR_MS;
        if hour > std::mem::replace(&mut keeping.hour, hour) {
            hints.extend(self.index_read().by_name.values().filter_map(|inner| inner.close_hour(hour * HOUR_MS)));
        }
        if std::mem::take(&mut keeping.hours_wanted) {
            hints.extend(self.index_read().by_name.values().filter_map(|inner| inner.first_hours()));
        }
        let low_of = |fills| {
            let those = keeping.plan_lows.values().filter(|(inner, _)| inner.fills_gaps() == fills);
            those.map(|(_, low)| *low).min().unwrap_or(u64::MAX)
        };
        // What fills gaps goes by plans from below the mark, and looks for them itself when it is resumed.
        let (plan_low, fills_low) = (low_of(false), low_of(true));
        let orphaned = keeping.orphans.first().map_or(u64::MAX, |(offset, _)| *offset);
        let next_plan_mark = plans_tail.min(on_its_way).min(plan_low).min(orphaned);

        failpoints::after(Point::TickCollect);
        keeping.floor.add_synced(log.synced());
        let plan_mark = if mutants::on(Mutant::PlansLetGoAtOnce) { next_plan_mark } else { keeping.plan_mark };
        keeping.floor.set(keeping.plans, plan_entry(plan_mark, keeping.incarnation));
        let committed = keeping.floor.commit();
        // With or without a floor: the hints are worth more than ever where it fails.
        failpoints::around(Point::TickHints, || self.keeper.offer(hints));
        let mut stats = lock(&self.stats);
        match committed {
            Ok(done) => {
                stats.pinned = keeping.floor.is_pinned();
                stats.count_commit(done.syncs);
                drop(stats);
                keeping.told_saved();
                failpoints::around(Point::TickConfirm, || self.confirm(keeping, done.whole));
            }
            Err(error) => {
                stats.count_error(&error);
                return Err(error);
            }
        }
        let durable_plan_mark = keeping.plan_mark;
        keeping.plan_mark = next_plan_mark.max(durable_plan_mark);
        let needed = durable_plan_mark.min(std::mem::replace(&mut keeping.fills_low, fills_low));
        let is_done = |(inner, low): &&(Arc<Inner>, End)| {
            let over = |bounds: &Bounds| low.offset >= bounds.end.offset || bounds.cancelled.load(Ordering::Acquire);
            inner.replay.as_deref().is_some_and(over)
        };
        let over: Vec<Arc<Inner>> =
            keeping.in_one_slot.values().filter(is_done).map(|(inner, _)| Arc::clone(inner)).collect();
        failpoints::around(Point::TickTrim, || self.trim(keeping, needed));
        // All of them, whatever becomes of the first: who is not met now has nothing left that would bring it here again.
        over.iter().map(|replay| self.end_replay(keeping, replay)).fold(Ok(()), Result::and)
    }

    /// A commit succeeded: what the one before it brought is in both slots now, and in a new file everything is.
    fn confirm(&self, keeping: &mut Keeping, whole: bool) {
        let fresh = std::mem::take(&mut keeping.unconfirmed);
        let confirmed = std::mem::replace(&mut keeping.in_one_slot, fresh);
        for (entry, (inner, low)) in confirmed {
            // Once more before anything can be deleted, whatever led here.
            assert!(low.offset <= keeping.floor.entry(entry).first_needed().offset, "what the floor needs is let go");
            inner.confirm(low);
            keeping.confirmed.insert(entry, inner);
        }
        if whole || mutants::on(Mutant::TrimmedByOneSlot) {
            for (entry, (inner, low)) in &keeping.in_one_slot {
                inner.confirm(*low);
                keeping.confirmed.insert(*entry, Arc::clone(inner));
            }
        }
    }

    /// Tells the log what nobody needs, after the floor that says so is on disk.
    fn trim(&self, keeping: &mut Keeping, plan_mark: u64) {
        let confirmed = std::mem::take(&mut keeping.confirmed);
        if keeping.floor.is_pinned() {
            return;
        }
        let log = &self.context.log;
        let index = self.index_read();
        let moved = |inner: &Inner| {
            let subscribers = index.by_stream.get(&inner.stream).into_iter().flatten();
            let low = subscribers.map(|inner| inner.confirmed()).min_by_key(|low| low.offset);
            if let (Some(stream), Some(low)) = (inner.stream_id(), low) {
                log.trim_at(stream, low.offset, low.bytes);
            }
        };
        let all = std::mem::take(&mut keeping.trim_all);
        if all {
            index.by_stream.values().filter_map(|queues| queues.first()).for_each(|inner| moved(inner));
        } else {
            confirmed.values().for_each(|inner| moved(inner));
        }
        if let Some(plans) = log.stream(PLANS_STREAM) {
            log.trim(plans, plan_mark);
        }
        // Not under its lock: who notes what arrives is the log's writer.
        let unrouted = lock(&self.unrouted).take();
        unrouted.each(log, |stream, name, tail| {
            if goes_by_age(name) && !index.by_stream.contains_key(name) {
                log.trim_at(stream, tail.offset, tail.bytes);
            }
        });
        if all {
            log.told_all();
        }
    }
}

impl Inner {
    /// This low mark is in both slots of its page.
    fn confirm(&self, low: End) {
        if self.confirmed().offset < low.offset {
            self.durable_low.store(low.offset, Ordering::Release);
            self.durable_low_bytes.store(low.bytes, Ordering::Release);
        }
    }

    fn confirmed(&self) -> End {
        let offset = match mutants::on(Mutant::TrimmedAheadOfTheFloor) {
            true => self.window().cursor().low,
            false => self.durable_low.load(Ordering::Acquire),
        };
        End { offset, bytes: self.durable_low_bytes.load(Ordering::Acquire) }
    }

    /// An hour is over: what it was, for the store. None for a queue that never had anything.
    fn close_hour(self: &Arc<Self>, at_ms: u64) -> Option<KeyValue> {
        let balance = Queue::of(Arc::clone(self)).balance();
        let mut hours = lock(&self.hours);
        if hours.is_none() && balance == Balance::default() {
            return None;
        }
        let opened_ms = self.context.opened_ms;
        let hours = hours.get_or_insert_with(|| Box::new(Hours::from(opened_ms, Balance::default())));
        hours.close(at_ms, balance);
        Some(self.hours_for_the_store(hours))
    }

    /// From when on its hours are known, for a store that was told nothing of them yet: what is kept says where the span that is
    /// under way began, so nothing more is written before that ends, and yet a restart goes on with it.
    fn first_hours(self: &Arc<Self>) -> Option<KeyValue> {
        if self.hours_stored.load(Ordering::Relaxed) {
            return None;
        }
        let balance = Queue::of(Arc::clone(self)).balance();
        if balance == Balance::default() {
            return None;
        }
        let opened_ms = self.context.opened_ms;
        let mut hours = lock(&self.hours);
        let hours = hours.get_or_insert_with(|| Box::new(Hours::from(opened_ms, Balance::default())));
        Some(self.hours_for_the_store(hours))
    }

    fn hours_for_the_store(&self, hours: &Hours) -> KeyValue {
        self.hours_stored.store(true, Ordering::Relaxed);
        let value = hours.encode((self.context.log_id, self.incarnation, self.epoch));
        (hint::hours_key(&self.destination, &self.stream), value)
    }

    fn extra(&self, over: Option<Replayed>, marked: Option<&Marked>) -> Option<Box<Extra>> {
        let extra = match (self.replay.as_deref(), marked) {
            (Some(Bounds { again, redrive, end, .. }), _) => {
                Extra::Replay { again: *again, redrive: *redrive, end: *end }
            }
            (None, Some(marked)) => Extra::Marked(over.unwrap_or_default(), marked.clone()),
            (None, None) => Extra::Replayed(over?),
        };
        Some(Box::new(extra))
    }

    /// The queue as the floor keeps it, and the oldest plan that it needs.
    fn snapshot(&self) -> (FloorEntry, Option<u64>) {
        let stream_id = self.stream_id.get().copied();
        let over = lock(&self.replays).as_ref().map(|of| of.over).filter(|over| over.replays > 0);
        let window = self.window();
        let extra = self.extra(over, window.marked());
        let plan_low = window.oldest_plan();
        let entry = FloorEntry {
            destination: Arc::clone(&self.destination),
            stream: Arc::clone(&self.stream),
            stream_id,
            incarnation: self.incarnation,
            epoch: self.epoch,
            books: window.books().clone(),
            cursor: window.cursor().clone(),
            extra,
        };
        (entry, plan_low)
    }
}

/// Cursors that can't be made durable are told of no more often: each tick finds them so.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Ticker {
    pub(super) fn start(set: &Arc<Set>, period: Duration) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(1);
        let set = Arc::downgrade(set);
        let thread = crate::sync::thread::Builder::new().name("forebay-tick".into()).spawn(move || {
            or_abort("tick", || {
                let (mut is_told, mut quiet_until) = (false, Duration::ZERO);
                while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    let Some(set) = set.upgrade() else { return };
                    let (ticked, now) = (set.tick(), set.context.clock.monotonic());
                    match ticked {
                        Ok(()) if is_told => {
                            is_told = false;
                            tracing::info!("the cursors are durable again");
                        }
                        Err(error) if now >= quiet_until => {
                            (is_told, quiet_until) = (true, now + TOLD_AGAIN_AFTER);
                            let error: &dyn std::error::Error = &error;
                            tracing::error!(
                                error,
                                "the cursors are not durable: nothing is deleted, and a crash would repeat"
                            );
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
            });
        })?;
        Ok(Self { stop, thread })
    }
}
