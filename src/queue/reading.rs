//! Reads the records of one queue: keeps the place, and the frame it stopped in, so that a frame which is drained in
//! many batches is read once.
//!
//! Decides nothing: it is told from where to where, and says what is there and what is not.

use super::limits::{BATCH_RECORDS_MAX, HELD_BYTES_MAX};
use super::marks::{Mark, Marks};
use super::{BatchLimits, Context, RangeLimits, Slice};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::{Frame, Item, Log, Outline, ReadError, Reader, Skimmed, StreamId};
use std::ops::Range;

/// Where a queue reads. Nowhere, and a word, while it is at rest.
#[derive(Default)]
pub(super) struct Reading {
    place: Option<Box<Place>>,
}

/// Where one reads that is not at rest.
struct Place {
    reader: Reader,
    held: Option<Held>,
}

/// A frame that the next batch goes on in. All queues together hold a limited number of bytes this way; beyond it a
/// frame is left to the log's caches.
struct Held {
    frame: Arc<Frame>,
    budget: Arc<AtomicUsize>,
}

/// Records from the front of a range.
pub(super) struct Gathered {
    pub(super) offsets: Range<u64>,
    pub(super) marks: Marks,
    /// None of a range that was surveyed.
    pub(super) slices: Vec<Slice>,
    pub(super) bytes: u64,
    /// What follows them is lost.
    pub(super) hole: Option<Range<u64>>,
}

impl Reading {
    /// Lets go of everything: the queue is idle.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }

    /// Where the frame at hand ends, if it holds the record at `offset`.
    pub(super) fn held_up_to(&self, offset: u64) -> Option<u64> {
        let frame = self.place.as_ref()?.held_with(offset)?;
        Some(frame.offsets().end)
    }

    /// A place to read from `offset` on.
    fn place(&mut self, context: &Context, stream: StreamId, offset: u64) -> &mut Place {
        let new = || Box::new(Place { reader: context.log.reader(stream, offset), held: None });
        self.place.get_or_insert_with(new)
    }

    /// Reads `range` from the front, up to the limits, the first hole, or its end.
    pub(super) fn gather(
        &mut self,
        context: &Context,
        stream: StreamId,
        range: Range<u64>,
        limits: BatchLimits,
    ) -> Result<Gathered, ReadError> {
        let end = range.end.min(range.start.saturating_add(limits.records_max.clamp(1, BATCH_RECORDS_MAX)));
        let (mut slices, mut bytes, mut hole) = (Vec::<Slice>::new(), 0, None);
        let mut at = range.start;
        while at < end
            && let Some(item) = self.item(context, stream, at)?
        {
            match item {
                Item::Frame(frame) => {
                    let room = limits.bytes_max.saturating_sub(bytes);
                    let most = at..end.min(frame.offsets().end);
                    let offsets = fitting(&frame.outline(), most.clone(), room, slices.is_empty());
                    if !offsets.is_empty() {
                        bytes += frame.bytes_at(offsets.end) - frame.bytes_at(offsets.start);
                        slices.push(Slice { frame, offsets: offsets.clone() });
                    }
                    at = offsets.end;
                    if offsets != most {
                        break;
                    }
                }
                Item::Lost { offsets, .. } => {
                    hole = Some(at..offsets.end.min(range.end));
                    break;
                }
            }
        }
        let marks = Marks::new(slices.iter().map(|slice| Mark::of(&slice.frame.outline())));
        Ok(Gathered { offsets: range.start..at, marks, slices, bytes, hole })
    }

    /// Finds out how far `range` goes within the limits, the first hole, and the first frame of another partition,
    /// without reading any payload.
    pub(super) fn survey(
        &mut self,
        context: &Context,
        stream: StreamId,
        range: Range<u64>,
        limits: RangeLimits,
    ) -> Result<Gathered, ReadError> {
        let end = range.end.min(range.start.saturating_add(limits.records_max.clamp(1, BATCH_RECORDS_MAX)));
        let partition = |ms: u64| limits.partition_ms.map(|len| ms / len.max(1));
        let Place { reader, held } = self.place(context, stream, range.start);
        *held = None;
        reader.seek(range.start);
        let (mut at, mut bytes, mut hole) = (range.start, 0, None);
        let mut first: Option<(u64, u64)> = None;
        while at < end
            && let Some(skimmed) = reader.skim()?
        {
            match skimmed {
                Skimmed::Frame(frame) => {
                    let (_, first_ms) = *first.get_or_insert((frame.bytes_at(at), frame.ingest_ms));
                    if partition(frame.ingest_ms) != partition(first_ms) {
                        break;
                    }
                    let most = at..end.min(frame.offsets().end);
                    let offsets =
                        fitting(&frame, most.clone(), limits.bytes_max.saturating_sub(bytes), at == range.start);
                    bytes += frame.bytes_at(offsets.end) - frame.bytes_at(offsets.start);
                    at = offsets.end;
                    if offsets != most {
                        break;
                    }
                }
                Skimmed::Lost { offsets, .. } => {
                    hole = Some(at..offsets.end.min(range.end));
                    break;
                }
            }
        }
        let (total, ingest_ms) = first.unwrap_or_default();
        let offsets = range.start..at;
        let marks = Marks::ends(&offsets, total..total + bytes, Some(ingest_ms));
        Ok(Gathered { offsets, marks, slices: Vec::new(), bytes, hole })
    }

    /// A range whose boundaries are fixed already. Damage in it is met when it is read.
    pub(super) fn resurvey(context: &Context, stream: StreamId, offsets: Range<u64>) -> Result<Gathered, ReadError> {
        let totals = total_at(&context.log, stream, offsets.start)?..total_at(&context.log, stream, offsets.end)?;
        let bytes = totals.end.saturating_sub(totals.start);
        let ms = ingest_ms(&context.log, stream, offsets.start).map(|(_, ms)| ms);
        let marks = Marks::ends(&offsets, totals.start..totals.start + bytes, ms);
        Ok(Gathered { offsets, marks, slices: Vec::new(), bytes, hole: None })
    }

    /// What is at `offset`.
    fn item(&mut self, context: &Context, stream: StreamId, offset: u64) -> Result<Option<Item>, ReadError> {
        let place = self.place(context, stream, offset);
        if let Some(frame) = place.held_with(offset) {
            return Ok(Some(Item::Frame(Arc::clone(frame))));
        }
        place.held = None;
        if place.reader.position() != offset {
            place.reader.seek(offset);
        }
        let item = place.reader.next()?;
        if let Some(Item::Frame(frame)) = &item {
            place.held = Held::within_budget(frame, &context.held_bytes);
        }
        Ok(item)
    }
}

impl Place {
    /// The frame at hand, if it holds the record at `offset`.
    fn held_with(&self, offset: u64) -> Option<&Arc<Frame>> {
        self.held.as_ref().map(|held| &held.frame).filter(|frame| frame.offsets().contains(&offset))
    }
}

/// The records of `most` that fit into `room` bytes; one at least, if `one`.
fn fitting(frame: &Outline, most: Range<u64>, room: u64, one: bool) -> Range<u64> {
    let from = frame.bytes_at(most.start);
    let fits = |end: u64| frame.bytes_at(end) - from <= room;
    // Between the last end known to fit and the first known not to.
    let (mut fit, mut beyond) = (most.start, most.end + 1);
    while fit + 1 < beyond {
        let middle = fit + (beyond - fit) / 2;
        if fits(middle) { fit = middle } else { beyond = middle }
    }
    if fit == most.start && one { most.start..most.start + 1 } else { most.start..fit }
}

/// The stream's running total at `offset`: where the record before it ends. Where that one is lost, what the log says
/// of the next one that is not.
pub(super) fn total_at(log: &Log, stream: StreamId, offset: u64) -> Result<u64, ReadError> {
    match offset.checked_sub(1).map(|before| outline(log, stream, before)).transpose()?.flatten() {
        Some(frame) => Ok(frame.bytes_at(offset)),
        None => log.bytes_at(stream, offset),
    }
}

/// The frame that holds the record at `offset`; none where that is lost, or not there.
pub(super) fn outline(log: &Log, stream: StreamId, offset: u64) -> Result<Option<Outline>, ReadError> {
    let skimmed = log.reader(stream, offset).skim()?;
    Ok(skimmed.and_then(|skimmed| if let Skimmed::Frame(frame) = skimmed { Some(frame) } else { None }))
}

/// When the record at `offset` was taken in, if that can be read, and the others with it.
pub(super) fn ingest_ms(log: &Log, stream: StreamId, offset: u64) -> Option<(Range<u64>, u64)> {
    outline(log, stream, offset).ok()?.map(|frame| (frame.offsets(), frame.ingest_ms))
}

/// When a record behind `offset` was taken in, one of the first that can be read: what is lost or can't be read before it is at
/// least as old. None where none is found.
pub(super) fn ingest_ms_behind(log: &Log, stream: StreamId, offset: u64) -> Option<u64> {
    let tail = log.durable(stream).offset;
    // How far the disk can't be read nobody knows, and each look may take it seconds: ever further, and at the very last.
    let steps = (0..u64::BITS).step_by(2).map(|bit| 1 << bit);
    let places = steps.map_while(|step| offset.checked_add(step)).take_while(|at| *at < tail);
    let mut places = places.chain(tail.checked_sub(1).filter(|last| *last > offset));
    places.find_map(|at| next_frame(log, stream, at).ok().flatten()).map(|frame| frame.ingest_ms)
}

/// The first frame that is not lost and holds the record at `offset` or something behind it.
fn next_frame(log: &Log, stream: StreamId, offset: u64) -> Result<Option<Outline>, ReadError> {
    let mut reader = log.reader(stream, offset);
    loop {
        match reader.skim()? {
            Some(Skimmed::Lost { .. }) => {}
            Some(Skimmed::Frame(frame)) => return Ok(Some(frame)),
            None => return Ok(None),
        }
    }
}

/// The first record taken in at `ms` or later; see [`Queues::offset_at`](super::Queues::offset_at).
pub(super) fn offset_at_time(log: &Log, stream: StreamId, ms: u64) -> Result<u64, ReadError> {
    offset_at_time_in(log, stream, ms, log.first_kept(stream)..log.durable(stream).offset)
}

/// The same of these records alone; their end where all are older.
pub(super) fn offset_at_time_in(log: &Log, stream: StreamId, ms: u64, offsets: Range<u64>) -> Result<u64, ReadError> {
    // Everything below `from` is older, `until` and what follows it is not.
    let (mut from, mut until) = (offsets.start, offsets.end);
    while from < until {
        let middle = from + (until - from) / 2;
        // What is lost is of the time of what follows it.
        match next_frame(log, stream, middle)?.filter(|frame| frame.first < until) {
            Some(frame) if frame.ingest_ms < ms => from = frame.offsets().end.min(offsets.end),
            Some(frame) => until = frame.first.clamp(from, middle),
            None => until = middle,
        }
    }
    Ok(from)
}

impl Held {
    fn within_budget(frame: &Arc<Frame>, budget: &Arc<AtomicUsize>) -> Option<Self> {
        let bytes = frame.payload().len();
        let held = Self { frame: Arc::clone(frame), budget: Arc::clone(budget) };
        let before = budget.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= HELD_BYTES_MAX).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.frame.payload().len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::disk::mem::MemDisk;
    use crate::{LogOptions, Payload};
    use std::path::Path;

    #[test]
    fn frames_are_held_up_to_the_budget_of_all_and_give_it_back() {
        let disk = std::sync::Arc::new(MemDisk::new());
        let log = Log::open(disk, std::sync::Arc::new(ManualClock::at(0)), Path::new("log"), LogOptions::small());
        let log = log.expect("it opens");
        log.append_wait("a", vec![Payload { bytes: vec![1; 1000], records: 1 }]).expect("it is taken");
        let item = log.reader(log.stream("a").expect("it is known"), 0).next();
        let Ok(Some(Item::Frame(frame))) = item else { panic!("a frame: {item:?}") };
        let frame = Arc::new(frame);

        let budget = Arc::new(AtomicUsize::new(HELD_BYTES_MAX - 2000));
        let first = Held::within_budget(&frame, &budget).expect("there is room");
        let second = Held::within_budget(&frame, &budget).expect("just enough");
        assert!(Held::within_budget(&frame, &budget).is_none(), "beyond it");
        assert_eq!(budget.load(Ordering::Relaxed), HELD_BYTES_MAX, "who is refused takes nothing");
        drop((first, second));
        assert_eq!(budget.load(Ordering::Relaxed), HELD_BYTES_MAX - 2000);
    }
}
