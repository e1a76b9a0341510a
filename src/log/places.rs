//! Where a stream's older frames lie, as far as somebody came by: a reader that has no place of its own need not look through
//! the indexes of all that is newer, as often as it asks.
//!
//! Remembers, and decides nothing: where to look first. Frames move to later places; whoever does not find there what it looks
//! for looks everywhere.

use crate::offset::{Sequence, StreamId};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Places that are remembered at most, of all streams: 3 MB. All are forgotten when there are more.
const PLACES_MAX: usize = 1 << 16;

/// By stream, and by the first offset there.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<BTreeMap<(StreamId, u64), Sequence>>);

impl Places {
    fn known(&self) -> MutexGuard<'_, BTreeMap<(StreamId, u64), Sequence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's first frame at `place` begins with the record `first`.
    pub(crate) fn note(&self, stream: StreamId, first: u64, place: Sequence) {
        let mut known = self.known();
        let before = known.get(&(stream, first)).copied();
        if before.is_none() && known.len() == PLACES_MAX {
            known.clear();
        }
        if before < Some(place) {
            known.insert((stream, first), place);
        }
    }

    /// The last place that begins with a record or before it, and the first one that begins behind it, as far as somebody came by:
    /// it lies in the one or between them.
    pub(crate) fn around(&self, stream: StreamId, offset: u64) -> [Option<Sequence>; 2] {
        let known = self.known();
        let upto = known.range((stream, 0)..=(stream, offset)).next_back();
        let beyond = (Bound::Excluded((stream, offset)), Bound::Included((stream, u64::MAX)));
        [upto, known.range(beyond).next()].map(|near| near.map(|(_, place)| *place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(3);

    #[test]
    fn a_record_lies_between_the_places_around_it() {
        let places = Places::default();
        assert_eq!(places.around(STREAM, 5), [None, None]);
        for (first, place) in [(10, 1), (20, 2), (40, 5)] {
            places.note(STREAM, first, Sequence(place));
        }
        let around = [9, 10, 19, 20, 39, 40].map(|offset| places.around(STREAM, offset));
        let (one, two, five) = (Some(Sequence(1)), Some(Sequence(2)), Some(Sequence(5)));
        assert_eq!(around, [[None, one], [one, two], [one, two], [two, five], [two, five], [five, None]]);
        assert_eq!((places.around(StreamId(2), 15), places.around(StreamId(4), 15)), ([None; 2], [None; 2]));
    }

    #[test]
    fn frames_that_moved_are_known_at_their_later_place() {
        let places = Places::default();
        for place in [1, 3, 2] {
            places.note(STREAM, 10, Sequence(place));
        }
        assert_eq!(places.around(STREAM, 9), [None, Some(Sequence(3))]);
    }

    #[test]
    fn there_are_not_more_than_the_limit() {
        let places = Places::default();
        for n in 0..=PLACES_MAX as u64 {
            places.note(StreamId((n % 7) as u32), n, Sequence(n));
            places.note(StreamId((n % 7) as u32), n, Sequence(n));
        }
        assert_eq!(places.known().len(), 1, "and begins anew");
    }
}
