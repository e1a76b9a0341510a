//! A disk that reads nothing for a while: what needed a look changes nothing, and can be asked for again.

use forebay::clock::ManualClock;
use forebay::{QueueError, Settled, SplitError, Start};
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::queues::{ANY, append, hook, open, plan, split};
use storage_tests::sim_disk::SimDisk;

/// Before it is made the log is told to keep what it is to have.
#[test]
fn what_was_kept_for_a_queue_that_could_not_be_made_goes_all_the_same() {
    for others in [true, false] {
        let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
        let queues = open(&disk, &clock);
        (0..40).for_each(|_| append(&queues, "acme", 10));
        if others {
            let queue = hook(&queues);
            queue.settle_range(0..400, Settled::Delivered);
        }
        (0..3).for_each(|_| queues.tick().expect("the disk is sound"));
        disk.inject(Fault::every(OpKind::Read, Failure::Eio));
        let refused = queues.queue("late", "acme", Start::At(15)).map(|_| ());
        assert!(matches!(refused, Err(QueueError::Read(_))), "others: {others}: {refused:?}");
        assert!(queues.find("late", "acme").is_none());
        disk.clear_faults();
        let stream = queues.log().stream("acme").expect("it is there");
        assert_eq!(queues.log().first_kept(stream), 0, "others: {others}: nothing went yet");
        for _ in 0..3 {
            queues.tick().expect("the disk is sound");
            queues.log().housekeep();
        }
        let first_kept = queues.log().first_kept(stream);
        assert!(first_kept > 300, "others: {others}: all from {first_kept} on is kept");
    }
}

#[test]
fn a_split_for_which_the_log_cannot_be_read_changes_nothing_and_is_asked_for_again() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    (0..40).for_each(|_| append(&queues, "acme", 10));
    let range = queue.next_range(ANY.into()).expect("it reads").expect("all wait");
    plan(&queue, &range);
    disk.inject(Fault::every(OpKind::Read, Failure::Eio));
    assert!(matches!(split(&queue, &range, 33), Err(SplitError::Read(_))));
    assert_eq!((queue.failed_split(&range), queue.lag().in_flight), (None, 400));
    plan(&queue, &range); // as it was
    disk.clear_faults();
    let [first, second] = split(&queue, &range, 33).expect("the disk reads again");
    assert_eq!((first.offsets.clone(), first.bytes, second.offsets.clone()), (0..33, 3_300, 33..400));
    [first, second].iter().for_each(|half| queue.settle(half, Settled::Delivered));
    assert!(queue.balance().closes() && queue.lag().records == 0);
}
