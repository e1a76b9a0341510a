//! Where the next record of a stream lies: in which segment, and where in it.
//!
//! Segments say whose frames they hold in their indexes only, which lie on disk. A stream's frames follow each other from
//! place to place, so a record far back is found by halving: a look at a segment that holds something of the stream tells on
//! which side of it the record lies. One that holds nothing of it tells nothing, and then the next look is nearer. So of a
//! stream that is in most segments few indexes are read, and of any other one not many more than lie between the tail and it.

use super::Reader;
use crate::log::catalog::Place;
use crate::log::index::FrameRef;
use crate::offset::Sequence;
use std::io;

/// A frame, the place of its segment, and the number of the segment's file.
pub(super) struct Found {
    pub(super) place: Sequence,
    pub(super) sequence: Sequence,
    pub(super) frame: FrameRef,
}

impl Reader {
    /// The frame that holds the next record, or the first one behind it.
    pub(super) fn find(&self) -> io::Result<Option<Found>> {
        if let Some(hint) = self.hint {
            return self.find_forward(hint);
        }
        // From where somebody was it is no more than from the tail, near which most are.
        let is_it = |found: &Found| found.frame.first <= self.next;
        let [upto, behind] = self.shared.places.around(self.stream, self.next).map(|near| near.map(next_place));
        let there =
            upto.and_then(|upto| self.shared.catalog_read().segment_between(None, upto, 1, self.stream, self.next));
        if let Some((place, known)) = there
            && let Ok((Some(found), _)) = self.resolve(place, known)
            && is_it(&found)
        {
            return Ok(Some(found));
        }
        if let Some(behind) = behind
            && let Ok(Some(found)) = self.find_backward(behind)
            && is_it(&found)
        {
            return Ok(Some(found));
        }
        self.find_backward(Sequence(u64::MAX))
    }

    fn find_forward(&self, from: Sequence) -> io::Result<Option<Found>> {
        let mut at = from;
        loop {
            let step = self.shared.catalog_read().next_segment(at, self.stream, self.next);
            let Some((place, known)) = step else { return Ok(None) };
            if let (Some(found), _) = self.resolve(place, known)? {
                return Ok(Some(found));
            }
            at = next_place(place);
        }
    }

    /// In segments before `before`: in longer and longer steps back, and by halving where it lies between two. What it comes by
    /// is remembered. An index that can't be read is an error only where there is no way around it.
    fn find_backward(&self, mut before: Sequence) -> io::Result<Option<Found>> {
        // Ours in `low` and below lies before the record; from `before` on nothing is asked any more.
        let (mut best, mut low, mut step) = (None, None, 1_u64);
        loop {
            let probe = self.shared.catalog_read().segment_between(low, before, step, self.stream, self.next);
            let Some((place, known)) = probe else { return Ok(best) };
            match self.resolve(place, known) {
                Ok((Some(found), _)) if found.frame.first <= self.next => return Ok(Some(found)),
                Ok((Some(found), _)) => {
                    (best, before) = (Some(found), place);
                    step = step.saturating_mul(2);
                }
                Ok((None, true)) => (low, step) = (Some(place), u64::MAX),
                Ok((None, false)) if step == 1 => before = place,
                Err(error) if step == 1 => return Err(error),
                Ok((None, false)) | Err(_) => step /= 2,
            }
            if let Some(Sequence(low)) = low {
                step = step.min((before.0 - low) / 2).max(1);
            }
        }
    }

    /// The frame, and whether the segment holds frames of this stream at all.
    fn resolve(&self, place: Sequence, known: Place) -> io::Result<(Option<Found>, bool)> {
        let (sequence, frame, holds_some) = match known {
            Place::Known(sequence, frame) => (sequence, frame, frame.is_some()),
            Place::OnDisk => {
                let Some(index) = self.shared.index(place)? else { return Ok((None, false)) };
                let first = index.locate(self.stream, 0);
                if let Some(first) = first
                    && self.hint != Some(place)
                {
                    self.shared.places.note(self.stream, first.first, place);
                }
                (index.header.sequence, index.locate(self.stream, self.next), first.is_some())
            }
        };
        Ok((frame.map(|frame| Found { place, sequence, frame }), holds_some))
    }
}

fn next_place(place: Sequence) -> Sequence {
    Sequence(place.0 + 1)
}
