//! Two read positions in one window.

use super::*;
use Position::{Backlog, Live, Only};

/// Claims up to so many fresh records at a position.
fn take_at(window: &mut Window, position: Position, tail: u64, records: u64) -> Range<u64> {
    let Offer::Fresh(run) = window.offer(position, tail) else { panic!("{:?}", window.offer(position, tail)) };
    let offsets = run.start..run.end.min(run.start + records);
    assert!(window.claim(position, offsets.clone(), Marks::default()));
    offsets
}

fn parted_at(low: u64, at: u64) -> Window {
    let mut window = window_at(low);
    window.part(End { offset: at, bytes: total(at) });
    window
}

#[test]
fn what_came_since_is_handed_out_beside_what_waits_and_each_record_once() {
    let mut window = parted_at(10, 100);
    assert_eq!((window.offer(Live, 100), window.offer(Backlog, 100)), (Offer::Nothing, Offer::Fresh(10..100)));
    assert_eq!(take_at(&mut window, Live, 130, 20), 100..120);
    assert_eq!(take_at(&mut window, Backlog, 130, 1_000), 10..100, "it ends where live begins");
    assert_eq!((window.offer(Live, 130), window.offer(Backlog, 130)), (Offer::Fresh(120..130), Offer::Nothing));
    assert_eq!(window.offer(Only, 130), Offer::Fresh(120..130));
}

#[test]
fn what_is_given_back_comes_again_where_it_lies() {
    let mut window = parted_at(0, 100);
    let (old, new) = (take_at(&mut window, Backlog, 200, 10), take_at(&mut window, Live, 200, 10));
    assert!(window.release(&old) && window.release(&new));
    assert_eq!(window.offer(Backlog, 200), Offer::Again { offsets: old, plan: None });
    assert_eq!(window.offer(Live, 200), Offer::Again { offsets: new.clone(), plan: None });
    // Parted anew behind it: it is old by now.
    window.part(End { offset: 200, bytes: total(200) });
    window.settle(0..10, Settled::Delivered, known);
    assert_eq!(window.offer(Backlog, 250), Offer::Again { offsets: new, plan: None });
    assert_eq!(window.offer(Live, 250), Offer::Fresh(200..250));
}

#[test]
fn plans_that_a_crash_left_are_of_the_position_in_whose_reach_they_begin() {
    let mut window = window_at(0);
    for (n, offsets) in [10..20, 95..105, 150..160].into_iter().enumerate() {
        window.adopt(offsets, Plan { offset: n as u64, revision: 0 });
    }
    window.part(End { offset: 100, bytes: total(100) });
    let plan = |offset| Some(Plan { offset, revision: 0 });
    assert_eq!(window.offer(Live, 200), Offer::Again { offsets: 150..160, plan: plan(2) });
    assert!(window.claim(Live, 150..160, Marks::default()));
    assert_eq!(window.offer(Live, 200), Offer::Fresh(105..150), "not what the plan of another has");
    assert_eq!(window.offer(Backlog, 200), Offer::Again { offsets: 10..20, plan: plan(0) });
    assert!(window.claim(Backlog, 10..20, Marks::default()));
    assert_eq!(window.offer(Backlog, 200), Offer::Again { offsets: 95..105, plan: plan(1) });
}

#[test]
fn what_live_settles_is_one_range_and_the_positions_are_one_when_they_meet() {
    let mut window = parted_at(0, 100);
    while let Offer::Fresh(_) = window.offer(Live, 1_000) {
        let batch = take_at(&mut window, Live, 1_000, 7);
        window.settle(batch, Settled::Delivered, known);
        assert_eq!(window.cursor().settled.len(), 1);
    }
    assert!(window.parted_at().is_some());
    window.settle(0..100, Settled::Delivered, known);
    assert_eq!((window.offer(Live, 1_010), window.parted_at()), (Offer::Nothing, None));
    assert_eq!(window.offer(Backlog, 1_010), Offer::Fresh(1_000..1_010), "all there is");
}

#[test]
fn a_place_to_part_moves_forward_only_and_never_below_what_is_settled() {
    let mut window = parted_at(50, 50);
    assert!(window.parted_at().is_none(), "nothing waits below");
    window.part(End { offset: 100, bytes: total(100) });
    window.part(End { offset: 90, bytes: total(90) });
    assert_eq!(window.parted_at().map(|at| at.offset), Some(100));
}

#[test]
fn a_full_window_keeps_live_waiting_until_the_batch_at_the_low_mark_is_settled() {
    let mut window = parted_at(0, 10_000);
    let low = take_at(&mut window, Backlog, 20_000, 1);
    let mut live = Vec::new();
    while let Offer::Fresh(_) = window.offer(Live, 20_000) {
        live.push(take_at(&mut window, Live, 20_000, 10));
    }
    assert_eq!((window.offer(Live, 20_000), window.offer(Backlog, 20_000)), (Offer::Full, Offer::Full));
    // Every other one: no two of them make one range.
    live.iter().step_by(2).for_each(|batch| _ = window.settle(batch.clone(), Settled::Delivered, known));
    assert_eq!(window.offer(Live, 20_000), Offer::Full);
    window.settle(low, Settled::Delivered, known);
    assert_eq!(window.offer(Backlog, 20_000), Offer::Fresh(1..10_000), "at the low mark there is always room");
    live.iter().for_each(|batch| _ = window.settle(batch.clone(), Settled::Delivered, known));
    assert!(matches!(window.offer(Live, 20_000), Offer::Fresh(_)));
}

#[test]
fn what_is_given_up_for_damage_is_fresh_again_where_it_lies() {
    let mut window = parted_at(0, 100);
    let (old, new) = (take_at(&mut window, Backlog, 200, 10), take_at(&mut window, Live, 200, 10));
    assert_eq!((window.offer(Backlog, 200), window.offer(Live, 200)), (Offer::Fresh(10..100), Offer::Fresh(110..200)));
    window.dissolve(&new);
    assert_eq!((window.offer(Backlog, 200), window.offer(Live, 200)), (Offer::Fresh(10..100), Offer::Fresh(100..200)));
    window.dissolve(&old);
    assert_eq!((window.offer(Backlog, 200), window.offer(Live, 200)), (Offer::Fresh(0..100), Offer::Fresh(100..200)));
}

#[test]
fn what_is_pending_at_either_position_adds_up_to_what_is_pending() {
    let mut window = parted_at(0, 100);
    window.settle(10..20, Settled::Delivered, known);
    window.settle(90..130, Settled::Delivered, known);
    window.settle(140..150, Settled::Delivered, known);
    let tail = End { offset: 200, bytes: total(200) };
    let at = |position| pending_at(window.cursor(), window.parted_at(), position, tail);
    assert_eq!(at(Live).records, 60);
    assert_eq!(at(Live).bytes, total(140) - total(130) + total(200) - total(150));
    assert_eq!(at(Live) + at(Backlog), at(Only));
    assert_eq!(at(Only), window.cursor().pending(tail));
    assert_eq!(pending_at(window.cursor(), None, Live, tail), Count::default());
    assert_eq!(pending_at(window.cursor(), None, Backlog, tail), at(Only));
}
