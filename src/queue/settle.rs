//! Settling: by the destination's word, or by whoever lets records go without it.
//!
//! The window keeps cursor and books together; here is what it cannot know: totals from the log, and who is to be woken.

use super::balance::Count;
use super::reading;
use super::window::{Verdict, Window};
use super::{Batch, Inner, Queue, QueueError, Settled};
use crate::failpoints::{self, Point};
use crate::{Outline, ReadError, StreamId};
use std::cell::Cell;
use std::ops::Range;

impl Queue {
    /// Settles all of the batch that is not settled yet.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed: that would be loss without a word.
    pub fn settle(&self, batch: &Batch, as_: Settled) {
        self.settle_parts(batch, &[], as_);
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
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn settle_parts(&self, batch: &Batch, parts: &[(Range<u64>, Settled)], rest: Settled) -> u64 {
        let settled = self.settle_as(self.inner.offsets_of(batch), Verdict::new(parts, rest));
        batch.right.end(); // afterwards: until it is settled, whoever panics gives it back
        settled
    }

    /// Settles what of `offsets` is not settled yet, and says how many records that were. A part of a batch that is
    /// handed out is always settled, without reading. Of a range that is read as it is sent, and elsewhere (a purge), the log
    /// is asked for the bytes of a part, which is left as it is if that fails; elsewhere also if there are too many ranges and
    /// open batches already.
    ///
    /// Durable after the next tick; a crash before it sends these records again.
    pub fn settle_range(&self, offsets: Range<u64>, as_: Settled) -> u64 {
        self.settle_as(offsets, as_.into())
    }

    /// The records of a batch that are settled already, as ranges, in order; mostly none. One that comes again has some if
    /// a part of it was settled apart from the rest meanwhile: these are not to be sent.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    #[must_use]
    pub fn settled_within(&self, batch: &Batch) -> Vec<Range<u64>> {
        let offsets = self.inner.offsets_of(batch);
        self.inner.window().settled_within(&offsets)
    }

    fn settle_as(&self, offsets: Range<u64>, verdict: Verdict) -> u64 {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return 0 };
        let tail = queue.tail(stream).offset;
        let offsets = offsets.start..offsets.end.min(tail);
        let totals = queue.totals_for(stream, &offsets, &verdict);
        let totals = totals.into_iter().map(|(at, total)| (at, total.ok())).collect();
        let bytes_at = queue.bytes_at(stream, totals);
        let settle = || queue.with_window(|window| window.settle(offsets, verdict, bytes_at));
        let settled = failpoints::around(Point::Settle, settle);
        queue.touch();
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
        let tail = queue.tail(stream).offset;
        let offsets = offsets.start..offsets.end.min(tail);
        if offsets.is_empty() {
            return Ok(Count::default());
        }
        let bytes_at = queue.bytes_of(stream, &offsets)?;
        let settled = queue.with_window(|window| window.let_go(offsets, as_, bytes_at));
        queue.touch();
        Ok(settled)
    }
}

impl Inner {
    /// Changes the window, and wakes whoever waits for a place if there was none before.
    pub(super) fn with_window<T>(&self, change: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.window();
        let was_full = !window.has_spare();
        let changed = change(&mut window);
        drop(window);
        if was_full {
            self.wake();
        }
        changed
    }

    /// The running total at an offset. Remembers the frame that it looked at last: of a range of which ten thousand parts
    /// settle in one way and the rest in another, many begin and end in the same frame.
    fn totals(&self, stream: StreamId) -> impl Fn(u64) -> Result<u64, ReadError> {
        let last: Cell<Option<Outline>> = Cell::new(None);
        move |offset| {
            let before = offset.checked_sub(1);
            let holds = |frame: &Outline| before.is_some_and(|before| frame.offsets().contains(&before));
            if last.get().as_ref().is_none_or(|frame| !holds(frame)) {
                let read = before.map(|before| reading::outline(&self.context.log, stream, before));
                last.set(read.transpose()?.flatten());
            }
            match last.get() {
                Some(frame) => Ok(frame.bytes_at(offset)),
                None => self.context.log.bytes_at(stream, offset), // the record before it is lost
            }
        }
    }

    /// The running totals that settling these records asks for, in order, and what the log says of them: read now, before the
    /// window is locked.
    fn totals_for(
        &self,
        stream: StreamId,
        offsets: &Range<u64>,
        verdict: &Verdict,
    ) -> Vec<(u64, Result<u64, ReadError>)> {
        let asked = self.window().asks_for(offsets, verdict);
        let read = self.totals(stream);
        asked.into_iter().map(|(at, total)| (at, total.map_or_else(|| read(at), Ok))).collect()
    }

    /// The running total at an offset: one of these. Where another one is asked for, as the window has changed since, the log is.
    fn bytes_at(&self, stream: StreamId, totals: Vec<(u64, Option<u64>)>) -> impl Fn(u64) -> Option<u64> {
        move |offset| match totals.binary_search_by_key(&offset, |(at, _)| *at) {
            Ok(found) => totals[found].1,
            Err(_) => self.total_at(stream, offset).ok(),
        }
    }

    /// The same for whoever lets go of these records.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn bytes_of<'a>(
        &'a self,
        stream: StreamId,
        offsets: &Range<u64>,
    ) -> Result<impl Fn(u64) -> Option<u64> + use<'a>, ReadError> {
        // However they settle: none of them in another way than its neighbours.
        let totals = self.totals_for(stream, offsets, &Settled::Expired.into());
        let known = totals.into_iter().map(|(at, total)| Ok((at, Some(total?))));
        Ok(self.bytes_at(stream, known.collect::<Result<_, ReadError>>()?))
    }
}
