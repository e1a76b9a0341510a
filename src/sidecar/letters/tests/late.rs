//! Letters that are gone and found no room to be settled: a cursor has only so many ranges.

use std::sync::atomic::{AtomicBool, Ordering};

use storage_tests::interrupted::Interrupted;
use storage_tests::queues::out_of_memory;
use storage_tests::sim_disk::SimDisk;

use super::between::{claimed, letters_of};
use super::*;
use crate::delivery::sheet::InDoubt;
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

/// Before, what was settled of the former places at a start ended where the cursor had no room: the rest lay in two places.
#[test]
fn letters_that_were_moved_together_lie_in_one_place_after_a_crash_whatever_room_there_was() {
    let house = all_dead(1000, 100);
    house.queues.tick().unwrap();
    let Filter { ids, .. } = odd(&house);
    for ids in ids.chunks(100) {
        let filter = Filter { ids: ids.to_vec(), ..Filter::default() };
        house.desk().sweep(&filter, 0, usize::MAX, Fate::Gone(Settled::Expired)).unwrap();
    }
    // Before the next tick: those that were let go are there again.
    let mut house = house.crash();
    for _ in 0..2 {
        assert_eq!(sorted(house.dead()), (0..1000).collect::<Vec<u64>>());
        let sheet = house.sheet();
        assert!(sheet.closes());
        assert_eq!((sheet.accepted.records, sheet.dead_lettered.records), (1000, 1000));
        (0..20).for_each(|_| house.tend());
        assert_eq!(house.letters.in_doubt(HOOK), InDoubt::default(), "there was room at last");
        house.queues.tick().unwrap();
        house = house.crash();
    }
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 1000);
    assert_eq!(send_all(&house.held(true)), (0..1000).collect::<Vec<u64>>());
}

#[test]
fn a_crash_behind_a_redrive_leaves_what_was_moved_out_of_its_way_in_one_place() {
    let house = all_dead(1000, 100);
    house.queues.tick().unwrap();
    assert_eq!(all_redriven(&house.desk(), &odd(&house)), 500);
    let house = house.crash();
    assert_eq!(sorted(house.dead()), even(1000));
    assert_eq!(send_all(&house.held(true)), (0..1000).filter(|offset| offset % 2 == 1).collect::<Vec<u64>>());
    let sheet = house.sheet();
    assert!(sheet.closes());
    assert_eq!((sheet.accepted.records, sheet.dead_lettered.records, sheet.delivered.records), (1000, 500, 500));
}

/// Before, the letter was looked for where it had lain before it moved, was not found there, and was kept again.
#[test]
fn a_letter_that_moved_is_known_after_a_crash_though_its_former_place_found_no_room() {
    let house = House::new();
    house.append(1000);
    let batch = claimed(&house.source());
    let all: Vec<u64> = batch.job.origin.offsets.clone().collect();
    let wanted = even(all.len() as u64);
    assert!(wanted.len() > 256);
    for some in all.chunks(100) {
        house.park(letters_of(&batch, some, Kind::Held { not_before_ms: 0 }));
    }
    let dead = letters_of(&batch, &wanted, Kind::Dead);
    house.park(dead.clone());
    drop(batch);
    let house = house.crash();
    assert_eq!(house.dead(), wanted);
    // Whoever takes them for dead once more, by an answer that came late, keeps nothing twice.
    house.park(dead);
    assert_eq!(house.dead(), wanted);
}

/// Before, what is gone was so no more while it was being settled: it was read in between, and sent again.
#[test]
fn what_is_gone_is_so_while_it_is_settled_at_last() {
    let disk = Interrupted::over(SimDisk::new(5));
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(100);
    house.deliver(100, &(0..100).collect::<Vec<u64>>());
    out_of_memory(house.queues.log());
    let desk = house.desk();
    let shelves = desk.shelves().unwrap();
    shelves.state().flights.late(Shelf::Dead, 10..20, Settled::Purged);
    let (theirs, said) = (house.desk(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&said);
    disk.interrupt_reading(Some(Arc::new(move |_| {
        let is_gone = theirs.shelves().unwrap().is_gone(Shelf::Dead, 12);
        heard.lock().unwrap().push(is_gone);
    })));
    shelves.settle_late();
    disk.interrupt_reading(None);
    let said = said.lock().unwrap();
    assert!(!said.is_empty() && said.iter().all(|is_gone| *is_gone), "{said:?}");
    assert!((10..20).all(|offset| shelves.place(Shelf::Dead).cursor().is_settled(offset)));
    assert!(!shelves.state().flights.is_late(Shelf::Dead, 12));
}

/// Before, what was settled between the look at the cursor and the look at the letter counted as there.
#[test]
fn what_is_settled_while_it_is_read_is_neither_shown_nor_sent() {
    let disk = Interrupted::over(SimDisk::new(5));
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(100);
    house.deliver(100, &(0..100).collect::<Vec<u64>>());
    out_of_memory(house.queues.log());
    let settled_while_read = |late: std::ops::Range<u64>| {
        let desk = house.desk();
        desk.shelves().unwrap().state().flights.late(Shelf::Dead, late, Settled::Purged);
        let once = AtomicBool::new(true);
        disk.interrupt_reading(Some(Arc::new(move |_| {
            if once.swap(false, Ordering::Relaxed) {
                desk.shelves().unwrap().settle_late();
            }
        })));
    };
    settled_while_read(0..10);
    assert_eq!(house.dead(), (10..100).collect::<Vec<u64>>());
    settled_while_read(10..20);
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 80);
    disk.interrupt_reading(None);
    assert_eq!(send_all(&house.held(true)), (20..100).collect::<Vec<u64>>());
}

/// Before, it was due as soon as it was in flight no more, for whoever had asked before what is settled.
#[test]
fn a_letter_that_is_delivered_while_its_neighbours_are_read_is_not_sent_again() {
    let disk = Interrupted::over(SimDisk::new(5));
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(10);
    let batch = house.batch(10);
    house.park((0..10).map(|at| house.letter(&batch, at, Kind::Held { not_before_ms: 0 }, "quota")).collect());
    house.main.settle_parts(&batch, &[], Settled::Held);
    house.clock.advance(Duration::from_secs(1));
    let source = house.held(true);
    let [first, second] = [next(&source).unwrap(), next(&source).unwrap()];
    assert_eq!([offsets(&first), offsets(&second)], [[0], [1]]);
    out_of_memory(house.queues.log());
    drop(second); // what was read ahead is read again
    let first = Mutex::new(Some(first));
    disk.interrupt_reading(Some(Arc::new(move |_| {
        let first = first.lock().unwrap().take();
        if let Some(first) = first {
            first.ticket.settle(&[], Settled::Delivered);
        }
    })));
    assert_eq!(send_all(&source), (1..10).collect::<Vec<u64>>());
    assert_eq!(house.sheet().delivered.records, 10);
}
