//! Letters that the disk refuses to read when the process starts.

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::SimDisk;

use super::*;

/// Before, all were refused for one.
#[test]
fn letters_that_cant_be_read_at_the_start_are_read_later_and_settled_where_their_records_were() {
    let disk = SimDisk::new(1);
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(10);
    let batch = house.batch(10);
    house.park(vec![house.letter(&batch, 3, Kind::Dead, "bad")]);
    house.queues.tick().unwrap();
    // It is durable, and its record is not settled in its own queue.
    let House { clock, queues, main, letters, .. } = house;
    drop((batch, queues, main, letters));
    let by: Arc<dyn Clock> = Arc::new(clock.clone());
    let (data, inline) = (Path::new("/data"), QueueOptions::inline());
    let queues = Queues::open(Arc::new(disk.clone()), Arc::clone(&by), data, LogOptions::small(), inline).unwrap();
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".sys"));
    let letters = Letters::open(queues.clone(), by);
    assert!(letters.is_unread(HOOK) && letters.read(HOOK).is_err());
    letters.read("other").unwrap();
    assert!(letters.desks().is_empty());
    assert_eq!(letters.dead().get(HOOK).map(|dead| dead.records), Some(1), "it is counted");
    let main = queues.find(HOOK, "prod").unwrap();
    assert!(!main.cursor().is_settled(3));
    disk.clear_faults();
    letters.read(HOOK).unwrap();
    assert!(!letters.is_unread(HOOK) && main.cursor().is_settled(3), "it lies in one place");
    assert_eq!(letters.desks().len(), 1);
    let house = House { disk: Arc::new(disk), clock, queues, main, letters };
    assert_eq!(house.dead(), [3]);
}
