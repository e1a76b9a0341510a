//! Splitting a batch that is handed out: into two, durably, before either is sent.
//!
//! What always holds: after a crash either the whole comes again or both halves do, under the ids that they had; and the
//! halves, and not the whole, from the moment that whoever split it was told so.

use super::batch::Right;
use super::planner::PlanError;
use super::reading::total_at;
use super::window::{NoSplit, Plan};
use super::{Batch, Queue};
use crate::sync::Arc;
use crate::{PLANS_STREAM, ReadError};

/// Why a batch could not be split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// There would be no two halves.
    #[error("records {first}..{end} cannot be split at {at}: choose an offset between them")]
    NoBoundary {
        /// First offset of the batch.
        first: u64,
        /// The offset behind its last.
        end: u64,
        /// Where it was to be split.
        at: u64,
    },
    /// The batch is not handed out any more: it is settled, given back, or being split.
    #[error("the batch is settled, given back, or being split already")]
    NotOut,
    /// There are as many open batches and settled ranges as a queue may have. Settle one, or give this batch back for
    /// the time being.
    #[error("the queue has no room for another batch: settle one first")]
    NoRoom,
    /// Where the halves end in the log could not be read. Try again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The halves are not durable, or not for certain. Do not send the batch whole: split it again. It may be given back
    /// in between.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Hears of a split, on the log's writer thread or at once; must not block.
pub type Halved = Box<dyn FnOnce(Result<[Batch; 2], SplitError>) + Send>;

impl Queue {
    /// Splits a batch that is handed out at the offset `at`. `done` gets the halves, handed out in its place, when their
    /// boundaries are durable; they share the records that `batch` has, if it has any. A half can be split again, down
    /// to single records. Halves of a batch that was never [planned](Self::plan) are not planned either, and come at once.
    ///
    /// From then on the batch itself is no more: settling it settles what its halves have not, giving it back does
    /// nothing. After a crash the halves come, and of these those that are not settled.
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// # let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// let batch = queue.next_batch(BatchLimits { records_max: 10, bytes_max: 1 << 20 })?.expect("ten records wait");
    /// queue.plan(&batch, Box::new(|planned| planned.expect("the log is sound")));
    /// // The destination says that it is too large.
    /// let again = queue.clone();
    /// queue.split(&batch, 5, Box::new(move |halves| {
    ///     let [first, second] = halves.expect("the log is sound");
    ///     assert_eq!((&first.offsets, &second.offsets), (&(0..5), &(5..10)));
    ///     again.settle(&first, Settled::Delivered);
    ///     again.release(&second); // comes again as it is
    /// }));
    /// # assert_eq!(queue.lag().records, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn split(&self, batch: &Batch, at: u64, done: Halved) {
        let queue = &self.inner;
        let offsets = queue.offsets_of(batch);
        if at <= offsets.start || at >= offsets.end {
            return done(Err(SplitError::NoBoundary { first: offsets.start, end: offsets.end, at }));
        }
        let (halves, total) = match self.halves(batch, at) {
            Ok(Some(halves)) => halves,
            Ok(None) => return done(Err(SplitError::NotOut)),
            Err(error) => return done(Err(error.into())),
        };
        let began = queue.window().begin_split(&offsets, at);
        let planned = match began {
            Ok(plan) => plan,
            Err(NoSplit::NotOut) => return done(Err(SplitError::NotOut)),
            Err(NoSplit::NoRoom) => return done(Err(SplitError::NoRoom)),
        };
        let Some(Plan { revision, .. }) = planned else {
            let mut window = queue.window();
            window.split(&offsets, at, total, [None; 2]);
            pass_on(&batch.right, &halves);
            drop(window);
            queue.touch(); // what was settled of it may have found its place
            return done(Ok(halves));
        };
        let log = &queue.context.log;
        let stream = *queue.stream_id.get().expect("a batch is of a stream that exists");
        let records = halves.each_ref().map(|half| queue.plan_record(stream, half.offsets.clone(), revision));
        let tail = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
        // Whoever asked may let the batch go: until it is known what becomes of it, it is not handed out anew.
        let (theirs, right) = (Arc::clone(queue), Arc::clone(&batch.right));
        let durable = move |result: Result<u64, PlanError>| {
            let mut window = theirs.window();
            match &result {
                Ok(first) => {
                    let plan = |nth| Some(Plan { offset: first + nth, revision });
                    window.split(&offsets, at, total, [plan(0), plan(1)]);
                    pass_on(&right, &halves);
                }
                Err(error) => window.fail_split(&offsets, matches!(error, PlanError::Append(_))),
            }
            drop(window);
            theirs.touch();
            theirs.wake(); // it may have been given back meanwhile
            done(result.map(|_| halves).map_err(SplitError::from));
        };
        queue.context.planner.submit_halves(records, tail, Box::new(durable));
    }

    /// Where a batch is to be split before it may be sent: that was tried, and may be durable though it failed. See
    /// [`PlanError::SplitFailed`]. `None` for every other batch.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    #[must_use]
    pub fn failed_split(&self, batch: &Batch) -> Option<u64> {
        let offsets = self.inner.offsets_of(batch);
        self.inner.window().failed_split(&offsets)
    }

    /// The halves as batches, of which neither may be decided on yet, and the stream's running total between them. Reads the log
    /// only where the batch is large and its frames are not remembered. `None` where nothing was ever appended.
    pub(super) fn halves(&self, batch: &Batch, at: u64) -> Result<Option<([Batch; 2], u64)>, ReadError> {
        let queue = &self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(None) };
        let first = batch.offsets.start;
        let total = |offset| {
            let known = queue.window().marked_total(first, offset); // let go: the log is read without it
            known.map_or_else(|| total_at(&queue.context.log, stream, offset), Ok)
        };
        let middle = total(at)?;
        let bytes = middle.saturating_sub(total(first)?).min(batch.bytes);
        let ends = [(first..at, bytes), (at..batch.offsets.end, batch.bytes - bytes)];
        let halves = ends.map(|(offsets, bytes)| {
            let cut = batch.slices.iter().filter_map(|slice| slice.within(&offsets));
            Batch {
                id: queue.batch_id(stream, offsets.clone()),
                slices: cut.collect(),
                bytes,
                settings_revision: batch.settings_revision,
                planned: batch.planned,
                right: Right::to_be(queue, offsets.clone()),
                offsets,
            }
        });
        Ok(Some((halves, middle)))
    }
}

/// With the window locked: the halves are out in the place of the whole; unless it was given back meanwhile, and they with it.
fn pass_on(whole: &Right, halves: &[Batch; 2]) {
    if whole.end() {
        halves.iter().for_each(|half| half.right.begin());
    }
}
