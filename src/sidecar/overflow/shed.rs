//! How much of each of several backlogs goes, so that all together are no more than so much. Pure.
//!
//! The largest are cut to one level: who holds least loses last.

/// What goes of each.
pub(super) fn shed(backlogs: &[u64], most: u64) -> Vec<u64> {
    let all: u128 = backlogs.iter().map(|backlog| u128::from(*backlog)).sum();
    let Some(excess) = all.checked_sub(u128::from(most)) else { return vec![0; backlogs.len()] };
    let mut sorted = backlogs.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let (mut level, mut taller) = (0, 0);
    for (at, backlog) in (1u128..).zip(&sorted) {
        taller += u128::from(*backlog);
        // What is left of each of the tallest so far; below the next one, that is one of them, too.
        level = taller.saturating_sub(excess) / at;
        let next = sorted.get(usize::try_from(at).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        if taller >= excess && level >= u128::from(next) {
            break;
        }
    }
    let level = u64::try_from(level).unwrap_or(u64::MAX);
    backlogs.iter().map(|backlog| backlog.saturating_sub(level)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_are_cut_first() {
        assert_eq!(shed(&[100, 10, 40], 110), [40, 0, 0]);
        assert_eq!(shed(&[100, 10, 40], 60), [75, 0, 15]);
        assert_eq!(shed(&[100, 10, 40], 15), [95, 5, 35]);
        assert_eq!(shed(&[100, 10, 40], 150), [0, 0, 0]);
        assert_eq!(shed(&[], 0), [0; 0]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_may_be_and_nobody_above_another_is_spared(
            backlogs in prop::collection::vec(0..1_000_000u64, 1..12), most in 0..4_000_000u64,
        ) {
            let gone = shed(&backlogs, most);
            let left: Vec<u64> = backlogs.iter().zip(&gone).map(|(backlog, gone)| backlog - gone).collect();
            let sum: u64 = left.iter().sum();
            let all: u64 = backlogs.iter().sum();
            prop_assert!(sum <= most || gone.iter().all(|gone| *gone == 0) && all <= most);
            prop_assert!(sum + backlogs.len() as u64 >= all.min(most), "no more than must: rounded to bytes");
            let cut = left.iter().zip(&gone).filter(|(_, gone)| **gone > 0).map(|(left, _)| *left).max();
            if let Some(cut) = cut {
                prop_assert!(left.iter().all(|left| *left <= cut), "{left:?}");
            }
        }
    }
}
