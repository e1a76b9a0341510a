//! Letters whose record may come again from where it was taken out: it was not settled there when the letter became
//! durable. That place is the record's own queue, or a replay of it, which has a cursor of its own.
//!
//! What always holds: such a letter is touched by nobody; what a crash, or a loop that was cut off, left in two places is
//! settled in the first before anything is delivered again.

use std::collections::HashMap;

use forebay::{Cursor, LogId, Queue, StreamId};

use super::Shelf;
use super::desk::{Desk, Shelves};
use super::packed::Packed;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::sheet::InDoubt;
use crate::delivery::source::BoxError;

/// A record, and where it was taken out: its own queue settles it for itself, and each replay of that for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Whence {
    pub(super) origin: LetterOrigin,
    /// The number of the replay; 0: of none.
    pub(super) replay: u32,
}

/// Where the letter of a record lies that may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) shelf: Shelf,
    pub(super) offset: u64,
    /// Where it was put first: how its record is to be settled.
    pub(super) first: Shelf,
    /// Settled by us, as nobody else came to do it: its batch may come again, though this record is settled, until the low
    /// mark is past it.
    pub(super) found: bool,
}

impl Desk {
    /// Reads what lies there. What a crash left in two places is settled in the first.
    pub(super) fn take_up(&self, shelves: &Shelves) -> Result<(), BoxError> {
        let mut seen = Origins::default();
        let (mut moved, mut doubts) = (Vec::new(), Vec::new());
        // One that moved long ago was settled long ago: what is left is what the crash came between.
        let cursors = [Shelf::Dead, Shelf::Held].map(|shelf| (shelf, shelves.place(shelf).cursor()));
        let left = |(of, offset): &(Shelf, u64)| cursors.iter().all(|(s, c)| s != of || !c.is_settled(*offset));
        let mut state = shelves.state();
        for shelf in [Shelf::Dead, Shelf::Held] {
            let mut walk = shelves.place(shelf).walk(0);
            while let Some(letters) = walk.next()? {
                for (offset, letter) in letters {
                    moved.extend(letter.moved_from().filter(left).map(|from| (from, shelf)));
                    let (whence, first) = (letter.whence(), letter.first_shelf());
                    if let Some((cursor, queue)) = seen.of(self, whence)
                        && letter.offset >= cursor.low
                    {
                        if !cursor.is_settled(letter.offset) {
                            queue.settle_range(letter.offset..letter.offset + 1, first.settled());
                        }
                        doubts.push((whence, Doubt { shelf, offset, first, found: true }));
                    }
                    if shelf == Shelf::Held {
                        state.due.insert(offset, letter.not_before_ms);
                    }
                }
            }
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

    /// Settles the records whose letters are durable and which whoever parked them did not come to settle: it was cut off,
    /// and what it had claimed went back. What it had made ready goes back to where its time puts it. To be called between
    /// two loops, when nobody parks. May read the disk.
    pub(super) fn catch_up(&self) {
        let Some(shelves) = self.shelves() else { return };
        let doubts: Vec<(Whence, Doubt)> = shelves.state().doubts.iter().map(|(w, doubt)| (*w, *doubt)).collect();
        let mut seen = Origins::default();
        for (whence, doubt) in doubts {
            let offset = whence.origin.offset;
            let Some((_, queue)) = seen.of(self, whence).filter(|(cursor, _)| !cursor.is_settled(offset)) else {
                continue;
            };
            queue.settle_range(offset..offset + 1, doubt.first.settled());
            if let Some(doubt) = shelves.state().doubts.get_mut(&whence) {
                doubt.found = true;
            }
        }
        let mut state = shelves.state();
        let back = state.flights.give_up();
        back.into_iter().for_each(|offset| state.due.insert(offset, 0));
    }

    /// The queue that a record was taken out of, if it is still there: a replay that is over is not.
    fn queue_of(&self, Whence { origin, replay }: Whence) -> Option<Queue> {
        let log = self.ground.queues.log();
        let stream = log.stream_name(origin.stream).filter(|_| origin.log == log.log_id())?;
        let queue = self.ground.queues.find(&self.destination, &stream)?;
        if replay == 0 {
            return Some(queue);
        }
        queue.replay_under_way().filter(|of| of.replay().is_some_and(|of| of.number == replay))
    }

    /// The queue of a record's stream, whatever it was taken out of.
    pub(super) fn own_queue(&self, origin: LetterOrigin) -> Option<Queue> {
        self.queue_of(Whence { origin, replay: 0 })
    }

    /// Whether the letter's record is settled where it was taken out. Before that it may come again from there.
    pub(super) fn is_taken_out(&self, letter: &Packed, seen: &mut Origins) -> bool {
        let Some((cursor, queue)) = seen.of(self, letter.whence()) else { return true };
        if !cursor.is_settled(letter.offset) {
            *cursor = queue.cursor();
        }
        cursor.is_settled(letter.offset)
    }

    /// Letters that count elsewhere still: their record is not settled yet in its own queue, or they are not where they were
    /// before. What a replay takes out counts there once more.
    pub(super) fn in_doubt(&self) -> InDoubt {
        let Some(shelves) = self.shelves() else { return InDoubt::default() };
        let mut in_doubt = InDoubt::default();
        let mut add = |shelf, letters| match shelf {
            Shelf::Dead => in_doubt.dead += letters,
            Shelf::Held => in_doubt.held += letters,
        };
        let cursors = [Shelf::Dead, Shelf::Held].map(|shelf| shelves.place(shelf).cursor());
        let state = shelves.state();
        state.flights.moved_late().for_each(|(shelf, letters)| add(shelf, letters));
        let mut unsure: Vec<_> = state.doubts.iter().map(|(&whence, &doubt)| (whence, doubt)).collect();
        drop(state);
        unsure.retain(|(_, doubt)| !cursors[doubt.shelf as usize].is_settled(doubt.offset));
        let mut origins = Origins::default();
        for (whence, doubt) in unsure.into_iter().filter(|(whence, _)| whence.replay == 0) {
            let cursor = origins.of(self, whence).map(|(cursor, _)| &*cursor);
            if cursor.is_some_and(|cursor| !cursor.is_settled(whence.origin.offset)) {
                add(doubt.shelf, 1);
            }
        }
        in_doubt
    }

    /// Forgets letters whose record cannot come again.
    pub(super) fn forget_doubts(&self, shelves: &Shelves) {
        let mut origins = Origins::default();
        let known: Vec<Whence> = shelves.state().doubts.keys().copied().collect();
        for whence in known {
            origins.of(self, whence);
        }
        shelves.state().doubts.retain(|whence, doubt| match origins.seen(*whence) {
            Some(Some((cursor, _))) if doubt.found => cursor.low <= whence.origin.offset,
            Some(Some((cursor, _))) => !cursor.is_settled(whence.origin.offset),
            Some(None) => false,
            None => true, // since
        });
    }
}

/// Cursors of the queues that letters came from, as they were last seen.
#[derive(Default)]
pub(super) struct Origins(HashMap<(LogId, StreamId, u32), Option<(Cursor, Queue)>>);

impl Origins {
    /// The queue that a record was taken out of, and how far it was when it was first asked for.
    fn of(&mut self, desk: &Desk, whence: Whence) -> Option<&mut (Cursor, Queue)> {
        let queue = || desk.queue_of(whence).map(|queue| (queue.cursor(), queue));
        self.0.entry(key(whence)).or_insert_with(queue).as_mut()
    }

    fn seen(&self, whence: Whence) -> Option<Option<&(Cursor, Queue)>> {
        Some(self.0.get(&key(whence))?.as_ref())
    }
}

fn key(Whence { origin: LetterOrigin { log, stream, .. }, replay }: Whence) -> (LogId, StreamId, u32) {
    (log, stream, replay)
}
