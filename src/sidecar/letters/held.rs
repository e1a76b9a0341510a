//! Sends held letters when their time has come: a second queue for the loop of a destination.
//!
//! What always holds: a letter is in flight once at most; it is claimed when its moment has come and its record is
//! settled where it came from; letters whose time has not come hold nobody up. To a destination that tells repeats
//! apart by batch each letter goes alone, under the one id that its record has as a batch: no other batch has it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{Settled, Waiting};

use super::desk::{Desk, Origins, Shelves, runs};
use super::packed::Packed;
use super::{Shelf, off_worker};
use crate::delivery::budget::Turns;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::sink::{Job, LargeJob, Origin, Part, Reread};
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};
use crate::impression::StoredBatch;

/// Letters that lie ready in memory, at most; and their bytes, save that one is always taken.
const READY_MAX: usize = 256;
const READY_BYTES_MAX: usize = 256 << 10;

/// Letters in flight at most: each may leave a settled range of its own until it touches another.
const IN_FLIGHT_MAX: usize = 1024;

/// A letter that may not leave yet for a reason that passes by itself is looked at again after this.
const AGAIN_MS: u64 = 1000;

/// What is under way from a destination's held shelf.
#[derive(Default)]
pub(super) struct Flights {
    /// Due, and read.
    ready: VecDeque<(u64, Packed)>,
    /// Claimed: by offset on the shelf.
    claimed: BTreeMap<u64, LetterOrigin>,
    /// The same by origin: the offset, its batch's id, and whether it was held first.
    by_origin: HashMap<LetterOrigin, (u64, Arc<str>, bool)>,
    /// Halves of batches that were split, which come again as they are.
    halves: VecDeque<Vec<u64>>,
    /// Delivered or moved, and not settled for want of room.
    late: Vec<(Shelf, Range<u64>, Settled)>,
}

impl Flights {
    /// The letter of this record that is in flight: its offset on the shelf, its batch's id, and whether it was held
    /// first.
    pub(super) fn letter_of(&self, origin: &LetterOrigin) -> Option<(u64, Arc<str>, bool)> {
        self.by_origin.get(origin).cloned()
    }

    /// Whether the letter at this offset is claimed, about to be, or gone though it is not settled.
    pub(super) fn holds(&self, offset: u64) -> bool {
        self.claimed.contains_key(&offset)
            || self.ready.iter().any(|(ready, _)| *ready == offset)
            || self.halves.iter().flatten().any(|half| *half == offset)
            || self.late.iter().any(|(shelf, run, _)| *shelf == Shelf::Held && run.contains(&offset))
    }

    /// There was no room to settle these: they are gone all the same.
    pub(super) fn late(&mut self, shelf: Shelf, run: Range<u64>, as_: Settled) {
        self.late.push((shelf, run, as_));
    }

    pub(super) fn take_late(&mut self) -> Vec<(Shelf, Range<u64>, Settled)> {
        std::mem::take(&mut self.late)
    }

    /// What was moved and still counts where it lay, by shelf.
    pub(super) fn moved_late(&self) -> impl Iterator<Item = (Shelf, u64)> {
        let moved = |as_: &Settled| matches!(as_, Settled::DeadLettered | Settled::Held);
        let late = self.late.iter().filter(move |(_, _, as_)| moved(as_));
        late.map(|(shelf, run, _)| (*shelf, run.end - run.start))
    }

    pub(super) fn is_late(&self, shelf: Shelf, offset: u64) -> bool {
        self.late.iter().any(|(of, run, _)| *of == shelf && run.contains(&offset))
    }

    fn has_room(&self) -> bool {
        self.claimed.len() + self.ready.len() < IN_FLIGHT_MAX
    }

    fn waits(&self) -> bool {
        !self.ready.is_empty() || !self.halves.is_empty()
    }

    fn claim(&mut self, letters: &[(u64, Packed)]) {
        for (offset, letter) in letters {
            self.claimed.insert(*offset, letter.origin());
            self.by_origin.insert(letter.origin(), (*offset, letter.batch_id.as_str().into(), letter.first_held));
        }
    }

    fn unclaim(&mut self, offset: u64) {
        let Some(origin) = self.claimed.remove(&offset) else { return };
        if self.by_origin.get(&origin).is_some_and(|(of, _, _)| *of == offset) {
            self.by_origin.remove(&origin);
        }
    }
}

/// A destination's held letters as its loop sees them.
pub struct HeldSource {
    desk: Arc<Desk>,
    /// One letter a batch.
    alone: bool,
}

impl HeldSource {
    /// The held letters of this desk; `alone` for a sink that tells repeats apart by batch.
    #[must_use]
    pub fn new(desk: Arc<Desk>, alone: bool) -> Self {
        Self { desk, alone }
    }

    /// Takes the next letters that may leave.
    fn claim(&self, limits: Limits, alone: bool) -> Result<Option<Flight>, BoxError> {
        let Some(shelves) = self.desk.shelves() else { return Ok(None) };
        loop {
            if let Some(half) = shelves.pop_half() {
                let letters = self.desk.reread(shelves, &half)?;
                if let Some(flight) = self.fly(shelves, letters) {
                    return Ok(Some(flight));
                }
                continue;
            }
            let letters = shelves.take_ready(if alone { 1 } else { limits.records_max }, limits.bytes_max);
            if let Some(flight) = self.fly(shelves, letters) {
                return Ok(Some(flight));
            }
            if !self.desk.make_ready(shelves)? {
                return Ok(None);
            }
        }
    }

    fn fly(&self, shelves: &Shelves, mut letters: Vec<(u64, Packed)>) -> Option<Flight> {
        let (_, first) = letters.first()?;
        let (id, environment) = (Arc::from(first.batch_id.as_str()), first.environment());
        letters.sort_by_key(|(_, letter)| letter.offset);
        let LetterOrigin { log, stream, offset } = letters[0].1.origin();
        let end = letters[letters.len() - 1].1.offset + 1;
        shelves.state().flights.claim(&letters);
        let places = letters.iter().map(|(at, letter)| (letter.offset, *at)).collect();
        let bytes = letters.iter().map(|(_, letter)| letter.record.len() as u64).sum();
        let part = |(_, letter): (u64, Packed)| Part {
            first: letter.offset,
            skip: letter.index as usize,
            take: 1,
            payload: letter.record.into(),
        };
        let job = Job {
            id,
            origin: Origin { log, stream, offsets: offset..end },
            environment,
            parts: letters.into_iter().map(part).collect(),
            except: Arc::default(),
            bytes,
        };
        let claim = Claim { desk: Arc::clone(&self.desk), places };
        Some(Flight { job, claim })
    }
}

struct Flight {
    job: Job,
    claim: Claim,
}

impl Source for HeldSource {
    fn has_more(&self) -> bool {
        let Some(shelves) = self.desk.shelves() else { return false };
        let state = shelves.state();
        state.flights.has_room() && (state.flights.waits() || state.due.first(self.desk.now_ms()).is_some())
    }

    fn in_memory(&self) -> bool {
        self.desk.shelves().is_none()
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let flight = self.claim(limits, self.alone)?;
        Ok(flight.map(|Flight { job, claim }| Claimed { job, ticket: Box::new(claim) }))
    }

    fn next_large(&self, limits: Limits, _: Option<u64>) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        let Some(Flight { job, claim }) = self.claim(limits, true)? else { return Ok(None) };
        let part = job.parts.first().ok_or("a batch without records")?;
        let received_ms = StoredBatch::decode(&part.payload).map_or(0, |batch| batch.shared().received_ms);
        let job = LargeJob {
            id: job.id,
            origin: job.origin,
            environment: job.environment,
            except: job.except,
            received_ms,
            bytes: job.bytes,
            settings_revision: None,
            replay: None,
            records: Arc::new(InMemory(job.parts)),
            turns: Turns::default(),
        };
        Ok(Some(Claimed { job, ticket: Box::new(claim) }))
    }

    /// What is due waits for no company.
    fn waiting(&self) -> Result<Waiting, BoxError> {
        Ok(Waiting { comes_again: self.has_more(), bounded: true, ..Waiting::default() })
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.desk.set_wake(wake);
    }
}

/// The one letter of a batch that is read as it is sent.
struct InMemory(Vec<Part>);

impl Reread for InMemory {
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, BoxError>> + Send + '_> {
        Box::new(self.0.iter().cloned().map(Ok))
    }
}

/// The right to letters of the held shelf.
struct Claim {
    desk: Arc<Desk>,
    /// By offset in the origin's stream: where they lie on the shelf. Empty once settled or split.
    places: BTreeMap<u64, u64>,
}

impl Ticket for Claim {
    /// Their ids are their own, so there are no boundaries to keep.
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        done(Ok(()));
    }

    fn settle(mut self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled) {
        let verdict = |origin: u64| parts.iter().find(|(part, _)| part.contains(&origin)).map_or(rest, |(_, as_)| *as_);
        let mut by_verdict: HashMap<Settled, Vec<u64>> = HashMap::new();
        for (origin, place) in std::mem::take(&mut self.places) {
            by_verdict.entry(verdict(origin)).or_default().push(place);
        }
        let desk = Arc::clone(&self.desk);
        // It may read what the letters add up to.
        off_worker(move || {
            for (as_, places) in by_verdict {
                desk.settle_held(places, as_);
            }
        });
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let second = self.places.split_off(&at);
        let halves = [std::mem::take(&mut self.places), second].map(|half| half.into_values().collect::<Vec<u64>>());
        self.desk.give_back(halves.into_iter().filter(|half| !half.is_empty()).collect(), true);
        done(Ok(()));
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        let Some(shelves) = self.desk.shelves() else { return Ok(Vec::new()) };
        let mut stored = Vec::with_capacity(offsets.len());
        for &offset in offsets {
            let place = *self.places.get(&offset).ok_or("a record that is not in the batch")?;
            // It may be settled: when some of them were parked anew, and the others are tried again.
            let letter = shelves.place(Shelf::Held).whatever_became_of_it(place)?;
            let letter = letter.ok_or("a letter that is not where it was")?;
            stored.push(Stored {
                offset,
                origin: letter.origin(),
                environment: letter.environment(),
                index: letter.index as usize,
                payload: Bytes::from(letter.record),
            });
        }
        Ok(stored)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.places.is_empty() {
            self.desk.give_back(vec![std::mem::take(&mut self.places).into_values().collect()], false);
        }
    }
}

impl Shelves {
    fn pop_half(&self) -> Option<Vec<u64>> {
        self.state().flights.halves.pop_front()
    }

    /// The first letter that is ready, and those of its stream and environment with it.
    fn take_ready(&self, records_max: u64, bytes_max: u64) -> Vec<(u64, Packed)> {
        let mut state = self.state();
        let ready = &mut state.flights.ready;
        let Some((_, first)) = ready.front() else { return Vec::new() };
        let key = |letter: &Packed| {
            let LetterOrigin { log, stream, .. } = letter.origin();
            (log, stream, letter.environment())
        };
        let (key_of_first, mut bytes) = (key(first), 0);
        let (mut taken, mut left) = (Vec::<(u64, Packed)>::new(), VecDeque::new());
        for (offset, letter) in std::mem::take(ready) {
            let len = letter.record.len() as u64;
            let fits = taken.is_empty() || ((taken.len() as u64) < records_max && bytes + len <= bytes_max);
            // The same record twice would be one too many for a body.
            let twice = taken.iter().any(|(_, other)| other.offset == letter.offset);
            if fits && !twice && key(&letter) == key_of_first {
                bytes += len;
                taken.push((offset, letter));
            } else {
                left.push_back((offset, letter));
            }
        }
        *ready = left;
        taken
    }
}

impl Desk {
    /// Reads the next run that is due. `false` if none is, or too much is in flight.
    fn make_ready(&self, shelves: &Shelves) -> Result<bool, BoxError> {
        let place = shelves.place(Shelf::Held);
        let _moving = place.moving();
        let now_ms = self.now_ms();
        let mut state = shelves.state();
        if !state.flights.has_room() {
            return Ok(false);
        }
        let Some(run) = state.due.begin(now_ms) else { return Ok(false) };
        drop(state);
        let (mut ready, mut bytes, mut earliest, mut read) = (Vec::new(), 0, None::<u64>, run.start);
        let (mut walk, mut seen) = (place.walk(run.start), Origins::default());
        'run: while read < run.end && ready.len() < READY_MAX && bytes < READY_BYTES_MAX {
            let letters = walk.next().inspect_err(|_| shelves.state().due.note(run.start..run.start, None))?;
            let Some(letters) = letters else {
                read = run.end;
                break;
            };
            for (offset, letter) in letters {
                if offset >= run.end || ready.len() >= READY_MAX || bytes >= READY_BYTES_MAX {
                    read = offset.min(run.end);
                    break 'run;
                }
                let wait_until = match letter.not_before_ms {
                    _ if shelves.state().flights.holds(offset) => continue,
                    later if later > now_ms => later,
                    _ if !self.is_taken_out(&letter, &mut seen) => now_ms + AGAIN_MS,
                    _ => {
                        bytes += letter.record.len();
                        ready.push((offset, letter));
                        continue;
                    }
                };
                earliest = Some(earliest.map_or(wait_until, |earliest| earliest.min(wait_until)));
            }
            read = walk.at.min(run.end);
        }
        let mut state = shelves.state();
        state.due.note(run.start..read, earliest);
        state.flights.ready.extend(ready);
        Ok(true)
    }

    /// These letters anew, if they are not settled meanwhile.
    fn reread(&self, shelves: &Shelves, places: &[u64]) -> Result<Vec<(u64, Packed)>, BoxError> {
        let mut letters = Vec::with_capacity(places.len());
        for &place in places {
            match shelves.place(Shelf::Held).letter(place) {
                Ok(letter) => letters.extend(letter.map(|letter| (place, letter))),
                Err(error) => {
                    self.give_back(vec![places.to_vec()], true);
                    return Err(error.into());
                }
            }
        }
        Ok(letters)
    }

    /// Hands letters back: as they are to come again, or to wherever their time puts them.
    fn give_back(&self, groups: Vec<Vec<u64>>, as_they_are: bool) {
        let Some(shelves) = self.shelves() else { return };
        let cursor = shelves.place(Shelf::Held).cursor();
        let mut state = shelves.state();
        for group in groups {
            group.iter().for_each(|&offset| state.flights.unclaim(offset));
            let left = group.into_iter().filter(|&offset| !cursor.is_settled(offset));
            if as_they_are {
                state.flights.halves.push_back(left.collect());
            } else {
                // Nothing of a destination that fails is kept in memory.
                let ready: Vec<u64> = state.flights.ready.drain(..).map(|(offset, _)| offset).collect();
                left.chain(ready).for_each(|offset| state.due.insert(offset, 0));
            }
        }
        drop(state);
        self.wake();
    }

    /// These letters are done with.
    fn settle_held(&self, places: Vec<u64>, as_: Settled) {
        let Some(shelves) = self.shelves() else { return };
        let place = shelves.place(Shelf::Held);
        for run in runs(places) {
            if !place.settle(run.clone(), as_) {
                shelves.state().flights.late(Shelf::Held, run.clone(), as_);
            }
            let mut state = shelves.state();
            run.for_each(|offset| state.flights.unclaim(offset));
        }
    }
}
