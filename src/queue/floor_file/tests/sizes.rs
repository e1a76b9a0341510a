//! How much room a floor takes: its entries, its places, its marks, and the next floor.

use super::*;
use crate::SyncedMark;
use crate::queue::floor_file::Extra;

#[test]
fn an_entry_is_as_long_as_it_says_whatever_it_holds() {
    let end = crate::queue::balance::End { offset: 9, bytes: 900 };
    let mut marked = Marked::default();
    marked.add(MarkedRange { start: 0, end: 1, start_bytes: 0, bytes: 100, at_ms: 7 });
    let extras = [
        None,
        Some(Extra::Replayed(Replayed { replays: 3, ..Replayed::default() })),
        Some(Extra::Marked(Replayed::default(), marked)),
        Some(Extra::Replay { again: true, redrive: false, end }),
    ];
    for extra in extras {
        for ranges in [0, 1, 7, 256] {
            let entry = FloorEntry { extra: extra.clone().map(Box::new), ..entry(1, 5, ranges) };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(bytes.len(), entry.encoded_len(), "{ranges} ranges, {extra:?}");
        }
    }
}

#[test]
fn a_floor_has_a_place_for_each_page_but_the_first_and_gives_a_place_again() {
    let mut floor = new_floor(Arc::new(fresh_disk()));
    let one = entry(0, 0, 0);
    let ids: Vec<_> = (0..65_535).map(|_| floor.add(one.clone()).expect("room")).collect();
    assert_eq!(floor.add(one.clone()), None);
    floor.remove(ids[7]);
    assert_eq!((floor.add(one.clone()), floor.add(one)), (Some(ids[7]), None));
}

#[test]
fn marks_move_with_their_segments_and_the_newest_are_kept() {
    let mark = |sequence, position| SyncedMark { sequence: Sequence(sequence), position };
    let mut floor = new_floor(Arc::new(fresh_disk()));
    floor.add_synced(vec![mark(5, 10), mark(3, 77)]);
    floor.add_synced(vec![mark(3, 90)]);
    assert_eq!(floor.synced(), [mark(3, 90), mark(5, 10)]);
    (0..3).for_each(|_| _ = floor.commit().expect("memory writes"));
    floor.add_synced(vec![mark(5, 10)]);
    assert_eq!(floor.commit().expect("memory writes"), Committed::default(), "nothing new");
    (10..80).for_each(|n| floor.add_synced(vec![mark(n, 1)]));
    assert_eq!((floor.synced().len(), floor.synced()[0]), (64, mark(16, 1)));
}

#[test]
fn room_for_the_next_floor_is_twice_as_long_and_is_looked_for_now_and_then() {
    let plays = Plays::on(&fresh_disk());
    let mut floor = new_floor(Arc::new(plays.clone()));
    let id = floor.add(entry(0, 1, 0)).expect("room");
    floor.commit().expect("the disk is sound");
    let len = |name: &str| plays.disk.open(&dir().join(name)).ok().map(|file| file.len().expect("memory"));
    let whole = 4 * 2 * FLOOR_SLOT_BYTES as u64;
    assert_eq!((len("floor"), len("floor.new")), (Some(whole), Some(2 * whole)));
    // It takes the place of a floor that failed; and on a full disk there is no next one.
    floor.set(id, entry(0, 2, 0));
    plays.fail_syncs(1);
    floor.commit().expect_err("the sync failed");
    plays.full.store(true, Ordering::SeqCst);
    floor.commit().expect("there is room for this one");
    assert_eq!((len("floor"), len("floor.new")), (Some(whole), None));
    plays.full.store(false, Ordering::SeqCst);
    for n in 0..600 {
        floor.set(id, entry(0, 3 + n, 0));
        floor.commit().expect("the disk is sound");
        assert_eq!(len("floor.new"), None, "commit {n}");
    }
    floor.set(id, entry(0, 999, 0));
    floor.commit().expect("the disk is sound");
    assert_eq!(len("floor.new"), Some(2 * whole));
}
