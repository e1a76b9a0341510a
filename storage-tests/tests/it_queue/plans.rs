//! Plans, their splits, and the floor that says which of them are open.

use forebay::clock::ManualClock;
use forebay::{Batch, FloorDamage, Payload, Queue, Queues, Settled, Start};
use std::path::Path;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::{ANY, CUTS, append, half_id, hook, next, open, plan, split};
use storage_tests::sim_disk::{PowerCut, SimDisk};

/// The plan mark and the cursor that allows it to move lie on different pages of the floor, and either may land alone.
#[test]
fn a_plan_is_never_gone_before_the_cursor_that_settled_it_whatever_part_of_a_tick_lands() {
    let clock = ManualClock::at(1_000_000);
    // Up to where the cursor that settles a planned batch is about to be written.
    let settled = |disk: &SimDisk| {
        let queues = open(disk, &clock);
        for n in 0..100 {
            queues.queue(&format!("idle-{n}"), "acme", Start::Earliest).expect("it is made"); // fills the first page
        }
        let queue = hook(&queues);
        append(&queues, "acme", 10);
        let batch = next(&queue, u64::MAX);
        plan(&queue, &batch);
        queues.tick().expect("the disk is sound");
        queue.settle(&batch, Settled::Delivered);
        (queues, batch.id)
    };
    let disk = SimDisk::new(2);
    let (queues, _) = settled(&disk);
    let before = disk.ops();
    (0..2).for_each(|_| queues.tick().expect("the disk is sound"));
    let changes = disk.ops() - before;
    drop(queues);
    assert!(changes >= 4, "a page and a sync, and again");

    for crash in 0..changes {
        for cut in [PowerCut::Everything, PowerCut::NothingUnsynced, PowerCut::Prefix] {
            let disk = SimDisk::new(crash);
            let (queues, id) = settled(&disk);
            disk.crash_at(disk.ops() + crash, Performed::Nothing);
            (0..2).for_each(|_| drop(queues.tick()));
            drop(queues);
            disk.power_cut(cut);
            let queues = open(&disk, &clock);
            let queue = hook(&queues);
            if queue.cursor().low == 0 {
                let again = next(&queue, u64::MAX);
                assert!(again.planned && again.id == id, "change {crash}, {cut:?}");
            }
        }
    }
}

/// A crash at every change from before the split to after the second half is settled: the whole comes or both halves do,
/// and from the moment that the split is told the halves, of these those that are not settled.
#[test]
fn a_split_batch_comes_again_whole_or_in_halves_and_never_both() {
    let clock = ManualClock::at(1_000_000);
    let prepare = |disk: &SimDisk| {
        let queues = open(disk, &clock);
        let queue = hook(&queues);
        append(&queues, "acme", 10);
        let batch = next(&queue, u64::MAX);
        plan(&queue, &batch);
        queues.tick().expect("the disk is sound");
        (queues, queue, batch)
    };
    // What was told before the power went: the halves, and how many of them are settled for good.
    let act = |queues: &Queues, queue: &Queue, batch: &Batch| {
        let Ok(halves) = split(queue, batch, 4) else { return (None, 0) };
        let mut settled = 0;
        for half in &halves {
            queue.settle(half, Settled::Delivered);
            if queues.tick().is_err() {
                break;
            }
            settled += 1;
        }
        (Some(halves), settled)
    };
    let disk = SimDisk::new(2);
    let (queues, queue, batch) = prepare(&disk);
    let before = disk.ops();
    let (halves, settled) = act(&queues, &queue, &batch);
    assert_eq!((halves.expect("a sound disk").map(|half| half.offsets), settled), ([0..4, 4..10], 2));
    let changes = disk.ops() - before;
    assert!(changes >= 6, "{changes}: a frame, a sync, and two ticks");
    drop((queues, queue));

    for (crash, cut) in (0..=changes).flat_map(|crash| CUTS.map(|cut| (crash, cut))) {
        let disk = SimDisk::new(crash);
        let (queues, queue, whole) = prepare(&disk);
        disk.crash_at(disk.ops() + crash, Performed::Nothing);
        let (halves, settled) = act(&queues, &queue, &whole);
        drop((queues, queue));
        disk.power_cut(cut);
        let queues = open(&disk, &clock);
        let queue = hook(&queues);
        let batches: Vec<_> = std::iter::from_fn(|| queue.next_batch(ANY).expect("reads")).collect();
        assert!(batches.iter().all(|batch| batch.planned));
        let again: Vec<_> = batches.iter().map(|batch| (batch.offsets.clone(), batch.id.clone())).collect();
        let [first, second] = [0..4, 4..10].map(|offsets| (offsets.clone(), half_id(&whole, &offsets)));
        let in_halves = [vec![first, second.clone()], vec![second], vec![]];
        let whole = vec![(whole.offsets, whole.id)];
        if halves.is_some() {
            let at_most = in_halves.iter().skip(settled).any(|left| *left == again);
            assert!(at_most, "change {crash}, {cut:?}: {settled} were settled, and {again:?} come");
        } else {
            assert!(again == whole || again == in_halves[0], "change {crash}, {cut:?}: {again:?}");
        }
    }
}

#[test]
fn a_floor_that_cannot_be_written_withholds_trimming_and_is_written_anew_when_the_disk_heals() {
    let (disk, clock) = (SimDisk::new(3), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    let fill = || {
        for _ in 0..100 {
            append(&queues, "acme", 10);
        }
    };
    fill();
    queues.tick().expect("the disk is sound");
    disk.inject(Fault::every(OpKind::Sync, Failure::Eio).on("floor"));
    while let Some(batch) = queue.next_batch(ANY).expect("reads are fine") {
        queue.settle(&batch, Settled::Delivered);
    }
    let segments = queues.log().stats().segments;
    for n in 1..4 {
        queues.tick().expect_err("the floor's sync fails");
        queues.log().housekeep();
        let stats = queues.stats();
        assert_eq!((stats.floor_errors, queues.log().stats().segments), (n, segments), "{stats:?}");
    }
    disk.clear_faults();
    queues.tick().expect("a new file is fine");
    queues.log().housekeep();
    assert!(queues.log().stats().segments < segments);
    assert_eq!(queue.balance().pending.records, 0);
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queue = hook(&open(&disk, &clock));
    assert_eq!(queue.cursor().low, 1_000);
}

#[test]
fn a_lost_floor_pins_the_log_and_everything_comes_again_under_the_ids_it_had() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    let payload = Payload { bytes: vec![7; 1_000], records: 100 };
    queues.log().append_wait("acme", vec![payload.clone()]).expect("the log is sound");
    let first = next(&queue, 30);
    plan(&queue, &first);
    queues.tick().expect("the disk is sound");
    drop((queue, queues));
    disk.erase(Path::new("/data/floor"));

    let queues = open(&disk, &clock);
    let stats = queues.stats();
    assert_eq!((stats.floor_damage, stats.pinned), (vec![FloorDamage::Missing], true));
    let queue = queues.queue("hook", "acme", Start::Now).expect("it is made");
    let again = next(&queue, u64::MAX);
    assert_eq!((&again.id, &again.offsets), (&first.id, &(0..30)), "from the oldest, whatever the start says");
    queue.settle(&again, Settled::Delivered);
    (0..40).for_each(|_| drop(queues.log().append_wait("acme", vec![payload.clone()])));
    while let Some(batch) = queue.next_batch(ANY).expect("reads") {
        queue.settle(&batch, Settled::Delivered);
    }
    let segments = queues.log().stats().segments;
    let keep_house = || {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
        queues.log().stats().segments
    };
    assert!((0..3).all(|_| keep_house() == segments), "pinned");
    queues.accept_floor_loss().expect("the disk is sound");
    assert!(keep_house() < segments);
    assert!(!queues.stats().pinned);
}

/// The plan's frame alone is damaged: what it named is there, and goes out anew.
#[test]
fn plans_that_damage_took_are_counted_and_all_that_they_named_comes_under_other_ids() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let lost = next(&queue, 4);
    plan(&queue, &lost);
    queues.close().expect("the disk is sound");
    drop((queue, queues));
    // Nothing else in the log names the destination.
    let named = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg"));
    let named = named.filter_map(|path| {
        let bytes = disk.read_live(&path).expect("it is there");
        let at = bytes.windows(4).position(|four| four == b"hook")?;
        Some((path, at as u64))
    });
    let [(segment, at)] = &named.collect::<Vec<_>>()[..] else { panic!("there is one plan") };
    disk.flip_bit(segment, at * 8);

    let queues = open(&disk, &clock);
    let stats = queues.stats();
    assert_eq!((stats.plans_lost, stats.plans_resumed, stats.floor_damage), (1, 0, vec![]));
    let queue = hook(&queues);
    let all = next(&queue, u64::MAX);
    assert_eq!((all.offsets.clone(), all.planned), (0..10, false));
    assert_ne!(all.id, lost.id);
    plan(&queue, &all);
    queue.settle(&all, Settled::Delivered);
    let balance = queue.balance();
    assert_eq!((balance.delivered.records, balance.lost.records, balance.closes()), (10, 0, true));
}
