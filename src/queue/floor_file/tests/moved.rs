//! An entry that two pages have: it was moved, and a crash came between the rounds.

use super::*;

#[test]
fn the_newer_home_of_an_entry_holds_whichever_of_the_two_is_met_first() {
    for (newer, older) in [(1, 2), (2, 1)] {
        let disk = floor_of([]);
        let write = |page: u32, generations: [u64; 2], entries: [&[FloorEntry]; 2]| {
            for (slot, (generation, entries)) in (page as usize * 2..).zip(generations.into_iter().zip(entries)) {
                let header = Header { page, pages: 4, generation, log_id: LOG, pinned: false };
                overwrite(&disk, slot * FLOOR_SLOT_BYTES, &page::encode(header, entries.iter()));
            }
        };
        let (moved, beside, left) = (entry(0, 20, 0), entry(1, 7, 0), entry(2, 5, 0));
        let before = [entry(0, 10, 0), left.clone()];
        write(older, [50, 51], [&before, &before]);
        write(newer, [52, 60], [std::slice::from_ref(&beside), &[moved.clone(), beside.clone()]]);
        let all_of_it = vec![moved, beside, left];

        let (mut floor, disk) = load_on_a_full_disk(&disk);
        assert_eq!(all(&floor), all_of_it);
        assert_eq!(floor.single, BTreeSet::from([newer as usize]), "one slot of that page has it, and no other");
        assert!(!floor.commit().expect("the disk is sound").whole);
        // In both slots of its page by now, and in none of the other.
        for slot in [2, 3, 4, 5] {
            let disk = fresh_copy(&vec![(dir().join(FLOOR_NAME), bytes_of(&disk, FLOOR_NAME))]);
            overwrite(&disk, slot * FLOOR_SLOT_BYTES, &[0xEE; FLOOR_SLOT_BYTES]);
            let (floor, damage) = load(&disk);
            assert_eq!((damage, all(&floor)), (vec![], all_of_it.clone()), "without slot {slot}");
        }
    }
}
