//! What is let go: gone for good when an operator is told so, and whatever the log takes.

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
