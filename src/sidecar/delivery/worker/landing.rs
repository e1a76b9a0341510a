//! What follows from an answer: settle, send again, split, set a record [aside](super::asides), or keep letters.
//!
//! What always holds: every batch is in one place, settled, back in its queue, or with a chore that ends in one of
//! both; and whatever comes again at once has fewer records to send than before, so that nothing goes round for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::Settled;
use forebay::failpoints::{self, Point};
use forebay::mutants::{self, Mutant};
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::asides::Aside;
use super::holds::Cause;
use super::{Busy, Epoch, Failure, Mark, Outcome, Worker};
use crate::causes;
use crate::delivery::apart::Apart;
use crate::delivery::attempt::{Came, Landed};
use crate::delivery::keeping::{Keeping, Unkept, keep};
use crate::delivery::load::Shape;
use crate::delivery::notes::{Lane, Note};
use crate::delivery::outcome::Partial;
use crate::delivery::poison::{Judgement, Piece, Ruling, Sender};
use crate::delivery::source::{BoxError, Ticket};

/// Why a record that is never taken is no letter.
const NO_ROOM: &str = "its dead letters have all the room that they may take: send them again, or purge them";

/// A flight that is over.
pub(super) struct Flown {
    pub(super) queue: Lane,
    /// The turn by which it came.
    pub(super) turn: usize,
    pub(super) epoch: Epoch,
    pub(super) begun: Mark,
    pub(super) landed: Landed,
}

/// A batch with the right to it.
pub(super) struct Batch {
    pub(super) queue: Lane,
    /// The turn by which it came.
    pub(super) turn: usize,
    pub(super) ticket: Box<dyn Ticket>,
    pub(super) shape: Shape,
}

/// Work on a batch that needs no request.
pub(super) enum Chore {
    Split(Split),
    /// Its letters are kept, these, and it is settled; or it went back.
    Kept {
        queue: Lane,
        turn: usize,
        shape: Shape,
        kept: Result<Apart, Unkept>,
    },
}

/// A batch was split at `at`, or not; then it is back whole.
pub(super) struct Split {
    queue: Lane,
    turn: usize,
    shape: Shape,
    at: u64,
    halved: Result<(), BoxError>,
}

/// Bytes of the batches whose letters are being kept: letters that lie nowhere yet want their room, too.
#[derive(Debug, Default)]
pub(super) struct KeepingBytes(Arc<AtomicU64>);

impl KeepingBytes {
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts so many, until what it returns is dropped: however its chore ends, by a panic as well.
    fn count(&self, bytes: u64) -> Counted {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { of: Arc::clone(&self.0), bytes }
    }
}

struct Counted {
    of: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Worker {
    /// A flight is over.
    pub(super) fn landed(&mut self, busy: &mut Busy, flown: Result<Flown, JoinError>) {
        let Flown { queue, turn, epoch, begun, landed } = match flown {
            Ok(flown) => flown,
            Err(panic) => {
                let why = Failure::Local(format!("the attempt stopped: {panic}"));
                return self.heard(busy, &Outcome::Retry { why }, self.pace.epoch());
            }
        };
        let Landed { ticket, shape, came, slow } = landed;
        if let Some(slow) = slow {
            self.memory.took_long(shape.bytes, slow);
        }
        let batch = Batch { queue, turn, ticket, shape };
        match came {
            // It goes back by the ticket's drop, to come again when its time has come.
            Came::Unsent => {}
            Came::Hindered(why) => self.again(busy, batch, &Outcome::Retry { why }, epoch),
            Came::Unencodable(why) => {
                busy.post.stats.failed(&Outcome::Retry { why: why.clone() }, self.common.clock.wall_ms());
                let apart = self.apart(&batch);
                self.rejected(busy, batch, apart, &why);
            }
            // It goes back, like the one before.
            Came::Sent { outcome: Some(Outcome::Retry { why: why @ Failure::Unread(_) }), .. } => {
                self.waits_alone(busy, turn, Some(batch.shape.offsets.start), &why);
            }
            Came::Sent { outcome, records, rejected, took } => {
                self.goes_on(busy, turn, Some(batch.shape.offsets.start));
                if let Some(told) = self.sink.allowance() {
                    self.pace.told(told.requests, told.until - self.common.began, busy.flights.len());
                }
                let mut apart = self.apart(&batch);
                apart.beforehand(&rejected);
                match outcome {
                    None => self.finish(busy, batch, apart),
                    Some(outcome) => {
                        self.answered(busy, batch, apart, outcome, Request { records, epoch, begun, took })
                    }
                }
            }
        }
    }

    /// The destination, or its sink, said something.
    fn answered(&mut self, busy: &mut Busy, batch: Batch, apart: Apart, outcome: Outcome, request: Request) {
        let epoch = request.epoch;
        if outcome != Outcome::Delivered || apart.len() > 0 {
            let note = self.memory.notes().make(batch.queue, &batch.shape.offsets);
            note.sends = note.sends.saturating_add(1);
        }
        let settles = |outcome: &Outcome| match outcome {
            Outcome::Throttled { .. } | Outcome::Retry { .. } => mutants::on(Mutant::FailureSettles),
            Outcome::Refused { .. } => mutants::on(Mutant::RefusalSettles),
            _ => false,
        };
        match outcome {
            outcome if settles(&outcome) => self.taken(busy, batch, apart, request),
            Outcome::Delivered => self.taken(busy, batch, apart, request),
            Outcome::Throttled { .. } | Outcome::Retry { .. } | Outcome::Refused { .. } => {
                self.again(busy, batch, &outcome, epoch);
            }
            Outcome::QueueRefused { ref why } => {
                self.heard_if_answered(busy, &outcome, epoch);
                self.hold(busy, batch.queue, Cause::Refuses, why);
                // Its return wakes us.
                drop(batch);
            }
            Outcome::TooLarge { ref why } => {
                self.heard_if_answered(busy, &outcome, epoch);
                self.too_large(busy, batch, apart, why);
            }
            Outcome::Rejected { ref why } => {
                self.heard_if_answered(busy, &outcome, epoch);
                self.rejected(busy, batch, apart, why);
            }
            Outcome::Partial(partial) => self.partial(busy, batch, apart, partial, request),
        }
    }

    /// Takes in an outcome, if it is the destination's word. What its sink decided by itself, without a request, says nothing
    /// of the destination: not that it takes anything, nor that it is there. Says which it is.
    fn heard_if_answered(&mut self, busy: &mut Busy, outcome: &Outcome, epoch: Epoch) -> bool {
        let answered = !matches!(outcome.failure(), Some(Failure::Local(_)));
        if answered {
            self.heard(busy, outcome, epoch);
        } else {
            busy.post.stats.failed(outcome, self.common.clock.wall_ms());
        }
        answered
    }

    /// It has all that was sent.
    fn taken(&mut self, busy: &mut Busy, batch: Batch, apart: Apart, request: Request) {
        busy.post.stats.delivered(request.records, self.common.clock.wall_ms());
        self.heard(busy, &Outcome::Delivered, request.epoch);
        self.pace.taken(request.records, request.took, request.epoch, self.now());
        self.memory.count_taken();
        self.lift(busy, batch.queue, None);
        let sender = self.sender(&batch);
        self.memory.poison().accepted(sender, request.begun, request.records);
        self.finish(busy, batch, apart);
        self.put_back_proven(busy);
        self.decide(busy);
    }

    /// It comes again as it is.
    fn again(&mut self, busy: &mut Busy, batch: Batch, outcome: &Outcome, epoch: Epoch) {
        // First learn to wait, then hand the batch back: its return wakes us.
        match outcome.failure() {
            Some(why) if self.fails_alone(&batch, outcome) => {
                busy.post.stats.failed(outcome, self.common.clock.wall_ms());
                self.hold(busy, batch.queue, Cause::Fails, why);
            }
            _ => self.heard(busy, outcome, epoch),
        }
        drop(batch);
    }

    fn too_large(&mut self, busy: &mut Busy, batch: Batch, mut apart: Apart, why: &Failure) {
        match (batch.shape.middle, why) {
            (Some(at), _) => {
                let mark = self.memory.poison().too_large();
                self.divide(busy, batch, at, mark);
            }
            // The sink knows it by itself: that is no word of the destination's, which might change.
            (None, Failure::Local(_)) => {
                apart.alone(batch.shape.first, why, false);
                self.finish(busy, batch, apart);
            }
            (None, _) => self.rejected(busy, batch, apart, why),
        }
    }

    /// It was never sent, for it takes too much memory to be encoded as a whole: no word of the destination's.
    pub(super) fn too_long(&mut self, busy: &mut Busy, batch: Batch, at: u64) {
        let mark = self.memory.poison().too_large();
        self.divide(busy, batch, at, mark);
    }

    /// All that was sent is rejected.
    fn rejected(&mut self, busy: &mut Busy, batch: Batch, mut apart: Apart, why: &Failure) {
        let (since, run) = self.note(&batch).map_or((None, None), |note| (note.since, note.run));
        let (lane, sender) = (batch.queue, self.sender(&batch));
        self.lift(busy, lane, Some(Cause::Rejects));
        let place = (lane.queue, batch.shape.offsets.start);
        let undecided = self.undecided(busy, sender);
        let piece = Piece { sender, place, alone: batch.shape.middle.is_none(), since, undecided };
        let Judgement { ruling, mut refuses } = self.memory.poison().rejected(piece);
        let bytes = busy.keeping.bytes() + batch.shape.bytes;
        let no_room = ruling == Ruling::Poison && !self.common.parking.has_room(&self.id, bytes);
        refuses |= no_room;
        match (ruling, batch.shape.middle) {
            (Ruling::Split(mark), Some(at)) => self.divide(busy, batch, at, mark),
            (ruling, _) => {
                if apart.fate(batch.shape.first).is_none() {
                    apart.alone(batch.shape.first, why, !matches!(why, Failure::Local(_)));
                }
                let note = self.memory.notes().take(batch.queue, &batch.shape.offsets).unwrap_or_default();
                let since = match ruling {
                    Ruling::Doubt(since) => Some(since),
                    _ => since,
                };
                let note = Note { since, run: run.or(since), apart, ..note };
                self.set_aside(busy, Aside { batch, note, poison: ruling == Ruling::Poison });
            }
        }
        if refuses {
            let full = no_room.then(|| Failure::Local(format!("{NO_ROOM} ({why})")));
            self.refuses(busy, (lane, sender), full.as_ref().unwrap_or(why));
        }
        self.decide(busy);
    }

    /// It tells the records apart.
    fn partial(&mut self, busy: &mut Busy, batch: Batch, before: Apart, partial: Partial, request: Request) {
        let Request { records, epoch, begun, .. } = request;
        let mut apart = before.clone();
        let shape = &batch.shape;
        let now_ms = self.common.clock.wall_ms();
        let (lane, sender) = (batch.queue, self.sender(&batch));
        if let Err(why) = apart.take_in(&partial, &shape.offsets, &shape.except, now_ms) {
            return self.again(busy, batch, &Outcome::Retry { why }, epoch);
        }
        let left = records.saturating_sub((partial.rejected.len() + partial.held.len()) as u64);
        let (why, held, rejected) = (partial.why.clone(), partial.held.len(), partial.rejected.len());
        let answered = self.heard_if_answered(busy, &Outcome::Partial(partial), epoch);
        if rejected == 0 && answered {
            // Who asks to wait with some records finds nothing wrong with them.
            self.memory.poison().accepted(sender, begun, 0);
            self.put_back_proven(busy);
        }
        if left == 0 && held == 0 && apart.held() == 0 {
            // Each by name, but all of them: that may be the destination as well.
            let apart = if batch.shape.middle.is_none() { apart } else { before };
            return self.rejected(busy, batch, apart, &why);
        }
        let undecided = self.undecided(busy, sender);
        if rejected > 0 && !self.memory.poison().allows(sender, apart.told_dead() + undecided, records) {
            match batch.shape.middle {
                Some(at) => {
                    let mark = self.memory.poison().too_large();
                    self.divide(busy, batch, at, mark);
                }
                None => drop(batch),
            }
            return self.refuses(busy, (lane, sender), &why);
        }
        if left == 0 || mutants::on(Mutant::PartialTakenWhole) {
            return self.finish(busy, batch, apart);
        }
        // Without these it comes again at once.
        self.memory.notes().make(batch.queue, &batch.shape.offsets).apart = apart;
    }

    /// Nothing of it is to be sent any more.
    pub(super) fn finish(&mut self, busy: &mut Busy, batch: Batch, apart: Apart) {
        let sender = self.sender(&batch);
        if apart.len() == 0 || mutants::on(Mutant::LettersNotAwaited) {
            self.memory.notes().take(batch.queue, &batch.shape.offsets);
            return failpoints::around(Point::Finish, || batch.ticket.settle(&[], Settled::Delivered));
        }
        self.memory.poison().parked(sender, apart.told_dead());
        let note = self.memory.notes().make(batch.queue, &batch.shape.offsets);
        (note.apart, note.kept_only) = (apart, true);
        self.keep(busy, batch);
    }

    /// Keeps what is apart from a batch, then settles it.
    pub(super) fn keep(&mut self, busy: &mut Busy, batch: Batch) {
        let Batch { queue, turn, ticket, shape } = batch;
        let note = self.memory.notes().make(queue, &shape.offsets);
        let (apart, sends, bytes) = (note.apart.clone(), note.sends, shape.bytes);
        let keeping = Keeping { destination: Arc::clone(&self.id), ticket, apart, bytes, sends };
        let (common, post, watched) = (Arc::clone(&self.common), Arc::clone(&busy.post), Arc::clone(&busy.post));
        let (id, clock) = (Arc::clone(&self.id), Arc::clone(&self.common.clock));
        let failed = move |why: &BoxError| {
            let why = format!("letters could not be kept: {}", causes::line(&**why));
            tracing::warn!(destination = %id, %why, "a batch waits for its letters");
            watched.stats.failed(&Outcome::Retry { why: Failure::Local(why) }, clock.wall_ms());
        };
        let counted = busy.keeping.count(bytes);
        busy.chores.spawn(async move {
            let _counted = counted;
            let kept = keep(common, keeping, || post.stopping(), failed).await;
            Chore::Kept { queue, turn, shape, kept }
        });
    }

    /// Splits a batch whose halves are under suspicion since `mark`.
    fn divide(&mut self, busy: &mut Busy, batch: Batch, at: u64, mark: Mark) {
        let note = self.memory.notes().make(batch.queue, &batch.shape.offsets);
        note.split_at = Some(at);
        note.run.get_or_insert(mark);
        note.since = Some(mark);
        self.split(busy, batch, at);
    }

    /// Splits a batch that is noted as one to be split.
    pub(super) fn split(&mut self, busy: &mut Busy, batch: Batch, at: u64) {
        let Batch { queue, turn, ticket, shape } = batch;
        let whole = self.memory.notes().make(queue, &shape.offsets).clone();
        for half in [shape.offsets.start..at, at..shape.offsets.end] {
            let apart = whole.apart.within(&half);
            let note = Note { since: whole.since, run: whole.run, sends: whole.sends, apart, ..Note::default() };
            *self.memory.notes().make(queue, &half) = note;
        }
        let (done, mut halved) = oneshot::channel();
        ticket.split(at, Box::new(move |result| drop(done.send(result))));
        if let Ok(halved) = halved.try_recv() {
            // Known before whoever can't be split comes again.
            return self.halved(busy, Split { queue, turn, shape, at, halved });
        }
        busy.chores.spawn(async move {
            let halved = halved.await.unwrap_or_else(|_| Err("the queue is closed".into()));
            Chore::Split(Split { queue, turn, shape, at, halved })
        });
    }

    /// A chore is done.
    pub(super) fn done(&mut self, busy: &mut Busy, chore: Result<Chore, JoinError>) {
        match chore {
            Ok(Chore::Split(split)) => self.halved(busy, split),
            Ok(Chore::Kept { kept: Err(Unkept::Stopping), .. }) => {}
            Ok(Chore::Kept { queue, turn, shape, kept: Ok(apart) }) => {
                self.memory.notes().take(queue, &shape.offsets);
                self.goes_on(busy, turn, Some(shape.offsets.start));
                let (held, dead) = (apart.held(), apart.len() - apart.held());
                busy.post.stats.kept(dead, held);
                if dead > 0 {
                    let first = apart.first_dead().map(|(offset, reason)| format!("offset {offset}: {reason}"));
                    let (destination, first) = (&*self.id, first.unwrap_or_default());
                    tracing::warn!(destination, records = dead, %first, "records were rejected and are dead letters now");
                }
            }
            // The batch is there again, and may go the same way: not at once.
            Ok(Chore::Kept { turn, shape, kept: Err(Unkept::Panicked(panic)), .. }) => {
                let why = Failure::Local(format!("keeping letters stopped: {panic}"));
                self.waits_alone(busy, turn, Some(shape.offsets.start), &why);
            }
            Err(panic) => {
                let why = Failure::Local(format!("keeping letters stopped: {panic}"));
                self.heard(busy, &Outcome::Retry { why }, self.pace.epoch());
            }
        }
        self.decide(busy);
    }

    /// A batch was split, or is back whole.
    fn halved(&mut self, busy: &mut Busy, split: Split) {
        let Split { queue, turn, shape, at, halved } = split;
        match halved {
            Ok(()) => {
                self.memory.notes().take(queue, &shape.offsets);
                self.goes_on(busy, turn, Some(shape.offsets.start));
            }
            Err(why) => {
                for half in [shape.offsets.start..at, at..shape.offsets.end] {
                    self.memory.notes().take(queue, &half);
                }
                let why = Failure::Local(format!("the batch could not be split: {}", causes::line(&*why)));
                self.waits_alone(busy, turn, Some(shape.offsets.start), &why);
            }
        }
    }

    /// How many records of the sender's are not decided on.
    fn undecided(&self, busy: &Busy, sender: Sender) -> u64 {
        busy.asides.count(|batch| self.sender(batch) == sender) as u64
    }

    /// What of the batch is apart from the rest already.
    fn apart(&self, batch: &Batch) -> Apart {
        self.note(batch).map(|note| note.apart.clone()).unwrap_or_default()
    }

    fn note(&self, batch: &Batch) -> Option<&Note> {
        self.memory.note(batch.queue, &batch.shape.offsets)
    }
}

/// What was sent, and when.
struct Request {
    records: u64,
    epoch: Epoch,
    begun: Mark,
    took: Duration,
}
