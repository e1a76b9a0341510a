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
mod codec;
mod cursor;
mod cursor_store;
mod floor_file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hint;
mod lag;
mod limits;
mod marks;
mod mem_store;
mod plan;
mod planner;
mod reading;
mod recover;
mod set;
mod sled_store;
mod store_keeper;
mod window;

pub use balance::{Balance, Count, Settled};
pub use cursor::{Cursor, SettledRange};
pub use cursor_store::{CursorStore, KeyValue, OpenStore, StoreChoice, StoreError};
pub use floor_file::{FloorDamage, FloorError};
pub use lag::Lag;
pub use mem_store::MemStore;
pub use planner::PlanError;
pub use set::{CloseQueuesError, OpenQueuesError, QueueOptions, Queues, QueuesStats, Start};

use crate::clock::Clock;
use crate::disk::Lock;
use crate::{Frame, Log, LogId, PLANS_STREAM, ReadError, StreamId};
use balance::End;
use floor_file::EntryId;
use marks::{Mark, Marks};
use plan::PlanRecord;
use planner::Planner;
use reading::{Gathered, Reading};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use window::{Offer, Plan, Verdict, Window};

/// The queue of one destination for one stream. Cheap to clone; all clones are one queue.
///
/// Calls do not wait for each other's disk reads, save [`next_batch`](Self::next_batch) for one of the same queue.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

/// How large a batch may be. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub records_max: u64,
    /// Bytes as stored in the log.
    pub bytes_max: u64,
}

/// Records that were handed out together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tells this batch from every other, of this log and any: `[A-Za-z0-9_-]`, under 100 characters. The same
    /// destination, stream and boundaries have the same id, always.
    pub id: String,
    /// The offsets of its records.
    pub offsets: Range<u64>,
    /// The records, frame by frame.
    pub slices: Vec<Slice>,
    /// Their bytes as stored.
    pub bytes: u64,
    /// The revision of the destination's settings that it was made under; see [`Queue::set_settings_revision`].
    pub settings_revision: u32,
    /// Whether its boundaries are durable already: it was planned before a crash, or before it was given back.
    pub planned: bool,
}

/// The records of one frame that belong to a batch.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The frame. It may begin before the slice and end behind it.
    pub frame: Arc<Frame>,
    /// The offsets of the records that belong to the batch.
    pub offsets: Range<u64>,
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
    /// The queue exists from now on, but a crash may forget it before the next tick that succeeds.
    #[error("the queue is made, but not durable yet")]
    NotDurable(#[source] FloorError),
}

/// What all queues of a set share.
struct Context {
    log: Log,
    log_id: LogId,
    clock: Arc<dyn Clock>,
    planner: Planner,
    /// Bytes of frames that queues keep between two batches.
    held_bytes: Arc<AtomicUsize>,
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
    /// Offset and time of the record that was last found to be the oldest.
    oldest: Mutex<Option<(u64, u64)>>,
    more: Mutex<Option<Waker>>,
    revision: AtomicU32,
    /// Changed since the last tick.
    dirty: AtomicBool,
    /// The low mark that is on disk: what lies below may be deleted.
    durable_low: AtomicU64,
    /// The oldest plan needed at the last tick; `u64::MAX` for none.
    plan_low: AtomicU64,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

impl Queue {
    /// The destination's id.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.inner.destination
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.inner.stream
    }

    /// The destination's id, to keep: shared, not copied.
    #[must_use]
    pub fn destination_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.destination)
    }

    /// The stream's name, to keep: shared, not copied.
    #[must_use]
    pub fn stream_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.stream)
    }

    /// Claims the next records: first batches that were planned before a crash or given back, with the same boundaries
    /// whatever `limits` says, then fresh ones. `None` when nothing waits, or when so many batches are open that one
    /// must be settled first. May read the disk; see [`ready_in_memory`](Self::ready_in_memory).
    ///
    /// Records that damage took are settled as lost here, and a batch ends before them.
    ///
    /// # Errors
    /// When the log cannot be read. Nothing is claimed then.
    pub fn next_batch(&self, limits: BatchLimits) -> Result<Option<Batch>, QueueError> {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(None) };
        let mut reading = lock(&queue.reading);
        loop {
            let tail = queue.context.log.durable(stream).offset;
            let offer = queue.window().offer(tail);
            let (range, plan, again) = match offer {
                Offer::Again { offsets, plan } => (offsets, plan, true),
                Offer::Fresh(offsets) => (offsets, None, false),
                Offer::Nothing | Offer::Full => {
                    reading.rest();
                    return Ok(None);
                }
            };
            let limits = if again { BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX } } else { limits };
            let gathered = reading.gather(&queue.context, stream, range.clone(), limits)?;
            if let Some(hole) = &gathered.hole {
                let bytes = queue.total_at(stream, hole.start)?..queue.total_at(stream, hole.end)?;
                let bytes_at = |offset| Some(if offset <= hole.start { bytes.start } else { bytes.end });
                let mut window = queue.window();
                if again {
                    // It cannot be sent as it stood: an id never stands for fewer records than it did.
                    window.dissolve(&range, |offset| queue.total_at(stream, offset).ok());
                }
                let lost = window.settle(hole.clone(), Settled::Lost, bytes_at);
                drop(window);
                queue.dirty.store(true, Ordering::Release);
                if lost.records > 0 {
                    tracing::error!(
                        destination = self.destination(),
                        stream = self.stream(),
                        ?hole,
                        records = lost.records,
                        "records are lost to damage and will not be delivered"
                    );
                }
                if again || (gathered.slices.is_empty() && lost.records > 0) {
                    continue;
                }
            }
            if gathered.slices.is_empty() {
                // At the tail, or at damage that has no place among the settled ranges before a batch is settled.
                return Ok(None);
            }
            if let Some(batch) = queue.claim(stream, gathered, plan) {
                return Ok(Some(batch));
            }
            // Somebody settled a part of it meanwhile.
        }
    }

    /// Makes the batch's boundaries durable: after a crash the same records come again under the same id. `done` runs
    /// when they are, on the log's writer thread, and must not block; at once where they are durable already. Plans of
    /// many queues share appends. Do not send before.
    pub fn plan(&self, batch: &Batch, done: Box<dyn FnOnce(Result<(), PlanError>) + Send>) {
        let queue = &self.inner;
        if queue.window().plan_of(&batch.offsets).is_some() {
            return done(Ok(()));
        }
        let stream = queue.stream_id().expect("a batch is of a stream that exists");
        let record = queue.plan_record(stream, batch.offsets.clone(), batch.settings_revision);
        let log = &queue.context.log;
        let tail = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
        let (queue, offsets, revision) = (Arc::clone(queue), batch.offsets.clone(), batch.settings_revision);
        let planned = move |result: Result<u64, PlanError>| {
            done(result.map(|offset| {
                queue.window().planned(&offsets, Plan { offset, revision });
                queue.dirty.store(true, Ordering::Release);
            }));
        };
        self.inner.context.planner.submit(record, tail, Box::new(planned));
    }

    /// Settles all of the batch that is not settled yet.
    pub fn settle(&self, batch: &Batch, as_: Settled) {
        self.settle_range(batch.offsets.clone(), as_);
    }

    /// Settles all of the batch that is not settled yet in one step, each of `parts` in its own way and `rest` what
    /// they leave out; says how many records that were. No crash and no other thread sees only a part of it, and it
    /// takes one settled range at most, however many parts there are.
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// # let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// let batch = queue.next_batch(BatchLimits { records_max: 10, bytes_max: 1 << 20 })?.expect("ten records wait");
    /// // The destination took all but the fourth and the fifth.
    /// queue.settle_parts(&batch, &[(3..5, Settled::DeadLettered)], Settled::Delivered);
    /// let balance = queue.balance();
    /// assert_eq!((balance.delivered.records, balance.dead_lettered.records), (8, 2));
    /// assert!(balance.closes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn settle_parts(&self, batch: &Batch, parts: &[(Range<u64>, Settled)], rest: Settled) -> u64 {
        self.settle_as(batch.offsets.clone(), Verdict::new(parts, rest))
    }

    /// Settles what of `offsets` is not settled yet, and says how many records that were. A part of a batch that is
    /// handed out is always settled, without reading. Elsewhere (a purge) the log is asked for its bytes, and a part
    /// is left as it is if that fails or if there are 256 ranges and open batches already.
    ///
    /// Durable after the next tick; a crash before it sends these records again.
    pub fn settle_range(&self, offsets: Range<u64>, as_: Settled) -> u64 {
        self.settle_as(offsets, as_.into())
    }

    fn settle_as(&self, offsets: Range<u64>, verdict: Verdict) -> u64 {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return 0 };
        let tail = queue.context.log.durable(stream).offset;
        let offsets = offsets.start..offsets.end.min(tail);
        let mut window = queue.window();
        let was_full = !window.has_spare();
        let settled = window.settle(offsets, verdict, |offset| queue.total_at(stream, offset).ok());
        drop(window);
        queue.dirty.store(true, Ordering::Release);
        if was_full {
            queue.wake();
        }
        settled.records
    }

    /// Settles as purged what of `offsets` is not settled yet, and says how much that was: for an operator who gives
    /// records up. See [`let_go`](Self::let_go).
    ///
    /// # Errors
    /// When the log cannot be read. Nothing was settled then.
    pub fn purge(&self, offsets: Range<u64>) -> Result<Count, QueueError> {
        self.let_go(offsets, Settled::Purged)
    }

    /// Settles what of `offsets` is not settled yet, whatever the destination says, and tells how much that was: for a
    /// purge by hand or an overflow policy. From the low mark on there is always room; a range that begins above it may
    /// find too many settled ranges, and then a part of it is left as it is.
    ///
    /// Batches in flight that lie inside are settled with the rest: the destination may get them all the same, and
    /// settling or giving them back later does nothing. Batches and plans that reach beyond `offsets` are left whole,
    /// because they will be sent whole, under the id that they have.
    ///
    /// Durable after the next tick; a crash before it takes it back.
    ///
    /// # Errors
    /// When the log cannot be read. Nothing was settled then.
    pub fn let_go(&self, offsets: Range<u64>, as_: Settled) -> Result<Count, QueueError> {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(Count::default()) };
        let tail = queue.context.log.durable(stream).offset;
        let offsets = offsets.start..offsets.end.min(tail);
        if offsets.is_empty() {
            return Ok(Count::default());
        }
        // Read before the window is locked; what lies between, batches and the cursor know.
        let ends = [offsets.start, offsets.end];
        let totals = [queue.total_at(stream, ends[0])?, queue.total_at(stream, ends[1])?];
        let bytes_at = |offset| match ends.iter().position(|end| *end == offset) {
            Some(end) => Some(totals[end]),
            None => queue.total_at(stream, offset).ok(),
        };
        let mut window = queue.window();
        let was_full = !window.has_spare();
        let settled = window.let_go(offsets, as_, bytes_at);
        drop(window);
        queue.dirty.store(true, Ordering::Release);
        if was_full {
            queue.wake();
        }
        Ok(settled)
    }

    /// Gives a batch back unsettled: [`next_batch`](Self::next_batch) will hand out the same boundaries, and so the
    /// same id, again. Does nothing for a batch that is settled or was given back before.
    pub fn release(&self, batch: &Batch) {
        let released = self.inner.window().release(&batch.offsets);
        if released {
            self.inner.wake();
        }
    }

    /// Whether [`next_batch`](Self::next_batch) would find something. Does not touch the disk.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let Some(stream) = self.inner.stream_id() else { return false };
        let tail = self.inner.context.log.durable(stream).offset;
        !matches!(self.inner.window().offer(tail), Offer::Nothing | Offer::Full)
    }

    /// Whether the next batch, or at least its first frame, is in memory. Otherwise call
    /// [`next_batch`](Self::next_batch) where blocking is allowed.
    #[must_use]
    pub fn ready_in_memory(&self) -> bool {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return true };
        let tail = queue.context.log.durable(stream).offset;
        let offer = queue.window().offer(tail);
        match offer {
            Offer::Nothing | Offer::Full => true,
            Offer::Again { offsets, .. } | Offer::Fresh(offsets) => {
                // Somebody else reads right now: that may take its time.
                let Ok(reading) = queue.reading.try_lock() else { return false };
                reading.holds(offsets.start) || queue.context.log.reader(stream, offsets.start).in_memory()
            }
        }
    }

    /// What is settled.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.inner.window().cursor().clone()
    }

    /// How far the queue is behind. Reads one frame from the disk when the oldest record changed and is not in memory.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let queue = &*self.inner;
        let window = queue.window();
        let (cursor, in_flight, oldest_ms) = (window.cursor().clone(), window.in_flight(), window.oldest_ms());
        drop(window);
        let end = queue.end(); // after the cursor, which is never ahead of it
        let behind = cursor.pending(end).records > 0;
        let oldest_ms = oldest_ms.or_else(|| queue.oldest_ms(cursor.low).filter(|_| behind));
        Lag::of(&cursor, end, in_flight, oldest_ms, queue.context.clock.wall_ms())
    }

    /// What became of every record since the queue began. It closes, always.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let window = self.inner.window();
        let (cursor, books) = (window.cursor().clone(), window.books().clone());
        drop(window);
        books.balance(&cursor, self.inner.end())
    }

    /// Has `waker` called when there may be more for [`next_batch`](Self::next_batch): when records arrive, a batch is
    /// given back, or a full window has room again. Replaces the one before. Called on the log's writer thread, among
    /// others, and must not block.
    pub fn on_more(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        *lock(&self.inner.more) = Some(waker);
    }

    /// The revision of the destination's settings that fresh batches are made under. Batches that come again keep
    /// theirs.
    pub fn set_settings_revision(&self, revision: u32) {
        self.inner.revision.store(revision, Ordering::Relaxed);
    }
}

impl Inner {
    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }

    fn stream_id(&self) -> Option<StreamId> {
        if self.stream_id.get().is_none() {
            let found = self.context.log.stream(&self.stream)?;
            self.stream_id.get_or_init(|| found);
            self.dirty.store(true, Ordering::Release); // the floor keeps it
        }
        self.stream_id.get().copied()
    }

    /// Where the stream ends now.
    fn end(&self) -> End {
        let tail = self.stream_id().map(|stream| self.context.log.durable(stream)).unwrap_or_default();
        End { offset: tail.offset, bytes: tail.bytes }
    }

    fn wake(&self) {
        let waker = lock(&self.more).clone();
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

    /// Enters what was read into the window. `None` when the window changed since it made the offer.
    fn claim(&self, stream: StreamId, gathered: Gathered, plan: Option<Plan>) -> Option<Batch> {
        let slices = gathered.slices;
        let offsets = slices.first()?.offsets.start..slices.last()?.offsets.end;
        let marks = Marks::new(slices.iter().map(|slice| Mark {
            first: slice.frame.first,
            records: slice.frame.records,
            bytes: u32::try_from(slice.frame.payload().len()).expect("the log's appends are below 4 GiB"),
            bytes_before: slice.frame.bytes_before,
            ingest_ms: slice.frame.ingest_ms,
        }));
        if !self.window().claim(offsets.clone(), marks) {
            return None;
        }
        let settings_revision = plan.map_or_else(|| self.revision.load(Ordering::Relaxed), |plan| plan.revision);
        let record = self.plan_record(stream, offsets.clone(), settings_revision);
        let id = plan::batch_id(self.context.log_id, &record);
        Some(Batch { id, offsets, slices, bytes: gathered.bytes, settings_revision, planned: plan.is_some() })
    }

    /// The stream's running total at `offset`: where the record before it ends. Where that one is lost, what the log
    /// says of the next one that is not.
    fn total_at(&self, stream: StreamId, offset: u64) -> Result<u64, ReadError> {
        reading::total_at(&self.context.log, stream, offset)
    }

    /// When the record at `low` was taken in. Remembered, since it is asked again and again.
    fn oldest_ms(&self, low: u64) -> Option<u64> {
        let mut oldest = lock(&self.oldest);
        if let Some((_, ms)) = oldest.filter(|(offset, _)| *offset == low) {
            return Some(ms);
        }
        let ms = reading::ingest_ms(&self.context.log, self.stream_id()?, low)?;
        *oldest = Some((low, ms));
        Some(ms)
    }
}

/// Locks. A panic elsewhere poisons nothing: each change under these locks is whole or has not begun.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
