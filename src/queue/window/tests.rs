use super::*;
use crate::queue::balance::{Count, End, Settled};

mod changed;
mod model;
mod position;

/// A running total that is neither even nor zero at the start.
fn total(offset: u64) -> u64 {
    1_000 + offset * 7 + offset % 3
}

fn known(offset: u64) -> Option<u64> {
    Some(total(offset))
}

fn window_at(low: u64) -> Window {
    Window::new(Cursor::at(low, total(low)), Books::from(low, total(low)))
}

/// Claims `records` fresh records.
fn take(window: &mut Window, tail: u64, records: u64) -> Range<u64> {
    let Offer::Fresh(range) = window.offer(Position::Only, tail) else {
        panic!("nothing fresh: {:?}", window.offer(Position::Only, tail))
    };
    let offsets = range.start..range.end.min(range.start + records);
    assert!(window.claim(Position::Only, offsets.clone(), Marks::default()));
    offsets
}

#[test]
fn batches_settle_out_of_order_and_the_low_mark_follows_the_oldest() {
    let mut window = window_at(0);
    let batches: Vec<_> = (0..4).map(|_| take(&mut window, 100, 10)).collect();
    for n in [2, 1, 3] {
        window.settle(batches[n].clone(), Settled::Delivered, known);
        assert_eq!(window.cursor().low, 0);
    }
    assert_eq!(window.cursor().settled.len(), 1, "three neighbours are one range");
    window.settle(batches[0].clone(), Settled::Delivered, known);
    assert_eq!(window.cursor(), &Cursor::at(40, total(40)));
    assert_eq!(window.offer(Position::Only, 100), Offer::Fresh(40..100));
}

#[test]
fn what_is_settled_of_a_batch_is_told_in_order_and_nothing_beside_it() {
    let mut window = window_at(0);
    let batch = take(&mut window, 100, 10);
    assert_eq!(window.settled_within(&batch), []);
    for part in [7..8, 2..4, 9..10] {
        window.settle(part, Settled::Delivered, known);
    }
    assert_eq!(window.settled_within(&batch), [2..4, 7..8, 9..10]);
    window.settle(0..1, Settled::Delivered, known);
    assert_eq!(window.settled_within(&batch), [0..1, 2..4, 7..8, 9..10]);
}

#[test]
fn what_was_given_back_comes_again_with_the_same_boundaries_before_anything_fresh() {
    let mut window = window_at(0);
    let first = take(&mut window, 100, 10);
    let second = take(&mut window, 100, 5);
    assert!(window.release(&second));
    assert!(window.release(&first));
    assert!(!window.release(&first), "once");
    for offsets in [first, second] {
        assert_eq!(window.offer(Position::Only, 100), Offer::Again { offsets: offsets.clone(), plan: None });
        assert!(window.claim(Position::Only, offsets, Marks::default()));
    }
    assert_eq!(window.offer(Position::Only, 100), Offer::Fresh(15..100));
}

#[test]
fn a_full_window_hands_out_nothing_fresh_until_a_batch_is_settled() {
    let mut window = window_at(0);
    let batches: Vec<_> = (0..PLACES).map(|_| take(&mut window, 100_000, 10)).collect();
    assert_eq!(window.offer(Position::Only, 100_000), Offer::Full);
    // Every other one settled is the worst that can happen to the cursor: each leaves a range.
    for batch in batches.iter().skip(1).step_by(2) {
        window.settle(batch.clone(), Settled::Delivered, known);
    }
    assert_eq!(window.cursor().settled.len(), PLACES / 2);
    assert_eq!(window.offer(Position::Only, 100_000), Offer::Full);
    window.settle(batches[0].clone(), Settled::Delivered, known);
    assert_eq!(window.offer(Position::Only, 100_000), Offer::Fresh(2240..100_000));
}

#[test]
fn parts_of_a_batch_beyond_the_room_wait_for_the_whole_and_are_booked_as_what_they_are() {
    let mut window = window_at(0);
    let batch = take(&mut window, 2_000, 2_000);
    for offset in (0..2_000).filter(|offset| offset % 2 == 1) {
        let settled = window.settle(offset..offset + 1, Settled::DeadLettered, known);
        assert_eq!(settled.records, 1);
        assert_eq!(window.settle(offset..offset + 1, Settled::Lost, known).records, 0, "it is settled once");
    }
    assert_eq!(window.cursor().settled.len() + 1, PLACES);
    assert_eq!(window.in_flight(), 1_000);
    window.settle(batch, Settled::Delivered, known);
    let balance = window.books().balance(window.cursor(), End { offset: 2_000, bytes: total(2_000) });
    assert_eq!((balance.delivered.records, balance.dead_lettered.records), (1_000, 1_000));
    assert!(balance.closes());
}

#[test]
fn plans_that_a_crash_left_come_first_and_fresh_batches_keep_clear_of_them() {
    let mut window = window_at(100);
    let plan = |offset| Plan { offset, revision: 3 };
    window.adopt(50..100, plan(0)); // settled whole
    window.adopt(90..110, plan(1)); // settled in part: the batch stays what it was
    window.adopt(150..160, plan(2));
    assert_eq!(window.plans_left(), 2);
    assert_eq!(window.oldest_plan(), Some(1));
    assert_eq!(window.offer(Position::Only, 200), Offer::Again { offsets: 90..110, plan: Some(plan(1)) });
    assert!(window.claim(Position::Only, 90..110, Marks::default()));
    assert_eq!(window.offer(Position::Only, 200), Offer::Again { offsets: 150..160, plan: Some(plan(2)) });
    assert!(window.claim(Position::Only, 150..160, Marks::default()));
    assert_eq!(window.offer(Position::Only, 200), Offer::Fresh(110..150));
    assert!(window.claim(Position::Only, 110..150, Marks::default()));
    assert_eq!(window.offer(Position::Only, 200), Offer::Fresh(160..200));
    assert_eq!(window.settle(90..110, Settled::Delivered, known).records, 10, "the other ten were settled before");
    assert_eq!(window.oldest_plan(), Some(2));
}

#[test]
fn a_later_plan_replaces_the_earlier_ones_that_it_overlaps_also_where_it_is_settled() {
    let mut window = window_at(10);
    let plan = |offset| Plan { offset, revision: 3 };
    let again = |window: &mut Window| match window.offer(Position::Only, 200) {
        Offer::Again { offsets, plan: Some(plan) } => (offsets, plan.offset),
        other => panic!("{other:?}"),
    };
    window.adopt(0..40, plan(0));
    assert_eq!(window.adopt(0..10, plan(1)), 1, "the first half, settled");
    assert_eq!(window.adopt(10..40, plan(2)), 0);
    assert_eq!(window.adopt(10..40, plan(3)), 0, "the same once more");
    assert_eq!((again(&mut window), window.plans_left()), ((10..40, 3), 1));
    assert_eq!(window.adopt(10..20, plan(4)) + window.adopt(20..40, plan(5)), 1);
    window.adopt(40..60, plan(6));
    assert_eq!((again(&mut window), window.plans_left()), ((10..20, 4), 3));
    assert_eq!(window.adopt(5..50, plan(7)), 3, "made anew after damage");
    assert_eq!((again(&mut window), window.plans_left()), ((5..50, 7), 1));
}

#[test]
fn halves_take_the_place_of_the_whole_and_settle_and_come_again_by_themselves() {
    let mut window = window_at(0);
    let plan = |offset| Plan { offset, revision: 3 };
    let whole = take(&mut window, 100, 10);
    window.planned(&whole, plan(0));
    assert_eq!(window.begin_split(&whole, 4), Ok(Some(plan(0))));
    assert_eq!(window.begin_split(&whole, 4), Err(NoSplit::NotOut), "one at a time");
    assert!(window.release(&whole));
    assert_eq!(window.offer(Position::Only, 100), Offer::Fresh(10..100), "nobody gets the whole while it is split");
    window.split(&whole, 4, total(4), [Some(plan(1)), Some(plan(2))]);
    assert_eq!(window.oldest_plan(), Some(1));
    for (half, offset) in [(0..4, 1), (4..10, 2)] {
        assert_eq!(window.offer(Position::Only, 100), Offer::Again { offsets: half.clone(), plan: Some(plan(offset)) });
        assert!(window.claim(Position::Only, half, Marks::default()));
    }
    window.settle(4..10, Settled::Delivered, known);
    assert_eq!(window.settle(whole, Settled::Delivered, known).records, 4, "what its halves have not");
    assert_eq!(window.cursor(), &Cursor::at(10, total(10)));
}

#[test]
fn a_batch_is_split_down_to_single_records_as_far_as_there_is_room() {
    let mut window = window_at(0);
    let mut out: Vec<Range<u64>> = vec![take(&mut window, 2_000, 1_000)];
    let mut refused = 0;
    while let Some(at) = out.iter().position(|batch| batch.end - batch.start > 1) {
        let batch = out.remove(at);
        let middle = batch.start + (batch.end - batch.start) / 2;
        match window.begin_split(&batch, middle) {
            Ok(_) => {
                window.split(&batch, middle, total(middle), [None; 2]);
                out.extend([batch.start..middle, middle..batch.end]);
            }
            Err(NoSplit::NotOut) => panic!("{batch:?} is out"),
            Err(NoSplit::NoRoom) => {
                refused += 1;
                assert!(window.cursor().settled.len() + out.len() + 1 >= PLACES);
                let first = out.iter().map(|batch| batch.start).min().unwrap_or(batch.start);
                let done = out.iter().position(|batch| batch.start == first).expect("more than one are out");
                window.settle(out.swap_remove(done), Settled::Delivered, known);
                out.push(batch);
            }
        }
    }
    assert!(refused > 0);
    for batch in out {
        assert_eq!(window.settle(batch, Settled::Delivered, known).records, 1);
    }
    assert_eq!(window.cursor(), &Cursor::at(1_000, total(1_000)));
}

#[test]
fn a_failed_split_is_remembered_and_its_place_kept_until_it_is_done() {
    let mut window = window_at(0);
    let whole = take(&mut window, 100, 10);
    window.begin_split(&whole, 5).expect("there is room");
    window.fail_split(&whole, false);
    assert_eq!(window.failed_split(&whole), None, "it cannot have been durable");
    window.begin_split(&whole, 5).expect("there is room");
    window.fail_split(&whole, true);
    assert_eq!(window.failed_split(&whole), Some(5));
    assert!(window.release(&whole));
    assert_eq!(window.offer(Position::Only, 100), Offer::Again { offsets: whole.clone(), plan: None });
    assert!(window.claim(Position::Only, whole.clone(), Marks::default()));
    window.begin_split(&whole, 6).expect("it has its place");
    window.split(&whole, 6, total(6), [None; 2]);
    assert_eq!(window.failed_split(&whole), None);
    assert_eq!(window.settle(0..6, Settled::Delivered, known).records, 6);
    assert!(window.release(&(6..10)));
}

#[test]
fn a_plan_with_a_hole_is_given_up_and_the_rest_of_it_is_fresh() {
    let mut window = window_at(0);
    window.adopt(0..30, Plan { offset: 0, revision: 0 });
    window.dissolve(&(0..30));
    window.settle(10..20, Settled::Lost, known);
    assert_eq!(window.offer(Position::Only, 50), Offer::Fresh(0..10));
    assert!(window.claim(Position::Only, 0..10, Marks::default()));
    assert_eq!(window.offer(Position::Only, 50), Offer::Fresh(20..50));
    assert_eq!(window.oldest_plan(), None);
}

#[test]
fn a_purge_of_what_nobody_took_is_one_range_and_an_unknown_total_settles_nothing() {
    let mut window = window_at(0);
    let batch = take(&mut window, 100, 10);
    assert_eq!(window.settle(0..100, Settled::Purged, |_| None), Count::default());
    assert_eq!(window.settle(10..100, Settled::Purged, known).records, 90);
    assert_eq!(window.offer(Position::Only, 100), Offer::Nothing);
    window.settle(batch, Settled::Delivered, known);
    assert_eq!(window.cursor().low, 100);
}

/// Before: a purge that left many gaps could take every place, so that nothing more was handed out and nothing was open
/// that could have made room.
#[test]
fn whatever_is_settled_from_outside_a_batch_at_the_low_mark_can_be_handed_out_and_settled() {
    let mut window = window_at(0);
    for offset in (0..4_000).filter(|offset| offset % 2 == 1) {
        window.settle(offset..offset + 1, Settled::Purged, known);
    }
    assert_eq!(window.cursor().settled.len(), PLACES - 1);
    let mut handed_out = 0;
    while let Offer::Fresh(offsets) = window.offer(Position::Only, 4_000) {
        assert!(window.claim(Position::Only, offsets.clone(), Marks::default()));
        assert_eq!(window.settle(offsets.clone(), Settled::Delivered, known).records, offsets.end - offsets.start);
        handed_out += 1;
    }
    assert_eq!(
        (window.offer(Position::Only, 4_000), window.cursor()),
        (Offer::Nothing, &Cursor::at(4_000, total(4_000)))
    );
    assert_eq!(handed_out, PLACES, "one a gap, and what was never purged");
}

/// Before: with every place taken by what was purged from outside, the batch at the low mark could be handed out but not
/// split. One that its destination found too large came again and again, for ever.
#[test]
fn whatever_is_settled_from_outside_the_batch_at_the_low_mark_can_be_split_down_to_single_records() {
    let mut window = window_at(0);
    let whole = 1 << 20;
    for n in 0..1_000 {
        window.settle(whole + 1 + n * 2..whole + 2 + n * 2, Settled::Purged, known);
    }
    assert!(!window.has_spare());
    let tail = whole + 2_000;
    let mut sent = 0;
    while let Offer::Fresh(offsets) | Offer::Again { offsets, .. } = window.offer(Position::Only, tail) {
        assert!(window.claim(Position::Only, offsets.clone(), Marks::default()));
        if offsets.end - offsets.start == 1 || sent > 1_000 {
            window.settle(offsets, Settled::Delivered, known);
            sent += 1;
            continue;
        }
        let middle = offsets.start + (offsets.end - offsets.start) / 2;
        window.begin_split(&offsets, middle).expect("there is a place for the halves of the first");
        window.split(&offsets, middle, total(middle), [None; 2]);
        assert!(window.release(&(offsets.start..middle)) && window.release(&(middle..offsets.end)));
        assert!(window.cursor().settled.len() < SETTLED_RANGES_MAX);
    }
    assert_eq!((window.offer(Position::Only, tail), window.cursor().low), (Offer::Nothing, tail));
}

#[test]
fn a_plan_that_finds_no_place_waits_and_what_lies_at_the_low_mark_goes_before_it() {
    let mut window = window_at(0);
    window.adopt(3_000..3_010, Plan { offset: 0, revision: 0 });
    for offset in (0..2_000).filter(|offset| offset % 2 == 1) {
        window.settle(offset..offset + 1, Settled::Purged, known);
    }
    assert_eq!(window.offer(Position::Only, 3_500), Offer::Fresh(0..1));
    assert!(window.claim(Position::Only, 0..1, Marks::default()));
    assert_eq!(window.offer(Position::Only, 3_500), Offer::Full);
    assert!(!window.claim(Position::Only, 3_000..3_010, Marks::default()), "whoever was offered it before");
    assert_eq!(window.plans_left(), 1);
    window.settle(0..1, Settled::Delivered, known);
    assert!(matches!(window.offer(Position::Only, 3_500), Offer::Again { plan: Some(_), .. }));
}

/// Before: damage that only the reading of a range shows was claimed, met and given up for ever when there was no place
/// to settle it.
#[test]
fn damage_without_a_place_is_settled_when_it_comes_to_lie_at_the_low_mark() {
    let mut window = window_at(0);
    for offset in (1_000..2_000).filter(|offset| offset % 2 == 1) {
        window.settle(offset..offset + 1, Settled::Purged, known);
    }
    let range = take(&mut window, 2_000, 900);
    assert_eq!(range, 0..900);
    window.dissolve(&range);
    assert_eq!(window.lose(500..510, known), Count::default(), "no place");
    assert_eq!(take(&mut window, 2_000, 900), 0..500);
    window.settle(0..500, Settled::Delivered, known);
    assert_eq!(take(&mut window, 2_000, 900), 500..1_001, "met again, at the low mark");
    window.dissolve(&(500..1_001));
    assert_eq!(window.lose(500..510, known).records, 10);
    assert_eq!(take(&mut window, 2_000, 900), 510..1_001);
}

#[test]
fn a_batch_settles_in_many_ways_at_one_stroke() {
    let mut window = window_at(0);
    let before = take(&mut window, 3_000, 100);
    let batch = take(&mut window, 3_000, 2_000);
    let parts: Vec<_> = (100..2_100).step_by(4).map(|offset| (offset..offset + 1, Settled::DeadLettered)).collect();
    let settled = window.settle(batch.clone(), Verdict::new(&parts, Settled::Held), known);
    assert_eq!(settled, Count { records: 2_000, bytes: total(2_100) - total(100) });
    assert_eq!(window.cursor().settled.len(), 1, "one range, however many parts");
    let balance = window.books().balance(window.cursor(), End { offset: 3_000, bytes: total(3_000) });
    let dead: u64 = parts.iter().map(|(part, _)| total(part.end) - total(part.start)).sum();
    assert_eq!(balance.dead_lettered, Count { records: 500, bytes: dead });
    assert_eq!(balance.held, Count { records: 1_500, bytes: total(2_100) - total(100) - dead });
    assert!(balance.closes());
    assert_eq!(window.settle(batch, Settled::Delivered, known).records, 0, "it is settled once");
    window.settle(before, Settled::Delivered, known);
    assert_eq!(window.cursor(), &Cursor::at(2_100, total(2_100)));
}

#[test]
fn bytes_of_parts_that_cannot_be_asked_for_are_shared_evenly_and_the_sum_is_exact() {
    let mut window = window_at(0);
    let ends_known = |offset| (offset == 10 || offset == 0).then(|| total(offset));
    let verdict = Verdict::new(&[(0..5, Settled::Filtered)], Settled::Delivered);
    let settled = window.settle(0..10, verdict, ends_known);
    assert_eq!(settled.bytes, total(10) - total(0));
    let balance = window.books().balance(window.cursor(), End { offset: 10, bytes: total(10) });
    assert_eq!((balance.filtered.bytes, balance.delivered.bytes), (35, settled.bytes - 35));
}

#[test]
fn a_purge_takes_whole_batches_and_leaves_those_that_reach_beyond_it() {
    let mut window = window_at(0);
    window.adopt(60..70, Plan { offset: 1, revision: 0 });
    window.adopt(95..105, Plan { offset: 2, revision: 0 });
    assert!(window.claim(Position::Only, 60..70, Marks::default()), "the first of the plans");
    let inside = take_at(&mut window, 0..30);
    let across = take_at(&mut window, 30..50);
    assert_eq!(window.let_go(10..40, Settled::Purged, known), Count::default(), "both reach beyond it");
    assert_eq!(window.let_go(0..100, Settled::Purged, known).records, 95);
    assert_eq!(window.cursor(), &Cursor::at(95, total(95)));
    for gone in [inside, across, 60..70] {
        assert_eq!(window.settle(gone.clone(), Settled::Delivered, known).records, 0);
        assert!(!window.release(&gone));
    }
    assert_eq!(
        window.offer(Position::Only, 200),
        Offer::Again { offsets: 95..105, plan: Some(Plan { offset: 2, revision: 0 }) }
    );
    assert_eq!(window.oldest_plan(), Some(2));
    assert_eq!(window.books().balance(window.cursor(), End { offset: 95, bytes: total(95) }).purged.records, 95);
}

#[test]
fn a_purge_that_ends_where_a_batch_ends_takes_it() {
    let mut window = window_at(0);
    let before = take_at(&mut window, 0..30);
    let last = take_at(&mut window, 30..50);
    assert_eq!(window.let_go(10..50, Settled::Purged, known).records, 20, "the first one reaches beyond it");
    assert!(window.release(&before) && !window.release(&last));
}

/// What is offered is read before it is claimed, and what is settled meanwhile must not be handed out.
#[test]
fn an_offer_that_is_true_no_more_cannot_be_claimed() {
    let mut window = window_at(0);
    assert_eq!(window.offer(Position::Only, 100), Offer::Fresh(0..100));
    window.settle(0..10, Settled::Purged, known);
    assert!(!window.claim(Position::Only, 0..100, Marks::default()), "its beginning is settled");
    assert_eq!(window.offer(Position::Only, 100), Offer::Fresh(10..100));
    window.settle(30..40, Settled::Purged, known);
    assert!(!window.claim(Position::Only, 10..100, Marks::default()), "something inside is settled");
    assert_eq!(take(&mut window, 100, 100), 10..30);
}

#[test]
fn the_totals_around_what_is_fresh_are_known_from_what_lies_beside_it() {
    let mut window = window_at(0);
    let tail = End { offset: 100, bytes: total(100) };
    assert_eq!(window.fresh_known(Position::Only, tail), Some((0..100, [Some(total(0)), Some(total(100))])));
    let marks = Marks::ends(&(0..10), total(0)..total(10), None);
    assert!(window.claim(Position::Only, 0..10, marks));
    assert_eq!(window.fresh_known(Position::Only, tail), Some((10..100, [Some(total(10)), Some(total(100))])));
    window.settle(40..50, Settled::Delivered, known);
    assert_eq!(window.fresh_known(Position::Only, tail), Some((10..40, [Some(total(10)), Some(total(40))])));
    take_at(&mut window, 10..40);
    assert_eq!(window.fresh_known(Position::Only, tail), Some((50..100, [Some(total(50)), Some(total(100))])));
}

/// Before: such a plan was kept each time, and the low mark with it, so that nothing behind it could go from the disk.
#[test]
fn a_batch_of_which_the_beginning_is_settled_goes_with_what_is_behind_it() {
    let mut window = window_at(0);
    window.adopt(0..100, Plan { offset: 1, revision: 0 });
    window.settle(0..1, Settled::DeadLettered, known);
    assert_eq!(window.let_go(1..200, Settled::Expired, known).records, 199);
    assert_eq!(window.cursor(), &Cursor::at(200, total(200)));
}

/// Before: it was needed until its queue was asked for a batch, and all plans behind it with it.
#[test]
fn a_plan_that_was_settled_before_it_was_handed_out_is_needed_no_more() {
    let mut window = window_at(0);
    window.adopt(50..51, Plan { offset: 1, revision: 0 });
    window.adopt(60..70, Plan { offset: 2, revision: 0 });
    assert_eq!(window.oldest_plan(), Some(1));
    window.settle(50..51, Settled::DeadLettered, known);
    assert_eq!(window.oldest_plan(), Some(2));
    let second = Offer::Again { offsets: 60..70, plan: Some(Plan { offset: 2, revision: 0 }) };
    assert_eq!((window.offer(Position::Only, 100), window.plans_left()), (second, 1), "nor is it offered");
}

/// Before: who met damage second took away the batch that the first had made way for, while it was sent.
#[test]
fn only_the_batch_that_was_met_damaged_is_dissolved() {
    let mut window = window_at(0);
    let anew = take_at(&mut window, 0..50);
    window.dissolve(&(0..100));
    assert_eq!((window.in_flight(), window.offer(Position::Only, 100)), (50, Offer::Fresh(50..100)));
    window.dissolve(&anew);
    assert_eq!((window.in_flight(), window.offer(Position::Only, 100)), (0, Offer::Fresh(0..100)));
}

#[test]
fn a_purge_from_the_low_mark_has_room_however_many_ranges_there_are() {
    let mut window = window_at(0);
    for offset in (0..1_000).filter(|offset| offset % 2 == 1) {
        window.settle(offset..offset + 1, Settled::Delivered, known);
    }
    assert_eq!(window.let_go(0..300, Settled::Expired, known).records, 150);
    assert_eq!(window.let_go(0..1_000, Settled::Purged, known).records, 137 + 490);
    assert_eq!(window.cursor(), &Cursor::at(1_000, total(1_000)));
}

/// Claims exactly these fresh records.
fn take_at(window: &mut Window, offsets: Range<u64>) -> Range<u64> {
    let taken = take(window, offsets.end, offsets.end - offsets.start);
    assert_eq!(taken, offsets);
    taken
}

/// Before: the totals of a part that had found no place were asked for again when it found one. Where the log could not be read by
/// then, or was not there to be asked, as in a split, whoever settled the next part panicked.
#[test]
fn what_waits_in_its_batch_for_a_place_needs_the_log_no_more() {
    let ends = |offsets: &Range<u64>| Marks::ends(offsets, total(offsets.start)..total(offsets.end), None);
    let unreadable = |_| None;
    for way in 0..4 {
        let mut window = window_at(0);
        let batch = take_at(&mut window, 0..1_000);
        assert!(window.release(&batch) && window.claim(Position::Only, batch.clone(), ends(&batch)));
        for offset in (1..1_000).step_by(2) {
            assert_eq!(window.settle(offset..offset + 1, Settled::DeadLettered, known).records, 1);
        }
        assert!(!window.has_spare(), "some of them wait");
        let asked = window.asks_for(&(998..1_000), &Settled::Delivered.into());
        assert_eq!(asked[0], (998, Some(total(998))), "what waits below says where it ends");
        let rest = match way {
            // It is settled whole.
            0 => window.settle(batch, Settled::Delivered, unreadable).records,
            // A part is settled, of which the totals are known: it touches what is settled.
            1 => window.settle(0..1, Settled::Delivered, unreadable).records + 499,
            // Its halves are settled, one of them in part.
            2 => {
                assert_eq!(window.begin_split(&batch, 500), Ok(None));
                window.split(&batch, 500, total(500), [None; 2]);
                let first = window.settle(0..500, Settled::Delivered, unreadable).records;
                first + window.settle(500..1_000, Settled::Delivered, unreadable).records
            }
            // It is given up, and what waited is settled as far as there is a place now.
            _ => {
                window.dissolve(&batch);
                assert!(window.cursor().settled_records() > PLACES as u64 - 2);
                500
            }
        };
        assert_eq!(rest, 500, "way {way}");
        assert!(window.books().agree_with(window.cursor()));
    }
}

#[test]
fn a_split_that_may_be_durable_is_not_forgotten_for_a_later_one_that_is_not() {
    let mut window = window_at(0);
    let whole = take(&mut window, 100, 10);
    window.begin_split(&whole, 5).expect("there is room");
    window.fail_split(&whole, true);
    window.begin_split(&whole, 4).expect("it has its place");
    window.fail_split(&whole, false); // the planner was busy
    assert_eq!(window.failed_split(&whole), Some(4), "the halves of the first may be durable still");
}
