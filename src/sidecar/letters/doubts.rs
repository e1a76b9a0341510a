//! Letters whose record may come again from where it was taken out: it was not settled there when the letter became
//! durable. That place is the record's own queue, or a replay of it, which has a cursor of its own.
//!
//! What always holds: such a letter is touched by nobody; what a crash, or a loop that was cut off, left in two places is
//! settled in the first before anything is delivered again.

use std::collections::HashMap;
use std::ops::Range;

use forebay::{Cursor, Log, LogId, Queue, Queues, StreamId};

use super::Shelf;
use super::desk::{Desk, Shelves};
use super::packed::Packed;
use crate::delivery::parking::{Apart, LetterOrigin};
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
        for shelf in [Shelf::Dead, Shelf::Held] {
            let mut walk = shelves.place(shelf).walk(0);
            while let Some(letters) = walk.next()? {
                for (offset, letter) in letters {
                    moved.extend(letter.moved_from().filter(left).map(|from| (from, shelf)));
                    doubts.extend(
                        seen.of(self, letter.whence()).and_then(|from| settled_there(from, &letter, shelf, offset)),
                    );
                    if shelf == Shelf::Held {
                        shelves.state().due.insert(offset, letter.not_before_ms);
                    }
                }
            }
        }
        // After all was read: a letter may have moved more than once, and what it left behind says where it was before. From
        // the low mark on: there is room for most of them then. The others are late.
        moved.sort_unstable_by_key(|(from, _)| *from);
        for ((shelf, offset), to) in moved {
            shelves.settle(shelf, offset..offset + 1, to.settled());
        }
        shelves.remember(doubts);
        Ok(())
    }

    /// The same for posts of an upstream, whose log was opened only now: what a crash left in two places is settled in that
    /// log. To be called before anything of it is delivered.
    pub(super) fn take_up_posts(&self, shelves: &Shelves, posts: &Queues) -> Result<(), BoxError> {
        // Else one that is moved meanwhile is looked for where it was.
        let _moving = [Shelf::Dead, Shelf::Held].map(|shelf| shelves.place(shelf).moving());
        let (log, mut seen, mut doubts) = (posts.log().log_id(), Origins::default(), Vec::new());
        for shelf in [Shelf::Dead, Shelf::Held] {
            let mut walk = shelves.place(shelf).walk(0);
            while let Some(letters) = walk.next()? {
                for (offset, letter) in letters.into_iter().filter(|(_, letter)| letter.origin().log == log) {
                    let from = seen.of_queues(posts, &self.destination, letter.whence());
                    doubts.extend(from.and_then(|from| settled_there(from, &letter, shelf, offset)));
                }
            }
        }
        shelves.remember(doubts);
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
            settle_late(shelves, queue, whence, doubt);
        }
        let mut state = shelves.state();
        let back = state.flights.give_up();
        back.into_iter().for_each(|offset| state.due.insert(offset, 0));
    }

    /// The queue that a record was taken out of, if it is still there: a replay that is over is not.
    fn queue_of(&self, whence: Whence) -> Option<Queue> {
        let ours = &self.ground.queues;
        if whence.origin.log == ours.log().log_id() {
            return queue_in(ours, &self.destination, whence);
        }
        queue_in(&self.ground.posts_of(&self.destination)?, &self.destination, whence)
    }

    /// The log of this id, if records were taken out of it.
    pub(super) fn log_of(&self, id: LogId) -> Option<Log> {
        let posts = || self.ground.posts_of(&self.destination);
        let ours = Some(self.ground.queues.clone()).filter(|ours| ours.log().log_id() == id);
        let found = ours.or_else(|| posts().filter(|posts| posts.log().log_id() == id));
        found.map(|queues| queues.log().clone())
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
        state.flights.moved_late().for_each(|shelf| add(shelf, 1));
        let mut unsure: Vec<_> = state.doubts.iter().map(|(&whence, &doubt)| (whence, doubt)).collect();
        drop(state);
        unsure.retain(|(_, doubt)| !cursors[doubt.shelf as usize].is_settled(doubt.offset));
        let mut origins = Origins::default();
        for (whence, doubt) in unsure {
            let Some((cursor, queue)) = origins.of(self, whence) else { continue };
            // In the books of its own queue and in no others: what a replay took out is in both, save where it was given up before.
            let counts_once = whence.replay == 0 || queue.redrives().is_some();
            if counts_once && !cursor.is_settled(whence.origin.offset) {
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

impl Shelves {
    /// Of a letter that lies in two places one counts: where it is not gone.
    fn remember(&self, mut doubts: Vec<(Whence, Doubt)>) {
        doubts.retain(|(_, doubt)| !self.is_gone(doubt.shelf, doubt.offset));
        self.state().doubts.extend(doubts);
    }
}

impl Apart for Desk {
    /// There may have been no room for them when their letters were found: inside of a batch that is handed out there is.
    fn settle_within(&self, queue: &Queue, stream: StreamId, offsets: &Range<u64>, log: LogId) {
        let Some(shelves) = self.shelves() else { return };
        let replay = queue.replay().map_or(0, |replay| replay.number);
        let at = |offset| Whence { origin: LetterOrigin { log, stream, offset }, replay: 0 };
        let state = shelves.state();
        let within =
            state.doubts.range(at(offsets.start)..at(offsets.end)).filter(|(whence, _)| whence.replay == replay);
        let within: Vec<(Whence, Doubt)> = within.map(|(whence, doubt)| (*whence, *doubt)).collect();
        drop(state);
        for (whence, doubt) in within.into_iter().filter(|(_, doubt)| !shelves.is_gone(doubt.shelf, doubt.offset)) {
            settle_late(shelves, queue, whence, doubt);
        }
    }
}

/// Settles the record of a letter where it was taken out, if there is room for it, and remembers that it is.
fn settle_late(shelves: &Shelves, queue: &Queue, whence: Whence, doubt: Doubt) {
    let offset = whence.origin.offset;
    if queue.settle_range(offset..offset + 1, doubt.first.settled()) > 0
        && let Some(doubt) = shelves.state().doubts.get_mut(&whence)
    {
        doubt.found = true;
    }
}

/// The queue among `queues` that a record was taken out of.
fn queue_in(queues: &Queues, destination: &str, Whence { origin, replay }: Whence) -> Option<Queue> {
    let log = queues.log();
    let stream = log.stream_name(origin.stream).filter(|_| origin.log == log.log_id())?;
    let queue = queues.find(destination, &stream)?;
    if replay == 0 {
        return Some(queue);
    }
    queue.replay_under_way().filter(|of| of.replay().is_some_and(|of| of.number == replay))
}

/// Settles the record of a letter that was found where it was taken out, unless it is settled there, and says what is to be
/// remembered of it: nothing, where it cannot come again.
fn settled_there(
    (cursor, queue): &mut (Cursor, Queue),
    letter: &Packed,
    shelf: Shelf,
    offset: u64,
) -> Option<(Whence, Doubt)> {
    let (at, first) = (letter.offset, letter.first_shelf());
    if at < cursor.low {
        return None;
    }
    // Where there is no room it is settled when its batch is handed out.
    let found = cursor.is_settled(at) || queue.settle_range(at..at + 1, first.settled()) > 0;
    Some((letter.whence(), Doubt { shelf, offset, first, found }))
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

    /// The same of a queue that is known to be among these.
    fn of_queues(&mut self, queues: &Queues, destination: &str, whence: Whence) -> Option<&mut (Cursor, Queue)> {
        let queue = || queue_in(queues, destination, whence).map(|queue| (queue.cursor(), queue));
        self.0.entry(key(whence)).or_insert_with(queue).as_mut()
    }

    fn seen(&self, whence: Whence) -> Option<Option<&(Cursor, Queue)>> {
        Some(self.0.get(&key(whence))?.as_ref())
    }
}

fn key(Whence { origin: LetterOrigin { log, stream, .. }, replay }: Whence) -> (LogId, StreamId, u32) {
    (log, stream, replay)
}
