//! Letters that are gone and found no room to be settled: a cursor has only so many ranges.

use super::*;
use crate::letters::sweep::Fate;

/// A destination that takes nothing: all records are dead letters, so many parked at a time.
fn all_dead(records: u64, at_once: u64) -> House {
    let house = House::new();
    house.append(records);
    for first in (0..records).step_by(at_once as usize) {
        house.deliver(at_once, &(first..first + at_once).collect::<Vec<u64>>());
    }
    house
}

/// Every other dead letter.
fn odd(house: &House) -> Filter {
    let page = house.desk().list(&Filter::default(), 0, usize::MAX).unwrap();
    let odd = page.letters.into_iter().filter(|letter| letter.origin.offset % 2 == 1);
    Filter { ids: odd.map(|letter| letter.id).collect(), ..Filter::default() }
}

fn sorted(mut offsets: Vec<u64>) -> Vec<u64> {
    offsets.sort_unstable();
    offsets
}

fn even(records: u64) -> Vec<u64> {
    (0..records).step_by(2).collect()
}

/// Before, what had found no room was moved with the others, and so was there again: of five hundred letters that were meant
/// 527 were sent.
#[test]
fn what_is_gone_is_not_moved_though_there_was_no_room_to_settle_it() {
    for fate in [Fate::Redriven, Fate::Gone(Settled::Purged)] {
        let house = all_dead(1000, 250);
        let filter = odd(&house);
        let (mut from, mut done) = (Some(0), 0);
        while let Some(at) = from {
            let step = house.desk().sweep(&filter, at, usize::MAX, fate).unwrap().step;
            (from, done) = (step.next, done + step.done);
        }
        house.tend();
        house.tend();
        assert_eq!((done, sorted(house.dead())), (500, even(1000)), "{fate:?}");
        let sent = send_all(&house.held(true)).len() as u64;
        let sheet = house.sheet();
        assert!(sheet.closes());
        assert_eq!(
            (sent, sheet.accepted.records, sheet.dead_lettered.records),
            match fate {
                Fate::Redriven => (500, 1000, 500),
                Fate::Gone(_) => (0, 1000, 500),
            }
        );
    }
}
