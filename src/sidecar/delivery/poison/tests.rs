//! Whole runs against receivers of every temper, without time or network.

use super::*;
use proptest::collection::btree_set;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn alone(at: u64, since: Option<Mark>, undecided: u64) -> Piece {
    Piece { sender: Sender::All, place: (0, at), alone: true, since, undecided }
}

fn several(at: u64, since: Option<Mark>) -> Piece {
    Piece { sender: Sender::All, place: (0, at), alone: false, since, undecided: 0 }
}

#[test]
fn a_record_alone_is_in_doubt_until_something_else_was_taken_that_was_sent_later() {
    let mut poison = Poison::default();
    let before = poison.now();
    let first = poison.rejected(alone(0, None, 0));
    let Ruling::Doubt(since) = first.ruling else { panic!("{first:?}") };
    poison.accepted(Sender::All, before, 10);
    let second = poison.rejected(alone(0, Some(since), 0));
    assert_eq!(second.ruling, Ruling::Doubt(since), "that was sent before the rejection was heard");
    poison.accepted(Sender::All, poison.now(), 10);
    assert_eq!(poison.rejected(alone(0, Some(since), 0)), Judgement { ruling: Ruling::Poison, refuses: false });
}

#[test]
fn two_halves_that_fail_whole_mean_that_the_destination_refuses() {
    let mut poison = Poison::default();
    poison.accepted(Sender::All, poison.now(), 100_000);
    let whole = poison.rejected(several(0, None));
    let Judgement { ruling: Ruling::Split(since), refuses: false } = whole else { panic!("{whole:?}") };
    assert!(!poison.rejected(several(0, Some(since))).refuses);
    assert!(!poison.rejected(several(0, Some(since))).refuses, "the same half again says no more");
    assert!(poison.rejected(several(50, Some(since))).refuses);
}

#[test]
fn two_halves_fail_and_something_was_taken_in_between() {
    let mut poison = Poison::default();
    let Ruling::Split(since) = poison.rejected(several(0, None)).ruling else { panic!("not split") };
    assert!(!poison.rejected(several(0, Some(since))).refuses);
    poison.accepted(Sender::All, poison.now(), 1);
    assert!(!poison.rejected(several(50, Some(since))).refuses, "both hold poison");
}

#[test]
fn more_than_three_or_one_in_a_hundred_of_ten_thousand_is_too_much() {
    let mut poison = Poison::default();
    assert!(poison.allows(Sender::All, 3, 1) && !poison.allows(Sender::All, 4, 1), "a new destination");
    poison.accepted(Sender::All, poison.now(), 5_000);
    assert!(poison.allows(Sender::All, 50, 0) && !poison.allows(Sender::All, 51, 0));
    poison.accepted(Sender::All, poison.now(), 1_000_000);
    assert!(poison.allows(Sender::All, 100, 0) && !poison.allows(Sender::All, 101, 0));
    poison.parked(Sender::All, 60);
    assert!(poison.allows(Sender::All, 40, 0) && !poison.allows(Sender::All, 41, 0), "what was parked counts");
    for _ in 0..20 {
        poison.accepted(Sender::All, poison.now(), 1_000);
    }
    assert!(poison.allows(Sender::All, 100, 0), "and is forgotten after ten thousand records");
    assert!(
        poison.by_sender[&Sender::All].recent.heaps.len() <= 12,
        "{} heaps",
        poison.by_sender[&Sender::All].recent.heaps.len()
    );
}

/// Before, whoever had an SDK key of one customer could have the destination taken for one that refuses.
#[test]
fn each_sender_is_judged_by_its_own_answers() {
    let mut poison = Poison::default();
    let [bad, good] = [1, 2].map(|stream| Sender::Stream(LogId(1), StreamId(stream)));
    let of = |sender, at, since, undecided| Piece { sender, ..alone(at, since, undecided) };
    let marks: Vec<Mark> = (0..4)
        .map(|at| {
            poison.accepted(good, poison.now(), 1);
            let judged = poison.rejected(of(bad, at, None, at));
            assert_eq!(judged.refuses, at >= 3, "the fourth is too much, whatever others had taken");
            let Ruling::Doubt(since) = judged.ruling else { panic!("{judged:?}") };
            since
        })
        .collect();
    assert!(marks.is_sorted_by(|a, b| a < b));
    poison.accepted(good, poison.now(), 10_000);
    assert!(!poison.proven(bad, Some(marks[0])) && poison.proven(good, Some(marks[0])));
    let again = poison.rejected(of(bad, 0, Some(marks[0]), 0));
    assert_eq!(again, Judgement { ruling: Ruling::Doubt(marks[0]), refuses: false }, "others prove nothing for it");
    poison.parked(bad, 3);
    assert!(!poison.allows(bad, 1, 0) && poison.allows(good, 3, 0));
    poison.forgive();
    assert!(poison.allows(bad, 3, 0));
}

/// Sends records one piece at a time, as the loop does, until all are delivered, poison, or the destination refuses.
fn run(poison: &mut Poison, records: u64, takes: impl Fn(u64) -> bool) -> Result<BTreeSet<u64>, usize> {
    let mut queue: VecDeque<(u64, u64, Option<Mark>)> = VecDeque::from([(0, records, None)]);
    let (mut dead, mut doubts, mut sends) = (BTreeSet::new(), Vec::new(), 0);
    while let Some((start, end, since)) = queue.pop_front() {
        sends += 1;
        assert!(sends < 10_000, "it ends");
        let begun = poison.now();
        if (start..end).all(&takes) {
            poison.accepted(Sender::All, begun, end - start);
            doubts.drain(..).for_each(|doubt| queue.push_front(doubt));
            continue;
        }
        let undecided = (dead.len() + doubts.len()) as u64;
        let piece = Piece { sender: Sender::All, place: (0, start), alone: end - start == 1, since, undecided };
        let Judgement { ruling, refuses } = poison.rejected(piece);
        if refuses {
            return Err(sends);
        }
        match ruling {
            Ruling::Split(since) => {
                let middle = start.midpoint(end);
                queue.push_front((middle, end, Some(since)));
                queue.push_front((start, middle, Some(since)));
            }
            Ruling::Doubt(since) => doubts.push((start, end, Some(since))),
            Ruling::Poison => drop(dead.insert(start)),
        }
    }
    assert!(doubts.is_empty(), "nothing was taken, so there can be no more than three: {doubts:?}");
    Ok(dead)
}

proptest! {
    /// Whatever is rejected, only that is ever found to be poison; and with one poisoned record it is always found.
    #[test]
    fn what_is_found_to_be_poison_is_poison(records in 2u64..2_000, poisoned in btree_set(0u64..2_000, 0..6)) {
        let poisoned: BTreeSet<u64> = poisoned.into_iter().filter(|at| *at < records).collect();
        prop_assume!(poisoned.len() as u64 != records);
        let found = run(&mut Poison::default(), records, |at| !poisoned.contains(&at));
        if let Ok(found) = &found {
            prop_assert_eq!(found, &poisoned);
        }
        prop_assert!(found.is_ok() || poisoned.len() > 1, "one record is no reason to refuse");
    }

    /// A receiver that rejects everything is found out after three requests, and nothing is poison.
    #[test]
    fn who_rejects_everything_refuses(records in 4u64..5_000, before in 0u64..100_000) {
        let mut poison = Poison::default();
        poison.accepted(Sender::All, poison.now(), before);
        prop_assert!(run(&mut poison, records, |_| false).is_err_and(|sends| sends <= 2 * records.ilog2() as usize + 3));
    }
}
