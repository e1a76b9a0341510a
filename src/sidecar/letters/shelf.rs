//! One stream of letters and its queue: where they are appended, read, and settled one by one.
//!
//! Nothing is claimed from the queue: letters leave in any order. What always holds: its settled ranges stay few,
//! since whoever settles sees to it that the oldest letters are [moved](Place::scattered) behind the others in time.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay::failpoints::{self, Point};
use forebay::{AppendError, Cursor, Item, Log, Queue, QueueError, Queues, ReadError, Reader, Settled, Start};

use super::Shelf;
use super::packed::{self, Packed};

/// Beyond so many settled ranges the oldest letters are moved behind the others: half of what a cursor may have, so
/// that what is in flight meanwhile has room.
pub(super) const RANGES_MAX: usize = 128;

/// Down to so many.
const RANGES_KEPT: usize = 64;

/// Letters of one append: bounds what a crash can cut in two, and the memory.
const APPEND_LETTERS_MAX: usize = 256;

/// Their bytes.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// One stream of letters.
pub(super) struct Place {
    pub(super) shelf: Shelf,
    pub(super) queue: Queue,
    log: Log,
    /// Held by who moves letters, from reading them to settling them.
    moving: Mutex<()>,
}

impl Place {
    /// The place of a destination's letters, made where there is none: durably, and empty, whatever a destination of the
    /// same id that was deleted has left there.
    pub(super) fn open(queues: &Queues, destination: &str, shelf: Shelf) -> Result<Self, QueueError> {
        let queue = queues.queue(destination, &shelf.stream(destination), Start::Now)?;
        Ok(Self { shelf, queue, log: queues.log().clone(), moving: Mutex::default() })
    }

    /// Keeps others from moving letters.
    pub(super) fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes letters durable, and has `kept` hear where each lies as soon as it is. Blocks. Those before an error are
    /// kept.
    pub(super) fn append(&self, letters: Vec<Packed>, mut kept: impl FnMut(u64, &Packed)) -> Result<(), AppendError> {
        let stream = self.queue.stream_name();
        let mut rest = letters;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |letter: &&Packed| {
                bytes += letter.record.len();
                bytes <= APPEND_BYTES_MAX
            };
            let count = rest.iter().take(APPEND_LETTERS_MAX).take_while(fits).count().max(1);
            let behind = rest.split_off(count);
            let append = || self.log.append_wait(&stream, packed::payloads(rest.clone()));
            let appended = failpoints::around(Point::LettersAppend, append)?;
            rest.iter().zip(appended.offsets).for_each(|(letter, offset)| kept(offset, letter));
            rest = behind;
        }
        Ok(())
    }

    /// What is settled.
    pub(super) fn cursor(&self) -> Cursor {
        self.queue.cursor()
    }

    /// Settles letters; `false` if there was no room for all of it. May read the disk.
    pub(super) fn settle(&self, offsets: Range<u64>, as_: Settled) -> bool {
        self.queue.settle_range(offsets.clone(), as_);
        let cursor = self.cursor();
        offsets.into_iter().all(|offset| cursor.is_settled(offset))
    }

    /// The letters from the offset `from` on, to the present end.
    pub(super) fn walk(&self, from: u64) -> Walk<'_> {
        self.walk_at(from.max(self.cursor().low))
    }

    fn walk_at(&self, at: u64) -> Walk<'_> {
        let cursor = self.cursor();
        let reader = self.log.stream(&self.queue.stream_name()).map(|stream| self.log.reader(stream, at));
        Walk { place: self, reader, cursor, at }
    }

    /// The letter at `offset`, unless it is settled.
    pub(super) fn letter(&self, offset: u64) -> Result<Option<Packed>, ReadError> {
        let found = self.walk(offset).next()?;
        Ok(found.into_iter().flatten().find(|(at, _)| *at == offset).map(|(_, letter)| letter))
    }

    /// The letter at `offset`, settled or not, while it is kept.
    pub(super) fn whatever_became_of_it(&self, offset: u64) -> Result<Option<Packed>, ReadError> {
        let found = Walk { cursor: Cursor::default(), ..self.walk_at(offset) }.next()?;
        Ok(found.into_iter().flatten().find(|(at, _)| *at == offset).map(|(_, letter)| letter))
    }

    /// Whether settled ranges are too many; then the letters below the offset should move.
    pub(super) fn scattered(&self) -> Option<u64> {
        let settled = self.cursor().settled;
        let beyond = settled.len().checked_sub(RANGES_MAX)? + RANGES_MAX - RANGES_KEPT;
        Some(settled[beyond - 1].start)
    }
}

/// Reads letters that are not settled, a frame at a time.
pub(super) struct Walk<'a> {
    place: &'a Place,
    reader: Option<Reader>,
    cursor: Cursor,
    /// Everything below was read.
    pub(super) at: u64,
}

impl Walk<'_> {
    /// The letters of the next frame that has any, with their offsets; `None` at the end. What damage took is settled
    /// as lost on the way.
    pub(super) fn next(&mut self) -> Result<Option<Vec<(u64, Packed)>>, ReadError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        loop {
            // What is settled is passed over unread, where it is much.
            let settled = self.cursor.settled.iter().find(|range| (range.start..range.end).contains(&self.at));
            if let Some(range) = settled {
                self.at = range.end;
            }
            if reader.position() != self.at {
                reader.seek(self.at);
            }
            let frame = match reader.next()? {
                None => return Ok(None),
                Some(Item::Lost { offsets, .. }) => {
                    self.place.settle(self.at..offsets.end, Settled::Lost);
                    self.at = offsets.end;
                    continue;
                }
                Some(Item::Frame(frame)) => frame,
            };
            let from = std::mem::replace(&mut self.at, frame.offsets().end);
            let Some(letters) = packed::unpack(frame.payload(), frame.records) else {
                tracing::error!(
                    stream = %self.place.queue.stream(),
                    offsets = ?frame.offsets(),
                    "letters that this version cannot read: they are kept"
                );
                continue;
            };
            let wanted = |(offset, _): &(u64, Packed)| *offset >= from && !self.cursor.is_settled(*offset);
            let letters: Vec<(u64, Packed)> = frame.offsets().zip(letters).filter(wanted).collect();
            if !letters.is_empty() {
                return Ok(Some(letters));
            }
        }
    }
}
