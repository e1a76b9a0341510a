//! Replays over everything that a disk can do: the same batches once more, or new ones; beside a live queue that goes on;
//! across crashes at any point.

use forebay::clock::ManualClock;
use forebay::{
    Batch, BatchLimits, Payload, Queue, Queues, ReplayError, ReplayFrom, ReplayMode, ReplayRequest, Settled,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::{ANY, CUTS, append, hook, next, open_for, plan, split};
use storage_tests::sim_disk::{PowerCut, SimDisk};

const FILL: ReplayRequest = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
const AGAIN: ReplayRequest = ReplayRequest { mode: ReplayMode::Again, ..FILL };

fn open(disk: &SimDisk, clock: &ManualClock) -> Queues {
    open_for(disk, clock, Duration::from_secs(3_600))
}

/// Batches that were delivered: their ids and offsets.
type Sent = Vec<(String, Range<u64>)>;

/// Plans and delivers all that waits, so many records a batch; every third batch was too large and went in halves.
fn deliver(queue: &Queue, records: u64) -> Sent {
    let mut sent = Vec::new();
    while queue.has_more() {
        let batch = next(queue, records);
        plan(queue, &batch);
        if sent.len() % 4 == 2 && batch.offsets.end - batch.offsets.start > 1 {
            for half in split(queue, &batch, batch.offsets.start + 1).expect("the plan is durable") {
                queue.settle(&half, Settled::Delivered);
                sent.push((half.id, half.offsets));
            }
        } else {
            queue.settle(&batch, Settled::Delivered);
            sent.push((batch.id, batch.offsets));
        }
    }
    sent
}

/// Plans and delivers all that waits, as it comes.
fn send(queue: &Queue, records: u64) -> Sent {
    let mut sent = Vec::new();
    while queue.has_more() {
        let batch = next(queue, records);
        plan(queue, &batch);
        queue.settle(&batch, Settled::Delivered);
        sent.push((batch.id, batch.offsets));
    }
    sent
}

fn sorted(mut sent: Sent) -> Sent {
    sent.sort_by_key(|(_, offsets)| offsets.start);
    sent
}

/// Forty frames of ten records, ten seconds apart; all of them delivered, and ticked.
fn delivered(disk: &SimDisk, clock: &ManualClock) -> (Queues, Queue, Sent) {
    let queues = open(disk, clock);
    let queue = hook(&queues);
    for _ in 0..40 {
        append(&queues, "acme", 10);
        clock.advance(Duration::from_secs(10));
    }
    let sent = deliver(&queue, 17);
    (0..3).for_each(|_| queues.tick().expect("the disk is sound"));
    queues.log().housekeep();
    (queues, queue, sent)
}

#[test]
fn a_replay_that_fills_gaps_sends_the_same_batches_once_more_beside_live_delivery() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let (queues, queue, sent) = delivered(&disk, &clock);
    assert!(sent.len() > 20 && queue.balance().pending.records == 0);
    let replay = queues.replay("hook", "acme", FILL).expect("all of it is kept");
    let info = replay.replay().expect("it is one");
    assert_eq!((&*info.of, info.number, info.mode), ("hook", 1, ReplayMode::Fill));
    assert_eq!((info.offsets, info.under_old_ids), (0..400, 400));
    assert_eq!((replay.lag().records, replay.balance().accepted.records, queue.lag().records), (400, 400, 0));
    assert!(matches!(queues.replay("hook", "acme", FILL), Err(ReplayError::UnderWay { number: 1 })));

    // Both at once, and neither sees the other's.
    append(&queues, "acme", 30);
    let live = next(&queue, 30);
    assert_eq!(live.offsets, 400..430);
    let mut again = Vec::new();
    for _ in 0..5 {
        let batch = next(&replay, 3); // its boundaries are fixed
        assert!(batch.planned);
        plan(&replay, &batch); // at once
        replay.settle(&batch, Settled::Delivered);
        again.push((batch.id, batch.offsets));
    }
    queue.settle(&live, Settled::Delivered);
    let out = next(&replay, 3);
    queues.tick().expect("the disk is sound");
    drop((queue, replay, queues));
    disk.power_cut(PowerCut::NothingUnsynced);

    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    let replay = queues.replays().pop().expect("it goes on");
    assert_eq!(replay.destination(), "hook!replay-1");
    assert_eq!(next(&replay, 3).id, out.id);
    again.extend(send(&replay, 3));
    assert_eq!(sorted(again), sent);
    assert!(replay.balance().closes() && queue.balance().closes());
    queues.tick().expect("the disk is sound");
    assert_eq!((queues.replays().len(), queues.all().len()), (0, 1), "it is done");
    assert!(!replay.has_more());
    let expected = (1, 400, 40_000);
    let told = |queue: &Queue| {
        (queue.replayed().replays, queue.replayed().delivered.records, queue.replayed().delivered.bytes)
    };
    assert_eq!(told(&queue), expected);
    assert_eq!(queue.balance().delivered.records, 430, "each record once");
    drop((queue, replay, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    assert_eq!((told(&hook(&queues)), queues.replays().len()), (expected, 0));
}

/// Before, it went on until the process ended.
#[test]
fn a_replay_that_is_cancelled_on_a_bad_floor_sends_nothing_more_and_ends_when_the_floor_is_well() {
    for sound in 0..4 {
        let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
        let (queues, queue, _) = delivered(&disk, &clock);
        let replay = queues.replay("hook", "acme", FILL).expect("all of it is kept");
        let batch = next(&replay, 17);
        replay.settle(&batch, Settled::Delivered);
        disk.inject(Fault::nths(OpKind::Sync, sound..u64::MAX, Failure::Eio).on("floor"));
        let cancelled = queues.cancel_replay("hook", "acme");
        assert!(cancelled.is_err() || sound == 3, "{sound} commits went well");
        assert!(!replay.has_more() && !replay.has_records(1), "{sound}");
        assert!(replay.next_batch(ANY).expect("it reads").is_none(), "{sound}");
        let _ = queues.tick();
        disk.clear_faults();
        queues.tick().expect("the disk is sound");
        assert!(queues.replays().is_empty(), "{sound}: {:?}", replay.balance());
        let told = queue.replayed();
        assert_eq!((told.replays, told.delivered.records), (1, batch.offsets.end - batch.offsets.start), "{sound}");
        assert!(queue.balance().closes());
        assert_eq!(queues.replay("hook", "acme", FILL).expect("another").replay().expect("it is one").number, 2);
    }
}

/// Before, the plans of what was settled took the places of those that were still to be sent: with very many of them the rest
/// went out under new ids.
#[test]
fn a_replay_that_is_resumed_looks_for_the_plans_of_what_is_not_settled() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let (queues, queue, sent) = delivered(&disk, &clock);
    let replay = queues.replay("hook", "acme", FILL).expect("all of it is kept");
    let mut again = Vec::new();
    while again.len() < sent.len() / 2 {
        let batch = next(&replay, 3);
        replay.settle(&batch, Settled::Delivered);
        again.push((batch.id, batch.offsets));
    }
    let low = replay.cursor().low;
    queues.tick().expect("the disk is sound");
    drop((queue, replay, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    let replay = queues.replays().pop().expect("it goes on");
    assert_eq!(replay.replay().expect("it is one").under_old_ids, 400 - low);
    again.extend(send(&replay, 3));
    assert_eq!(sorted(again), sent);
}

#[test]
fn a_replay_again_has_ids_that_never_were() {
    let (disk, clock) = (SimDisk::new(2), ManualClock::at(1_000_000));
    let (queues, queue, sent) = delivered(&disk, &clock);
    let mut ids: BTreeSet<String> = sent.into_iter().map(|(id, _)| id).collect();
    for round in 1..4 {
        let replay = queues.replay("hook", "acme", AGAIN).expect("all of it is kept");
        let info = replay.replay().expect("it is one");
        assert_eq!((info.number, info.mode, info.under_old_ids), (round, ReplayMode::Again, 0));
        for (id, _) in send(&replay, 17) {
            assert!(id.ends_with("hook") && ids.insert(id), "round {round}");
        }
        queues.tick().expect("the disk is sound");
    }
    assert_eq!(queue.replayed().delivered.records, 3 * 400);
    // Nor has any that is made anew after all of them.
    queues.delete("hook", None).expect("the disk is sound");
    let queue = hook(&queues);
    let first_kept = queue.cursor().low;
    for (id, offsets) in send(&queue, 17) {
        assert!(ids.insert(id) && offsets.start >= first_kept);
    }
}

#[test]
fn a_replay_is_of_what_is_settled_and_kept_and_says_where_it_begins() {
    let (disk, clock) = (SimDisk::new(3), ManualClock::at(1_000_000));
    let (queues, queue, sent) = delivered(&disk, &clock);
    append(&queues, "acme", 10);
    let from = |from, to, mode| queues.replay("hook", "acme", ReplayRequest { from, to, mode });
    let at = |offset, to, mode| from(ReplayFrom::Offset(offset), Some(to), mode);
    assert!(matches!(at(0, 401, ReplayMode::Fill), Err(ReplayError::NotSettled { to: 401, low: 400 })));
    assert!(matches!(at(30, 30, ReplayMode::Again), Err(ReplayError::Nothing { .. })));
    assert!(matches!(queues.replay("nobody", "acme", FILL), Err(ReplayError::NoQueue { .. })));
    assert!(matches!(queues.replay("hook", "nowhere", FILL), Err(ReplayError::NoQueue { .. })));
    let offsets = |replay: Queue| replay.replay().expect("it is one").offsets;

    // Filling, it takes the batches that it touches whole; else it is what it was asked for.
    let whole = |at: u64| sent.iter().find(|(_, offsets)| offsets.contains(&at)).expect("sent").1.clone();
    let (first, last) = (whole(100), whole(199));
    assert!(first.start < 100 && last.end > 200, "{first:?} {last:?}");
    assert_eq!(offsets(at(100, 200, ReplayMode::Fill).expect("it is kept")), first.start..last.end);
    let cancelled = queues.cancel_replay("hook", "acme").expect("the disk is sound").expect("one was under way");
    assert_eq!((cancelled.pending.records, cancelled.delivered.records), (last.end - first.start, 0));
    assert_eq!(queues.cancel_replay("hook", "acme").expect("the disk is sound"), None);
    assert_eq!(offsets(at(100, 200, ReplayMode::Again).expect("it is kept")), 100..200);
    queues.cancel_replay("hook", "acme").expect("the disk is sound");
    // Ten records each ten seconds, from 1,000 s on.
    assert_eq!(offsets(from(ReplayFrom::Time(1_200_001), None, ReplayMode::Again).expect("it is kept")), 210..400);
    queues.cancel_replay("hook", "acme").expect("the disk is sound");
    assert_eq!(queue.replayed().replays, 3, "cancelled ones have their numbers");

    // What the replay window has let go is left out.
    clock.advance(Duration::from_secs(3_600 - 200));
    queues.log().housekeep();
    let replay = queues.replay("hook", "acme", AGAIN).expect("some of it is kept");
    let begins = offsets(replay.clone()).start;
    assert!(begins > 100 && begins < 350, "{begins}");
    assert_eq!(next(&replay, 1).offsets.start, begins);
}

#[test]
fn a_replay_keeps_its_records_and_their_plans_until_it_has_passed_them() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let (queues, queue, sent) = delivered(&disk, &clock);
    // Segments with nothing but plans, and then some with nothing of ours.
    for _ in 0..60 {
        let payload = Payload { bytes: vec![7; 500], records: 1 };
        queues.log().append_wait("elsewhere", vec![payload]).expect("the log is sound");
    }
    let replay = queues.replay("hook", "acme", FILL).expect("all of it is kept");
    let segments = queues.log().stats().segments;
    clock.advance(Duration::from_secs(7_200)); // the window is over
    for _ in 0..3 {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
    }
    let kept = queues.log().stats().segments;
    assert!(kept < segments && kept > 10, "{kept} of {segments}: what was elsewhere is not needed, the rest is");
    drop((queue, replay, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock);
    for _ in 0..3 {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
    }
    let replay = queues.replays().pop().expect("it goes on");
    assert_eq!(replay.replay().expect("it is one").under_old_ids, 400, "the plans, too");
    assert_eq!(sorted(send(&replay, 3)), sent);
    for _ in 0..3 {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
    }
    assert!(queues.log().stats().segments < segments, "and now none of it");
}

/// Where no plan is kept the boundaries are new; from the first attempt on they are as firm as any.
#[test]
fn what_went_out_without_a_plan_is_filled_in_batches_of_its_own_that_outlive_a_crash() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let batches: Vec<Batch> = [30, 30, 40].map(|records| next(&queue, records)).into();
    plan(&queue, &batches[1]);
    batches.iter().for_each(|batch| queue.settle(batch, Settled::Delivered));
    let replay = queues.replay("hook", "acme", FILL).expect("it is kept");
    assert_eq!(replay.replay().expect("it is one").under_old_ids, 30);
    let old = next(&replay, 7);
    assert_eq!((&old.id, old.planned), (&batches[1].id, true));
    let fresh = next(&replay, 7);
    assert_eq!((&fresh.offsets, fresh.planned), (&(0..7), false));
    plan(&replay, &fresh);
    drop((queue, replay, queues));
    disk.power_cut(PowerCut::NothingUnsynced);

    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    assert_eq!((queue.lag().records, queue.has_more()), (0, false), "the live one knows nothing of it");
    let replay = queues.replays().pop().expect("it goes on");
    let again: BTreeSet<String> = [next(&replay, 9), next(&replay, 9)].map(|batch| batch.id).into();
    assert_eq!(again, [old.id, fresh.id].into());
}

/// What somebody who replays does, until the disk is gone. Says what was told to it: the replay, and whether it is done.
fn act(queues: &Queues, mode: ReplayMode) -> (Option<Sent>, bool) {
    let Ok(replay) = queues.replay("hook", "acme", ReplayRequest { mode, ..FILL }) else { return (None, false) };
    let mut sent = Vec::new();
    while let Ok(Some(batch)) = replay.next_batch(BatchLimits { records_max: 120, ..ANY }) {
        let planned = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let heard = Arc::clone(&planned);
        replay.plan(&batch, Box::new(move |result| heard.store(result.is_ok(), std::sync::atomic::Ordering::SeqCst)));
        if !planned.load(std::sync::atomic::Ordering::SeqCst) {
            return (Some(sent), false);
        }
        sent.push((batch.id.clone(), batch.offsets.clone()));
        replay.settle(&batch, Settled::Delivered);
        if sent.len() % 10 == 0 && queues.tick().is_err() {
            return (Some(sent), false);
        }
    }
    let ended = queues.tick().is_ok();
    (Some(sent), ended)
}

#[test]
fn a_crash_at_any_point_of_a_replay_leaves_it_whole_or_not_there_and_never_touches_the_live_queue() {
    for mode in [ReplayMode::Fill, ReplayMode::Again] {
        let (disk, clock) = (SimDisk::new(9), ManualClock::at(1_000_000));
        let (queues, _, _) = delivered(&disk, &clock);
        let before = disk.ops();
        assert!(act(&queues, mode).1);
        let changes = disk.ops() - before;
        drop(queues);
        for crash in 0..=changes {
            let case = format!("{mode:?}, change {crash} of {changes}");
            let (disk, clock) = (SimDisk::new(crash), ManualClock::at(1_000_000));
            let (queues, queue, first) = delivered(&disk, &clock);
            let live = queue.cursor();
            disk.crash_at(disk.ops() + crash, Performed::Nothing);
            let (told, ended) = act(&queues, mode);
            drop((queue, queues));
            disk.power_cut(CUTS[crash as usize % 4]);

            let queues = open(&disk, &clock);
            let queue = hook(&queues);
            assert_eq!(queue.cursor(), live, "{case}");
            assert!(queue.balance().closes() && queue.balance().delivered.records == 400, "{case}");
            let replay = queues.replays().pop();
            assert!(told.is_none() || replay.is_some() || queue.replayed().replays == 1, "{case}: it was told of");
            assert!(replay.is_none() || queue.replayed().replays == 0, "{case}: one that is over is not there");
            assert!(!ended || (replay.is_none() && queue.replayed().delivered.records == 400), "{case}");
            let mut ids: BTreeSet<String> = first.iter().map(|(id, _)| id.clone()).collect();
            let earlier = told.unwrap_or_default();
            if let Some(replay) = &replay {
                let info = replay.replay().expect("it is one");
                assert_eq!((info.number, info.mode, &info.offsets), (1, mode, &(0..400)), "{case}");
                let rest = send(replay, 50);
                let at = |offset: u64| move |(_, offsets): &&(String, Range<u64>)| offsets.contains(&offset);
                for (id, offsets) in &rest {
                    // What comes again comes as it was.
                    let known = if mode == ReplayMode::Fill { &first } else { &earlier };
                    if let Some((was, whole)) = known.iter().find(at(offsets.start)) {
                        assert_eq!((was, whole), (id, offsets), "{case}");
                    }
                    assert!(mode == ReplayMode::Fill || ids.insert(id.clone()), "{case}: {id}");
                }
                assert!(replay.balance().closes() && replay.balance().delivered.records == 400, "{case}");
                queues.tick().expect("the disk is sound");
            }
            assert!(queues.replays().is_empty(), "{case}");
            ids.extend(earlier.into_iter().map(|(id, _)| id));
            // The next one is another one.
            let next = queues.replay("hook", "acme", AGAIN).expect("it is kept");
            assert_eq!(next.replay().expect("it is one").number, queue.replayed().replays + 1);
            assert!(send(&next, 17).into_iter().all(|(id, _)| ids.insert(id)), "{case}");
        }
    }
}
