//! Sends held letters when their time has come: a second queue for the loop of a destination.
//!
//! What always holds: a letter is in flight once at most; it is claimed when its moment has come and its record is
//! settled where it came from; one that was handed back comes again in the same batch; letters whose time has not come
//! hold nobody up. To a destination that tells repeats apart by batch each letter goes alone, under the one id that its
//! record has as a batch: no other batch has it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{LogId, Settled, StreamId, Waiting};

use super::desk::{Desk, Shelves, runs};
use super::doubts::Origins;
use super::due;
use super::flights::{Flights, Group, Sender};
use super::packed::Packed;
use super::{Shelf, off_worker};
use crate::delivery::budget::Turns;
use crate::delivery::except::Except;
use crate::delivery::heavy::Heavy;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::patience::Patience;
use crate::delivery::sink::{Job, LargeJob, Origin, Part, Reread};
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};
use crate::impression::StoredBatch;

/// Letters that lie ready in memory, at most; and their bytes, save that one is always taken.
const READY_MAX: usize = 256;
const READY_BYTES_MAX: usize = 256 << 10;

/// A letter that may not leave yet for a reason that passes by itself is looked at again after this.
const AGAIN_MS: u64 = 1000;

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
            let raised = shelves.state().flights.raise_group();
            if let Some(group) = raised {
                let raised = Raised { desk: &self.desk, group: Some(group) };
                if let Some(flight) = self.fly_again(shelves, raised)? {
                    return Ok(Some(flight));
                }
                continue;
            }
            let records_max = if alone { 1 } else { limits.records_max };
            let letters = shelves.state().flights.claim_ready(records_max, limits.bytes_max);
            if let Some(flight) = self.fly(letters, None, alone) {
                return Ok(Some(flight));
            }
            if !self.desk.make_ready(shelves)? {
                return Ok(None);
            }
        }
    }

    /// Claims what is left of a batch that was handed back.
    fn fly_again(&self, shelves: &Shelves, mut raised: Raised<'_>) -> Result<Option<Flight>, BoxError> {
        let Some(group) = &raised.group else { return Ok(None) };
        let mut letters = Vec::with_capacity(group.places.len());
        for &place in &group.places {
            if !shelves.is_gone(Shelf::Held, place) {
                letters.extend(shelves.place(Shelf::Held).letter(place)?.map(|letter| (place, letter)));
            }
        }
        shelves.state().flights.claim_risen(group, &letters);
        Ok(self.fly(letters, raised.group.take(), false))
    }

    /// The batch of letters that are claimed: as it was before, if it comes again.
    fn fly(&self, mut letters: Vec<(u64, Packed)>, before: Option<Group>, alone: bool) -> Option<Flight> {
        let (_, first) = letters.first()?;
        let (first_id, environment) = (first.batch_id.as_str().into(), first.environment());
        letters.sort_by_key(|(_, letter)| letter.offset);
        let LetterOrigin { log, stream, offset } = letters[0].1.origin();
        let of_letters = offset..letters[letters.len() - 1].1.offset + 1;
        let (id, span) = before.map_or((None, of_letters), |group| (group.id, group.span));
        let id: Arc<str> = id.unwrap_or(first_id);
        let places = letters.iter().map(|(at, letter)| (letter.offset, *at)).collect();
        let claim = Claim { desk: Arc::clone(&self.desk), alone, places, id: Arc::clone(&id), span: span.clone() };
        let bytes = letters.iter().map(|(_, letter)| letter.record.len() as u64).sum();
        let part = |(_, letter): (u64, Packed)| Part {
            first: letter.offset,
            skip: letter.index as usize,
            take: 1,
            payload: letter.record.into(),
        };
        let job = Job {
            id,
            origin: Origin { log, stream, offsets: span },
            environment,
            parts: letters.into_iter().map(part).collect(),
            except: Except::default(),
            bytes,
        };
        Some(Flight { job, claim })
    }
}

/// A group that is being read again; handed back when that ends without a claim.
struct Raised<'a> {
    desk: &'a Desk,
    group: Option<Group>,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.desk.hand_back(vec![group]);
        }
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
        state.flights.waits() || (state.flights.has_room() && state.due.first(self.desk.now_ms()).is_some())
    }

    /// As much as lies ready at a time.
    fn bytes_waiting(&self, limits: Limits) -> u64 {
        limits.bytes_max.min(READY_BYTES_MAX as u64)
    }

    fn in_memory(&self, _: Limits) -> bool {
        self.desk.shelves().is_none()
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let flight = self.claim(limits, self.alone)?;
        Ok(flight.map(|Flight { job, claim }| Claimed { job, ticket: Box::new(claim) }))
    }

    fn next_large(&self, limits: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
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
            patience: Patience::default(),
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

    fn stream(&self) -> String {
        Shelf::Held.stream(self.desk.destination())
    }

    fn sender(&self, log: LogId, stream: StreamId) -> String {
        self.desk.stream_name(log, stream).map_or_else(|| self.stream(), |name| format!("letters of {name}"))
    }

    fn put_off(&self, log: LogId, stream: StreamId, until_ms: Option<u64>) -> bool {
        if !self.alone {
            return false;
        }
        self.desk.put_off((log, stream), until_ms);
        true
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
    /// It is one letter, and comes again as the same batch by itself.
    alone: bool,
    /// By offset in the origin's stream: where they lie on the shelf. Empty once settled or split.
    places: BTreeMap<u64, u64>,
    /// The batch's id.
    id: Arc<str>,
    /// What the loop knows it by.
    span: Range<u64>,
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
        let (desk, inside) = (Arc::clone(&self.desk), self.desk.enter());
        // It may read what the letters add up to.
        off_worker(move || {
            for (as_, places) in by_verdict {
                desk.settle_held(places, as_);
            }
            drop(inside);
        });
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let second = self.places.split_off(&at);
        let Range { start, end } = self.span;
        let halves = [(std::mem::take(&mut self.places), start..at), (second, at..end)];
        let group = |(places, span): (BTreeMap<u64, u64>, _)| {
            let places = places.into_values().collect();
            Group { id: None, places, span }
        };
        self.desk.hand_back(halves.map(group).into());
        done(Ok(()));
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        let shelves = self.desk.shelves().ok_or("the letters are closed")?;
        let mut stored = Vec::with_capacity(offsets.len());
        for &offset in offsets {
            // Damage took it between the answer about it and the batch's next attempt.
            let Some(&place) = self.places.get(&offset) else { continue };
            // It may be settled: when some of them were parked anew, and the others are tried again.
            let Some(letter) = shelves.place(Shelf::Held).whatever_became_of_it(place)? else { continue };
            stored.push(Stored {
                offset,
                origin: letter.origin(),
                replay: letter.replay,
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
            let places: Vec<u64> = std::mem::take(&mut self.places).into_values().collect();
            match self.alone {
                true => self.desk.put_back(&places),
                false => {
                    let id = Some(Arc::clone(&self.id));
                    self.desk.hand_back(vec![Group { id, places, span: self.span.clone() }]);
                }
            }
        }
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
        let pass_over = |offset: u64, letter: &Packed| {
            let LetterOrigin { log, stream, .. } = letter.origin();
            shelves.state().flights.pass_over((log, stream), offset)
        };
        let is_elsewhere = |offset: u64| {
            let flies = shelves.state().flights.holds(offset);
            // In this order: what flies no more may be gone by now.
            flies || shelves.is_gone(Shelf::Held, offset)
        };
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
                    _ if is_elsewhere(offset) => continue,
                    later if !due::has_come(later, now_ms) => later,
                    // Its turn may be a moment later than that: whoever put it off says when.
                    _ if let Some(until_ms) = pass_over(offset, &letter) => until_ms.max(now_ms + AGAIN_MS),
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
        state.flights.make_ready(ready);
        Ok(true)
    }

    /// Hands batches back, to come again as they are. What was read ahead goes back to where its time puts it.
    fn hand_back(&self, groups: Vec<Group>) {
        let Some(shelves) = self.shelves() else { return };
        let mut state = shelves.state();
        // What is late no more is settled by then.
        let cursor = shelves.place(Shelf::Held).cursor();
        let is_gone = |flights: &Flights, offset| cursor.is_settled(offset) || flights.is_late(Shelf::Held, offset);
        for group in groups {
            state.flights.hand_back(group, is_gone);
        }
        state.give_ready_back();
        drop(state);
        self.wake();
    }

    /// Letters that were sent alone are due again, and in flight no more: whatever number of them waits, others' are read.
    fn put_back(&self, places: &[u64]) {
        let Some(shelves) = self.shelves() else { return };
        let mut state = shelves.state();
        let cursor = shelves.place(Shelf::Held).cursor(); // as above
        for &place in places {
            state.flights.let_go(place);
            if !cursor.is_settled(place) && !state.flights.is_late(Shelf::Held, place) {
                state.due.insert(place, 0);
            }
        }
        state.give_ready_back();
        drop(state);
        self.wake();
    }

    /// See [`Source::put_off`].
    fn put_off(&self, sender: Sender, until_ms: Option<u64>) {
        let Some(shelves) = self.shelves() else { return };
        let mut state = shelves.state();
        state.give_ready_back();
        if let Some(passed_over) = state.flights.put_off(sender, until_ms) {
            state.due.look_at(passed_over);
        }
        drop(state);
        self.wake();
    }

    /// The name of the stream that letters were taken out of, as far as it is known.
    fn stream_name(&self, log: LogId, stream: StreamId) -> Option<Arc<str>> {
        self.log_of(log)?.stream_name(stream)
    }

    /// These letters are done with.
    fn settle_held(&self, places: Vec<u64>, as_: Settled) {
        let Some(shelves) = self.shelves() else { return };
        for run in runs(places) {
            shelves.settle(Shelf::Held, run.clone(), as_);
            let mut state = shelves.state();
            run.for_each(|offset| state.flights.let_go(offset));
        }
    }
}
