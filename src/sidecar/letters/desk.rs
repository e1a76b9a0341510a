//! The letters of one destination: taken in, and moved between its two shelves.
//!
//! Its streams and queues are made with its first letter. What is remembered of letters is small: where those lie whose
//! record may come again from its own queue (`doubts`), when which held ones are due, and what is under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use forebay::{Cursor, Queue, StreamId};

use super::due::Due;
use super::held::Flights;
use super::packed::{self, Packed};
use super::policy::{Policy, Said};
use super::shelf::Place;
use super::{Ground, Shelf};
use crate::delivery::parking::{Kind, Letter, LetterOrigin};
use crate::delivery::sheet::InDoubt;
use crate::delivery::source::BoxError;

/// The letters of one destination. Cheap until it has some.
pub struct Desk {
    destination: Arc<str>,
    pub(super) ground: Arc<Ground>,
    wake: Mutex<Option<Wake>>,
    shelves: OnceLock<Box<Shelves>>,
    /// In a box: most have none.
    policy: Mutex<Option<Box<Policy>>>,
}

type Wake = Arc<dyn Fn() + Send + Sync>;

/// What there is once there are letters.
pub(super) struct Shelves {
    dead: Place,
    held: Place,
    state: Mutex<State>,
    pub(super) said: Said,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct State {
    doubts: BTreeMap<(StreamId, u64), Doubt>,
    pub(super) due: Due,
    pub(super) flights: Flights,
}

/// Where the letter of a record lies that may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    shelf: Shelf,
    offset: u64,
    /// Found when opened: its batch may come again whole, though this record is settled, until the low mark is past it.
    found: bool,
}

impl Desk {
    pub(super) fn new(destination: Arc<str>, ground: Arc<Ground>) -> Self {
        let (wake, shelves, policy) = Default::default();
        Self { destination, ground, wake, shelves, policy }
    }

    /// The destination's id.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The destination's id, to keep: shared, not copied.
    #[must_use]
    pub fn destination_name(&self) -> Arc<str> {
        Arc::clone(&self.destination)
    }

    /// What may let dead letters go without anybody asking. Nothing, until it is set.
    pub fn set_policy(&self, policy: Policy) {
        let policy = (policy != Policy::default()).then(|| Box::new(policy));
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner).as_deref().copied().unwrap_or_default()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.ground.clock.wall_ms()
    }

    pub(super) fn is_open(&self) -> bool {
        self.shelves.get().is_some()
    }

    /// Its shelves, if it has or had letters.
    pub(super) fn shelves(&self) -> Option<&Shelves> {
        self.shelves.get().map(|shelves| &**shelves)
    }

    /// Its shelves, made where there are none.
    pub(super) fn open(&self) -> Result<&Shelves, BoxError> {
        if let Some(shelves) = self.shelves() {
            return Ok(shelves);
        }
        let _turn = self.ground.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelves) = self.shelves() {
            return Ok(shelves);
        }
        let place = |shelf| Place::open(&self.ground.queues, &self.destination, shelf);
        let shelves = Shelves {
            dead: place(Shelf::Dead)?,
            held: place(Shelf::Held)?,
            state: Mutex::default(),
            said: Said::default(),
        };
        self.take_up(&shelves)?;
        Ok(self.shelves.get_or_init(|| Box::new(shelves)))
    }

    /// Reads what lies there. What a crash left in two places is settled in the first.
    fn take_up(&self, shelves: &Shelves) -> Result<(), BoxError> {
        let mut origins: HashMap<StreamId, Option<(Queue, Cursor)>> = HashMap::new();
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
    fn origin_queue(&self, origin: &LetterOrigin) -> Option<Queue> {
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

    /// Makes letters durable. Blocks.
    pub(super) fn park(&self, letters: &[Letter]) -> Result<(), BoxError> {
        let shelves = self.open()?;
        for shelf in [Shelf::Dead, Shelf::Held] {
            let of_shelf = letters.iter().filter(|letter| shelf_of(letter) == shelf);
            let fresh: Vec<Packed> = of_shelf.filter_map(|letter| self.fresh(shelves, letter)).collect();
            shelves.put(shelf, fresh)?;
        }
        if letters.iter().any(|letter| shelf_of(letter) == Shelf::Held) {
            self.wake();
        }
        Ok(())
    }

    /// The letter as it is to be kept; `None` if it is kept already.
    fn fresh(&self, shelves: &Shelves, letter: &Letter) -> Option<Packed> {
        let (origin, shelf) = (letter.origin, shelf_of(letter));
        let state = shelves.state();
        let flying = state.flights.letter_of(&origin);
        let doubt = state.doubts.get(&(origin.stream, origin.offset)).copied();
        drop(state);
        if let Some((offset, batch_id, first_held)) = flying {
            if shelves.place(Shelf::Held).cursor().is_settled(offset) {
                return None; // parked before, with others that have to be tried again
            }
            let packed = packed::pack(letter, batch_id.to_string(), Some((Shelf::Held, offset)));
            return Some(Packed { first_held, ..packed });
        }
        let kept = doubt.filter(|doubt| !shelves.place(doubt.shelf).cursor().is_settled(doubt.offset));
        let kept = kept.filter(|_| origin.log == self.ground.queues.log().log_id());
        if kept.is_some_and(|kept| kept.shelf == shelf) {
            return None;
        }
        // It lies on the other shelf: the destination thinks otherwise now.
        let before = kept.and_then(|kept| shelves.place(kept.shelf).letter(kept.offset).ok().flatten());
        let queue = self.origin_queue(&origin);
        let batch_id = queue.and_then(|queue| queue.batch_id(origin.offset..origin.offset + 1));
        let packed = packed::pack(letter, batch_id.unwrap_or_default(), kept.map(|kept| (kept.shelf, kept.offset)));
        let first_held = before.map_or(packed.first_held, |before| before.first_held);
        let batch_id = if packed.batch_id.is_empty() { packed.record_id() } else { packed.batch_id.clone() };
        Some(Packed { first_held, batch_id, ..packed })
    }

    /// Names whom to wake when held letters are due.
    pub(super) fn set_wake(&self, wake: Wake) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }

    pub(super) fn wake(&self) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// See [`Letters::tend`](super::Letters::tend).
    pub(super) fn tend(&self) -> Result<(), BoxError> {
        let Some(shelves) = self.shelves() else { return Ok(()) };
        self.forget_doubts(shelves);
        shelves.settle_late();
        for shelf in [Shelf::Dead, Shelf::Held] {
            let place = shelves.place(shelf);
            let moving = place.moving();
            self.tidy(shelves, place, u64::MAX)?;
            drop(moving);
        }
        self.obey_policy(shelves)?;
        let due = shelves.state().due.first(self.now_ms()).is_some();
        if due {
            self.wake();
        }
        Ok(())
    }

    /// Letters that count elsewhere still: their record is not settled yet where it came from, or they are not where they
    /// were before.
    pub(super) fn in_doubt(&self) -> InDoubt {
        let Some(shelves) = self.shelves() else { return InDoubt::default() };
        let cursors = [Shelf::Dead, Shelf::Held].map(|shelf| shelves.place(shelf).cursor());
        let mut in_doubt = InDoubt::default();
        let mut add = |shelf, letters| match shelf {
            Shelf::Dead => in_doubt.dead += letters,
            Shelf::Held => in_doubt.held += letters,
        };
        let state = shelves.state();
        state.flights.moved_late().for_each(|(shelf, letters)| add(shelf, letters));
        let mut unsure: Vec<_> = state.doubts.iter().map(|(&key, &doubt)| (key, doubt)).collect();
        drop(state);
        unsure.retain(|(_, doubt)| !cursors[doubt.shelf as usize].is_settled(doubt.offset));
        let log = self.ground.queues.log().log_id();
        let mut origins: HashMap<StreamId, Option<Cursor>> = HashMap::new();
        for ((stream, offset), doubt) in unsure {
            let cursor = origins.entry(stream).or_insert_with(|| {
                self.origin_queue(&LetterOrigin { log, stream, offset }).map(|queue| queue.cursor())
            });
            if cursor.as_ref().is_some_and(|cursor| !cursor.is_settled(offset)) {
                add(doubt.shelf, 1);
            }
        }
        in_doubt
    }

    /// Forgets letters whose record cannot come again.
    fn forget_doubts(&self, shelves: &Shelves) {
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

    /// Moves the oldest letters behind the others while settled ranges are too many; only those below `until`. The caller
    /// keeps others from moving any.
    pub(super) fn tidy(&self, shelves: &Shelves, place: &Place, until: u64) -> Result<(), BoxError> {
        while let Some(below) = place.scattered() {
            let (mut walk, mut seen, mut oldest) = (place.walk(0), Origins::default(), Vec::new());
            while let Some(letters) = walk.next()? {
                let flying = |offset: &u64| place.shelf == Shelf::Held && shelves.state().flights.holds(*offset);
                let movable = |(offset, letter): &(u64, Packed)| {
                    *offset < below.min(until) && !flying(offset) && self.is_taken_out(letter, &mut seen)
                };
                oldest.extend(letters.into_iter().filter(movable));
                if walk.at >= below.min(until) || oldest.len() >= 256 {
                    break;
                }
            }
            if oldest.is_empty() {
                return Ok(());
            }
            let moved = oldest.into_iter().map(|(offset, letter)| letter.moved(Some((place.shelf, offset))));
            shelves.put(place.shelf, moved.collect())?;
        }
        Ok(())
    }
}

/// Cursors of the queues that letters came from, as they were last seen.
#[derive(Default)]
pub(super) struct Origins(HashMap<StreamId, Option<(Cursor, Queue)>>);

impl Shelves {
    pub(super) fn place(&self, shelf: Shelf) -> &Place {
        match shelf {
            Shelf::Dead => &self.dead,
            Shelf::Held => &self.held,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change under this lock is whole or has not begun.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes letters durable on a shelf, and settles them where they lay before. Blocks.
    pub(super) fn put(&self, shelf: Shelf, letters: Vec<Packed>) -> Result<(), BoxError> {
        let mut moved = Vec::new();
        let appended = self.place(shelf).append(letters, |offset, letter| {
            let mut state = self.state();
            let key = (StreamId(letter.stream), letter.offset);
            match letter.moved_from() {
                None => _ = state.doubts.insert(key, Doubt { shelf, offset, found: false }),
                Some(from) => {
                    moved.push(from);
                    if let Some(doubt) = state.doubts.get_mut(&key).filter(|d| (d.shelf, d.offset) == from) {
                        (doubt.shelf, doubt.offset) = (shelf, offset);
                    }
                }
            }
            if shelf == Shelf::Held {
                state.due.insert(offset, letter.not_before_ms);
            }
        });
        // Also those before an error: they lie here now.
        for from in [Shelf::Dead, Shelf::Held] {
            let offsets = moved.iter().filter(|(of, _)| *of == from).map(|(_, offset)| *offset);
            for run in runs(offsets.collect()) {
                if !self.place(from).settle(run.clone(), shelf.settled()) {
                    self.state().flights.late(from, run, shelf.settled());
                }
            }
        }
        Ok(appended?)
    }

    /// Settles what there was no room for.
    fn settle_late(&self) {
        let late = self.state().flights.take_late();
        for (shelf, run, as_) in late {
            if !self.place(shelf).settle(run.clone(), as_) {
                self.state().flights.late(shelf, run, as_);
            }
        }
    }
}

/// Offsets as runs, ascending.
pub(super) fn runs(mut offsets: Vec<u64>) -> Vec<std::ops::Range<u64>> {
    offsets.sort_unstable();
    offsets.dedup();
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if run.end == offset => run.end += 1,
            _ => runs.push(offset..offset + 1),
        }
    }
    runs
}

fn shelf_of(letter: &Letter) -> Shelf {
    match letter.kind {
        Kind::Dead => Shelf::Dead,
        Kind::Held { .. } => Shelf::Held,
    }
}
