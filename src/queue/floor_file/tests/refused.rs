//! A floor whose disk refuses a part of what is asked of it, and a page that must not be written in place.

use super::*;
use crate::disk::refusing::Refusing;

/// What the floor says of itself when the slots with these numbers cannot be read.
fn read_without(disk: &MemDisk, slots: std::ops::Range<usize>) -> (FloorFile, Result<Vec<FloorDamage>, FloorError>) {
    let (mut floor, _) = FloorFile::load(Arc::new(fresh_disk()), &dir()).expect("there is none");
    let file = disk.open(&dir().join(FLOOR_NAME)).expect("it is there");
    let at = |slot: usize| (slot * FLOOR_SLOT_BYTES) as u64;
    let read = floor.read(&Refusing::at(file, at(slots.start)..at(slots.end)), &dir().join(FLOOR_NAME));
    (floor, read)
}

/// It may be read with the next try; what is called lost now is lost for good.
#[test]
fn a_page_of_which_no_slot_can_be_read_is_no_damage_but_a_floor_that_cannot_be_used_now() {
    let entries: Vec<_> = (0..100).map(|n| entry(n, 10, 2)).collect();
    let disk = floor_of(entries.clone());
    for slot in 2..4 {
        let (floor, damage) = read_without(&disk, slot..slot + 1);
        assert_eq!((damage.expect("the other slot is sound"), all(&floor)), (vec![], entries.clone()), "slot {slot}");
    }
    let error = read_without(&disk, 2..4).1.expect_err("page 1 is needed");
    assert!(matches!(error, FloorError::Io { what: "read", .. }), "{error}");
}

#[test]
fn a_damaged_floor_is_replaced_also_where_no_copy_of_it_can_be_kept() {
    let disk = floor_of((0..100).map(|n| entry(n, 10, 2)));
    overwrite(&disk, 2 * FLOOR_SLOT_BYTES + 100, &[0xEE; 13_000]);
    disk.create_dir(&dir().join(EVIDENCE_NAME)).expect("nothing has the name");
    let (mut floor, damage) = load(&disk);
    let left = all(&floor);
    assert_eq!((damage, left.is_empty()), (vec![FloorDamage::Page { page: 1 }], false));
    floor.commit().expect("the disk is sound");
    let (floor, damage) = load(&disk);
    assert_eq!((damage, floor.is_pinned(), all(&floor)), (vec![], true, left));
}

/// A page of which both slots are to hold what is new is written first, and in place: an entry that leaves it in that very commit
/// would be nowhere in between.
#[test]
fn an_entry_leaves_no_page_that_is_written_first() {
    for held in [false, true] {
        let mut entries: Vec<_> = (0..100).map(|n| entry(n, 10, 2)).collect();
        let disk = floor_of(entries.clone());
        let mut floor = load_and_commit(&disk);
        let (id, _) = floor.entries().next().expect("a hundred");
        if held {
            floor.hold_fast(id);
        }
        entries[0] = entry(0, 20, 200);
        floor.set(id, entries[0].clone());
        let done = floor.commit().expect("the disk is sound");
        assert_eq!(done.whole, held, "{done:?}");
        let (floor, damage) = load(&disk);
        assert_eq!((damage, all(&floor)), (vec![], entries));
    }
}
