//! Where a stream's older frames lie, as far as somebody came by: a reader that has no place of its own need not look through
//! the indexes of all that is newer, as often as it asks.
//!
//! Remembers, and decides nothing. What always holds: frames from a remembered offset on lie at the remembered place or
//! behind it. It was so when it was seen, and frames only ever move to later places.

use crate::offset::{Sequence, StreamId};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Places that are remembered at most, of all streams: 3 MB. All are forgotten when there are more.
const PLACES_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the first offset there.
    streams: HashMap<StreamId, BTreeMap<u64, Sequence>>,
    count: usize,
}

impl Places {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's first frame at `place` begins with the record `first`.
    pub(crate) fn note(&self, stream: StreamId, first: u64, place: Sequence) {
        let mut known = self.known();
        let before = known.streams.get(&stream).and_then(|at| at.get(&first)).copied();
        if before >= Some(place) {
            return;
        }
        if before.is_none() {
            if known.count == PLACES_MAX {
                *known = Known::default();
            }
            known.count += 1;
        }
        known.streams.entry(stream).or_default().insert(first, place);
    }

    /// The places next to a record: the last one from which it lies here or behind, and the first one that begins behind it.
    /// There is only the one or the other where nobody came by beyond it.
    pub(crate) fn around(&self, stream: StreamId, offset: u64) -> [Option<Sequence>; 2] {
        let known = self.known();
        let Some(places) = known.streams.get(&stream) else { return [None; 2] };
        let before = places.range(..=offset).next_back();
        let behind = places.range((Bound::Excluded(offset), Bound::Unbounded)).next();
        [before, behind].map(|place| place.map(|(_, place)| *place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(3);

    #[test]
    fn a_record_lies_between_the_places_next_to_it() {
        let places = Places::default();
        assert_eq!(places.around(STREAM, 5), [None; 2]);
        for (first, place) in [(10, 1), (20, 2), (40, 5)] {
            places.note(STREAM, first, Sequence(place));
        }
        let around = [9, 10, 19, 20, 40].map(|offset| places.around(STREAM, offset).map(|place| place.map(|at| at.0)));
        let expected = [[None, Some(1)], [Some(1), Some(2)], [Some(1), Some(2)], [Some(2), Some(5)], [Some(5), None]];
        assert_eq!(around, expected);
        assert_eq!(places.around(StreamId(4), 15), [None; 2]);
    }

    #[test]
    fn frames_that_moved_are_known_at_their_later_place() {
        let places = Places::default();
        places.note(STREAM, 40, Sequence(9));
        for place in [1, 3, 2] {
            places.note(STREAM, 10, Sequence(place));
        }
        assert_eq!(places.around(STREAM, 10), [Some(Sequence(3)), Some(Sequence(9))]);
    }

    #[test]
    fn there_are_not_more_than_the_limit() {
        let places = Places::default();
        for n in 0..=PLACES_MAX as u64 {
            places.note(StreamId((n % 7) as u32), n, Sequence(n));
            places.note(StreamId((n % 7) as u32), n, Sequence(n));
        }
        assert_eq!(places.known().count, 1, "and begins anew");
        assert_eq!(places.known().streams.values().map(BTreeMap::len).sum::<usize>(), 1);
    }
}
