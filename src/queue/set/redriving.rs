//! Sending marked records again: a replay of their own, which the books of their queue know.
//!
//! What always holds: a redrive that somebody was told of is durable; what it has done is in the books of its queue before it
//! is gone; what lies between the ranges that it sends is none of its business, and settled in it from the first moment on.

use super::{Keeping, Queues, Set};
use crate::queue::balance::{Books, Count, End, Settled};
use crate::queue::cursor::Cursor;
use crate::queue::floor_file::{Extra, FloorEntry};
use crate::queue::marked::MarkedRange;
use crate::queue::reading::total_at;
use crate::queue::replay::{self, ReplayError};
use crate::queue::{Inner, Name, Queue, lock};
use crate::sync::Arc;
use crate::{Log, ReadError, StreamId};
use std::ops::Range;

impl Queues {
    /// Sends records again that were given up where they lie (see [`Queue::mark_oldest`]): the marked ranges in `offsets`,
    /// whole, as a replay of their own beside the live queue. Under ids that were never used, as they were never sent. When
    /// it is done the next tick counts what became of them in [`Queue::marked`]. `None` when nothing is marked there.
    ///
    /// # Errors
    /// When a replay of that queue is under way, or the disk refuses.
    pub fn redrive(&self, destination: &str, stream: &str, offsets: Range<u64>) -> Result<Option<Queue>, ReplayError> {
        let mut keeping = lock(&self.set.keeping);
        let inner = self.set.start_redrive(&mut keeping, (destination, stream), &offsets)?;
        Ok(inner.map(Queue::of))
    }

    /// The queues of which records lie [marked](Queue::mark_oldest) that nobody has decided on, by destination and stream. Costs
    /// what those are, however many others there are.
    #[must_use]
    pub fn marking(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        // Looked at under the lock: whoever marks enters the queue after that.
        lock(&self.set.context.marking).retain(|name| {
            let inner = self.set.index_read().by_name.get(&name.0, &name.1).filter(|inner| inner.has_marks()).cloned();
            queues.extend(inner.iter().cloned().map(Queue::of));
            inner.is_some()
        });
        queues
    }

    /// Those of one destination, without a look at any other.
    #[must_use]
    pub fn marking_of(&self, destination: &str) -> Vec<Queue> {
        let marking = lock(&self.set.context.marking);
        let first: Name = (Arc::from(destination), Arc::from(""));
        let names = marking.range(first..).take_while(|name| *name.0 == *destination);
        let index = self.set.index_read();
        let inner = names.filter_map(|name| index.by_name.get(&name.0, &name.1)).filter(|inner| inner.has_marks());
        inner.map(|inner| Queue::of(Arc::clone(inner))).collect()
    }
}

impl Set {
    fn start_redrive(
        &self,
        keeping: &mut Keeping,
        (destination, stream): (&str, &str),
        offsets: &Range<u64>,
    ) -> Result<Option<Arc<Inner>>, ReplayError> {
        let live = self.live(destination, stream)?;
        let ranges = live.window().send_again(offsets);
        let made = self.make_redrive(keeping, &live, &ranges);
        if !matches!(made, Ok(Some(_))) {
            live.window().end_again();
        }
        made
    }

    /// The queue that sends these ranges, which nobody touches any more.
    fn make_redrive(
        &self,
        keeping: &mut Keeping,
        live: &Arc<Inner>,
        ranges: &[MarkedRange],
    ) -> Result<Option<Arc<Inner>>, ReplayError> {
        // The marks are durable before anything that goes by them.
        self.commit(keeping).map_err(ReplayError::NotDurable)?;
        let (Some(first), Some(last), Some(stream_id)) = (ranges.first(), ranges.last(), live.stream_id()) else {
            return Ok(None);
        };
        let log = &self.context.log;
        let start_bytes = total_at(log, stream_id, first.start)?;
        let (mut cursor, mut books) = (Cursor::at(first.start, start_bytes), Books::from(first.start, start_bytes));
        let between = ranges.windows(2).map(|pair| pair[0].end..pair[1].start);
        leave_out(log, stream_id, (&mut cursor, &mut books), between)?;
        let least = cursor.settled.last().map_or(start_bytes, |range| range.start_bytes + range.bytes);
        let end = End { offset: last.end, bytes: total_at(log, stream_id, last.end)?.max(least) };
        let number = lock(&live.replays).as_ref().map_or(0, |replays| replays.over.replays) + 1;
        let entry = FloorEntry {
            destination: replay::name(&live.destination, number).into(),
            stream: Arc::clone(&live.stream),
            stream_id: Some(stream_id),
            incarnation: live.incarnation,
            epoch: keeping.first_epoch(),
            books,
            cursor,
            extra: Some(Box::new(Extra::Replay { again: false, redrive: true, end })),
        };
        self.begin_replay(keeping, live, entry, Vec::new()).map(Some)
    }
}

/// What is none of a replay's business is settled in it from the first moment on, as what is held elsewhere: parts of its
/// records, in order.
pub(super) fn leave_out(
    log: &Log,
    stream: StreamId,
    (cursor, books): (&mut Cursor, &mut Books),
    parts: impl Iterator<Item = Range<u64>>,
) -> Result<(), ReadError> {
    for part in parts.filter(|part| !part.is_empty()) {
        // Running totals rise, whatever damage says.
        let ((at, least), _) = cursor.around(&part);
        let from = if at == part.start { least } else { total_at(log, stream, part.start)?.max(least) };
        let to = total_at(log, stream, part.end)?.max(from);
        books.post(Count { records: part.end - part.start, bytes: to - from }, Settled::Held);
        cursor.insert(part, from..to);
    }
    Ok(())
}
