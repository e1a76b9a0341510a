//! A window against a set of offsets, whatever happens to it.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What may happen to a window; the numbers pick among what is possible at that moment.
#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Take(Position, u64),
    Part(bool),
    Release(usize),
    Settle(usize, Settled),
    SettlePart(usize, u64, u64, Settled),
    SettleParts(usize, Vec<(u64, u64, Settled)>, Settled),
    Split(usize, u64, bool),
    SettleAnywhere(u64, u64, Settled),
    Purge(u64, u64),
    Dissolve(usize),
    Damage,
    Crash,
}

fn any_settled() -> impl Strategy<Value = Settled> {
    prop::sample::select(vec![
        Settled::Delivered,
        Settled::DeadLettered,
        Settled::Expired,
        Settled::Lost,
        Settled::Held,
    ])
}

fn any_position() -> impl Strategy<Value = Position> {
    prop::sample::select(vec![Position::Only, Position::Backlog, Position::Live])
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..50u64).prop_map(|frames| Step::Append(frames * 10)),
        8 => (any_position(), 1..30u64).prop_map(|(position, records)| Step::Take(position, records)),
        2 => any::<bool>().prop_map(Step::Part),
        3 => any::<usize>().prop_map(Step::Release),
        6 => (any::<usize>(), any_settled()).prop_map(|(n, as_)| Step::Settle(n, as_)),
        9 => (any::<usize>(), 0..30u64, 1..4u64, any_settled()).prop_map(|(n, a, b, s)| Step::SettlePart(n, a, b, s)),
        4 => (any::<usize>(), prop::collection::vec((0..30u64, 0..9u64, any_settled()), 0..5), any_settled())
            .prop_map(|(n, parts, rest)| Step::SettleParts(n, parts, rest)),
        4 => (any::<usize>(), 1..30u64, any::<bool>()).prop_map(|(n, at, fails)| Step::Split(n, at, fails)),
        2 => (0..3_000u64, 1..40u64, any_settled()).prop_map(|(a, b, s)| Step::SettleAnywhere(a, b, s)),
        1 => (prop_oneof![Just(0), 0..3_000u64], 1..400u64).prop_map(|(a, b)| Step::Purge(a, b)),
        1 => any::<usize>().prop_map(Step::Dissolve),
        1 => Just(Step::Damage),
        1 => Just(Step::Crash),
    ]
}

fn is_settled(window: &Window, offset: u64) -> bool {
    window.cursor().unsettled(offset..offset + 1).is_empty()
}

/// What the log says, to whoever settles these records and asks for nothing that was not foreseen: all else would be read while
/// the window is locked.
fn foreseen<V: Into<Verdict>, F: Fn(u64) -> Option<u64>>(
    window: &Window,
    offsets: &Range<u64>,
    verdict: V,
    total_at: F,
) -> impl Fn(u64) -> Option<u64> + use<V, F> {
    let asked = window.asks_for(offsets, &verdict.into());
    move |offset| {
        assert!(asked.binary_search_by_key(&offset, |(at, _)| *at).is_ok(), "{offset} was foreseen");
        total_at(offset)
    }
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
            let end = End { offset: tail, bytes: total(tail) };
            let known = |offset: u64| Some(total(if damaged { offset.next_multiple_of(10) } else { offset }));
            match step {
                Step::Append(records) => tail += records,
                Step::Part(at_tail) => {
                    let settled = window.cursor().settled.last().copied();
                    let settled = settled.map(|last| End { offset: last.end, bytes: last.start_bytes + last.bytes });
                    window.part(settled.filter(|_| !at_tail).unwrap_or(end));
                }
                Step::Take(position, records) => match window.offer(position, tail) {
                    Offer::Again { offsets, .. } => {
                        prop_assert!(window.reach(position).contains(&offsets.start));
                        let at = given_back.iter().position(|back| *back == offsets);
                        given_back.remove(at.expect("only what was given back comes again"));
                        prop_assert!(window.claim(position, offsets.clone(), Marks::default()));
                        out.push(offsets);
                    }
                    Offer::Fresh(range) => {
                        let offsets = range.start..range.end.min(range.start + records);
                        prop_assert!(!offsets.is_empty() && offsets.end <= tail);
                        let reach = window.reach(position);
                        prop_assert!(reach.contains(&offsets.start) && offsets.end <= reach.end);
                        prop_assert!(offsets.clone().all(|offset| !settled.contains(&offset)));
                        prop_assert!(out.iter().chain(&given_back).all(|o| o.end <= offsets.start || offsets.end <= o.start));
                        prop_assert!(window.claim(position, offsets.clone(), Marks::default()));
                        out.push(offsets);
                    }
                    Offer::Nothing => {
                        let reach = window.reach(position);
                        prop_assert!(given_back.iter().all(|back| !reach.contains(&back.start)));
                        let open = |offset: &u64| out.iter().chain(&given_back).any(|o| o.contains(offset));
                        let mut within = (0..tail).filter(|offset| reach.contains(offset));
                        prop_assert!(within.all(|offset| settled.contains(&offset) || open(&offset)), "something waits");
                    }
                    Offer::Full => {
                        prop_assert!(window.cursor().settled.len() + out.len() + given_back.len() >= PLACES - 1);
                        prop_assert!(position == Position::Live || !out.is_empty(), "a window is full only while something is out that makes room");
                    }
                },
                Step::Release(n) if !out.is_empty() => {
                    let offsets = out.remove(n % out.len());
                    prop_assert!(window.release(&offsets));
                    given_back.push(offsets);
                }
                Step::Settle(n, as_) if !out.is_empty() => {
                    let offsets = out.remove(n % out.len());
                    let fresh = offsets.clone().filter(|offset| settled.insert(*offset)).count() as u64;
                    let known = foreseen(&window, &offsets, as_, known);
                    prop_assert_eq!(window.settle(offsets.clone(), as_, known).records, fresh);
                }
                Step::SettlePart(n, skip, records, as_) if !out.is_empty() => {
                    let batch = out[n % out.len()].clone();
                    let start = (batch.start + skip).min(batch.end - 1);
                    let part = start..batch.end.min(start + records);
                    let fresh = part.clone().filter(|offset| settled.insert(*offset)).count() as u64;
                    let known = foreseen(&window, &part, as_, known);
                    prop_assert_eq!(window.settle(part.clone(), as_, known).records, fresh);
                    out.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                }
                Step::SettleParts(n, parts, rest) if !out.is_empty() => {
                    let batch = out.remove(n % out.len());
                    let part = |(skip, len, as_): &(u64, u64, Settled)| {
                        (batch.start + skip..batch.start + skip + len, *as_)
                    };
                    let parts: Vec<_> = parts.iter().map(part).collect();
                    let fresh = batch.clone().filter(|offset| settled.insert(*offset)).count() as u64;
                    let dead = window.books().balance(window.cursor(), end).dead_lettered.records;
                    let named_one = |offset: &u64| parts.iter().any(|(part, _)| part.contains(offset));
                    let only_dead = parts.iter().all(|(_, as_)| *as_ == Settled::DeadLettered);
                    let none_waits = fresh == batch.end - batch.start;
                    let verdict = Verdict::new(&parts, rest);
                    let known = foreseen(&window, &batch, verdict.clone(), known);
                    prop_assert_eq!(window.settle(batch.clone(), verdict, known).records, fresh);
                    if only_dead && none_waits && rest != Settled::DeadLettered {
                        let named = batch.clone().filter(named_one).count() as u64;
                        let now = window.books().balance(window.cursor(), end).dead_lettered.records;
                        prop_assert_eq!(now - dead, named, "each record in the way it was named for");
                    }
                }
                Step::Split(n, at, fails) if !out.is_empty() => {
                    let batch = out[n % out.len()].clone();
                    let at = batch.start + at;
                    if at >= batch.end || window.begin_split(&batch, at).is_err() {
                        continue;
                    }
                    if fails {
                        window.fail_split(&batch, true);
                        continue;
                    }
                    window.split(&batch, at, total(at), [None; 2]);
                    out.retain(|o| *o != batch);
                    let halves = [batch.start..at, at..batch.end];
                    out.extend(halves.into_iter().filter(|half| !half.clone().all(|offset| settled.contains(&offset))));
                }
                Step::SettleAnywhere(start, records, as_) if start < tail => {
                    let part = start..tail.min(start + records);
                    let fresh = part.clone().filter(|offset| !settled.contains(offset)).count() as u64;
                    let known = foreseen(&window, &part, as_, known);
                    let got = window.settle(part.clone(), as_, known).records;
                    prop_assert!(got <= fresh);
                    if got < fresh {
                        // For want of room some of it stays as it is: what lies in no batch.
                        prop_assert!(!window.has_spare());
                        let in_batch = |offset: u64| out.iter().chain(&given_back).any(|o| o.contains(&offset));
                        let stays = |offset: &u64| !in_batch(*offset) && !is_settled(&window, *offset);
                        settled.extend(part.filter(|offset| !stays(offset)));
                    } else {
                        settled.extend(part);
                    }
                    out.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                    given_back.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                }
                Step::Purge(start, records) => {
                    let part = start..tail.min(start + records);
                    let low = window.cursor().low;
                    // What is settled of a batch's beginning does not stay behind.
                    let across = |o: &&Range<u64>| {
                        (o.start.max(low) < part.start && part.start < o.end)
                            || (o.start < part.end && part.end < o.end)
                    };
                    let kept: Vec<Range<u64>> = out.iter().chain(&given_back).filter(across).cloned().collect();
                    let wanted: Vec<u64> = part.clone()
                        .filter(|offset| !settled.contains(offset) && !kept.iter().any(|o| o.contains(offset)))
                        .collect();
                    let known = foreseen(&window, &part, Settled::Purged, known);
                    let got = window.let_go(part.clone(), Settled::Purged, known).records;
                    prop_assert!(got <= wanted.len() as u64);
                    if got < wanted.len() as u64 {
                        prop_assert!(part.start > low || !kept.is_empty(), "from the low mark on there is always room");
                    }
                    let in_batch = |offset: u64| out.iter().chain(&given_back).any(|o| o.contains(&offset));
                    settled.extend(wanted.into_iter().filter(|o| in_batch(*o) || is_settled(&window, *o)));
                    out.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                    given_back.retain(|o| !o.clone().all(|offset| settled.contains(&offset)));
                }
                Step::Dissolve(n) if !out.is_empty() => {
                    let before = window.cursor().clone();
                    let offsets = out.remove(n % out.len());
                    window.dissolve(&offsets);
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
            prop_assert!(cursor.settled.len() < SETTLED_RANGES_MAX);
            prop_assert!(window.books().agree_with(cursor));
            prop_assert!(damaged || cursor.low_bytes == total(cursor.low), "bytes telescope");
            let mut kept = Vec::new();
            cursor.encode(&mut kept);
            let again = Cursor::decode(&mut crate::queue::codec::Decoder::new(&kept));
            prop_assert_eq!(again.as_ref(), Ok(cursor), "what it is can be kept");
            let end = End { offset: tail, bytes: total(tail) };
            let cursor = window.cursor();
            prop_assert!(window.books().balance(cursor, end).closes());
            let booked = (0..tail).filter(|&o| cursor.unsettled(o..o + 1).is_empty());
            prop_assert!(booked.clone().all(|offset| settled.contains(&offset)), "nothing is settled by itself");
            if out.is_empty() && given_back.is_empty() {
                prop_assert_eq!(booked.count(), settled.len(), "with no batch open the cursor holds all");
            }
        }
    }
}
