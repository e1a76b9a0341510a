//! What was looked at, asked for or begun of a batch, and comes when the batch is another one or none.

use super::*;
use crate::queue::limits::MARKED_RANGES_MAX;
use Position::{Backlog, Live, Only};

fn plan(offset: u64) -> Plan {
    Plan { offset, revision: 3 }
}

/// Takes every place above the low mark, from `from` on.
fn fill(window: &mut Window, from: u64) {
    for n in 0..SETTLED_RANGES_MAX as u64 {
        window.settle(from + n * 2..from + n * 2 + 1, Settled::Purged, known);
    }
    assert!(!window.has_spare());
}

#[test]
fn a_plan_goes_before_a_batch_that_lies_behind_it_and_was_given_back() {
    let mut window = window_at(0);
    window.adopt(0..10, plan(0));
    window.adopt(20..30, plan(1));
    window.part(End { offset: 15, bytes: total(15) });
    assert_eq!(window.offer(Live, 30), Offer::Again { offsets: 20..30, plan: Some(plan(1)) });
    assert!(window.claim(Live, 20..30, Marks::default()) && window.release(&(20..30)));
    window.join();
    assert_eq!(window.offer(Only, 30), Offer::Again { offsets: 0..10, plan: Some(plan(0)) });
    assert!(window.claim(Only, 0..10, Marks::default()));
    assert_eq!(window.offer(Only, 30), Offer::Again { offsets: 20..30, plan: Some(plan(1)) });
}

/// It must not look as if nothing waited: whoever is told so does not ask again when there is room.
#[test]
fn a_plan_without_a_place_is_a_full_window_also_where_nothing_is_fresh() {
    let mut window = window_at(0);
    window.adopt(10..20, plan(0));
    assert_eq!(take(&mut window, 10, 10), 0..10);
    fill(&mut window, 100);
    assert_eq!(window.offer(Only, 20), Offer::Full);
    window.settle(0..10, Settled::Delivered, known);
    assert_eq!(window.offer(Only, 20), Offer::Again { offsets: 10..20, plan: Some(plan(0)) });
}

#[test]
fn a_batch_is_claimed_by_the_first_who_was_offered_it_and_as_it_is() {
    let mut window = window_at(0);
    let batch = take(&mut window, 100, 10);
    assert!(!window.claim(Only, batch.clone(), Marks::default()), "somebody has it");
    assert!(window.release(&batch));
    assert!(!window.claim(Only, 0..9, Marks::default()), "it was another one when it was offered");
    assert_eq!((window.in_flight(), window.offer(Only, 100)), (0, Offer::Again { offsets: batch.clone(), plan: None }));
    assert!(window.claim(Only, batch, Marks::default()));
}

#[test]
fn what_was_offered_cannot_be_claimed_once_the_places_are_taken() {
    let mut window = window_at(0);
    assert_eq!(take(&mut window, 100, 10), 0..10);
    assert_eq!(window.offer(Only, 100), Offer::Fresh(10..100));
    fill(&mut window, 1_000);
    assert!(!window.claim(Only, 10..100, Marks::default()));
    assert_eq!(window.in_flight(), 10);
}

#[test]
fn a_batch_that_is_being_split_or_may_have_been_is_not_made_shorter() {
    let mut window = window_at(0);
    let batch = take(&mut window, 100, 10);
    window.begin_split(&batch, 5).expect("there is room");
    assert!(!window.shorten(&batch, 3, total(3)));
    window.fail_split(&batch, false);
    assert!(window.shorten(&batch, 7, total(7)));
    assert_eq!((window.is_open(&(0..7)), window.offer(Only, 100)), (true, Offer::Fresh(7..100)));
    window.begin_split(&(0..7), 5).expect("there is room");
    window.fail_split(&(0..7), true);
    assert!(!window.shorten(&(0..7), 3, total(3)) && window.is_open(&(0..7)));
}

/// It was given up for damage while its plan was on its way, and what was left of it is a batch of its own by now: sent under the
/// plan of the other one it would come again with other boundaries after a crash.
#[test]
fn a_plan_or_a_split_of_a_batch_that_is_no_more_is_not_taken_for_that_of_another_one_there() {
    let mut window = window_at(0);
    let gone = take(&mut window, 100, 10);
    window.begin_split(&gone, 5).expect("there is room");
    window.dissolve(&gone);
    let batch = take(&mut window, 100, 8);
    window.begin_split(&batch, 4).expect("there is room");

    window.ask_plan(&gone);
    window.planned(&gone, plan(7));
    window.split(&gone, 5, total(5), [Some(plan(8)), Some(plan(9))]);
    window.fail_split(&gone, false);
    assert_eq!((window.plan_of(&batch), window.oldest_plan()), (None, None));
    assert_eq!(window.begin_split(&batch, 4), Err(NoSplit::NotOut), "it is on its way still");
    assert!(!window.release(&gone), "nor is it given back by whoever had the other");
    assert_eq!((window.in_flight(), window.is_open(&batch)), (8, true));
    window.fail_split(&batch, false);
    assert!(window.shorten(&batch, 6, total(6)), "and no plan of it was asked for");
}

#[test]
fn a_split_that_is_durable_when_the_whole_is_settled_brings_nothing_back() {
    let mut window = window_at(0);
    let batch = take(&mut window, 10, 10);
    window.begin_split(&batch, 5).expect("there is room");
    assert_eq!(window.settle(batch.clone(), Settled::Delivered, known).records, 10);
    window.split(&batch, 5, total(5), [Some(plan(0)), Some(plan(1))]);
    assert_eq!((window.in_flight(), window.oldest_plan(), window.offer(Only, 10)), (0, None, Offer::Nothing));
}

/// Nobody begins one so; but it was begun for boundaries, and those may be another's, who never asked.
#[test]
fn a_batch_of_which_no_split_was_begun_stays_whole() {
    let mut window = window_at(0);
    let gone = take(&mut window, 10, 10);
    window.begin_split(&gone, 5).expect("there is room");
    window.dissolve(&gone);
    let batch = take(&mut window, 10, 10);
    window.split(&gone, 5, total(5), [None; 2]);
    assert!(window.is_open(&batch) && !window.is_open(&(0..5)));
}

#[test]
fn a_plan_is_written_again_for_the_batch_that_has_it_and_for_no_other_that_begins_there() {
    let mut window = window_at(0);
    window.adopt(0..10, plan(5));
    assert!(window.claim(Only, 0..10, Marks::default()));
    assert_eq!(window.plan_at(&(0..9), 5), None);
    assert_eq!(window.plan_at(&(0..10), 5), Some(plan(5)));
}

#[test]
fn only_what_is_fresh_still_is_given_up_where_it_lies() {
    let mut window = window_at(0);
    assert_eq!(take(&mut window, 100, 10), 0..10);
    assert_eq!(window.mark(0..20, total(0)..total(20), 1), None, "somebody has its beginning by now");
    assert!(window.marked().is_none() && window.books().settled() == Count::default());
    assert_eq!(window.mark(10..20, total(10)..total(20), 1).map(|count| count.records), Some(10));
}

#[test]
fn without_a_place_only_what_touches_what_is_settled_is_given_up_where_it_lies() {
    let mut window = window_at(0);
    assert_eq!(take(&mut window, 10, 10), 0..10);
    fill(&mut window, 21);
    assert_eq!(window.mark(10..20, total(10)..total(20), 1), None, "it would be one more range");
    assert_eq!(window.offer(Only, 20), Offer::Full, "it waits as it did");
    assert_eq!(window.mark(10..21, total(10)..total(21), 1).map(|count| count.records), Some(11));
    assert_eq!(window.marked_in(&(0..100)), vec![10..21]);
}

#[test]
fn with_as_many_ranges_given_up_as_there_may_be_the_next_record_stays() {
    let mut window = window_at(0);
    let mut at = 0;
    for _ in 0..MARKED_RANGES_MAX {
        assert_eq!(take(&mut window, 1_000, 1), at..at + 1);
        assert!(window.mark(at + 1..at + 2, total(at + 1)..total(at + 2), 1).is_some());
        at += 2;
    }
    assert_eq!(take(&mut window, 1_000, 1), at..at + 1);
    let settled = window.books().settled();
    assert_eq!(window.mark(at + 1..at + 2, total(at + 1)..total(at + 2), 1), None);
    assert_eq!((window.books().settled(), window.offer(Only, 1_000)), (settled, Offer::Fresh(at + 1..1_000)));
}

/// What is forgotten is read again when it comes near; that the first is remembered has it end a batch.
#[test]
fn of_more_damage_than_there_are_places_the_furthest_is_forgotten() {
    let mut window = window_at(0);
    fill(&mut window, 100_000);
    let damage = |n: u64| 10 + n * 10..12 + n * 10;
    let most = SETTLED_RANGES_MAX as u64;
    // The nearest comes last.
    for n in (0..=most).rev() {
        assert_eq!(window.lose(damage(n), known), Count::default(), "no place");
    }
    assert_eq!(window.damaged.as_ref().map(|damaged| damaged.len()), Some(SETTLED_RANGES_MAX));
    assert_eq!(window.offer(Only, 50_000), Offer::Fresh(0..10));
    let fresh_behind = |window: &mut Window, n: u64| {
        window.let_go(0..damage(n).start, Settled::Purged, known);
        window.fresh(Backlog, 50_000)
    };
    assert_eq!(fresh_behind(&mut window, most - 1), Some(damage(most - 1).start..50_000), "that one is forgotten");
}

/// Nobody writes such a plan; one that is read is as good as none.
#[test]
fn a_plan_of_no_records_replaces_none_in_whose_midst_it_lies() {
    let mut window = window_at(0);
    window.adopt(0..10, plan(5));
    assert_eq!((window.adopt(5..5, plan(6)), window.plans_left()), (0, 1));
    assert_eq!(window.offer(Only, 20), Offer::Again { offsets: 0..10, plan: Some(plan(5)) });
}
