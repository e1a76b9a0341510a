//! Which entry lies on which page. Pure: knows lengths and numbers, no bytes and no file.
//!
//! Pages are filled to three quarters, so that an entry whose cursor grows ranges mostly stays where it is.

use super::page::ENTRIES_BYTES_MAX;
use crate::queue::limits::FLOOR_PAGES_MAX;

/// A page is filled up to here by entries that are new to it.
const FILL_BYTES: usize = ENTRIES_BYTES_MAX / 4 * 3;

/// Pages of the smallest file, page 0 among them.
const PAGES_MIN: usize = 4;

/// The entries of each page, by number. Page 0 has none.
pub(super) type Placement = Vec<Vec<u32>>;

/// Places all entries anew, with as many pages again left free.
pub(super) fn place_all(entries: &[u32], len_of: impl Fn(u32) -> usize) -> Placement {
    assert!(entries.len() < FLOOR_PAGES_MAX, "checked when an entry is added: even one a page, they fit");
    let mut pages: Placement = vec![Vec::new(), Vec::new()];
    let mut used = 0;
    for &id in entries {
        let len = len_of(id);
        if used > 0 && used + len > FILL_BYTES {
            pages.push(Vec::new());
            used = 0;
        }
        used += len;
        pages.last_mut().expect("two at least").push(id);
    }
    pages.resize((pages.len() * 2).clamp(PAGES_MIN, FLOOR_PAGES_MAX), Vec::new());
    pages
}

/// Moves entries that outgrew their pages, and places those that have none, on other pages than those they came from.
/// Returns the pages that received an entry and those that lost one, or `None` when a larger file is needed.
pub(super) fn rearrange(
    pages: &mut Placement,
    changed: impl Iterator<Item = usize>,
    mut homeless: Vec<u32>,
    len_of: impl Fn(u32) -> usize,
) -> Option<Moves> {
    let mut moves = Moves::default();
    for page in changed {
        let mut used: usize = pages[page].iter().map(|id| len_of(*id)).sum();
        while used > ENTRIES_BYTES_MAX {
            // The longest goes: one move makes the most room.
            let at = (0..pages[page].len()).max_by_key(|at| len_of(pages[page][*at])).expect("it holds something");
            let id = pages[page].remove(at);
            used -= len_of(id);
            homeless.push(id);
            moves.givers.push(page);
        }
    }
    let mut page = 1;
    for id in homeless {
        let len = len_of(id);
        let fits = |page: usize| {
            let used: usize = pages[page].iter().map(|id| len_of(*id)).sum();
            !moves.givers.contains(&page) && (used == 0 || used + len <= FILL_BYTES)
        };
        // Go on where the last one went: a thousand new entries do not start a thousand searches.
        page = (page..pages.len()).chain(1..page).find(|page| fits(*page))?;
        pages[page].push(id);
        moves.takers.push(page);
    }
    Some(moves)
}

/// The pages that entries moved between. May name a page twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) takers: Vec<usize>,
    pub(super) givers: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_one_page_and_pages_keep_room_to_grow() {
        let pages = place_all(&(0..1_000).collect::<Vec<_>>(), |id| 150 + id as usize % 100);
        let mut all: Vec<u32> = pages.concat();
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<u32>>());
        assert!(pages[0].is_empty());
        assert!(pages.iter().all(|page| page.iter().map(|id| 150 + *id as usize % 100).sum::<usize>() <= FILL_BYTES));
        assert!(pages[pages.len() / 2..].iter().all(Vec::is_empty), "half is free");
    }

    #[test]
    fn the_longest_entry_leaves_a_page_that_overflows_and_goes_where_there_is_room() {
        let mut pages = vec![vec![], vec![0, 1, 2], vec![3], vec![]];
        let len_of = |id| [4_000, 5_000, 4_000, 5_000][id as usize];
        let moves = rearrange(&mut pages, [1, 2].into_iter(), vec![], len_of).expect("page 3 is free");
        assert_eq!(moves, Moves { takers: vec![3], givers: vec![1] });
        assert_eq!(pages, [vec![], vec![0, 2], vec![3], vec![1]]);
    }

    #[test]
    fn without_room_a_larger_file_is_asked_for() {
        let mut pages = vec![vec![], vec![0], vec![1]];
        assert_eq!(rearrange(&mut pages, [].into_iter(), vec![2], |_| 6_000), None);
    }

    #[test]
    fn pages_are_filled_up_to_the_mark_and_no_further() {
        assert_eq!((ENTRIES_BYTES_MAX, FILL_BYTES), (12_238, 9_177));
        let third = FILL_BYTES / 3; // nothing is left over
        assert_eq!(place_all(&[0, 1, 2, 3], |_| third)[1..], [vec![0, 1, 2], vec![3], vec![], vec![], vec![]]);
        let placed = place_all(&[0, 1, 2, 3], |id| third + usize::from(id == 0));
        assert_eq!(placed[1..3], [vec![0, 1], vec![2, 3]], "a byte more");
        let mut full = vec![vec![], vec![0, 1], vec![], vec![]];
        assert_eq!(
            rearrange(&mut full, [1].into_iter(), vec![], |_| ENTRIES_BYTES_MAX / 2),
            Some(Moves::default()),
            "it fits"
        );
        let mut two = vec![vec![], vec![0, 1], vec![]];
        assert_eq!(rearrange(&mut two, [].into_iter(), vec![2], |_| third).map(|moves| moves.takers), Some(vec![1]));
        let mut two = vec![vec![], vec![0, 1], vec![]];
        let moves = rearrange(&mut two, [].into_iter(), vec![2], |id| third + usize::from(id == 2));
        assert_eq!(moves.map(|moves| moves.takers), Some(vec![2]));
    }
}
