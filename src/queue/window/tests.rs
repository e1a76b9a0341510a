use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

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
    let Offer::Fresh(range) = window.offer(tail) else { panic!("nothing fresh: {:?}", window.offer(tail)) };
    let offsets = range.start..range.end.min(range.start + records);
    assert!(window.claim(offsets.clone(), Marks::default()));
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
    assert_eq!(window.offer(100), Offer::Fresh(40..100));
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
        assert_eq!(window.offer(100), Offer::Again { offsets: offsets.clone(), plan: None });
        assert!(window.claim(offsets, Marks::default()));
    }
    assert_eq!(window.offer(100), Offer::Fresh(15..100));
}

#[test]
fn a_full_window_hands_out_nothing_fresh_until_a_batch_is_settled() {
    let mut window = window_at(0);
    let batches: Vec<_> = (0..SETTLED_RANGES_MAX).map(|_| take(&mut window, 100_000, 10)).collect();
    assert_eq!(window.offer(100_000), Offer::Full);
    // Every other one settled is the worst that can happen to the cursor: each leaves a range.
    for batch in batches.iter().skip(1).step_by(2) {
        window.settle(batch.clone(), Settled::Delivered, known);
    }
    assert_eq!(window.cursor().settled.len(), SETTLED_RANGES_MAX / 2);
    assert_eq!(window.offer(100_000), Offer::Full);
    window.settle(batches[0].clone(), Settled::Delivered, known);
    assert_eq!(window.offer(100_000), Offer::Fresh(2560..100_000));
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
    assert_eq!(window.cursor().settled.len() + 1, SETTLED_RANGES_MAX);
    assert_eq!(window.in_flight(), 1_000);
    window.settle(batch, Settled::Delivered, known);
    let balance =
        window.books().balance(window.cursor(), super::super::balance::End { offset: 2_000, bytes: total(2_000) });
    assert_eq!((balance.delivered.records, balance.dead_lettered.records), (1_000, 1_000));
    assert!(balance.closes());
}

#[test]
fn plans_that_a_crash_left_come_first_and_fresh_batches_keep_clear_of_them() {
    let mut window = window_at(100);
    let plan = |offset| Plan { offset, revision: 3 };
    assert!(!window.adopt(50..100, plan(0)), "settled whole");
    assert!(window.adopt(90..110, plan(1)), "settled in part: the batch stays what it was");
    assert!(window.adopt(150..160, plan(2)));
    assert!(!window.adopt(155..170, plan(3)), "cuts across a plan before it");
    assert_eq!(window.oldest_plan(), Some(1));
    assert_eq!(window.offer(200), Offer::Again { offsets: 90..110, plan: Some(plan(1)) });
    assert!(window.claim(90..110, Marks::default()));
    assert_eq!(window.offer(200), Offer::Again { offsets: 150..160, plan: Some(plan(2)) });
    assert!(window.claim(150..160, Marks::default()));
    assert_eq!(window.offer(200), Offer::Fresh(110..150));
    assert!(window.claim(110..150, Marks::default()));
    assert_eq!(window.offer(200), Offer::Fresh(160..200));
    assert_eq!(window.settle(90..110, Settled::Delivered, known).records, 10, "the other ten were settled before");
    assert_eq!(window.oldest_plan(), Some(2));
}

#[test]
fn a_plan_with_a_hole_is_given_up_and_the_rest_of_it_is_fresh() {
    let mut window = window_at(0);
    window.adopt(0..30, Plan { offset: 0, revision: 0 });
    window.dissolve(&(0..30), known);
    window.settle(10..20, Settled::Lost, known);
    assert_eq!(window.offer(50), Offer::Fresh(0..10));
    assert!(window.claim(0..10, Marks::default()));
    assert_eq!(window.offer(50), Offer::Fresh(20..50));
    assert_eq!(window.oldest_plan(), None);
}

#[test]
fn a_purge_of_what_nobody_took_is_one_range_and_an_unknown_total_settles_nothing() {
    let mut window = window_at(0);
    let batch = take(&mut window, 100, 10);
    assert_eq!(window.settle(0..100, Settled::Purged, |_| None), Count::default());
    assert_eq!(window.settle(10..100, Settled::Purged, known).records, 90);
    assert_eq!(window.offer(100), Offer::Nothing);
    window.settle(batch, Settled::Delivered, known);
    assert_eq!(window.cursor().low, 100);
}

/// What may happen to a window; the numbers pick among what is possible at that moment.
#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Take(u64),
    Release(usize),
    Settle(usize, Settled),
    SettlePart(usize, u64, u64, Settled),
    SettleAnywhere(u64, u64, Settled),
    Dissolve(usize),
    Damage,
    Crash,
}

fn any_settled() -> impl Strategy<Value = Settled> {
    prop::sample::select(vec![Settled::Delivered, Settled::DeadLettered, Settled::Expired, Settled::Lost])
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..50u64).prop_map(|frames| Step::Append(frames * 10)),
        8 => (1..30u64).prop_map(Step::Take),
        3 => any::<usize>().prop_map(Step::Release),
        6 => (any::<usize>(), any_settled()).prop_map(|(n, as_)| Step::Settle(n, as_)),
        9 => (any::<usize>(), 0..30u64, 1..4u64, any_settled()).prop_map(|(n, a, b, s)| Step::SettlePart(n, a, b, s)),
        1 => (0..3_000u64, 1..40u64, any_settled()).prop_map(|(a, b, s)| Step::SettleAnywhere(a, b, s)),
        1 => any::<usize>().prop_map(Step::Dissolve),
        1 => Just(Step::Damage),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Against a set of offsets: what is settled is settled once, what is open keeps its boundaries, nothing is handed
    /// out twice or after it was settled, the books close, and the cursor never outgrows its limit.
    #[test]
    fn a_window_does_what_a_set_of_offsets_does(steps in prop::collection::vec(any_step(), 1..250)) {
        let mut window = window_at(0);
        let mut tail = 0;
        // Frames of ten records. Once they are damaged the log knows a total inside of one only by the next frame's.
        let mut damaged = false;
        let mut settled: BTreeSet<u64> = BTreeSet::new();
        let mut out: Vec<Range<u64>> = Vec::new();
        let mut given_back: Vec<Range<u64>> = Vec::new();
        for step in steps {
            let known = |offset: u64| Some(total(if damaged { offset.next_multiple_of(10) } else { offset }));
            match step {
                Step::Append(records) => tail += records,
                Step::Take(records) => match window.offer(tail) {
                    Offer::Again { offsets, .. } => {
                        let at = given_back.iter().position(|back| *back == offsets);
                        given_back.remove(at.expect("only what was given back comes again"));
                        prop_assert!(window.claim(offsets.clone(), Marks::default()));
                        out.push(offsets);
                    }
                    Offer::Fresh(range) => {
                        let offsets = range.start..range.end.min(range.start + records);
                        prop_assert!(!offsets.is_empty() && offsets.end <= tail);
                        prop_assert!(offsets.clone().all(|offset| !settled.contains(&offset)));
                        prop_assert!(out.iter().chain(&given_back).all(|o| o.end <= offsets.start || offsets.end <= o.start));
                        prop_assert!(window.claim(offsets.clone(), Marks::default()));
                        out.push(offsets);
                    }
                    Offer::Nothing => {
                        let open: u64 = out.iter().map(|o| o.end - o.start).sum();
                        prop_assert!(given_back.is_empty());
                        prop_assert!(settled.len() as u64 + open >= tail, "something waits");
                    }
                    Offer::Full => prop_assert!(window.cursor().settled.len() + out.len() + given_back.len() >= SETTLED_RANGES_MAX),
                },
                Step::Release(n) if !out.is_empty() => {
                    let offsets = out.remove(n % out.len());
                    prop_assert!(window.release(&offsets));
                    given_back.push(offsets);
                }
                Step::Settle(n, as_) if !out.is_empty() => {
                    let offsets = out.remove(n % out.len());
                    let fresh = offsets.clone().filter(|offset| settled.insert(*offset)).count() as u64;
                    prop_assert_eq!(window.settle(offsets, as_, known).records, fresh);
                }
                Step::SettlePart(n, skip, records, as_) if !out.is_empty() => {
                    let batch = out[n % out.len()].clone();
                    let start = (batch.start + skip).min(batch.end - 1);
                    let part = start..batch.end.min(start + records);
                    let fresh = part.clone().filter(|offset| settled.insert(*offset)).count() as u64;
                    prop_assert_eq!(window.settle(part, as_, known).records, fresh);
                    out.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                }
                Step::SettleAnywhere(start, records, as_) if start < tail => {
                    let part = start..tail.min(start + records);
                    let fresh = part.clone().filter(|offset| !settled.contains(offset)).count() as u64;
                    let got = window.settle(part.clone(), as_, known).records;
                    prop_assert!(got <= fresh);
                    if got == fresh {
                        settled.extend(part);
                        out.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                        given_back.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                    } else {
                        // Some of it was refused for want of room. What was, the window alone knows: end here.
                        return Ok(());
                    }
                }
                Step::Dissolve(n) if !out.is_empty() => {
                    let before = window.cursor().clone();
                    let offsets = out.remove(n % out.len());
                    window.dissolve(&offsets, known);
                    // Parts that had waited inside and find no room now are given up and will be sent again.
                    for offset in offsets {
                        if !window.cursor().unsettled(offset..offset + 1).is_empty() {
                            settled.remove(&offset);
                        }
                    }
                    prop_assert!(window.cursor().covers(&before));
                }
                Step::Damage => {
                    damaged = true;
                    continue;
                }
                Step::Crash => {
                    window = Window::new(window.cursor().clone(), window.books().clone());
                    out.clear();
                    given_back.clear();
                    settled = (0..tail).filter(|&o| window.cursor().unsettled(o..o + 1).is_empty()).collect();
                }
                _ => {}
            }
            let cursor = window.cursor();
            prop_assert!(cursor.settled.len() <= SETTLED_RANGES_MAX);
            prop_assert!(window.books().agree_with(cursor));
            prop_assert!(damaged || cursor.low_bytes == total(cursor.low), "bytes telescope");
            let mut kept = Vec::new();
            cursor.encode(&mut kept);
            let again = Cursor::decode(&mut super::super::codec::Decoder::new(&kept));
            prop_assert_eq!(again.as_ref(), Ok(cursor), "what it is can be kept");
            let end = super::super::balance::End { offset: tail, bytes: total(tail) };
            prop_assert!(window.books().balance(cursor, end).closes());
            let booked = (0..tail).filter(|&o| cursor.unsettled(o..o + 1).is_empty());
            prop_assert!(booked.clone().all(|offset| settled.contains(&offset)), "nothing is settled by itself");
            if out.is_empty() && given_back.is_empty() {
                prop_assert_eq!(booked.count(), settled.len(), "with no batch open the cursor holds all");
            }
        }
    }
}
