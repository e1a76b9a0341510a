//! A tick: makes what moved durable, then lets the log go what nobody needs.
//!
//! The order is what makes it safe: cursors are taken, the floor is synced, and only then does the log hear
//! what may go, and the cursor store what it may remember. A floor that cannot be written withholds all trimming.
//! Plans are let go one tick after the cursors that settled them: the floor's pages may land in any order, and a plan
//! must not be gone while the cursor is still below it.

use super::opening::plan_entry;
use super::{Keeping, REJECTS_PREFIX, Set};
use crate::PLANS_STREAM;
use crate::queue::floor_file::{FloorEntry, FloorError};
use crate::queue::hint::{self, Hint};
use crate::queue::{Inner, lock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
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
        let changed = |inner: &&Arc<Inner>| inner.dirty.swap(false, Ordering::AcqRel);
        let changed: Vec<Arc<Inner>> = self.index_read().by_name.values().filter(changed).cloned().collect();
        let mut hints = Vec::new();
        for inner in changed {
            let entry = inner.snapshot();
            hints.push((hint::key(&entry.destination, &entry.stream), Hint::of(self.context.log_id, &entry).encode()));
            let low = entry.cursor.low;
            keeping.floor.set(inner.entry, entry);
            keeping.unconfirmed.insert(inner.entry, (inner, low));
        }
        let plan_low = self.index_read().by_name.values().map(|inner| inner.plan_low.load(Ordering::Acquire)).min();
        let plan_low = plan_low.unwrap_or(u64::MAX);
        let orphaned = keeping.orphans.first().map_or(u64::MAX, |(offset, _)| *offset);
        let next_plan_mark = plans_tail.min(on_its_way).min(plan_low).min(orphaned);

        keeping.floor.add_synced(log.synced());
        keeping.floor.set(keeping.plans, plan_entry(keeping.plan_mark, keeping.incarnation));
        let committed = keeping.floor.commit();
        // With or without a floor: the hints are worth more than ever where it fails.
        self.keeper.offer(hints);
        let mut stats = lock(&self.stats);
        match committed {
            Ok(done) => {
                stats.pinned = keeping.floor.is_pinned();
                stats.count_commit(done.syncs);
            }
            Err(error) => {
                stats.count_error(&error);
                return Err(error);
            }
        }
        drop(stats);
        let durable_plan_mark = keeping.plan_mark;
        keeping.plan_mark = next_plan_mark.max(durable_plan_mark);
        self.trim(keeping, durable_plan_mark);
        Ok(())
    }

    /// Tells the log what nobody needs, after the floor that says so is on disk.
    fn trim(&self, keeping: &mut Keeping, plan_mark: u64) {
        let confirmed = std::mem::take(&mut keeping.unconfirmed);
        for (inner, low) in confirmed.values() {
            inner.durable_low.fetch_max(*low, Ordering::AcqRel);
        }
        if keeping.floor.is_pinned() {
            return;
        }
        let log = &self.context.log;
        let index = self.index_read();
        let moved = |inner: &Inner| {
            let subscribers = index.by_stream.get(&inner.stream).into_iter().flatten();
            let low = subscribers.map(|inner| inner.durable_low.load(Ordering::Acquire)).min();
            if let (Some(stream), Some(low)) = (inner.stream_id(), low) {
                log.trim(stream, low);
            }
        };
        if std::mem::take(&mut keeping.trim_all) {
            index.by_stream.values().filter_map(|queues| queues.first()).for_each(|inner| moved(inner));
        } else {
            confirmed.values().for_each(|(inner, _)| moved(inner));
        }
        if let Some(plans) = log.stream(PLANS_STREAM) {
            log.trim(plans, plan_mark);
        }
        if self.unrouted.swap(false, Ordering::AcqRel) {
            for stream in log.streams() {
                let by_age = !stream.name.starts_with('!') || stream.name.starts_with(REJECTS_PREFIX);
                if by_age && !index.by_stream.contains_key(&stream.name) {
                    log.trim(stream.id, stream.tail.offset);
                }
            }
        }
    }
}

impl Inner {
    /// The queue as the floor keeps it; notes the oldest plan along with it.
    fn snapshot(&self) -> FloorEntry {
        let stream_id = self.stream_id.get().copied();
        let window = self.window();
        self.plan_low.store(window.oldest_plan().unwrap_or(u64::MAX), Ordering::Release);
        FloorEntry {
            destination: Arc::clone(&self.destination),
            stream: Arc::clone(&self.stream),
            stream_id,
            incarnation: self.incarnation,
            epoch: self.epoch,
            books: window.books().clone(),
            cursor: window.cursor().clone(),
        }
    }
}

impl Ticker {
    pub(super) fn start(set: &Arc<Set>, period: Duration) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(1);
        let set = Arc::downgrade(set);
        let thread = std::thread::Builder::new().name("forebay-tick".into()).spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let Some(set) = set.upgrade() else { return };
                if let Err(error) = set.tick() {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the cursors are not durable: nothing is deleted, and a crash would repeat");
                }
            }
        })?;
        Ok(Self { stop, thread })
    }
}
