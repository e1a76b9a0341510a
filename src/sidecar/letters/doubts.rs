//! Letters whose record may come again from its own queue: it was not settled there when the letter became durable.
//!
//! What always holds: such a letter is touched by nobody; what a crash left in two places is settled in the first when
//! the letters are taken up, before anything is delivered.

use std::collections::HashMap;

use forebay::{Cursor, Queue, StreamId};

use super::Shelf;
use super::desk::{Desk, Shelves};
use super::packed::Packed;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::source::BoxError;

/// Where the letter of a record lies that may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) shelf: Shelf,
    pub(super) offset: u64,
    /// Found when opened: its batch may come again whole, though this record is settled, until the low mark is past it.
    pub(super) found: bool,
}

impl Desk {
    /// Reads what lies there. What a crash left in two places is settled in the first.
    pub(super) fn take_up(&self, shelves: &Shelves) -> Result<(), BoxError> {
        let mut origins: HashMap<StreamId, Option<(Queue, Cursor)>> = HashMap::new();
        let (mut moved, mut doubts) = (Vec::new(), Vec::new());
        let mut state = shelves.state();
        for shelf in [Shelf::Dead, Shelf::Held] {
            let mut walk = shelves.place(shelf).walk(0);
            while let Some(letters) = walk.next()? {
                for (offset, letter) in letters {
                    moved.extend(letter.moved_from().map(|from| (from, shelf)));
                    let stream = StreamId(letter.stream);
                    let origin = origins.entry(stream).or_insert_with(|| {
                        let queue = self.origin_queue(&letter.origin())?;
                        let cursor = queue.cursor();
                        Some((queue, cursor))
                    });
                    if let Some((queue, cursor)) = origin
                        && letter.offset >= cursor.low
                        && letter.origin().log == self.ground.queues.log().log_id()
                    {
                        if !cursor.is_settled(letter.offset) {
                            let first = letter.first_shelf().settled();
                            queue.settle_range(letter.offset..letter.offset + 1, first);
                        }
                        doubts.push(((stream, letter.offset), Doubt { shelf, offset, found: true }));
                    }
                    if shelf == Shelf::Held {
                        state.due.insert(offset, letter.not_before_ms);
                    }
                }
            }
            // One that moved long ago was settled long ago: what is left is what the crash came between.
            let cursors = [Shelf::Dead, Shelf::Held].map(|shelf| (shelf, shelves.place(shelf).cursor()));
            let left = |(of, offset): (Shelf, u64)| cursors.iter().all(|(s, c)| *s != of || !c.is_settled(offset));
            moved.retain(|(from, _)| left(*from));
        }
        // After all was read: a letter may have moved more than once, and what it left behind says where it was before.
        for ((shelf, offset), to) in moved {
            shelves.place(shelf).settle(offset..offset + 1, to.settled());
        }
        let cursors = [Shelf::Dead, Shelf::Held].map(|shelf| (shelf, shelves.place(shelf).cursor()));
        let lies_there = |doubt: &Doubt| cursors.iter().any(|(s, c)| *s == doubt.shelf && !c.is_settled(doubt.offset));
        state.doubts.extend(doubts.into_iter().filter(|(_, doubt)| lies_there(doubt)));
        Ok(())
    }

    /// The queue that a record was taken out of, if it is still there.
    pub(super) fn origin_queue(&self, origin: &LetterOrigin) -> Option<Queue> {
        let log = self.ground.queues.log();
        let stream = log.stream_name(origin.stream).filter(|_| origin.log == log.log_id())?;
        self.ground.queues.find(&self.destination, &stream)
    }

    /// Whether the letter's record is settled where it came from. Before that it may come again from there.
    pub(super) fn is_taken_out(&self, letter: &Packed, seen: &mut Origins) -> bool {
        let origin = letter.origin();
        let queue = seen.0.entry(origin.stream).or_insert_with(|| self.origin_queue(&origin).map(|q| (q.cursor(), q)));
        match queue {
            Some((cursor, queue)) if origin.log == self.ground.queues.log().log_id() => {
                if !cursor.is_settled(origin.offset) {
                    *cursor = queue.cursor();
                }
                cursor.is_settled(origin.offset)
            }
            _ => true,
        }
    }

    /// Forgets letters whose record cannot come again.
    pub(super) fn forget_doubts(&self, shelves: &Shelves) {
        let mut origins: HashMap<StreamId, Option<Cursor>> = HashMap::new();
        let streams: Vec<StreamId> = shelves.state().doubts.keys().map(|(stream, _)| *stream).collect();
        for stream in streams {
            let log = self.ground.queues.log().log_id();
            let queue = || self.origin_queue(&LetterOrigin { log, stream, offset: 0 });
            origins.entry(stream).or_insert_with(|| queue().map(|queue| queue.cursor()));
        }
        shelves.state().doubts.retain(|(stream, offset), doubt| match origins.get(stream) {
            Some(Some(cursor)) if doubt.found => cursor.low <= *offset,
            Some(Some(cursor)) => !cursor.is_settled(*offset),
            Some(None) => false,
            None => true, // since
        });
    }
}

/// Cursors of the queues that letters came from, as they were last seen.
#[derive(Default)]
pub(super) struct Origins(HashMap<StreamId, Option<(Cursor, Queue)>>);
