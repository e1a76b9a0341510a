//! The queues over the log: one per destination and stream, each a cursor that moves when the destination has
//! acknowledged.
//!
//! A queue copies no records: it hands out ranges of the log and remembers what is settled. It knows destinations by
//! name only, and neither how records are sent nor when to try again. How it all survives a crash is in
//! docs/durability.md; what is kept where, in [`set`].
//!
//! What always holds: nothing is handed out that is not durable, or that is settled; boundaries that were handed out
//! come again unchanged until they are settled; the balance closes.

mod balance;
mod batch;
mod claim;
mod codec;
mod cursor;
mod cursor_store;
mod floor_file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod give_up;
mod hint;
mod hours;
mod inspect;
mod kept_plans;
mod lag;
mod limits;
mod marked;
mod marking;
mod marks;
mod mem_store;
mod parting;
mod plan;
mod planner;
mod range;
mod reading;
mod recover;
mod replay;
mod set;
mod settle;
mod sled_store;
mod split;
mod store_keeper;
mod told;
mod window;

pub use balance::{Balance, Count, Settled};
pub use batch::{Batch, BatchLimits, Slice};
pub use cursor::{Cursor, SettledRange};
pub use cursor_store::{CursorStore, KeyValue, OpenStore, StoreChoice, StoreError};
pub use floor_file::{FloorDamage, FloorError};
pub use give_up::Much;
pub use hours::{Hour, Hourly};
pub use inspect::{SeenFloor, inspect_floor};
pub use lag::Lag;
pub use marked::MarkedRange;
pub use mem_store::MemStore;
pub use parting::Front;
pub use planner::PlanError;
pub use range::{RangeError, RangeLimits, RangeReader, Waiting};
pub use replay::{Replay, ReplayError, ReplayFrom, ReplayMode, ReplayRequest, Replayed};
pub use set::{CloseQueuesError, Deleted, OpenQueuesError, QueueOptions, Queues, QueuesStats, Start};
pub use split::{Halved, SplitError};
pub use window::Position;

use crate::clock::Clock;
use crate::disk::Lock;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use crate::{Log, LogId, PLANS_STREAM, ReadError, StreamId};
use balance::End;
use floor_file::EntryId;
use hours::Hours;
use plan::PlanRecord;
use planner::Planner;
use reading::Reading;
use replay::{Bounds, Replays};
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use window::{Offer, Plan, Window};

/// The queue of one destination for one stream. Cheap to clone; all clones are one queue.
///
/// A handle hands out all that waits, the oldest first; or a part of it, where the queue is [parted](Self::part): see
/// [`backlog`](Self::backlog) and [`live`](Self::live).
///
/// Calls do not wait for each other's disk reads, save [`next_batch`](Self::next_batch) for one of the same queue.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
    position: Position,
}

/// Why a queue could not be made, or a batch not be had.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The log could not be read. Nothing was claimed; try again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A name that cannot be used.
    #[error("{what} {name:?} cannot be used: {rule}")]
    BadName {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
        /// What names must be like.
        rule: &'static str,
    },
    /// There are as many queues as the floor can hold.
    #[error("there are {limit} queues already, and no more are kept")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// What was asked for is done, but a crash may take it back before the next tick that succeeds.
    #[error("it is done, but not durable yet")]
    NotDurable(#[source] FloorError),
    /// What deleting needs could not be written. Nothing is deleted.
    #[error("nothing is deleted: the floor cannot be written")]
    NotDeleted(#[source] FloorError),
}

/// What a queue is known by in its set: its destination and its stream.
type Name = (Arc<str>, Arc<str>);

/// What all queues of a set share.
struct Context {
    log: Log,
    log_id: LogId,
    clock: Arc<dyn Clock>,
    /// When the set was opened, by the wall clock.
    opened_ms: u64,
    planner: Planner,
    /// Bytes of frames that queues keep between two batches.
    held_bytes: Arc<AtomicUsize>,
    /// Queues that changed since the last tick, each of them once.
    touched: Mutex<Vec<Name>>,
    /// Queues of which records are marked that nobody has decided on, and some of which there were.
    marking: Mutex<BTreeSet<Name>>,
    /// For as long as anybody can write to the log.
    _lock: Box<dyn Lock>,
}

/// One queue. Small while idle: ten thousand of them are a matter of megabytes.
struct Inner {
    context: Arc<Context>,
    destination: Arc<str>,
    stream: Arc<str>,
    /// Known once the stream exists.
    stream_id: OnceLock<StreamId>,
    incarnation: u32,
    epoch: u32,
    entry: EntryId,
    window: Mutex<Window>,
    reading: Mutex<Reading>,
    /// The same at the second position: so that neither loses its place by the other's.
    reading_live: Mutex<Reading>,
    /// When some records were taken in that are asked for again and again: the one at the low mark, and the other that was asked
    /// for last. Never locked while anybody reads the disk.
    ages: Mutex<Option<Box<[Age; 2]>>>,
    /// A replay of another queue, and where it ends.
    replay: Option<Box<Bounds>>,
    /// Replays of this queue: the one that is under way, and what those did that are over. None for almost every queue.
    replays: Mutex<Option<Box<Replays>>>,
    more: Mutex<Option<Waker>>,
    /// Its balance hour by hour. None as long as it had nothing when an hour ended.
    hours: Mutex<Option<Box<Hours>>>,
    /// The cursor store was told of them.
    hours_stored: AtomicBool,
    revision: AtomicU32,
    /// It is among those that were touched since the last tick. Set by `touch` alone.
    noted: AtomicBool,
    /// A commit has written it: after a crash it is there, and begins where it began.
    saved: AtomicBool,
    /// Deleted: whoever still has a handle finds nothing, and settles to no effect.
    gone: AtomicBool,
    /// The low mark that is on disk: what lies below may be deleted. Changed and read by whoever keeps the set.
    durable_low: AtomicU64,
    /// The stream's running total of bytes there.
    durable_low_bytes: AtomicU64,
}

/// The records of a frame, and when they were taken in.
type Age = (Range<u64>, u64);

type Waker = Arc<dyn Fn() + Send + Sync>;

impl Queue {
    /// Makes the batch's boundaries durable: after a crash the same records come again under the same id. `done` runs
    /// when they are, on the log's writer thread, and must not block; at once where they are durable already. Plans of
    /// many queues share appends. Do not send before.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn plan(&self, batch: &Batch, done: Box<dyn FnOnce(Result<(), PlanError>) + Send>) {
        let queue = &self.inner;
        let offsets = queue.offsets_of(batch);
        let mut window = queue.window();
        let (plan, failed_split) = (window.plan_of(&offsets), window.failed_split(&offsets));
        window.ask_plan(&offsets);
        drop(window);
        if let Some(at) = failed_split {
            return done(Err(PlanError::SplitFailed { at }));
        }
        if plan.is_some() {
            return done(Ok(()));
        }
        let Some(stream) = queue.stream_id() else { return done(Err(PlanError::Deleted)) };
        let record = queue.plan_record(stream, offsets.clone(), batch.settings_revision);
        let log = &queue.context.log;
        let tail = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
        let (queue, revision) = (Arc::clone(queue), batch.settings_revision);
        let planned = move |result: Result<u64, PlanError>| {
            done(result.map(|offset| {
                queue.window().planned(&offsets, Plan { offset, revision });
                queue.touch();
            }));
        };
        self.inner.context.planner.submit(record, tail, Box::new(planned));
    }

    /// Gives a batch back unsettled: [`next_batch`](Self::next_batch) will hand out the same boundaries, and so the
    /// same id, again. So does the drop of its last copy. Does nothing for a batch that is settled or was given back before.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn release(&self, batch: &Batch) {
        self.inner.offsets_of(batch);
        self.inner.give_back(&batch.right);
    }

    /// The id that a batch of exactly these records has, whether there is or ever was one: for who sends a record on
    /// its own that was taken out of its batch. `None` before the stream exists, and for what is no batch: no records, or more
    /// than one may have.
    #[must_use]
    pub fn batch_id(&self, offsets: Range<u64>) -> Option<String> {
        let queue = &*self.inner;
        offsets.end.checked_sub(offsets.start).filter(|count| (1..=limits::BATCH_RECORDS_MAX).contains(count))?;
        Some(queue.batch_id(queue.stream_id()?, offsets))
    }

    /// Whether [`next_batch`](Self::next_batch) would find something. Does not touch the disk.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let Some(stream) = self.inner.stream_id() else { return false };
        let tail = self.inner.tail(stream).offset;
        !matches!(self.inner.offer(self.position, tail), Offer::Nothing | Offer::Full)
    }

    /// Whether as many records wait, or a batch that was handed out before and comes again. Does not touch the disk.
    #[must_use]
    pub fn has_records(&self, records: u64) -> bool {
        let Some(stream) = self.inner.stream_id() else { return false };
        let tail = self.inner.tail(stream).offset;
        match self.inner.offer(self.position, tail) {
            Offer::Nothing | Offer::Full => false,
            Offer::Again { .. } => true,
            Offer::Fresh(offsets) => offsets.end - offsets.start >= records,
        }
    }

    /// Whether the next batch is in memory, all of it: one that comes again as it was, or a fresh one of at most so many records.
    /// Otherwise call [`next_batch`](Self::next_batch) where blocking is allowed.
    #[must_use]
    pub fn ready_in_memory(&self, records_max: u64) -> bool {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return true };
        let tail = queue.tail(stream).offset;
        let (offsets, most) = match queue.offer(self.position, tail) {
            Offer::Nothing | Offer::Full => return true,
            Offer::Again { offsets, .. } => (offsets, u64::MAX),
            Offer::Fresh(offsets) => (offsets, records_max),
        };
        let end = offsets.end.min(offsets.start.saturating_add(most));
        // Somebody else reads right now: that may take its time.
        let Ok(reading) = queue.reading(self.position).try_lock() else { return false };
        let at_hand = reading.held_up_to(offsets.start).unwrap_or(offsets.start);
        // Of what was just appended all is in memory, from some record on.
        at_hand >= end || queue.context.log.reader(stream, at_hand).in_memory()
    }

    /// Has `waker` called when there may be more for [`next_batch`](Self::next_batch): when records arrive, a batch is
    /// given back, or a full window has room again; also when there may be more in a [replay](Self::replay_under_way) of
    /// this queue, unless that has a waker of its own. Replaces the one before. Called on the log's writer thread, among
    /// others, and must not block.
    pub fn on_more(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        *lock(&self.inner.more) = Some(waker);
    }

    /// The revision of the destination's settings that fresh batches are made under. Batches that come again keep
    /// theirs.
    pub fn set_settings_revision(&self, revision: u32) {
        self.inner.revision.store(revision, Ordering::Relaxed);
    }

    /// The revision that fresh batches are made under; 0 until it is set.
    #[must_use]
    pub fn settings_revision(&self) -> u32 {
        self.inner.revision.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Where a position reads.
    fn reading(&self, position: Position) -> &Mutex<Reading> {
        match position {
            Position::Only | Position::Backlog => &self.reading,
            Position::Live => &self.reading_live,
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }

    /// The stream's number, once the stream exists; none for a queue that was deleted.
    fn stream_id(&self) -> Option<StreamId> {
        if self.gone.load(Ordering::Acquire) {
            return None;
        }
        if self.stream_id.get().is_none() {
            let found = self.context.log.stream(&self.stream)?;
            self.stream_id.get_or_init(|| found);
            self.touch(); // the floor keeps it
        }
        self.stream_id.get().copied()
    }

    /// It has changed: the next tick takes it up. A tick looks at no other queue, so that idle ones cost it nothing.
    fn touch(&self) {
        // Under the lock: who finds it touched may rely on the next tick, whoever touched it.
        let mut touched = lock(&self.context.touched);
        if !self.noted.swap(true, Ordering::AcqRel) {
            touched.push((Arc::clone(&self.destination), Arc::clone(&self.stream)));
        }
    }

    /// Where the stream ends now.
    fn end(&self) -> End {
        self.stream_id().map(|stream| self.tail(stream)).unwrap_or_default()
    }

    /// Where the stream ends now: for a replay, where that ends.
    fn tail(&self, stream: StreamId) -> End {
        match &self.replay {
            // Never behind the log's: it begins and ends below its destination's cursor, and a start cuts it to what is there.
            Some(bounds) => bounds.end,
            None => {
                let tail = self.context.log.durable(stream);
                End { offset: tail.offset, bytes: tail.bytes }
            }
        }
    }

    /// The id of a batch. That of a replay is made with its destination's id.
    fn batch_id(&self, stream_id: StreamId, offsets: Range<u64>) -> String {
        let mut record = self.plan_record(stream_id, offsets, 0);
        if let Some(bounds) = &self.replay {
            record.destination = Arc::clone(&bounds.of);
        }
        plan::batch_id(self.context.log_id, &record)
    }

    fn wake(&self) {
        let mut waker = lock(&self.more).clone();
        if waker.is_none()
            && let Some(live) = self.replay.as_ref().and_then(|bounds| bounds.live.upgrade())
        {
            waker = lock(&live.more).clone(); // who sends for a destination sends its replays
        }
        // A panic is its owner's bug, and must cost neither the log's writer nor those who are woken next.
        if let Some(waker) = waker
            && catch_unwind(AssertUnwindSafe(|| waker())).is_err()
        {
            tracing::error!(destination = %self.destination, stream = %self.stream, "a waker panicked");
        }
    }

    fn plan_record(&self, stream_id: StreamId, offsets: Range<u64>, revision: u32) -> PlanRecord {
        let (destination, incarnation) = (Arc::clone(&self.destination), self.incarnation);
        PlanRecord { destination, incarnation, stream_id, offsets, revision }
    }

    /// The stream's running total at `offset`: where the record before it ends. Where that one is lost, what the log
    /// says of the next one that is not.
    fn total_at(&self, stream: StreamId, offset: u64) -> Result<u64, ReadError> {
        reading::total_at(&self.context.log, stream, offset)
    }

    /// When the record at `offset` was taken in. Remembered: the first that waits is asked for again and again.
    fn ingest_ms(&self, offset: u64) -> Option<u64> {
        self.ingest_ms_at(offset, 1)
    }

    /// The same of the record at the low mark, which stays that for long while others come and go. Where it can't be had, of one
    /// behind it that can: it is as old at least.
    fn oldest_ms(&self, low: u64) -> Option<u64> {
        let behind = || reading::ingest_ms_behind(&self.context.log, self.stream_id()?, low);
        self.ingest_ms_at(low, 0).or_else(behind)
    }

    fn ingest_ms_at(&self, offset: u64, place: usize) -> Option<u64> {
        if let Some(ms) = self.remembered_ms(offset) {
            return Some(ms);
        }
        let age = reading::ingest_ms(&self.context.log, self.stream_id()?, offset)?;
        let ms = age.1;
        lock(&self.ages).get_or_insert_default()[place] = age;
        Some(ms)
    }

    /// The same, if it was asked for before and is remembered.
    fn remembered_ms(&self, offset: u64) -> Option<u64> {
        let ages = lock(&self.ages);
        let known = ages.iter().flat_map(|ages| ages.iter()).find(|(offsets, _)| offsets.contains(&offset));
        known.map(|(_, ms)| *ms)
    }
}

/// Locks. A panic elsewhere poisons nothing: each change under these locks is whole or has not begun.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
