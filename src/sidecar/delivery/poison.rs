//! Whose fault a rejection is: the record's, or the destination's. Pure; counts answers, knows no clock.
//!
//! A receiver that is misconfigured rejects everything, and then nothing is wrong with the records. So a record is
//! poison only if it is rejected alone *after* the destination took something else that was sent after the rejection
//! of the piece it came from; until then it is in doubt, and kept. And poison is rare: more of it than
//! the allowance, or two halves of one piece that fail whole with nothing taken in between, and it is the destination that
//! refuses.
//!
//! Where the streams of a destination are of different senders, each of them is judged by its own answers alone: a sender
//! whose records are bad is no reason to take the destination for one that refuses, nor to let others' records go.

use std::collections::{BTreeMap, VecDeque};

use forebay::{LogId, StreamId};

/// So many records are looked back on.
const RECENT_RECORDS: u64 = 10_000;

/// They are counted in heaps of this many.
const HEAP_RECORDS: u64 = 1_000;

/// So many rejected records are never too many: a new destination has no past to be judged by.
const ALLOWANCE_LEAST: u64 = 3;

/// One in so many records may be poison.
const ALLOWANCE_ONE_IN: u64 = 100;

/// A moment in the order of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// Where a batch begins: the queue and the first offset.
pub(super) type Place = (usize, u64);

/// Whose answers are judged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sender {
    /// All that the destination is sent is of one sender.
    All,
    /// Each stream is of another.
    Stream(LogId, StreamId),
}

/// What the answers of one destination say about it.
#[derive(Debug, Default)]
pub(super) struct Poison {
    /// Of all senders: so each moment is another.
    answers: u64,
    by_sender: BTreeMap<Sender, Answers>,
}

/// What the answers to one sender's records say.
#[derive(Debug, Default)]
struct Answers {
    /// When the latest request was begun that was accepted.
    accepted: Option<Mark>,
    /// Of pieces that were rejected at a moment: the half that was rejected whole since.
    failed_halves: BTreeMap<Mark, Place>,
    recent: Recent,
}

/// A batch, or a part of one, that was rejected whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Whose it is.
    pub(super) sender: Sender,
    /// Where it begins.
    pub(super) place: Place,
    /// It is one record.
    pub(super) alone: bool,
    /// When the piece was rejected of which it is a half; or itself, if it was rejected alone before.
    pub(super) since: Option<Mark>,
    /// Records of its sender that are rejected alone and not yet decided on, without this one.
    pub(super) undecided: u64,
}

/// What follows from the rejection of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is to be split in halves, which are under suspicion since this moment.
    Split(Mark),
    /// It is one record, and may be good: to be sent again after the destination took something.
    Doubt(Mark),
    /// It is one record, and poison.
    Poison,
}

/// A ruling, and whether the destination is to be taken for one that refuses what this sender sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) ruling: Ruling,
    pub(super) refuses: bool,
}

impl Poison {
    /// The moment now: for a request that begins.
    pub(super) fn now(&self) -> Mark {
        Mark(self.answers)
    }

    /// A request of this sender that began at `begun` was accepted, with so many records.
    pub(super) fn accepted(&mut self, sender: Sender, begun: Mark, records: u64) {
        let answers = self.by_sender.entry(sender).or_default();
        answers.accepted = answers.accepted.max(Some(begun));
        answers.failed_halves.retain(|since, _| *since > begun);
        answers.recent.add(records, 0);
    }

    /// A piece was rejected whole.
    pub(super) fn rejected(&mut self, piece: Piece) -> Judgement {
        let mark = self.answered();
        let answers = self.by_sender.entry(piece.sender).or_default();
        let other_half = piece.since.and_then(|since| answers.failed_halves.insert(since, piece.place));
        let both_halves = other_half.is_some_and(|other| other != piece.place) && !answers.proven(piece.since);
        if !piece.alone {
            return Judgement { ruling: Ruling::Split(mark), refuses: both_halves };
        }
        let ruling = match piece.since {
            Some(since) if answers.proven(Some(since)) => Ruling::Poison,
            since => Ruling::Doubt(since.unwrap_or(mark)),
        };
        Judgement { ruling, refuses: both_halves || !answers.recent.allows(piece.undecided + 1, 1) }
    }

    /// A piece is larger than the destination takes: that says nothing of what is in it. Its halves are under suspicion
    /// since the moment that this returns, in case that one of them is a record which is too large.
    pub(super) fn too_large(&mut self) -> Mark {
        self.answered()
    }

    /// Whether something of this sender's was taken that was sent after this moment.
    pub(super) fn proven(&self, sender: Sender, since: Option<Mark>) -> bool {
        self.by_sender.get(&sender).is_some_and(|answers| answers.proven(since))
    }

    /// Whether `rejected` records of this sender may be poison, of `records` that are not counted yet.
    pub(super) fn allows(&self, sender: Sender, rejected: u64, records: u64) -> bool {
        let none = Recent::default();
        let recent = self.by_sender.get(&sender).map_or(&none, |answers| &answers.recent);
        recent.allows(rejected, records)
    }

    /// So many records of this sender were found to be poison, and are out of the way.
    pub(super) fn parked(&mut self, sender: Sender, records: u64) {
        self.by_sender.entry(sender).or_default().recent.add(records, records);
    }

    /// An operator vouches for the destination: what was rejected before counts no more.
    pub(super) fn forgive(&mut self) {
        self.by_sender.values_mut().for_each(|answers| answers.recent = Recent::default());
    }

    fn answered(&mut self) -> Mark {
        self.answers += 1;
        Mark(self.answers)
    }
}

impl Answers {
    fn proven(&self, since: Option<Mark>) -> bool {
        since.is_some_and(|since| self.accepted.is_some_and(|accepted| accepted >= since))
    }
}

/// The last records: at least [`RECENT_RECORDS`] of them, if there were so many.
#[derive(Debug, Default)]
struct Recent {
    /// Records, and how many of them were rejected.
    heaps: VecDeque<(u64, u64)>,
    records: u64,
    rejected: u64,
}

impl Recent {
    fn allows(&self, rejected: u64, records: u64) -> bool {
        self.rejected + rejected <= self.allowance(records)
    }

    /// How many of the recent records, and `more`, may be poison.
    fn allowance(&self, more: u64) -> u64 {
        let records = (self.records + more).min(RECENT_RECORDS);
        (records / ALLOWANCE_ONE_IN).max(ALLOWANCE_LEAST)
    }

    fn add(&mut self, records: u64, rejected: u64) {
        match self.heaps.back_mut() {
            Some(heap) if heap.0 < HEAP_RECORDS => *heap = (heap.0 + records, heap.1 + rejected),
            _ => self.heaps.push_back((records, rejected)),
        }
        (self.records, self.rejected) = (self.records + records, self.rejected + rejected);
        while let Some(&(records, rejected)) = self.heaps.front()
            && self.records - records >= RECENT_RECORDS
        {
            self.heaps.pop_front();
            (self.records, self.rejected) = (self.records - records, self.rejected - rejected);
        }
    }
}

#[cfg(test)]
mod tests;
