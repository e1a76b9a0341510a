//! The life of queues over everything that a disk can do: one that was deleted does not come back, one made again under
//! the same name is another, and a crash at any point leaves the old or the new.

use forebay::clock::ManualClock;
use forebay::disk::{Disk, read_all};
use forebay::{Batch, LogOptions, Queue, QueueError, QueueOptions, Queues, Settled, Start};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::{ANY, CUTS, append, hook, next, open, plan};
use storage_tests::sim_disk::{PowerCut, SimDisk};

fn known(queues: &Queues) -> Vec<String> {
    queues.all().iter().map(|queue| format!("{}/{}", queue.destination(), queue.stream())).collect()
}

#[test]
fn a_deleted_queue_is_gone_for_good_and_lets_the_log_go() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let (mine, other) = (hook(&queues), queues.queue("other", "acme", Start::Earliest).expect("it is made"));
    let elsewhere = queues.queue("hook", "umbrella", Start::Earliest).expect("it is made");
    (0..50).for_each(|_| append(&queues, "acme", 10));
    while let Some(batch) = other.next_batch(ANY).expect("it reads") {
        other.settle(&batch, Settled::Delivered);
    }
    queues.tick().expect("the disk is sound");
    queues.log().housekeep();
    let pinned = queues.log().stats().segments;
    assert!(pinned > 5, "{pinned}: the slow one holds all of it");
    let out = next(&mine, 10);

    let deleted = queues.delete("hook", Some("acme")).expect("the disk is sound");
    assert_eq!((deleted.queues, deleted.pending.records, deleted.pending.bytes), (1, 500, 50_000));
    queues.log().housekeep();
    assert!(queues.log().stats().segments < pinned, "nobody needs it any more");
    assert!(!mine.has_more() && mine.next_batch(ANY).expect("it reads").is_none());
    assert_eq!(mine.settle_range(out.offsets.clone(), Settled::Delivered), 0);
    mine.plan(&out, Box::new(|planned| assert!(planned.is_err(), "it must not be sent")));
    mine.release(&out);
    assert_eq!(known(&queues), ["hook/umbrella", "other/acme"]);
    assert!(queues.destination_known("hook"));

    assert_eq!(queues.delete("hook", None).expect("the disk is sound").queues, 1);
    assert_eq!(queues.delete("hook", None).expect("the disk is sound"), forebay::Deleted::default());
    assert!(!queues.destination_known("hook"));
    drop((mine, other, elsewhere, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    assert_eq!(known(&open(&disk, &clock)), ["other/acme"]);
}

/// Makes, plans, deletes and makes again, with restarts in between: no two lives share an id.
#[test]
fn every_life_of_a_queue_has_ids_of_its_own_across_restarts() {
    let (disk, clock) = (SimDisk::new(2), ManualClock::at(1_000_000));
    let mut ids = BTreeSet::new();
    append(&open(&disk, &clock), "acme", 20);
    for life in 0..6 {
        let queues = open(&disk, &clock);
        let queue = queues.queue("hook", "acme", Start::At(0)).expect("it is made");
        let batch = next(&queue, 20);
        assert_eq!(batch.offsets, 0..20, "it begins where it is told to");
        assert_eq!((queue.balance().accepted.records, queue.balance().settled().records), (20, 0));
        plan(&queue, &batch);
        assert!(ids.insert(batch.id), "life {life}");
        if life % 2 == 0 {
            queues.delete("hook", None).expect("the disk is sound");
        } else {
            drop((queue, queues)); // the plan is durable; it is deleted by the next process
            disk.power_cut(PowerCut::NothingUnsynced);
            open(&disk, &clock).delete("hook", None).expect("the disk is sound");
        }
        disk.power_cut(PowerCut::NothingUnsynced);
    }
}

/// A queue with an open plan that no tick has seen, beside another one in the same state: what a crash must not mix up.
fn with_a_plan(disk: &SimDisk, clock: &ManualClock) -> (Queues, Batch, Batch) {
    let queues = open(disk, clock);
    for n in 0..60 {
        queues.queue(&format!("idle-{n}"), "acme", Start::Earliest).expect("it is made"); // more than one page
    }
    append(&queues, "acme", 20);
    let (queue, other) = (hook(&queues), queues.queue("other", "acme", Start::Earliest).expect("it is made"));
    let (batch, beside) = (next(&queue, 10), next(&other, 7));
    plan(&queue, &batch);
    plan(&other, &beside);
    (queues, batch, beside)
}

/// What a crash or a fault while `hook` was being deleted left: all of it or nothing of it, and its neighbour whole.
fn check_left(disk: &SimDisk, clock: &ManualClock, (batch, beside): (&Batch, &Batch), deleted: bool, case: &str) {
    let queues = open(disk, clock);
    let other = queues.queue("other", "acme", Start::Earliest).expect("it is there");
    let again = next(&other, 99);
    assert!(again.planned && again.id == beside.id, "{case}: the neighbour goes on as it was");
    let left = queues.destination_known("hook");
    assert!(!(left && deleted), "{case}: it came back");
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there, or made");
    let again = next(&queue, 10);
    assert_eq!((&again.offsets, again.planned), (&batch.offsets, left), "{case}");
    assert_eq!(again.id == batch.id, left, "{case}: another life has other ids");
    assert!(queue.balance().closes());
}

#[test]
fn a_crash_while_a_queue_is_deleted_leaves_it_as_it_was_or_gone() {
    let clock = ManualClock::at(1_000_000);
    let disk = SimDisk::new(2);
    let (queues, ..) = with_a_plan(&disk, &clock);
    let before = disk.ops();
    queues.delete("hook", None).expect("the disk is sound");
    let changes = disk.ops() - before;
    assert!(changes >= 6, "{changes}: three commits");
    drop(queues);
    let mut outcomes = [0, 0];
    for (crash, cut) in (0..=changes).flat_map(|crash| CUTS.map(|cut| (crash, cut))) {
        let disk = SimDisk::new(crash);
        let (queues, batch, beside) = with_a_plan(&disk, &clock);
        disk.crash_at(disk.ops() + crash, Performed::Nothing);
        let deleted = queues.delete("hook", None).is_ok();
        drop(queues);
        disk.power_cut(cut);
        outcomes[usize::from(deleted)] += 1;
        check_left(&disk, &clock, (&batch, &beside), deleted, &format!("change {crash}, {cut:?}"));
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn on_a_disk_that_refuses_deleting_says_what_it_did_and_the_next_tick_ends_it() {
    let clock = ManualClock::at(1_000_000);
    let mut told = BTreeSet::new();
    for nth in 0..9 {
        let disk = SimDisk::new(nth);
        let (queues, batch, beside) = with_a_plan(&disk, &clock);
        disk.inject(Fault::nths(OpKind::Sync, nth..nth + 1, Failure::Eio).on("floor"));
        let result = queues.delete("hook", None);
        disk.clear_faults();
        queues.tick().expect("the disk is sound again");
        let deleted = match result {
            Err(QueueError::NotDeleted(_)) => {
                assert!(hook(&queues).lag().records == 20);
                told.insert("not deleted");
                false
            }
            // The tick has made it durable since.
            Err(QueueError::NotDurable(_)) => {
                told.insert("not durable");
                true
            }
            Ok(_) => {
                told.insert("deleted");
                true
            }
            Err(error) => panic!("{error}"),
        };
        drop(queues);
        disk.power_cut(PowerCut::NothingUnsynced);
        check_left(&disk, &clock, (&batch, &beside), deleted, &format!("sync {nth} fails"));
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

/// Both slots of a page are without the queue: should the newer one rot, the older one does not bring it back.
#[test]
fn rot_of_any_one_slot_of_the_floor_brings_no_deleted_queue_back() {
    let clock = ManualClock::at(1_000_000);
    let disk = SimDisk::new(5);
    let (queues, ..) = with_a_plan(&disk, &clock);
    queues.delete("hook", None).expect("the disk is sound");
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    let path = Path::new("/data/floor");
    let sound = disk.snapshot();
    let slots = read_all(&*disk.open(path).expect("there")).expect("it reads").len() / 12_288;
    for slot in 0..slots {
        let disk = SimDisk::from_snapshot(&sound);
        disk.flip_bit(path, (slot * 12_288 + 60) as u64 * 8);
        let queues = open(&disk, &clock);
        assert_eq!(queues.stats().floor_damage, []);
        assert!(!queues.destination_known("hook") && queues.destination_known("other"), "slot {slot}");
    }
}

#[test]
fn a_queue_begins_at_the_record_of_a_time() {
    let (disk, clock) = (SimDisk::new(6), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    for _ in 0..40 {
        append(&queues, "acme", 10); // ten a second, from 1,000 s on
        clock.advance(Duration::from_secs(1));
    }
    let at = |ms| queues.offset_at("acme", ms).expect("it reads");
    let first_kept = 0;
    assert_eq!((at(0), at(1_000_000), at(1_000_001)), (first_kept, 0, 10));
    assert_eq!((at(1_020_000), at(1_020_999), at(1_039_000)), (200, 210, 390));
    assert_eq!((at(1_039_001), at(u64::MAX)), (400, 400), "none so late");
    assert_eq!(queues.offset_at("nobody", 5).expect("it reads"), 0);
    let queue = queues.queue("late", "acme", Start::Time(1_030_000)).expect("it is made");
    assert_eq!(queue.cursor().low, 300);
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    assert_eq!(queues.queue("late", "acme", Start::Now).expect("it is there").cursor().low, 300, "durable at once");
}

/// What is told of an hour: its beginning and end in minutes since the test began, accepted, delivered, pending.
type Told = (u64, u64, u64, u64, u64);

/// From when on hours are known, and the hours.
fn hours_of(queue: &Queue) -> (u64, Vec<Told>) {
    let minutes = |ms: u64| (ms - 3_600_000) / 60_000;
    let hourly = queue.hourly();
    let hour = |hour: &forebay::Hour| {
        let records = [hour.balance.accepted, hour.balance.delivered, hour.balance.pending].map(|count| count.records);
        (minutes(hour.from_ms), minutes(hour.to_ms), records[0], records[1], records[2])
    };
    (minutes(hourly.known_from_ms), hourly.hours.iter().map(hour).collect())
}

#[test]
fn the_balance_is_told_by_the_hour_across_restarts_and_says_what_it_does_not_know() {
    let (disk, clock) = (SimDisk::new(7), ManualClock::at(3_600_000));
    let store = forebay::MemStore::default();
    let open = |store: &forebay::MemStore| {
        let choice = forebay::StoreChoice::Memory(store.clone());
        let options = QueueOptions { store: choice, ..QueueOptions::inline() };
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
        Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), options).expect("it opens")
    };
    let minutes = |n: u64| clock.advance(Duration::from_secs(60 * n));
    let queues = open(&store);
    let queue = hook(&queues);
    append(&queues, "acme", 20);
    minutes(50);
    queue.settle_range(0..15, Settled::Delivered);
    minutes(10);
    queues.tick().expect("the disk is sound");
    append(&queues, "acme", 5);
    assert_eq!(hours_of(&queue), (0, vec![(0, 60, 20, 15, 5), (60, 60, 5, 0, 10)]));
    minutes(60);
    queues.tick().expect("the disk is sound");
    minutes(60);
    queues.tick().expect("the disk is sound"); // an hour with nothing
    minutes(10);
    queue.settle_range(15..25, Settled::Delivered);
    queues.tick().expect("the disk is sound");
    let so_far = [(0, 60, 20, 15, 5), (60, 120, 5, 0, 10)];
    let (known, hours) = hours_of(&queue);
    assert_eq!((known, &hours[..2], hours[2]), (0, &so_far[..], (180, 190, 0, 10, 0)));
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);

    // It was down for two ends of hours: then a span is longer than an hour, and says so.
    minutes(120);
    let queues = open(&store);
    let queue = hook(&queues);
    append(&queues, "acme", 7);
    minutes(55);
    queues.tick().expect("the disk is sound");
    let (known, hours) = hours_of(&queue);
    assert_eq!((known, &hours[..2], hours[2]), (0, &so_far[..], (180, 360, 7, 10, 7)));
    drop((queue, queues));
    // Without the store only what comes now is known; the balance is as it was.
    let queue = hook(&open(&forebay::MemStore::default()));
    assert_eq!(hours_of(&queue), (365, vec![]));
    assert_eq!((queue.balance().accepted.records, queue.balance().delivered.records), (32, 25));
}

/// Before: a queue whose first commit had failed was there when it was asked for again, durable or not. Made anew after a crash
/// it began later, and what lay in between was never sent.
#[test]
fn a_queue_that_is_asked_for_again_is_told_of_only_when_it_is_durable() {
    let clock = ManualClock::at(1_000_000);
    for kind in [OpKind::Write, OpKind::Sync] {
        let twice_refused = |seed| {
            let disk = SimDisk::new(seed);
            let queues = open(&disk, &clock);
            append(&queues, "acme", 10);
            disk.inject(Fault::every(kind, Failure::Eio).on("floor"));
            for _ in 0..2 {
                let asked = queues.queue("hook", "acme", Start::Now);
                assert!(matches!(asked, Err(QueueError::NotDurable(_))), "{kind:?}");
                append(&queues, "acme", 10); // these are its own
            }
            assert!(queues.queue("hook", "acme", Start::Earliest).is_ok(), "it promises nothing before the next tick");
            disk.clear_faults();
            (disk, queues)
        };
        let (disk, queues) = twice_refused(1);
        let before = disk.ops();
        queues.queue("hook", "acme", Start::Now).expect("the disk is sound");
        let changes = disk.ops() - before;
        assert!(changes >= 3, "{changes}");
        let mut outcomes = [0, 0];
        for (crash, cut) in (0..=changes).flat_map(|crash| CUTS.map(|cut| (crash, cut))) {
            let (disk, queues) = twice_refused(crash);
            disk.crash_at(disk.ops() + crash, Performed::Nothing);
            let told = queues.queue("hook", "acme", Start::Now).is_ok();
            drop(queues);
            disk.power_cut(cut);
            outcomes[usize::from(told)] += 1;
            let queues = open(&disk, &clock);
            let low = queues.queue("hook", "acme", Start::Now).expect("the disk is sound").cursor().low;
            assert!(low == 10 || (low == 30 && !told), "change {crash}, {cut:?}: it begins at {low}");
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    }
}
