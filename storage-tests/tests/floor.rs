//! The floor over a bad disk: what is believed of it when a part is lost, and what it needs to be written again.

use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::{
    Batch, BatchLimits, LogOptions, MemStore, Payload, Queue, QueueOptions, Queues, Settled, Start, StoreChoice,
};
use std::collections::{BTreeSet, HashMap};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::{PowerCut, SimDisk};

const ANY: BatchLimits = BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX };
const SLOT_BYTES: u64 = 12_288;

fn open_with(disk: &SimDisk, clock: &ManualClock, store: StoreChoice) -> Queues {
    let log = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 4 << 20,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    let options = QueueOptions { store, ..QueueOptions::inline() };
    Queues::open(disk, clock, Path::new("/data"), log, options).expect("no damage keeps it from opening")
}

fn open(disk: &SimDisk, clock: &ManualClock) -> Queues {
    open_with(disk, clock, StoreChoice::None)
}

fn append(queues: &Queues, records: u32) {
    let payload = Payload { bytes: vec![7; records as usize * 100], records };
    queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
}

fn hook(queues: &Queues) -> Queue {
    queues.queue("hook", "acme", Start::Earliest).expect("it is made")
}

fn planned(queue: &Queue) -> Batch {
    let batch = queue.next_batch(ANY).expect("it reads").expect("something waits");
    queue.plan(&batch, Box::new(|planned| planned.expect("the plan is durable")));
    batch
}

fn settle_all(queue: &Queue) {
    while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
        queue.settle(&batch, Settled::Delivered);
    }
}

fn tick(queues: &Queues) {
    queues.tick().expect("the disk is sound");
}

/// Puts rot over a slot of the floor, for good.
fn rot(disk: &SimDisk, page: u64, slot: u64) {
    let file = disk.open(Path::new("/data/floor")).expect("it is there");
    file.write_all_at(&[IoSlice::new(&[0xa5; 64])], (page * 2 + slot) * SLOT_BYTES).expect("it is written");
    file.sync_data().expect("it is synced");
}

/// Before: after the floor was lost, a destination that was deleted took over its orphaned plans when it was made again,
/// and sent other records' worth of work under ids that its receiver had seen.
#[test]
fn what_is_deleted_while_the_floor_is_pinned_is_deleted_with_its_orphaned_plans() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, 20);
    let before = planned(&queue);
    tick(&queues);
    drop((queue, queues));
    disk.erase(Path::new("/data/floor"));

    let queues = open(&disk, &clock);
    assert!(queues.stats().pinned);
    queues.delete("hook", None).expect("the disk is sound");
    let again = planned(&hook(&queues));
    assert_eq!(again.offsets, before.offsets, "from the oldest record, since the floor is pinned");
    assert_ne!(again.id, before.id);
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    let resumed = hook(&queues).next_batch(ANY).expect("it reads").expect("it waits");
    assert_eq!(resumed.id, again.id, "the new life goes on");
}

/// Before: with a page of the floor lost, the plans of a destination that was deleted long ago passed for those of one
/// whose queue was on that page.
#[test]
fn plans_below_the_floors_number_are_not_taken_over_when_a_page_is_lost() {
    let (disk, clock) = (SimDisk::new(2), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    for n in 0..120 {
        queues.queue(&format!("idle-{n}"), "acme", Start::Earliest).expect("it is made");
    }
    append(&queues, 20);
    let before = planned(&hook(&queues));
    queues.delete("hook", None).expect("the disk is sound");
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    (0..2).for_each(|slot| rot(&disk, 2, slot));

    let queues = open(&disk, &clock);
    assert!(queues.stats().pinned);
    let again = planned(&hook(&queues));
    assert_eq!(again.offsets, before.offsets);
    assert_ne!(again.id, before.id, "the one that was deleted had this id");
}

/// The floor's number is in its first page. Where that is damaged, the plan may be of a life that is over.
#[test]
fn a_plan_without_a_queue_makes_one_only_where_the_floors_number_is_known() {
    for damaged in [false, true] {
        let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
        let queues = open(&disk, &clock);
        append(&queues, 20);
        queues.queue("idle", "acme", Start::Earliest).expect("it is made");
        tick(&queues);
        drop((planned(&hook(&queues)), queues));
        disk.power_cut(PowerCut::NothingUnsynced);
        if damaged {
            (0..2).for_each(|slot| rot(&disk, 0, slot));
        }

        let queues = open(&disk, &clock);
        let stats = queues.stats();
        assert_eq!((stats.floor_damage.is_empty(), stats.pinned), (!damaged, false), "{stats:?}");
        assert_eq!(queues.all().iter().any(|queue| queue.destination() == "hook"), !damaged);
    }
}

/// Before: when the floor was lost and the cursor store was not, a queue that was made again had the hours of its earlier
/// life, as soon as it had settled as much.
#[test]
fn a_queue_made_again_after_the_floor_was_lost_takes_over_no_hours() {
    let (disk, clock, store) = (SimDisk::new(3), ManualClock::at(1_000_000), MemStore::default());
    let queues = open_with(&disk, &clock, StoreChoice::Memory(store.clone()));
    let queue = hook(&queues);
    append(&queues, 10);
    queue.settle_range(0..4, Settled::Delivered);
    clock.advance(Duration::from_secs(3600));
    tick(&queues);
    assert_eq!(queue.hourly().known_from_ms, 1_000_000);
    drop((queue, queues));
    disk.erase(Path::new("/data/floor"));

    let queues = open_with(&disk, &clock, StoreChoice::Memory(store.clone()));
    hook(&queues).settle_range(0..10, Settled::Delivered);
    tick(&queues);
    drop(queues);
    clock.advance(Duration::from_secs(60));
    let queues = open_with(&disk, &clock, StoreChoice::Memory(store));
    let queue = hook(&queues);
    assert_eq!(queue.balance().delivered.records, 10);
    let hourly = queue.hourly();
    assert_eq!(hourly.known_from_ms, 1_000_000 + 3_600_000, "since it was made again, and nothing from before");
    let delivered: u64 = hourly.hours.iter().map(|hour| hour.balance.delivered.records).sum();
    assert_eq!(delivered, 10);
}

/// Before: after one failed write the floor needed blocks for a new file. A full disk had none, and only a floor that
/// rises lets segments go: the disk stayed full for good.
#[test]
fn a_floor_whose_file_has_failed_is_written_anew_on_a_full_disk() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    (0..60).for_each(|_| append(&queues, 10));
    (0..2).for_each(|_| tick(&queues));
    let space = disk.space(Path::new("/data")).expect("it says");
    disk.set_capacity(space.total - space.free);
    let segments = queues.log().stats().segments;

    for round in 1..4 {
        disk.inject(Fault::nths(OpKind::Sync, 0..1, Failure::Eio).on("floor"));
        queue.settle_range(round * 100..(round + 1) * 100, Settled::Delivered);
        queues.tick().expect_err("the floor's sync fails");
        disk.clear_faults();
        queues.tick().expect("there are blocks for a new file");
    }
    settle_all(&queue);
    (0..2).for_each(|_| tick(&queues));
    queues.log().housekeep();
    assert!(queues.log().stats().segments < segments, "and the disk has room again");
    let low = queue.cursor().low;
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    assert_eq!(hook(&open(&disk, &clock)).cursor().low, low);
}

/// Before: the log was trimmed by what one slot said. When that one rotted, the other one was older than what was gone,
/// and the books called lost what had been delivered.
#[test]
fn a_slot_that_rots_makes_nothing_lost_that_was_delivered() {
    for ticks in 1..4 {
        let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
        let queues = open(&disk, &clock);
        let queue = hook(&queues);
        tick(&queues);
        for _ in 0..4 {
            (0..15).for_each(|_| append(&queues, 10));
            settle_all(&queue);
            for _ in 0..ticks {
                tick(&queues);
                queues.log().housekeep();
            }
        }
        let kept = queues.log().first_kept(queues.log().stream("acme").expect("it is known"));
        assert!(kept > 0, "segments went");
        drop((queue, queues));
        disk.power_cut(PowerCut::NothingUnsynced);
        let before = disk.snapshot();
        for slot in 0..2 {
            let disk = SimDisk::from_snapshot(&before);
            rot(&disk, 1, slot);
            let queues = open(&disk, &clock);
            let (stats, balance) = (queues.stats(), hook(&queues).balance());
            assert_eq!((stats.pinned, stats.cursors_below, balance.lost.records), (false, 0, 0), "slot {slot}");
            assert!(balance.closes());
        }
    }
}

/// What a queue has settled, on a floor of which each slot was written.
fn settled_to_forty(disk: &SimDisk, clock: &ManualClock) -> Vec<u8> {
    let queues = open(disk, clock);
    let queue = hook(&queues);
    append(&queues, 40);
    settle_all(&queue);
    tick(&queues);
    append(&queues, 1);
    tick(&queues);
    tick(&queues);
    assert_eq!(queue.cursor().low, 40);
    drop((queue, queues));
    disk.read_live(Path::new("/data/floor")).expect("it is there")
}

/// Before: a floor that could not be read for a moment was taken for a lost one and written anew, and everything kept
/// went out again under other ids.
#[test]
fn a_floor_that_cannot_be_read_stops_the_start_and_is_whole_at_the_next() {
    // EIO may be the place's, ENOMEM and EMFILE are no place's.
    for failure in [Failure::Eio, Failure::Os(12), Failure::Os(24)] {
        let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
        let before = settled_to_forty(&disk, &clock);
        disk.inject(Fault::every(OpKind::Read, failure).on("floor"));
        let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::inline() };
        let (again, later) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
        let Err(error) = Queues::open(again, later, Path::new("/data"), LogOptions::small(), options) else {
            panic!("{failure:?}: it opened")
        };
        assert!(error.to_string().contains("floor"), "{error}");
        disk.clear_faults();
        assert_eq!(disk.read_live(Path::new("/data/floor")), Some(before), "{failure:?}: nothing was written");
        let queues = open(&disk, &clock);
        assert!(!queues.stats().pinned && queues.stats().floor_damage.is_empty(), "{:?}", queues.stats());
        assert_eq!(hook(&queues).cursor().low, 40);
    }
}

/// A slot that the disk refuses for good costs nothing: the other one holds, and it is written again.
#[test]
fn a_slot_that_cannot_be_read_is_as_good_as_a_damaged_one() {
    let slots = {
        let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
        settled_to_forty(&disk, &clock).len() as u64 / SLOT_BYTES
    };
    assert!(slots >= 4, "{slots}");
    for slot in 0..slots {
        let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
        settled_to_forty(&disk, &clock);
        disk.inject(Fault::nths(OpKind::Read, slot..slot + 1, Failure::Eio).on("floor"));
        let queues = open(&disk, &clock);
        assert!(!queues.stats().pinned && queues.stats().floor_damage.is_empty(), "slot {slot}: {:?}", queues.stats());
        assert_eq!(hook(&queues).cursor().low, 40, "slot {slot}");
        assert!(hook(&queues).next_batch(ANY).expect("it reads").is_some_and(|batch| batch.offsets == (40..41)));
        tick(&queues);
    }
}

/// A slot as it once was is sound, and nothing tells that it is old. But the other slot of its page knows what the
/// commit before the last one made durable, and what comes again comes under its id.
#[test]
fn a_slot_of_another_time_or_another_place_costs_repeats_and_nothing_else() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let floor = || disk.read_live(Path::new("/data/floor")).expect("it is there");
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    let (mut versions, mut ids) = (vec![(0, floor())], HashMap::new());
    for n in 1..=6 {
        append(&queues, 10);
        let batch = planned(&queue);
        queue.settle(&batch, Settled::Delivered);
        ids.insert(batch.offsets, batch.id);
        tick(&queues);
        versions.push((n * 10, floor()));
    }
    append(&queues, 5);
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let (slot_bytes, now) = (SLOT_BYTES as usize, floor());
    let slots = now.len() / slot_bytes;
    let mut seen = BTreeSet::new();
    for slot in 0..slots {
        let place = slot * slot_bytes..(slot + 1) * slot_bytes;
        let old = versions.iter().map(|(_, bytes)| &bytes[place.clone()]);
        let others = (0..slots).filter(|other| *other != slot).map(|other| &now[other * slot_bytes..][..slot_bytes]);
        for page in old.chain(others) {
            let disk = SimDisk::from_snapshot(&disk.snapshot());
            let mut bytes = now.clone();
            bytes[place.clone()].copy_from_slice(page);
            disk.overwrite(Path::new("/data/floor"), &bytes);
            let queues = open(&disk, &clock);
            let (stats, queue) = (queues.stats(), hook(&queues));
            let low = queue.cursor().low;
            assert!((50..=60).contains(&low), "slot {slot}: {low}");
            assert_eq!((stats.pinned, stats.cursors_ahead, stats.cursors_below), (false, 0, 0), "slot {slot}");
            seen.insert(low);
            let mut next = low;
            while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
                assert_eq!(batch.offsets.start, next);
                assert_eq!(ids.get(&batch.offsets), (next < 60).then_some(&batch.id), "slot {slot}: {batch:?}");
                next = batch.offsets.end;
                queue.settle(&batch, Settled::Delivered);
            }
            assert_eq!(next, 65, "slot {slot}: all that is behind the cursor comes");
            assert!(queue.balance().closes() && queue.balance().delivered.records == 65);
            tick(&queues);
            drop((queue, queues));
            disk.power_cut(PowerCut::NothingUnsynced);
            assert_eq!(hook(&open(&disk, &clock)).cursor().low, 65, "slot {slot}");
        }
    }
    assert!(seen.contains(&50) && seen.contains(&60), "{seen:?}");
}
