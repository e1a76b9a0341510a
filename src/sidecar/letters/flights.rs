//! What is under way from a destination's held shelf, in memory. Pure.
//!
//! What always holds: a letter is in one place here at most, from the moment when it is read to be sent until it is
//! settled or handed back; what was handed back comes again in the same groups, so that whoever sends them knows them
//! again. One that was sent alone has no group to keep: it goes back to those that are due, and is in no place here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use forebay::{LogId, Settled, StreamId};

use super::Shelf;
use super::doubts::Whence;
use super::packed::Packed;

/// Letters in flight at most: each may leave a settled range of its own until it touches another.
const IN_FLIGHT_MAX: usize = 1024;

/// Whose records letters are: a stream of a log is of one sender.
pub(super) type Sender = (LogId, StreamId);

/// See the module.
#[derive(Default)]
pub(super) struct Flights {
    /// Due, and read.
    ready: VecDeque<(u64, Packed)>,
    /// Read again, on their way from a group to a claim.
    rising: BTreeSet<u64>,
    /// Claimed: by offset on the shelf.
    claimed: BTreeMap<u64, Whence>,
    /// The same by record: the offset, its batch's id, and whether it was held first.
    by_whence: HashMap<Whence, (u64, Arc<str>, bool)>,
    /// Batches that were handed back, and halves of those that were split.
    groups: VecDeque<Group>,
    /// Whose letters wait while others' go on, and until when at least.
    off: BTreeMap<Sender, Off>,
    /// Gone, and not settled for want of room: what they are to be settled as.
    late: BTreeMap<(Shelf, u64), Settled>,
}

/// A sender whose letters wait.
#[derive(Debug, Default)]
struct Off {
    until_ms: u64,
    /// Where those lie that were read meanwhile, and maybe others between them.
    passed_over: Option<Range<u64>>,
}

/// Letters that go as one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The batch's id. A half has that of its first letter.
    pub(super) id: Option<Arc<str>>,
    /// Where they lie on the shelf.
    pub(super) places: Vec<u64>,
    /// The offsets of their records, and maybe of others between and beside them: what the loop knows the batch by.
    pub(super) span: Range<u64>,
}

impl Flights {
    /// The letter of this record that is in flight: its offset on the shelf, its batch's id, and whether it was held
    /// first.
    pub(super) fn letter_of(&self, whence: &Whence) -> Option<(u64, Arc<str>, bool)> {
        self.by_whence.get(whence).cloned()
    }

    /// Whether the letter at this offset is claimed, about to be, or gone though it is not settled.
    pub(super) fn holds(&self, offset: u64) -> bool {
        self.claimed.contains_key(&offset)
            || self.rising.contains(&offset)
            || self.ready.iter().any(|(ready, _)| *ready == offset)
            || self.groups.iter().any(|group| group.places.contains(&offset))
            || self.is_late(Shelf::Held, offset)
    }

    /// There was no room to settle these: they are gone all the same.
    pub(super) fn late(&mut self, shelf: Shelf, offsets: impl IntoIterator<Item = u64>, as_: Settled) {
        self.late.extend(offsets.into_iter().map(|offset| ((shelf, offset), as_)));
    }

    /// These, as runs.
    pub(super) fn all_late(&self) -> Vec<(Shelf, Range<u64>, Settled)> {
        let mut runs: Vec<(Shelf, Range<u64>, Settled)> = Vec::new();
        for (&(shelf, offset), &as_) in &self.late {
            match runs.last_mut() {
                Some((of, run, all)) if (*of, run.end, *all) == (shelf, offset, as_) => run.end += 1,
                _ => runs.push((shelf, offset..offset + 1, as_)),
            }
        }
        runs
    }

    /// These are settled at last.
    pub(super) fn no_longer_late(&mut self, shelf: Shelf, offsets: impl IntoIterator<Item = u64>) {
        offsets.into_iter().for_each(|offset| _ = self.late.remove(&(shelf, offset)));
    }

    /// Whether any of a shelf is to be settled as that.
    pub(super) fn has_late(&self, shelf: Shelf, as_: Settled) -> bool {
        self.late.iter().any(|(&(of, _), &late)| (of, late) == (shelf, as_))
    }

    /// On which shelf each lies that was moved and still counts there.
    pub(super) fn moved_late(&self) -> impl Iterator<Item = Shelf> {
        let moved = |as_: &Settled| matches!(as_, Settled::DeadLettered | Settled::Held);
        self.late.iter().filter(move |(_, as_)| moved(as_)).map(|((shelf, _), _)| *shelf)
    }

    pub(super) fn is_late(&self, shelf: Shelf, offset: u64) -> bool {
        self.late.contains_key(&(shelf, offset))
    }

    pub(super) fn has_room(&self) -> bool {
        let in_groups: usize = self.groups.iter().map(|group| group.places.len()).sum();
        self.claimed.len() + self.rising.len() + self.ready.len() + in_groups < IN_FLIGHT_MAX
    }

    /// Whether something can be claimed without reading what is due.
    pub(super) fn waits(&self) -> bool {
        !self.ready.is_empty() || !self.groups.is_empty()
    }

    /// This sender's letters wait, or no longer: then this says where those lie that were passed over. What was read of them
    /// is to be given up before.
    pub(super) fn put_off(&mut self, sender: Sender, until_ms: Option<u64>) -> Option<Range<u64>> {
        match until_ms {
            Some(until_ms) => {
                self.off.entry(sender).or_default().until_ms = until_ms;
                None
            }
            None => self.off.remove(&sender)?.passed_over,
        }
    }

    /// The letter at this offset was read. Until when its sender's wait at least, if they do: then it is passed over.
    pub(super) fn pass_over(&mut self, sender: Sender, offset: u64) -> Option<u64> {
        let off = self.off.get_mut(&sender)?;
        let before = off.passed_over.take().unwrap_or(offset..offset + 1);
        off.passed_over = Some(before.start.min(offset)..before.end.max(offset + 1));
        Some(off.until_ms)
    }

    /// These are due, and were read.
    pub(super) fn make_ready(&mut self, letters: Vec<(u64, Packed)>) {
        self.ready.extend(letters);
    }

    /// Claims the first letter that is ready, and those of its stream and environment with it.
    pub(super) fn claim_ready(&mut self, records_max: u64, bytes_max: u64) -> Vec<(u64, Packed)> {
        let Some((_, first)) = self.ready.front() else { return Vec::new() };
        let key = |letter: &Packed| (letter.origin().log, letter.origin().stream, letter.environment());
        let (key_of_first, mut bytes) = (key(first), 0);
        let (mut taken, mut left) = (Vec::<(u64, Packed)>::new(), VecDeque::new());
        for (offset, letter) in std::mem::take(&mut self.ready) {
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
        self.ready = left;
        self.claim(&taken);
        taken
    }

    /// Takes the next group that was handed back, to be read again and [claimed](Self::claim_risen).
    pub(super) fn raise_group(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.rising.extend(&group.places);
        Some(group)
    }

    /// Claims what is left of a group that was raised.
    pub(super) fn claim_risen(&mut self, group: &Group, letters: &[(u64, Packed)]) {
        for place in &group.places {
            self.rising.remove(place);
        }
        self.claim(letters);
    }

    fn claim(&mut self, letters: &[(u64, Packed)]) {
        for (offset, letter) in letters {
            self.claimed.insert(*offset, letter.whence());
            self.by_whence.insert(letter.whence(), (*offset, letter.batch_id.as_str().into(), letter.first_held));
        }
    }

    /// The letter at this offset is done with, or goes back.
    pub(super) fn let_go(&mut self, offset: u64) {
        self.rising.remove(&offset);
        let Some(whence) = self.claimed.remove(&offset) else { return };
        if self.by_whence.get(&whence).is_some_and(|(of, _, _)| *of == offset) {
            self.by_whence.remove(&whence);
        }
    }

    /// A batch comes again as it is, but for those of it that are gone.
    pub(super) fn hand_back(&mut self, mut group: Group, is_gone: impl Fn(&Self, u64) -> bool) {
        group.places.iter().for_each(|&offset| self.let_go(offset));
        group.places.retain(|&offset| !is_gone(self, offset));
        if !group.places.is_empty() {
            self.groups.push_back(group);
        }
    }

    /// Gives up what was read ahead: where those letters lie. Of a destination that fails nothing is kept in memory.
    pub(super) fn give_up_ready(&mut self) -> Vec<u64> {
        self.ready.drain(..).map(|(offset, _)| offset).collect()
    }

    /// The same, and the groups with it: another loop makes its own, and finds out for itself who has to wait.
    pub(super) fn give_up(&mut self) -> Vec<u64> {
        self.off.clear();
        let mut places = self.give_up_ready();
        places.extend(self.groups.drain(..).flat_map(|group| group.places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: u64) -> Packed {
        Packed { stream: 1, offset, batch_id: format!("batch-{offset}"), record: vec![0; 10], ..Packed::default() }
    }

    /// Between two locks a letter was in no place, and could be read again, or moved, while it was being sent.
    #[test]
    fn a_letter_is_in_one_place_from_when_it_is_read_until_it_is_done_with() {
        let mut flights = Flights::default();
        flights.make_ready((0..3).map(|at| (at, letter(at + 100))).collect());
        let taken = flights.claim_ready(2, u64::MAX);
        assert_eq!(taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1]);
        assert!((0..3).all(|at| flights.holds(at)));
        assert_eq!(flights.letter_of(&taken[1].1.whence()).unwrap().0, 1);
        let group = Group { id: Some("batch-100".into()), places: vec![0, 1], span: 100..102 };
        flights.hand_back(group.clone(), |_, _| false);
        assert!(flights.holds(0) && flights.letter_of(&taken[1].1.whence()).is_none());
        assert_eq!(flights.raise_group(), Some(group.clone()));
        assert!(flights.holds(0) && flights.holds(1), "it is being read again");
        assert_eq!(flights.raise_group(), None);
        flights.claim_risen(&group, &taken[1..]);
        assert!(!flights.holds(0) && flights.holds(1), "the other one is gone meanwhile");
        flights.let_go(1);
        assert!(!flights.holds(1) && flights.waits(), "one is ready");
        assert_eq!(flights.give_up(), [2]);
        assert!(!flights.holds(2) && !flights.waits());
    }

    #[test]
    fn groups_count_for_what_may_be_in_flight() {
        let mut flights = Flights::default();
        let places: Vec<u64> = (0..IN_FLIGHT_MAX as u64).collect();
        flights.hand_back(Group { id: None, places, span: 0..1 }, |_, at| at == 0);
        assert!(flights.has_room(), "one of them is gone");
        flights.make_ready(vec![(5000, letter(1))]);
        assert!(!flights.has_room());
    }
}
