//! Offsets of a batch that are not to be sent, as ranges: a filter may leave out a million records, and those of one flag
//! lie side by side. Pure.
//!
//! What always holds: the ranges ascend, none is empty and no two touch; so the same offsets are always the same ranges.

use std::ops::Range;
use std::sync::Arc;

/// Offsets that are not to be sent. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Except(Arc<[Range<u64>]>);

impl Except {
    /// All that is in one of these, which may come in any order and overlap.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<Range<u64>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        Self(ranges.into())
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut others = others.into_iter().peekable();
        match others.peek() {
            Some(_) => Self::of(self.0.iter().cloned().chain(others)),
            None => self.clone(),
        }
    }

    /// The offsets as ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The offsets one by one, ascending.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        self.0.iter().cloned().flatten()
    }

    /// Whether everything is to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many records are not to be sent.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether the record at this offset is not to be sent.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        self.0[self.ends_by(offset)..].first().is_some_and(|range| range.start <= offset)
    }

    /// What of `offsets` is to be sent, ascending.
    pub fn rest_of(&self, offsets: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = offsets.start;
        let reaching = self.0[self.ends_by(offsets.start)..].iter().cloned();
        let within = reaching
            .take_while(move |range| range.start < offsets.end)
            .chain(std::iter::once(offsets.end..offsets.end));
        within.filter_map(move |hole| {
            let sent = from..hole.start;
            from = from.max(hole.end);
            (!sent.is_empty()).then_some(sent)
        })
    }

    /// How many of the ranges end at this offset or before.
    fn ends_by(&self, offset: u64) -> usize {
        self.0.partition_point(|range| range.end <= offset)
    }
}

/// Single offsets, in any order.
impl<const N: usize> From<[u64; N]> for Except {
    fn from(offsets: [u64; N]) -> Self {
        Self::of(offsets.map(|offset| offset..offset + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set of numbers.
        #[test]
        fn ranges_say_what_their_offsets_say(
            some in prop::collection::vec((0u64..60, 0u64..6), 0..12),
            more in prop::collection::vec((0u64..60, 0u64..6), 0..4),
            asked in (0u64..70, 0u64..30),
        ) {
            let ranges = |pairs: &[(u64, u64)]| pairs.iter().map(|&(at, n)| at..at + n).collect::<Vec<_>>();
            let (some, more) = (ranges(&some), ranges(&more));
            let except = Except::of(some.clone()).and(more.clone());
            let all: BTreeSet<u64> = some.into_iter().chain(more).flatten().collect();
            prop_assert!(except.ranges().windows(2).all(|two| two[0].end < two[1].start), "{except:?}");
            prop_assert_eq!(except.offsets().collect::<Vec<_>>(), all.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((except.records(), except.is_empty()), (all.len() as u64, all.is_empty()));
            prop_assert!((0..70).all(|at| except.contains(at) == all.contains(&at)));
            let asked = asked.0..asked.0 + asked.1;
            let rest: Vec<Range<u64>> = except.rest_of(asked.clone()).collect();
            prop_assert!(rest.windows(2).all(|two| two[0].end < two[1].start), "{rest:?}");
            let wanted: Vec<u64> = asked.filter(|at| !all.contains(at)).collect();
            prop_assert_eq!(rest.into_iter().flatten().collect::<Vec<_>>(), wanted);
        }
    }
}
