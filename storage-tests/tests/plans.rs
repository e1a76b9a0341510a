//! Plans that are open for long: written again behind newer ones, so that those may go; and a crash anywhere leaves each batch
//! under the id that it had.

use forebay::clock::ManualClock;
use forebay::{Batch, Payload, PlanError, QueueOptions, Queues, Settled, Start};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::{ANY, CUTS, DIR, append, books_close, next, plan, split, tiny};
use storage_tests::sim_disk::{PowerCut, SimDisk};

/// As ever, but with few plans that are kept for others.
fn open(disk: &SimDisk, clock: &ManualClock) -> Queues {
    let options = QueueOptions { plans_kept_min: 8, ..QueueOptions::inline() };
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    let queues = Queues::open(disk, clock, Path::new(DIR), tiny(Duration::ZERO), options).expect("it opens");
    books_close(&queues);
    queues
}

/// Sends what waits of `brisk` in so many batches, each with a plan, and ticks behind each; as far as the disk lets it.
fn send(queues: &Queues, batches: u64) {
    let Ok(brisk) = queues.queue("brisk", "brisk", Start::Earliest) else { return };
    for _ in 0..batches {
        let _ = queues.log().append_wait("brisk", vec![Payload { bytes: vec![7; 100], records: 1 }]);
        while let Ok(Some(batch)) = brisk.next_batch(ANY) {
            let (again, sent) = (brisk.clone(), batch.clone());
            let is_planned = move |planned: Result<(), PlanError>| {
                if planned.is_ok() {
                    again.settle(&sent, Settled::Delivered);
                }
            };
            brisk.plan(&batch, Box::new(is_planned));
            if brisk.has_more() {
                continue;
            }
            brisk.release(&batch); // it is settled, or comes again
            break;
        }
        let _ = queues.tick();
    }
}

/// What nobody answers for: a batch that is handed out, the halves of one, and what a process left that ended.
fn stuck(disk: &SimDisk, clock: &ManualClock) -> (Queues, Vec<Batch>) {
    let queues = open(disk, clock);
    for stream in ["out", "halves", "left"] {
        append(&queues, stream, 20);
    }
    let queue = |queues: &Queues, name: &str| queues.queue(name, name, Start::Earliest).expect("it is there, or made");
    let left = next(&queue(&queues, "left"), 7);
    plan(&queue(&queues, "left"), &left);
    queues.tick().expect("the disk is sound");
    drop(queues);
    let queues = open(disk, clock);
    let out = next(&queue(&queues, "out"), 9);
    plan(&queue(&queues, "out"), &out);
    let whole = next(&queue(&queues, "halves"), 10);
    plan(&queue(&queues, "halves"), &whole);
    let [first, second] = split(&queue(&queues, "halves"), &whole, 4).expect("the log is sound");
    queues.tick().expect("the disk is sound");
    (queues, vec![left, out, first, second])
}

/// All of them come again, as they were and planned.
fn check(queues: &Queues, stuck: &[Batch], case: &str) {
    let mut ids = BTreeSet::new();
    for name in ["left", "out", "halves"] {
        let queue = queues.queue(name, name, Start::Earliest).expect("it is there");
        let batches: Vec<Batch> = std::iter::from_fn(|| queue.next_batch(ANY).expect("it reads")).collect();
        ids.extend(batches.iter().filter(|batch| batch.planned).map(|batch| batch.id.clone()));
    }
    for batch in stuck {
        assert!(ids.contains(&batch.id), "{case}: {batch:?} comes again under its id");
    }
    assert!(queues.stats().plans_replaced <= 1, "{case}: the whole by its halves, and nothing else");
}

/// Plans that the log still has to keep, about.
fn kept(queues: &Queues) -> u64 {
    let plans = queues.log().streams().into_iter().find(|stream| &*stream.name == "!plans").expect("some were made");
    plans.backlog_bytes / (plans.tail.bytes / plans.tail.offset)
}

/// Before: one batch that nobody answered for kept the plans of all others, for as long as that took.
#[test]
fn a_batch_that_is_open_for_long_does_not_keep_the_plans_of_all_others() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let (queues, batches) = stuck(&disk, &clock);
    for _ in 0..20 {
        send(&queues, 20);
        assert!(kept(&queues) <= 40, "{}", kept(&queues));
    }
    let moved = queues.stats().plans_moved;
    assert!(moved > 20 && moved < 200, "now and then, and not with each tick: {moved}");
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    assert_eq!(queues.stats().plans_resumed, 4);
    check(&queues, &batches, "400 batches later");
}

#[test]
fn a_crash_at_any_change_while_plans_are_written_again_leaves_every_batch_its_id() {
    let clock = ManualClock::at(1_000_000);
    let (disk, mut moved) = (SimDisk::new(1), 0);
    let (queues, _) = stuck(&disk, &clock);
    let before = disk.ops();
    send(&queues, 24);
    let changes = disk.ops() - before;
    assert!(queues.stats().plans_moved >= 4, "{}", queues.stats().plans_moved);
    drop(queues);
    for (crash, performed) in
        (0..=changes).flat_map(|crash| [Performed::Nothing, Performed::All].map(|performed| (crash, performed)))
    {
        let cut = CUTS[crash as usize % CUTS.len()];
        let disk = SimDisk::new(crash);
        let (queues, batches) = stuck(&disk, &clock);
        disk.crash_at(disk.ops() + crash, performed);
        send(&queues, 24);
        moved += queues.stats().plans_moved;
        drop(queues);
        disk.power_cut(cut);
        check(&open(&disk, &clock), &batches, &format!("change {crash} {performed:?}, {cut:?}"));
    }
    assert!(moved > 0);
}

/// What the log does not take lies where it lay, and is written again later.
#[test]
fn a_plan_that_could_not_be_written_again_stays_where_it_is() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let (queues, batches) = stuck(&disk, &clock);
    send(&queues, 4);
    // While plans are moved nothing can be appended: the tick itself writes no segment.
    for nth in 0..12 {
        disk.inject(Fault::nths(OpKind::Sync, nth..nth + 2, Failure::Eio).on(".seg"));
        send(&queues, 1);
        disk.clear_faults();
        queues.log().housekeep();
    }
    send(&queues, 40);
    assert!(kept(&queues) <= 40, "{}", kept(&queues));
    drop(queues);
    disk.process_kill();
    check(&open(&disk, &clock), &batches, "after failures");
}
