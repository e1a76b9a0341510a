//! What becomes of each record of a range: one way to settle for most of it, others for parts.
//!
//! Pure. What always holds: the pieces of a range are in order, do not overlap, and are all of it.

use crate::queue::balance::Settled;
use std::ops::Range;

/// How the records of a range settle.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// In order, apart from each other.
    parts: Vec<(Range<u64>, Settled)>,
    /// Everything else.
    rest: Settled,
}

impl Verdict {
    /// `parts` in any order; of two that overlap the one that begins first has what they share.
    pub(crate) fn new(parts: &[(Range<u64>, Settled)], rest: Settled) -> Self {
        let mut sorted = parts.to_vec();
        sorted.sort_by_key(|(part, _)| part.start);
        let mut end = 0;
        for (part, _) in &mut sorted {
            part.start = part.start.max(end);
            end = end.max(part.end);
        }
        sorted.retain(|(part, _)| !part.is_empty());
        Self { parts: sorted, rest }
    }

    /// The pieces of `offsets`, each of which settles in one way.
    pub(super) fn pieces(&self, offsets: Range<u64>) -> Vec<(Range<u64>, Settled)> {
        let mut pieces = Vec::new();
        let mut from = offsets.start;
        let first = self.parts.partition_point(|(part, _)| part.end <= from);
        for (part, as_) in &self.parts[first..] {
            if part.start >= offsets.end || from >= offsets.end {
                break;
            }
            if from < part.start {
                pieces.push((from..part.start, self.rest));
            }
            let until = part.end.min(offsets.end);
            pieces.push((from.max(part.start)..until, *as_));
            from = until;
        }
        if from < offsets.end {
            pieces.push((from..offsets.end, self.rest));
        }
        pieces
    }
}

impl From<Settled> for Verdict {
    fn from(rest: Settled) -> Self {
        Self { parts: Vec::new(), rest }
    }
}

#[cfg(test)]
mod tests {
    use super::Settled::{DeadLettered, Delivered, Filtered};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_parts_leave_out_is_the_rest() {
        let verdict = Verdict::new(&[(7..9, DeadLettered), (3..4, Filtered)], Delivered);
        let all = [(0..3, Delivered), (3..4, Filtered), (4..7, Delivered), (7..9, DeadLettered), (9..10, Delivered)];
        assert_eq!(verdict.pieces(0..10), all);
        assert_eq!(verdict.pieces(8..9), [(8..9, DeadLettered)]);
        assert_eq!(verdict.pieces(4..7), [(4..7, Delivered)]);
        assert_eq!(verdict.pieces(5..5), []);
    }

    proptest! {
        #[test]
        fn pieces_are_all_of_a_range_once_and_in_order(
            parts in prop::collection::vec((0..60u64, 0..20u64), 0..8),
            range in (0..60u64, 0..60u64),
        ) {
            let parts: Vec<_> = parts.iter().map(|(start, len)| (*start..start + len, DeadLettered)).collect();
            let verdict = Verdict::new(&parts, Delivered);
            let mut at = range.0;
            for (piece, as_) in verdict.pieces(range.0..range.0 + range.1) {
                prop_assert!(piece.start == at && piece.end > at);
                let named = piece.clone().all(|offset| parts.iter().any(|(part, _)| part.contains(&offset)));
                let unnamed = piece.clone().all(|offset| !parts.iter().any(|(part, _)| part.contains(&offset)));
                prop_assert!((as_ == DeadLettered && named) || (as_ == Delivered && unnamed));
                at = piece.end;
            }
            prop_assert_eq!(at, range.0 + range.1);
        }
    }
}
