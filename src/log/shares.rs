//! Fair shares of the disk: who goes on appending when it runs short.
//!
//! Pure. What a stream holds is told in short_disk.rs. From nine tenths of the budget on those that hold most are above their
//! share, and only they: the less is left of the last tenth, the lower is the level that each may hold. So the one that
//! holds most is refused first and the others go on; they are refused, in the order of what they hold, only as the last tenth
//! goes too. A stream that keeps up holds nothing, and is never above any level.
//!
//! ```text
//!   held by     ####
//!   each        ####             a third of the last tenth is gone: a third of all that is held is too much, and that
//!               ---------- level is what the largest have above the level. They are refused until they have
//!               #### ###         drained to it, or the disk is no longer short
//!               #### ### #
//! ```

/// How much a stream may hold before it is refused, when `left` is what is left of `all` the room that is for a short disk.
/// `None` when nobody is to be refused.
pub(crate) fn level(mut held: Vec<u64>, left: u64, all: u64) -> Option<u64> {
    let total: u128 = held.iter().copied().map(u128::from).sum();
    if left >= all || total == 0 {
        return None;
    }
    let mut room = total * u128::from(left) / u128::from(all);
    held.sort_unstable();
    // Each with as many as have not had their room yet, itself among them.
    let others = (1..=held.len() as u128).rev();
    held.into_iter().map(u128::from).zip(others).find_map(|(held, others)| {
        if held * others > room {
            return Some(u64::try_from(room / others).expect("less than one of them holds"));
        }
        room -= held;
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_less_is_left_the_lower_is_the_level_and_the_largest_are_above_it_first() {
        assert_eq!(level(vec![10, 10, 3, 1], 12, 12), None, "the disk is not short");
        assert_eq!(level(vec![10, 10, 3, 1], 9, 12), Some(7));
        assert_eq!(level(vec![10, 10, 3, 1], 3, 12), Some(1));
        assert_eq!(level(vec![10, 10, 3, 1], 0, 12), Some(0), "who keeps up has no more than that");
        assert_eq!(level(vec![5, 5], 11, 12), Some(4), "equals are above it together");
        assert_eq!(level(vec![0, 0], 1, 12), None, "whose fault it is nobody can say");
    }

    proptest! {
        #[test]
        fn cut_to_the_level_all_fit_and_whoever_has_no_more_than_an_equal_share_is_below_it(
            backlogs in prop::collection::vec(0..1_000_000u64, 1..50), left in 0..=100u64,
        ) {
            let total: u64 = backlogs.iter().sum();
            let room = u128::from(total) * u128::from(left) / 100;
            match level(backlogs.clone(), left, 100) {
                None => prop_assert!(left == 100 || total == 0),
                Some(level) => {
                    let cut: u128 = backlogs.iter().map(|backlog| u128::from((*backlog).min(level))).sum();
                    prop_assert!(cut <= room && room - cut < backlogs.len() as u128);
                    prop_assert!(backlogs.iter().any(|backlog| *backlog > level), "somebody is above it");
                    prop_assert!(u128::from(level) >= room / backlogs.len() as u128, "an equal share is below it");
                }
            }
        }

        #[test]
        fn the_level_only_falls_as_less_is_left(backlogs in prop::collection::vec(0..1_000u64, 1..20), left in 1..=100u64) {
            let of = |left| level(backlogs.clone(), left, 100).unwrap_or(u64::MAX);
            prop_assert!(of(left - 1) <= of(left));
        }
    }
}
