//! What is let go: gone for good when an operator is told so, and whatever the log takes.

use std::sync::atomic::{AtomicUsize, Ordering};

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::SimDisk;

use super::*;

fn all_purged(house: &House, filter: &Filter) -> Result<u64, SweepError> {
    let (mut from, mut done) = (Some(0), 0);
    while let Some(at) = from {
        let step = house.desk().purge(filter, at)?;
        (from, done) = (step.next, done + step.done);
    }
    Ok(done)
}

/// Before, a crash within a tick brought back what an operator had been told is gone.
#[test]
fn what_an_operator_was_told_is_purged_is_purged_after_a_crash() {
    let house = House::new();
    house.append(10);
    house.deliver(10, &[3]);
    house.queues.tick().unwrap();
    assert_eq!(all_purged(&house, &Filter::default()).unwrap(), 1);
    let house = house.crash();
    assert_eq!((house.dead(), house.sheet().purged.records), (vec![], 1));
}

#[test]
fn a_purge_that_the_disk_does_not_keep_is_refused_and_kept_when_it_is_asked_for_again() {
    let disk = SimDisk::new(3);
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(10);
    house.deliver(10, &[3]);
    house.queues.tick().unwrap();
    disk.inject(Fault::every(OpKind::Sync, Failure::Eio).on("floor"));
    assert!(all_purged(&house, &Filter::default()).is_err(), "it would be there again after a crash");
    assert!(all_purged(&house, &Filter::default()).is_err());
    disk.clear_faults();
    assert_eq!(all_purged(&house, &Filter::default()).unwrap(), 0, "nothing is left, and that is kept now");
    let house = house.crash();
    assert_eq!((house.dead(), house.sheet().purged.records), (vec![], 1));
}

/// Those between them can't be moved, as their records may come again.
#[test]
fn a_purge_of_more_than_there_is_room_for_is_refused_until_there_is() {
    let house = House::new();
    house.append(1000);
    let [first, second] = [house.batch(500), house.batch(500)];
    let stays = |at| house.letter(&first, at, Kind::Dead, "stays");
    let goes = |at| house.letter(&second, at, Kind::Dead, "goes");
    house.park((0..500).flat_map(|at| [stays(at), goes(at + 500)]).collect());
    house.main.settle_parts(&second, &[], Settled::DeadLettered);
    let filter = Filter { reason: Some("goes".to_owned()), ..Filter::default() };
    assert!(all_purged(&house, &filter).is_err());
    house.main.settle_parts(&first, &[], Settled::DeadLettered);
    (0..20).for_each(|_| house.tend());
    all_purged(&house, &filter).unwrap();
    let house = house.crash();
    let mut dead = house.dead();
    dead.sort_unstable();
    assert_eq!((dead, house.sheet().purged.records), ((0..500).collect(), 500));
}

/// Before, whatever failed to be moved kept held letters from leaving and dead ones from being let go.
#[test]
fn held_letters_leave_and_dead_ones_are_let_go_while_the_log_takes_nothing() {
    let disk = SimDisk::new(3);
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(1000);
    let later = Kind::Held { not_before_ms: house.clock.wall_ms() + 10_000 };
    let [held, dead] = [house.batch(500), house.batch(500)];
    house.park(held.offsets.clone().map(|at| house.letter(&held, at, later, "quota")).collect());
    house.park(dead.offsets.clone().map(|at| house.letter(&dead, at, Kind::Dead, "bad")).collect());
    house.main.settle_parts(&held, &[], Settled::Held);
    house.main.settle_parts(&dead, &[], Settled::DeadLettered);
    let desk = house.desk();
    for shelf in [Shelf::Held, Shelf::Dead] {
        let place = desk.shelves().unwrap().place(shelf);
        (0..300).step_by(2).for_each(|at| assert!(place.settle(at..at + 1, Settled::Delivered)));
        assert!(place.scattered().is_some());
    }
    let woken = Arc::new(AtomicUsize::new(0));
    let wakes = Arc::clone(&woken);
    house.held(true).on_more(Arc::new(move || _ = wakes.fetch_add(1, Ordering::Relaxed)));
    disk.inject(Fault::every(OpKind::Write, Failure::NoSpace).on(".sys"));
    house.tend();
    assert_eq!((woken.load(Ordering::Relaxed), house.dead().len()), (0, 350));
    house.clock.advance(Duration::from_secs(11));
    house.desk().set_policy(Policy { age_max: None, bytes_max: Some(0) });
    house.tend();
    assert!(woken.load(Ordering::Relaxed) > 0, "they are due");
    assert_eq!((house.dead().len(), house.sheet().expired.records), (0, 350));
}

/// Of a full disk, which takes no letter that would be moved, what is purged makes room.
#[test]
fn letters_are_purged_while_the_log_takes_nothing() {
    let disk = SimDisk::new(3);
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(500);
    house.deliver(500, &(0..500).collect::<Vec<u64>>());
    let desk = house.desk();
    let place = desk.shelves().unwrap().place(Shelf::Dead);
    (0..300).step_by(2).for_each(|at| assert!(place.settle(at..at + 1, Settled::Purged)));
    disk.inject(Fault::every(OpKind::Write, Failure::NoSpace).on(".sys"));
    assert!(desk.redrive(&Filter::default(), 0).is_err(), "that needs room");
    assert_eq!(all_purged(&house, &Filter::default()).unwrap(), 350);
    disk.clear_faults();
    drop(desk);
    assert_eq!(house.crash().dead(), [0; 0]);
}
