//! Records that an overflow policy gives up, over everything that a disk can do: a crash at any change.

use forebay::clock::ManualClock;
use forebay::{Much, Queue, Queues, Settled};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use storage_tests::fault::Performed;
use storage_tests::queues::{ANY, CUTS, append, hook, open};
use storage_tests::sim_disk::SimDisk;

/// As they were told to the one who asked.
#[derive(Default)]
struct Told {
    /// By id.
    planned: BTreeMap<String, Range<u64>>,
    delivered: u64,
    expired: u64,
    /// Both, as of the last tick that succeeded.
    durable: (u64, u64),
}

fn begin(disk: &SimDisk, clock: &ManualClock) -> (Queues, Queue) {
    let queues = open(disk, clock);
    let queue = hook(&queues);
    for _ in 0..12 {
        append(&queues, "acme", 30);
        clock.advance(Duration::from_secs(10));
    }
    queues.tick().expect("the disk is sound");
    (queues, queue)
}

/// A destination takes a batch now and then, and what is older than a minute goes, until the disk is gone.
fn act(queues: &Queues, queue: &Queue, clock: &ManualClock) -> Told {
    let mut told = Told::default();
    for round in 0..6 {
        let Ok(Some(batch)) = queue.next_batch(forebay::BatchLimits { records_max: 17, ..ANY }) else { break };
        let planned = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&planned);
        queue.plan(&batch, Box::new(move |result| heard.store(result.is_ok(), Ordering::SeqCst)));
        if planned.load(Ordering::SeqCst) {
            told.planned.insert(batch.id.clone(), batch.offsets.clone());
        }
        match round % 3 {
            0 => queue.release(&batch),
            1 => {
                queue.settle(&batch, Settled::Delivered);
                told.delivered += batch.offsets.end - batch.offsets.start;
            }
            _ => {} // it never answers
        }
        let Ok(gone) = queue.drop_oldest(Much::OlderThan(forebay::clock::Clock::wall_ms(clock) - 90_000), u64::MAX)
        else {
            break;
        };
        told.expired += gone.records;
        clock.advance(Duration::from_secs(20));
        if queues.tick().is_ok() {
            told.durable = (told.delivered, told.expired);
        }
        queues.log().housekeep();
    }
    told
}

#[test]
fn a_crash_at_any_change_takes_back_what_no_tick_made_durable_and_nothing_else() {
    let (disk, clock) = (SimDisk::new(11), ManualClock::at(1_000_000));
    let (queues, queue) = begin(&disk, &clock);
    let before = disk.ops();
    let whole = act(&queues, &queue, &clock);
    let changes = disk.ops() - before;
    assert!(whole.expired > 100 && whole.delivered == 34 && changes > 30, "{changes}");
    drop((queue, queues));
    for crash in 0..=changes {
        let case = format!("change {crash} of {changes}");
        let (disk, clock) = (SimDisk::new(crash), ManualClock::at(1_000_000));
        let (queues, queue) = begin(&disk, &clock);
        disk.crash_at(disk.ops() + crash, Performed::Nothing);
        let told = act(&queues, &queue, &clock);
        drop((queue, queues));
        disk.power_cut(CUTS[crash as usize % 4]);

        let queues = open(&disk, &clock); // books close
        let queue = hook(&queues);
        let balance = queue.balance();
        let kept = (balance.delivered.records, balance.expired.records);
        assert!(kept.0 >= told.durable.0 && kept.0 <= told.delivered, "{case}: {kept:?}");
        assert!(kept.1 >= told.durable.1 && kept.1 <= whole.expired, "{case}: {kept:?}");
        assert_eq!((balance.accepted.records, balance.lost.records), (360, 0), "{case}");
        // All the rest is still to be had, once, and what was sent before comes as it was.
        let cursor = queue.cursor();
        let mut rest = 0;
        while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
            assert!(batch.offsets.clone().all(|offset| !cursor.is_settled(offset)), "{case}: {batch:?}");
            if let Some(was) = told.planned.get(&batch.id) {
                assert_eq!(*was, batch.offsets, "{case}");
            }
            rest += batch.offsets.end - batch.offsets.start;
            queue.settle(&batch, Settled::Delivered);
        }
        assert_eq!(rest, balance.pending.records, "{case}");
        assert!(queue.balance().closes() && !queue.has_more(), "{case}");
    }
}

/// What is given up where it lies, sent again and let go, until the disk is gone. Says what was delivered for sure.
fn act_where_it_lies(queues: &Queues, queue: &Queue) -> u64 {
    let limits = |records_max| forebay::BatchLimits { records_max, ..ANY };
    let (mut delivered, mut durable) = (0, 0);
    for round in 0..6 {
        let Ok(Some(batch)) = queue.next_batch(limits(20)) else { break };
        queue.settle(&batch, Settled::Delivered);
        delivered += batch.offsets.end - batch.offsets.start;
        if queue.mark_oldest(Much::Bytes(3_000)).is_err() {
            break;
        }
        if round == 3 && queues.redrive("hook", "acme", 0..360).is_err() {
            break;
        }
        if let Some(redrive) = queue.replay_under_way() {
            let Ok(Some(batch)) = redrive.next_batch(limits(40)) else { break };
            redrive.plan(&batch, Box::new(|_| ()));
            redrive.settle(&batch, Settled::Delivered);
            delivered += batch.offsets.end - batch.offsets.start;
        }
        if queues.tick().is_ok() {
            durable = delivered;
        }
        queues.log().housekeep();
    }
    durable
}

#[test]
fn a_crash_at_any_change_leaves_what_was_given_up_in_one_place() {
    let (disk, clock) = (SimDisk::new(21), ManualClock::at(1_000_000));
    let (queues, queue) = begin(&disk, &clock);
    let before = disk.ops();
    let whole = act_where_it_lies(&queues, &queue);
    let changes = disk.ops() - before;
    assert!(whole > 200 && queue.marked().1.accepted.records == 180 && changes > 20, "{whole} {changes}");
    drop((queue, queues));
    for crash in 0..=changes {
        let case = format!("change {crash} of {changes}");
        let (disk, clock) = (SimDisk::new(crash), ManualClock::at(1_000_000));
        let (queues, queue) = begin(&disk, &clock);
        disk.crash_at(disk.ops() + crash, Performed::Nothing);
        let durable = act_where_it_lies(&queues, &queue);
        drop((queue, queues));
        disk.power_cut(CUTS[crash as usize % 4]);

        let queues = open(&disk, &clock); // books close
        let queue = hook(&queues);
        let (balance, (ranges, marked)) = (queue.balance(), queue.marked());
        assert!(marked.closes() && marked.accepted == balance.dead_lettered, "{case}: {balance:?} {marked:?}");
        let redrive = queue.replay_under_way();
        let again = redrive.as_ref().map_or(0, |redrive| redrive.balance().delivered.records);
        assert!(balance.delivered.records + marked.delivered.records + again >= durable, "{case}");
        if let Some(span) = redrive.as_ref().and_then(Queue::redrives) {
            assert!(ranges.iter().any(|range| range.start == span.start), "{case}: {span:?} of {ranges:?}");
        }
        // All that is not delivered still is to be had, once.
        let mut seen = std::collections::BTreeSet::new();
        for round in 0.. {
            for from in [Some(queue.clone()), queue.replay_under_way()].into_iter().flatten() {
                while let Some(batch) = from.next_batch(ANY).expect("it reads") {
                    assert!(batch.offsets.clone().all(|offset| seen.insert(offset)), "{case}: {batch:?}");
                    from.settle(&batch, Settled::Delivered);
                }
            }
            (0..3).for_each(|_| queues.tick().expect("the disk is sound"));
            let idle = queue.replay_under_way().is_none();
            if idle && queues.redrive("hook", "acme", 0..360).expect("the disk is sound").is_none() {
                break;
            }
            assert!(round < 9, "{case}: it does not end");
        }
        let (balance, (_, marked)) = (queue.balance(), queue.marked());
        assert_eq!(balance.delivered.records + marked.delivered.records, 360, "{case}");
        assert_eq!((balance.lost.records, balance.pending.records, marked.pending.records), (0, 0, 0), "{case}");
        let first_kept = queues.log().first_kept(queues.log().stream("acme").expect("it exists"));
        assert!(balance.closes() && marked.closes() && first_kept <= 360, "{case}");
    }
}

#[test]
fn what_is_given_up_makes_room_on_the_disk() {
    let (disk, clock) = (SimDisk::new(12), ManualClock::at(1_000_000));
    let (queues, queue) = begin(&disk, &clock);
    let segments = queues.log().stats().segments;
    let gone = queue.drop_oldest(Much::OlderThan(u64::MAX), u64::MAX).expect("it reads");
    assert_eq!(gone.records, 360);
    for _ in 0..3 {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
    }
    let left = queues.log().stats().segments;
    assert!(left < segments / 2, "{left} of {segments}");
}
