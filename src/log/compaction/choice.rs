//! Which segments are worth writing anew without what nobody needs. Pure: sees sizes, touches nothing.
//!
//! A run is neighbours of one class whose live frames fit one segment. Of all runs that give enough back the one is chosen
//! that gives back most for each byte that is copied. One of which nothing is needed is no run: there is nothing to copy, and its
//! segments go by themselves, when what keeps them is gone.

use crate::offset::Sequence;

/// A segment as a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its place in the order of the log.
    pub(crate) place: Sequence,
    /// Bytes of its file; of a compact one without its header.
    pub(crate) file_bytes: u64,
    /// Bytes of its frames that somebody needs; `None` where it is not known, or where it must not be touched: it parts what
    /// lies before it from what lies behind.
    pub(crate) live: Option<u64>,
}

/// What is worth rewriting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thrift {
    /// A file is rewritten when it is larger than so many hundredths of its live bytes: so the disk holds at most that much of
    /// what is needed in files that were looked at.
    pub(crate) worth: u64,
    /// A run gives back one part of its files in so many, or more.
    pub(crate) gain: u64,
    /// Files are looked at also when nobody needs as much as one part in so many of the disk's last tenth.
    pub(crate) last_tenth: Option<u64>,
}

impl Thrift {
    /// As ever: a quarter more than what is needed may lie there. A whole segment with that much gives back a fifth.
    pub(crate) const USUAL: Self = Self { worth: 125, gain: 5, last_tenth: None };

    /// On a short disk: what is left of it must not go to what nobody needs, though more is copied for less. It is for those who keep
    /// up, and of a small disk less than a tenth of what is needed.
    pub(crate) const SHORT: Self = Self { worth: 110, gain: 11, last_tenth: Some(4) };
}

/// A run gives back one part of a segment in so many at least: a file is made, synced and renamed for it. Small enough that what
/// lies between segments that are left as they are is little beside them.
const GAIN_LEAST: u64 = 128;

/// Below a quarter of a segment a file goes along with its neighbours though nearly all of it is needed: one file less.
const SMALL: u64 = 4;

/// The best run: its first and last place. `room` is what the frames of a segment may take. `segments` are all of a class, in
/// order.
pub(crate) fn best(segments: &[Candidate], room: u64, thrift: Thrift) -> Option<(Sequence, Sequence)> {
    let mut best: Option<(Run, Sequence, Sequence)> = None;
    let mut at = 0;
    while at < segments.len() {
        let mut run = Run::default();
        let from = at;
        while let Some(next) = segments.get(at).and_then(|segment| run.with(segment, room, thrift.worth)) {
            run = next;
            at += 1;
        }
        if at == from {
            at += 1; // not to be touched, or not worth it
            continue;
        }
        let gain_min = (run.file_bytes / thrift.gain).max(room / GAIN_LEAST).max(1);
        // Nothing but what is reclaimed anyway would be the best of all, and with it no other run would ever have its turn.
        let is_worth_it = run.live > 0 && run.gain() >= gain_min;
        if is_worth_it && best.as_ref().is_none_or(|(other, ..)| run.is_better_than(other)) {
            best = Some((run, segments[from].place, segments[at - 1].place));
        }
    }
    best.map(|(_, first, last)| (first, last))
}

/// Sizes of neighbours together.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    file_bytes: u64,
    live: u64,
}

impl Run {
    /// The run and the segment behind it, if it may and should go along.
    fn with(self, segment: &Candidate, room: u64, worth: u64) -> Option<Self> {
        let live = segment.live?;
        let worth = segment.file_bytes * 100 > live * worth || segment.file_bytes * SMALL <= room;
        let together = Self { file_bytes: self.file_bytes + segment.file_bytes, live: self.live + live };
        (worth && together.live <= room).then_some(together)
    }

    fn gain(&self) -> u64 {
        self.file_bytes.saturating_sub(self.live)
    }

    /// More is given back for each byte that is copied, or as much of a larger run.
    fn is_better_than(&self, other: &Self) -> bool {
        let mine = u128::from(self.gain()) * u128::from(other.live.max(1));
        let theirs = u128::from(other.gain()) * u128::from(self.live.max(1));
        (mine, self.gain()) > (theirs, other.gain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segments(live: &[Option<u64>]) -> Vec<Candidate> {
        let of =
            |(n, live): (usize, &Option<u64>)| Candidate { place: Sequence(n as u64), file_bytes: 1_000, live: *live };
        live.iter().enumerate().map(of).collect()
    }

    fn chosen(live: &[Option<u64>]) -> Option<(u64, u64)> {
        best(&segments(live), 1_000, Thrift::USUAL).map(|(first, last)| (first.0, last.0))
    }

    #[test]
    fn neighbours_with_little_that_is_needed_become_one() {
        assert_eq!(chosen(&[Some(10), Some(10), Some(10)]), Some((0, 2)));
        assert_eq!(chosen(&[Some(900), Some(10), Some(10), Some(900)]), Some((1, 2)), "full ones are left alone");
        assert_eq!(chosen(&[Some(400), Some(400), Some(400)]), Some((0, 1)), "what does not fit waits");
    }

    /// Before: two of them did not fit one segment, and one alone was not worth it, so the disk held 1.6 of what was needed.
    #[test]
    fn a_segment_of_which_a_bit_more_than_half_is_needed_is_worth_it_alone() {
        assert_eq!(chosen(&[Some(620), Some(600), Some(620)]), Some((1, 1)));
        assert_eq!(chosen(&[Some(790), Some(810)]), Some((0, 0)));
        assert_eq!(chosen(&[Some(810), Some(900)]), None, "four fifths and more are left as they are");
        let short = |live| best(&segments(&[Some(live)]), 1_000, Thrift::SHORT).is_some();
        assert!(short(900) && !short(910), "save on a short disk");
    }

    /// Before: a run had to give back a fifth of a whole segment, so a small compact one between two that are left as they are
    /// stayed though nobody needed any of it, and the disk held 1.5 of what was needed.
    #[test]
    fn a_small_segment_between_full_ones_is_worth_it_for_its_size() {
        let of = |place, file_bytes, live| Candidate { place: Sequence(place), file_bytes, live: Some(live) };
        let between = |small| {
            let chosen = best(&[of(0, 1_000, 810), small, of(2, 1_000, 810)], 1_000, Thrift::USUAL);
            chosen.map(|(first, last)| (first.0, last.0))
        };
        assert_eq!(between(of(1, 300, 110)), Some((1, 1)));
        assert_eq!(between(of(1, 199, 1)), Some((1, 1)));
        assert_eq!(between(of(1, 300, 250)), None, "four fifths of it are needed");
        assert_eq!(between(of(1, 6, 4)), None, "not for so little");
    }

    #[test]
    fn a_small_segment_goes_along_though_nearly_all_of_it_is_needed() {
        let of = |place, file_bytes, live| Candidate { place: Sequence(place), file_bytes, live: Some(live) };
        let beside = |small| best(&[of(0, 1_000, 100), small, of(2, 1_000, 100)], 1_000, Thrift::USUAL);
        assert_eq!(beside(of(1, 250, 249)), Some((Sequence(0), Sequence(2))), "one file less");
        assert_eq!(beside(of(1, 251, 250)), Some((Sequence(0), Sequence(0))), "it is not small");
    }

    #[test]
    fn what_is_unknown_or_pinned_parts_a_run() {
        assert_eq!(chosen(&[Some(10), None, Some(10), Some(10)]), Some((2, 3)));
        assert_eq!(chosen(&[None, None]), None);
        assert_eq!(chosen(&[]), None);
    }

    /// Before: a run of which nothing was needed was chosen in each round, as it gives back most, and came to nothing.
    #[test]
    fn what_nobody_needs_any_of_keeps_no_other_run_from_its_turn() {
        assert_eq!(chosen(&[Some(0), Some(0), None, Some(10), Some(10)]), Some((3, 4)));
        assert_eq!(chosen(&[Some(0), Some(0)]), None, "it is reclaimed");
        assert_eq!(chosen(&[Some(0), Some(10), Some(0)]), Some((0, 2)), "and goes along with its neighbours");
    }

    #[test]
    fn the_most_is_given_back_for_what_is_copied() {
        assert_eq!(chosen(&[Some(500), None, Some(5), None, Some(300)]), Some((2, 2)));
    }

    proptest! {
        #[test]
        fn a_run_is_of_neighbours_fits_and_gives_back_what_it_must(
            live in prop::collection::vec(prop::option::of(0..1_000u64), 0..40), gain in 2..900u64, worth in 101..200u64,
        ) {
            let (segments, gain_min) = (segments(&live), (1_000 / gain).max(1_000 / GAIN_LEAST));
            if let Some((first, last)) = best(&segments, 1_000, Thrift { worth, gain, last_tenth: None }) {
                let run = &segments[first.0 as usize..=last.0 as usize];
                let kept: u64 = run.iter().map(|segment| segment.live.expect("only what is known")).sum();
                prop_assert!((1..=1_000).contains(&kept) && run.len() as u64 * 1_000 - kept >= gain_min);
            } else {
                let is_worth_it = |live: u64| live > 0 && 1_000 * 100 > live * worth && 1_000 - live >= gain_min;
                let worth = live.iter().flatten().any(|live| is_worth_it(*live));
                prop_assert!(!worth, "one alone would have been worth it");
            }
        }

        /// Whatever sizes lie beside each other. What nobody needs any of stays where it is: what keeps it keeps nothing else.
        #[test]
        fn where_nothing_is_worth_it_the_disk_holds_little_more_than_is_needed(
            segments in prop::collection::vec((1..=1_000u64, prop_oneof![1 => Just(0), 4 => 1..=100u64]), 0..60),
        ) {
            let of = |(n, &(file_bytes, percent)): (usize, &(u64, u64))| {
                Candidate { place: Sequence(n as u64), file_bytes, live: Some(file_bytes * percent / 100) }
            };
            let mut segments: Vec<Candidate> = segments.iter().enumerate().map(of).collect();
            // As compaction does until it has nothing to do.
            while let Some((first, last)) = best(&segments, 1_000, Thrift::USUAL) {
                let run = (first.0 as usize)..=(last.0 as usize);
                let live: u64 = segments[run.clone()].iter().filter_map(|segment| segment.live).sum();
                prop_assert!(live > 0, "{first:?}..={last:?} comes to nothing, and is the best ever after");
                segments.splice(run, [Candidate { place: first, file_bytes: live, live: Some(live) }]);
                segments.iter_mut().enumerate().for_each(|(n, segment)| segment.place = Sequence(n as u64));
            }
            let of_use = segments.iter().filter(|segment| segment.live != Some(0));
            let held: u64 = of_use.map(|segment| segment.file_bytes).sum();
            let needed: u64 = segments.iter().filter_map(|segment| segment.live).sum();
            prop_assert!(held * 10 <= needed * 13 + 10_000, "{held} bytes for {needed}: {segments:?}");
        }
    }
}
