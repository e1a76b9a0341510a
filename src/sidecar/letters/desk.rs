//! The letters of one destination: taken in, and moved between its two shelves.
//!
//! Its streams and queues are made with its first letter. What is remembered of letters is small: where those lie whose
//! record may come again from its own queue (`doubts`), when which held ones are due, and what is under way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use forebay::Settled;

use super::doors::Inside;
use super::doubts::{Doubt, Origins, Whence};
use super::due::Due;
use super::flights::Flights;
use super::oldest::Oldest;
use super::packed::{self, Packed};
use super::policy::{Policy, Said};
use super::shelf::Place;
use super::{Ground, Shelf};
use crate::delivery::parking::{Kind, Letter};
use crate::delivery::source::BoxError;

/// The letters of one destination. Cheap until it has some.
pub struct Desk {
    pub(super) destination: Arc<str>,
    pub(super) ground: Arc<Ground>,
    wake: Mutex<Option<Wake>>,
    shelves: OnceLock<Box<Shelves>>,
    /// One opens it at a time: that reads its letters, and a disk may take its time over them.
    opening: Mutex<()>,
    /// See [`set_room`](Self::set_room).
    pub(super) room_bytes: AtomicU64,
    /// In a box: most have none.
    policy: Mutex<Option<Box<Policy>>>,
    /// Of what lies where it was given up.
    pub(super) said_of_marked: Said,
    /// Its destination is gone. One of the same id has another desk, and the same streams.
    forgotten: AtomicBool,
    /// Its letters could not be read when they were to be.
    unread: AtomicBool,
}

type Wake = Arc<dyn Fn() + Send + Sync>;

/// What there is once there are letters.
pub(super) struct Shelves {
    dead: Place,
    held: Place,
    state: Mutex<State>,
    pub(super) said: Said,
    /// Of the dead.
    pub(super) oldest: Oldest,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct State {
    pub(super) doubts: BTreeMap<Whence, Doubt>,
    pub(super) due: Due,
    pub(super) flights: Flights,
}

impl State {
    /// What was read ahead goes back to where its time puts it, in its order.
    pub(super) fn give_ready_back(&mut self) {
        for offset in self.flights.give_up_ready() {
            self.due.insert(offset, 0);
        }
    }
}

impl Desk {
    pub(super) fn new(destination: Arc<str>, ground: Arc<Ground>) -> Self {
        let (wake, shelves, opening, policy, said_of_marked, forgotten, unread) = Default::default();
        let room_bytes = AtomicU64::new(u64::MAX);
        Self { destination, ground, wake, shelves, opening, room_bytes, policy, said_of_marked, forgotten, unread }
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

    /// What its letters hold, dead or held, as stored.
    pub(super) fn bytes(&self) -> u64 {
        let of = |place: &Place| place.queue.balance().pending.bytes;
        self.shelves().map_or(0, |shelves| of(&shelves.dead) + of(&shelves.held))
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.ground.clock.wall_ms()
    }

    /// Lets whoever comes to work here in, to be waited for. `None` while the destination is being deleted, and from then on:
    /// whoever found this desk in time would work beside those at the next one's.
    pub(super) fn enter(&self) -> Option<Inside> {
        let inside = self.ground.doors.enter(&self.destination)?;
        (!self.forgotten.load(Ordering::Acquire)).then_some(inside)
    }

    /// Nobody works here any more.
    pub(super) fn forget(&self) {
        self.forgotten.store(true, Ordering::Release);
    }

    pub(super) fn is_open(&self) -> bool {
        self.shelves.get().is_some()
    }

    /// Whether it has letters that could not be read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire) && !self.is_open()
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
        let _turn = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelves) = self.shelves() {
            return Ok(shelves);
        }
        let shelves = self.read().inspect_err(|_| self.unread.store(true, Ordering::Release))?;
        Ok(self.shelves.get_or_init(|| Box::new(shelves)))
    }

    fn read(&self) -> Result<Shelves, BoxError> {
        let place = |shelf| Place::open(&self.ground.queues, &self.destination, shelf);
        let shelves = Shelves {
            dead: place(Shelf::Dead)?,
            held: place(Shelf::Held)?,
            state: Mutex::default(),
            said: Said::default(),
            oldest: Oldest::default(),
        };
        self.take_up(&shelves)?;
        Ok(shelves)
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
        let whence = Whence { origin, replay: letter.replay };
        let state = shelves.state();
        let flying = state.flights.letter_of(&whence);
        let doubt = state.doubts.get(&whence).copied();
        drop(state);
        if let Some((offset, batch_id, first_held)) = flying {
            if shelves.is_gone(Shelf::Held, offset) {
                return None; // parked before, with others that have to be tried again
            }
            let packed = packed::pack(letter, batch_id.to_string(), Some((Shelf::Held, offset)));
            return Some(Packed { first_held, ..packed });
        }
        let kept = doubt.filter(|doubt| !shelves.is_gone(doubt.shelf, doubt.offset));
        if kept.is_some_and(|kept| kept.shelf == shelf) {
            return None;
        }
        // It lies on the other shelf: the destination thinks otherwise now.
        let before = kept.and_then(|kept| shelves.place(kept.shelf).letter(kept.offset).ok().flatten());
        let queue = self.own_queue(origin);
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
    pub(super) fn tend(&self, age_now: Option<u64>, wall_ms: u64) -> Result<(), BoxError> {
        let Some(_inside) = self.enter() else { return Ok(()) };
        let Some(shelves) = self.shelves() else { return Ok(()) };
        self.forget_doubts(shelves);
        shelves.settle_late();
        let due = shelves.state().due.first(wall_ms).is_some();
        if due {
            self.wake();
        }
        let tidied = [Shelf::Dead, Shelf::Held].map(|shelf| {
            let place = shelves.place(shelf);
            let _moving = place.moving();
            self.tidy(shelves, place, u64::MAX)
        });
        // Whatever became of that: what is let go needs no room in the log, and makes some.
        let obeyed = self.obey_policy(shelves, age_now, wall_ms);
        tidied.into_iter().fold(obeyed, Result::and)
    }

    /// Moves the oldest letters behind the others while settled ranges are too many; only those below `until`. The caller
    /// keeps others from moving any.
    pub(super) fn tidy(&self, shelves: &Shelves, place: &Place, until: u64) -> Result<(), BoxError> {
        while let Some(below) = place.scattered() {
            let (mut walk, mut seen, mut oldest) = (place.walk(0), Origins::default(), Vec::new());
            while let Some(letters) = walk.next()? {
                let flying = |offset: &u64| place.shelf == Shelf::Held && shelves.state().flights.holds(*offset);
                // What is gone would be there again; and what flies no more may be gone by now.
                let stays = |offset: &u64| flying(offset) || shelves.is_gone(place.shelf, *offset);
                let movable = |(offset, letter): &(u64, Packed)| {
                    *offset < below.min(until) && !stays(offset) && self.is_taken_out(letter, &mut seen)
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

    /// Whether nothing lies at this offset any more, though there may have been no room yet to settle it. Whoever reads asks
    /// this behind the reading, and what [flies](Flights::holds) before: what flies no more is settled, or late.
    pub(super) fn is_gone(&self, shelf: Shelf, offset: u64) -> bool {
        let is_late = self.state().flights.is_late(shelf, offset);
        // In this order: what is late no more is settled.
        is_late || self.place(shelf).cursor().is_settled(offset)
    }

    /// Makes letters durable on a shelf, and settles them where they lay before. Blocks.
    pub(super) fn put(&self, shelf: Shelf, letters: Vec<Packed>) -> Result<(), BoxError> {
        let mut moved = Vec::new();
        let appended = self.place(shelf).append(letters, |offset, letter| {
            if shelf == Shelf::Dead {
                self.oldest.put(letter.at_ms);
            }
            let mut state = self.state();
            let key = letter.whence();
            match letter.moved_from() {
                None => {
                    let first = letter.first_shelf();
                    state.doubts.insert(key, Doubt { shelf, offset, first, found: false });
                }
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
                self.settle(from, run, shelf.settled());
            }
        }
        Ok(appended?)
    }

    /// Settles letters that are gone. Those for which there is no room are late: they are gone all the same.
    pub(super) fn settle(&self, shelf: Shelf, run: Range<u64>, as_: Settled) {
        let place = self.place(shelf);
        if !place.settle(run.clone(), as_) {
            let cursor = place.cursor();
            self.state().flights.late(shelf, run.filter(|offset| !cursor.is_settled(*offset)), as_);
        }
    }

    /// Settles what there was no room for. It is gone all the while.
    pub(super) fn settle_late(&self) {
        let late = self.state().flights.all_late();
        for (shelf, run, as_) in late {
            self.place(shelf).settle(run.clone(), as_);
            let cursor = self.place(shelf).cursor();
            self.state().flights.no_longer_late(shelf, run.filter(|offset| cursor.is_settled(*offset)));
        }
    }
}

/// Offsets as runs, ascending.
pub(super) fn runs(mut offsets: Vec<u64>) -> Vec<Range<u64>> {
    offsets.sort_unstable();
    offsets.dedup();
    let mut runs: Vec<Range<u64>> = Vec::new();
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
