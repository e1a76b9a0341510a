//! Floors that a start finds, and that a power cut would not leave: what a failed sync lost the kernel still shows, and only a new
//! file with a new name makes it durable.

use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::{Queues, Settled, Start};
use std::path::Path;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::{ANY, append, open, try_open};
use storage_tests::sim_disk::{PowerCut, SimDisk};

fn begin(seed: u64) -> (SimDisk, ManualClock) {
    (SimDisk::new(seed), ManualClock::at(1_000_000))
}

/// All that waits is delivered, and the floor says so in both slots.
fn deliver(queues: &Queues) {
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
        queue.settle(&batch, Settled::Delivered);
    }
    (0..2).for_each(|_| queues.tick().expect("the disk is sound"));
}

/// Before: the very first start failed in its sync of the directory. The next one found the floor by its name, wrote to it in place
/// ever after, and a power cut weeks later left none: all that was kept went out again in other batches.
#[test]
fn the_name_of_a_floor_that_a_failed_start_left_to_chance_is_made_again() {
    for (seed, nth) in (0..16).flat_map(|seed| (0..8).map(move |nth| (seed, nth))) {
        let (disk, clock) = begin(seed);
        disk.inject(Fault::nth(OpKind::SyncDir, nth, Failure::Eio));
        drop(try_open(&disk, &clock, Duration::ZERO));
        disk.process_kill();
        disk.clear_faults();
        let queues = open(&disk, &clock);
        append(&queues, "acme", 10);
        deliver(&queues);
        drop(queues);
        disk.power_cut(PowerCut::NothingUnsynced);
        let queues = open(&disk, &clock);
        assert_eq!(queues.stats().floor_damage, [], "seed {seed}, sync {nth}");
        assert_eq!(
            queues.queue("hook", "acme", Start::Now).expect("it is there").cursor().low,
            10,
            "seed {seed}, sync {nth}"
        );
    }
}

/// Before: the process ended in a burst of errors, with a new floor whose name was not durable. The next one wrote to that in place,
/// and after a power cut the floor of long ago was back, sound: a destination that was made since then began at the end, and what
/// waited for it was skipped without a word.
#[test]
fn a_floor_of_long_ago_does_not_come_back_over_one_that_a_start_went_on_with() {
    for seed in 0..16 {
        let (disk, clock) = begin(seed);
        let queues = open(&disk, &clock);
        append(&queues, "acme", 10);
        deliver(&queues);
        disk.inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on("floor"));
        disk.inject(Fault::every(OpKind::SyncDir, Failure::Eio));
        append(&queues, "acme", 10);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
        queue.settle_range(10..20, Settled::Delivered);
        (0..2).for_each(|_| queues.tick().map_or((), |()| panic!("the disk is broken")));
        drop((queue, queues));
        disk.process_kill();
        disk.clear_faults();

        let queues = open(&disk, &clock);
        queues.queue("new", "acme", Start::Now).expect("it is made");
        append(&queues, "acme", 10);
        (0..2).for_each(|_| queues.tick().expect("the disk is sound"));
        drop(queues);
        disk.power_cut(PowerCut::NothingUnsynced);
        let queues = open(&disk, &clock);
        assert_eq!(queues.stats().floor_damage, [], "seed {seed}");
        assert_eq!(queues.queue("hook", "acme", Start::Now).expect("it is there").cursor().low, 20, "seed {seed}");
        let new = queues.find("new", "acme").unwrap_or_else(|| panic!("seed {seed}: it was durable"));
        assert_eq!(new.lag().records, 10, "seed {seed}");
    }
}

/// Before: a slot whose sync had failed passed for the newest one after a kill, and the next commit went over the only slot of its
/// page that was durable. A power cut in that write left none.
#[test]
fn a_slot_that_a_failed_sync_left_in_the_cache_costs_no_durable_one() {
    for seed in 0..12 {
        let (before, clock) = begin(seed);
        let queues = open(&before, &clock);
        append(&queues, "acme", 10);
        deliver(&queues);
        append(&queues, "acme", 10);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
        queue.settle_range(10..20, Settled::Delivered);
        before.inject(Fault::every(OpKind::Sync, Failure::Eio).on("floor"));
        (0..2).for_each(|_| queues.tick().map_or((), |()| panic!("the disk is broken")));
        drop((queue, queues));
        before.process_kill();
        before.clear_faults();
        for ahead in 0..40 {
            let disk = SimDisk::from_snapshot(&before.snapshot());
            disk.reseed(seed);
            disk.crash_at(disk.ops() + ahead, Performed::Bytes(30));
            let opened = try_open(&disk, &clock, Duration::ZERO);
            let _ = opened.map(|queues| queues.tick());
            disk.power_cut(PowerCut::Everything);
            let queues = open(&disk, &clock);
            assert_eq!(queues.stats().floor_damage, [], "seed {seed}, {ahead} ahead");
            let low = queues.queue("hook", "acme", Start::Now).expect("it is there").cursor().low;
            assert!(low == 10 || low == 20, "seed {seed}, {ahead} ahead: {low}");
        }
    }
}

/// A disk without a free byte has no room for a new one. Only a floor that rises lets segments go, and when one has gone there is.
#[test]
fn a_floor_that_a_start_found_rises_on_a_full_disk_and_is_made_anew_when_there_is_room() {
    let (disk, clock) = begin(1);
    let queues = open(&disk, &clock);
    (0..60).for_each(|_| append(&queues, "acme", 10));
    queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    (0..2).for_each(|_| queues.tick().expect("the disk is sound"));
    drop(queues);
    disk.process_kill();
    // Whoever looked for room has taken what the process before had taken ahead.
    disk.erase(Path::new("/data/floor.new"));
    let space = disk.space(Path::new("/data")).expect("it says");
    disk.set_capacity(space.total - space.free);

    let queues = open(&disk, &clock);
    let segments = queues.log().stats().segments;
    deliver(&queues);
    queues.log().housekeep();
    assert!(queues.log().stats().segments < segments, "the disk has room again");
    disk.set_capacity(1 << 40);
    disk.start_trace();
    for _ in 0..700 {
        append(&queues, "acme", 1);
        deliver(&queues);
    }
    let anew = disk
        .take_trace()
        .iter()
        .filter(|change| change.kind == OpKind::Rename && change.path.ends_with("floor.new"))
        .count();
    assert_eq!(anew, 1);
}
