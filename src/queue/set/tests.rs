//! What a start believes, and what is made, replayed and deleted, where that is rare: the floor, the log and the plans do not say the
//! same.

use super::opening::place_orphans;
use super::*;
use crate::clock::ManualClock;
use crate::disk::mem::MemDisk;
use crate::queue::cursor_store::StoreError;
use crate::queue::floor_file::FloorEntry;
use crate::queue::limits::{ORPHANED_PLANS_MAX, QUEUES_MAX};
use crate::queue::plan::{self, PlanRecord};
use crate::{Batch, BatchLimits, PLANS_STREAM, Payload, ReplayError, ReplayFrom, ReplayMode, ReplayRequest};
use crate::{Settled, StoreChoice, StreamId};
use std::io::IoSlice;
use std::ops::Range;

const ALL: ReplayRequest = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };

fn try_open(disk: &MemDisk, store: StoreChoice) -> Result<Queues, OpenQueuesError> {
    let log = LogOptions { segment_bytes: 1 << 20, budget_bytes: 32 << 20, ..LogOptions::small() };
    let options = QueueOptions { store, ..QueueOptions::inline() };
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::at(1_000_000)));
    Queues::open(disk, clock, Path::new("data"), log, options)
}

fn open(disk: &MemDisk) -> Queues {
    try_open(disk, StoreChoice::None).expect("it opens")
}

/// Appends one frame of ten-byte records.
fn append(queues: &Queues, stream: &str, records: u32) {
    let bytes = vec![7; records as usize * 10];
    queues.log().append_wait(stream, vec![Payload { bytes, records }]).expect("it is taken");
}

fn made(queues: &Queues, destination: &str) -> Queue {
    queues.queue(destination, "acme", Start::Earliest).expect("it is made")
}

fn next(queue: &Queue, records_max: u64) -> Batch {
    let limits = BatchLimits { records_max, bytes_max: u64::MAX };
    queue.next_batch(limits).expect("memory reads").expect("something waits")
}

fn planned(queue: &Queue, records: u64) -> Batch {
    let batch = next(queue, records);
    queue.plan(&batch, Box::new(|planned| planned.expect("memory writes")));
    batch
}

fn ticks(queues: &Queues) {
    (0..3).for_each(|_| queues.tick().expect("memory writes"));
}

fn write(disk: &MemDisk, path: &Path, bytes: &[u8]) {
    let _ = disk.remove(path);
    disk.create(path).and_then(|file| file.write_all_at(&[IoSlice::new(bytes)], 0)).expect("memory writes");
}

fn read(disk: &MemDisk, path: &Path) -> Vec<u8> {
    crate::disk::read_all(&*disk.open(path).expect("it is there")).expect("memory reads")
}

fn rot_floor(disk: &MemDisk) {
    let path = Path::new("data/floor");
    write(disk, path, &vec![0xEE; read(disk, path).len()]);
}

/// Changes what the floor says, as if another life of the log had written it.
fn change_floor(disk: &MemDisk, log: crate::LogId, change: impl Fn(&mut FloorEntry)) {
    let (mut floor, found) = FloorFile::load(Arc::new(disk.clone()), Path::new("data")).expect("memory reads");
    assert_eq!(floor.bind(log, &found, false), None);
    let entries: Vec<_> = floor.entries().map(|(id, entry)| (id, entry.clone())).collect();
    for (id, mut entry) in entries {
        change(&mut entry);
        floor.set(id, entry);
    }
    floor.commit().expect("memory writes");
}

fn plan_of(destination: &str, stream: StreamId, offsets: Range<u64>) -> PlanRecord {
    PlanRecord { destination: destination.into(), incarnation: 0, stream_id: stream, offsets, revision: 0 }
}

fn append_plans(queues: &Queues, plans: &[PlanRecord]) {
    let records = u32::try_from(plans.len()).expect("a few thousand");
    let frame = Payload { bytes: plan::encode(plans), records };
    queues.log().append_wait(PLANS_STREAM, vec![frame]).expect("it is taken");
}

/// A store that never opens, over whatever has its name.
fn no_store() -> StoreChoice {
    StoreChoice::Other(std::sync::Arc::new(|| Err(StoreError("of another kind".into()))))
}

#[test]
fn a_store_that_does_not_open_is_set_aside_once_and_nothing_but_what_we_set_aside_is_removed() {
    let disk = MemDisk::new();
    let dir = |name: &str| Path::new("data").join(name);
    let holds = |name: &str| disk.list(&dir(name)).is_ok_and(|files| files == ["db"]);
    let make = |name: &str| {
        disk.create_dir(&dir(name)).expect("memory writes");
        write(&disk, &dir(name).join("db"), b"cursors");
    };
    let start = || try_open(&disk, no_store()).expect("it goes on without").stats().store_resets;
    assert_eq!(start(), 1, "there was none to be set aside");
    assert!(disk.open(&dir("sled.bad")).is_err());
    // Its new name is taken: it stays where it is, and the start goes on.
    make("sled");
    write(&disk, &dir("sled.bad-1000000"), b"a file");
    assert_eq!(start(), 1);
    assert!(holds("sled") && disk.open(&dir("sled.bad")).is_err());
    disk.remove(&dir("sled.bad-1000000")).expect("memory writes");
    for (note, stays) in [("sled.bad-", true), ("sled.bad-7/x", true), ("hints", true), ("sled.bad-7", false)] {
        ["sled.bad-", "sled.bad-7", "sled.bad-7/x", "hints"].into_iter().for_each(make);
        write(&disk, &dir("sled.bad"), note.as_bytes());
        assert_eq!(start(), 1);
        assert!(holds("sled.bad-1000000") && !holds("sled"), "{note}");
        assert_eq!(read(&disk, &dir("sled.bad")), b"sled.bad-1000000", "{note}");
        assert!(holds(note) == stays && holds("hints"), "{note}");
        disk.rename_dir(&dir("sled.bad-1000000"), &dir("sled")).expect("memory writes");
        ["sled.bad-7", "sled.bad-"].into_iter().for_each(|name| disk.remove_dir(&dir(name)).expect("memory writes"));
    }
}

/// Without a floor nothing was ever promised; but where there are records, these are to be had whatever their floor is like.
#[test]
fn a_floor_that_cannot_be_written_stops_only_the_start_of_what_is_new() {
    let disk = MemDisk::new();
    disk.create_dir(Path::new("data/floor.new")).expect("memory writes");
    assert!(matches!(try_open(&disk, StoreChoice::None), Err(OpenQueuesError::Floor(_))));
    disk.remove_dir(Path::new("data/floor.new")).expect("memory writes");
    let queues = open(&disk);
    append(&queues, "acme", 10);
    drop(queues);
    for is_lost in [false, true] {
        if is_lost {
            rot_floor(&disk);
            disk.remove(Path::new("data/floor.new")).expect("it was taken ahead");
            disk.create_dir(Path::new("data/floor.new")).expect("memory writes");
        }
        let queues = open(&disk);
        assert_eq!((queues.stats().queues, queues.stats().floor_errors > 0), (0, is_lost));
        assert_eq!(next(&made(&queues, "hook"), 100).offsets, 0..10);
        assert_eq!(queues.tick().is_err(), is_lost);
        queues.delete("hook", None).map(drop).unwrap_or_default();
    }
    disk.remove_dir(Path::new("data/floor.new")).expect("memory writes");
    assert!(open(&disk).stats().pinned, "and that it was lost is not forgotten");
}

#[test]
fn the_thread_that_ticks_goes_on_after_a_tick_that_failed() {
    const LOOKS: u32 = 30_000;
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    drop(queues);
    rot_floor(&disk);
    disk.remove(Path::new("data/floor.new")).expect("it was taken ahead");
    disk.create_dir(Path::new("data/floor.new")).expect("memory writes");
    let options = QueueOptions { store: StoreChoice::None, tick: TICK_MIN, ..QueueOptions::default() };
    let clock = Arc::new(ManualClock::at(1_000_000));
    let queues = Queues::open(Arc::new(disk.clone()), clock, Path::new("data"), LogOptions::small(), options);
    let queues = queues.expect("there are records");
    let wait_for = |is_there: &dyn Fn(QueuesStats) -> bool| {
        let mut looks = 0..LOOKS;
        while !is_there(queues.stats()) {
            looks.next().expect("it ticks within half a minute");
            std::thread::sleep(TICK_MIN);
        }
    };
    wait_for(&|stats| stats.floor_errors > 2); // that of the start, and of ticks
    assert_eq!(queues.stats().floor_commits, 0);
    disk.remove_dir(Path::new("data/floor.new")).expect("memory writes");
    wait_for(&|stats| stats.floor_commits > 0);
    queues.close().expect("memory writes");
}

#[test]
fn a_loss_is_taken_only_where_there_is_one() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    made(&queues, "hook");
    queues.tick().expect("memory writes");
    let commits = queues.stats().floor_commits;
    queues.accept_floor_loss().expect("there is nothing to do");
    assert_eq!((queues.stats().floor_commits, queues.stats().pinned), (commits, false));
}

/// The log comes from a backup, the floor does not. Before its end was cut the replay would have waited for records that are no more,
/// or have counted others, under the same numbers, as its own.
#[test]
fn a_replay_of_records_that_the_log_has_lost_ends_with_those_that_are_there() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    let queue = made(&queues, "hook");
    let deliver = || {
        append(&queues, "acme", 10);
        queue.settle(&next(&queue, 10), Settled::Delivered);
        ticks(&queues);
    };
    deliver();
    let log = |disk: &MemDisk| {
        let paths = disk.list(Path::new("data/log")).expect("it is there");
        paths.into_iter().map(|name| Path::new("data/log").join(name)).collect::<Vec<_>>()
    };
    let old: Vec<_> = log(&disk).into_iter().map(|path| (path.clone(), read(&disk, &path))).collect();
    deliver();
    let replay =
        queues.replay("hook", "acme", ReplayRequest { mode: ReplayMode::Again, ..ALL }).expect("all is settled");
    assert_eq!(replay.replay().expect("it is one").offsets, 0..20);
    ticks(&queues);
    drop((replay, queue, queues));
    log(&disk).iter().for_each(|path| disk.remove(path).expect("memory writes"));
    old.iter().for_each(|(path, bytes)| write(&disk, path, bytes));

    let queues = open(&disk);
    let replay = queues.replays().pop().expect("it goes on");
    assert_eq!((replay.replay().expect("it is one").offsets, replay.lag().records), (0..10, 10));
    assert!(replay.balance().closes());
    append(&queues, "acme", 10);
    let again = next(&replay, 100);
    assert_eq!((again.offsets.clone(), replay.has_more()), (0..10, false));
    replay.settle(&again, Settled::Delivered);
    ticks(&queues);
    assert!(queues.replays().is_empty());
    assert_eq!(made(&queues, "hook").replayed().delivered.records, 10);
}

/// Ids are made with the number: under the old incarnation one could come again that stood for other records.
#[test]
fn where_a_stream_has_another_number_no_id_and_no_plan_and_no_replay_goes_on() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    let queue = made(&queues, "hook");
    append(&queues, "acme", 10);
    queue.settle(&planned(&queue, 4), Settled::Delivered);
    queues.replay("hook", "acme", ALL).expect("four are settled");
    let before = planned(&queue, 3);
    ticks(&queues);
    // Its plan is durable, and no tick has seen its queue.
    let late = planned(&made(&queues, "late"), 5);
    let log = queues.log().log_id();
    drop((queue, queues));
    change_floor(&disk, log, |entry| entry.stream_id = entry.stream_id.map(|_| StreamId(7)));

    let queues = open(&disk);
    let stats = queues.stats();
    assert_eq!((stats.streams_renumbered, stats.plans_resumed), (1, 0));
    assert!(queues.replays().is_empty() && queues.find("late", "acme").is_none(), "whose its number was is not known");
    let (queue, other) = (made(&queues, "hook"), made(&queues, "late"));
    let (again, others) = (next(&queue, 3), next(&other, 5));
    assert_eq!((&again.offsets, &others.offsets), (&before.offsets, &late.offsets));
    assert!(again.id != before.id && !again.planned);
    assert_eq!((queue.balance().delivered.records, queue.balance().closes()), (4, true));
    let id = again.id.clone();
    ticks(&queues);
    drop((again, others, queue, other, queues));
    let queues = open(&disk);
    assert_eq!(queues.stats().streams_renumbered, 0, "the floor has it now");
    assert_eq!(next(&made(&queues, "hook"), 3).id, id);
}

#[test]
fn a_plan_of_a_stream_that_the_log_does_not_know_makes_no_queue_and_holds_up_no_other() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let before = planned(&made(&queues, "hook"), 4);
    append_plans(&queues, &[plan_of("ghost", StreamId(99), 0..4)]);
    let after = planned(&made(&queues, "late"), 4);
    drop(queues);
    let queues = open(&disk);
    let names: Vec<_> = queues.all().iter().map(|queue| queue.destination().to_owned()).collect();
    assert_eq!((names, queues.stats().plans_resumed), (vec!["hook".to_owned(), "late".to_owned()], 2));
    assert_eq!(
        [next(&made(&queues, "hook"), 1).id, next(&made(&queues, "late"), 1).id],
        [&before, &after].map(|b| b.id.clone())
    );
}

#[test]
fn of_more_plans_without_a_queue_than_are_kept_the_oldest_are() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let stream = queues.log().stream("acme").expect("it is there");
    let frame: Vec<_> = (0..4_096).map(|_| plan_of("hook", stream, 0..1)).collect();
    (0..ORPHANED_PLANS_MAX / frame.len()).for_each(|_| append_plans(&queues, &frame));
    append_plans(&queues, &frame[..1]);
    drop(queues);
    rot_floor(&disk);
    let queues = open(&disk);
    let orphans: Vec<u64> = lock(&queues.set.keeping).orphans.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(orphans, (0..ORPHANED_PLANS_MAX as u64).collect::<Vec<_>>());
}

#[test]
fn a_plan_makes_no_queue_that_is_there_already_or_for_which_the_floor_has_no_room() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let (queue, context) = (made(&queues, "hook"), &queues.set.context);
    let stream = queues.log().stream("acme").expect("it is there");
    let entry = lock(&queues.set.keeping).floor.entries().map(|(_, entry)| entry.clone()).next().expect("its own");
    let mut floor = FloorFile::load(Arc::new(MemDisk::new()), Path::new("data")).expect("there is none").0;
    let mut index = Index::default();
    index.add(Arc::clone(&queue.inner));
    let mut place = |floor: &mut FloorFile, destination: &str| {
        let orphans = (vec![(3, plan_of(destination, stream, 0..4))], 0);
        let left = place_orphans(context, floor, &mut index, orphans, &mut QueuesStats::default());
        assert!(left.expect("memory reads").is_empty());
        (index.by_name.len(), floor.entries().count())
    };
    assert_eq!(place(&mut floor, "hook"), (1, 0), "that one has taken its plans");
    assert_eq!(place(&mut floor, "late"), (2, 1));
    while floor.add(entry.clone()).is_some() {}
    assert_eq!(place(&mut floor, "later"), (2, QUEUES_MAX + 1));
}

/// After damage to the floor a queue that is made again has the plans of its last life, and no others.
#[test]
fn a_queue_that_is_made_again_takes_over_the_plans_of_its_newest_life_and_of_its_stream() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 20);
    append(&queues, "other", 20);
    let first = planned(&made(&queues, "hook"), 3);
    queues.delete("hook", None).expect("memory writes");
    let second = planned(&made(&queues, "hook"), 4);
    let beside = planned(&made(&queues, "beside"), 5);
    let other = planned(&queues.queue("hook", "other", Start::Earliest).expect("it is made"), 6);
    drop(queues);
    rot_floor(&disk);

    let queues = open(&disk);
    let queue = made(&queues, "hook");
    let again = next(&queue, 1);
    assert_eq!((&again.id, &again.offsets), (&second.id, &second.offsets));
    assert_eq!(next(&queue, 1).offsets, 4..5, "{:?} is of a life that is over", first.id);
    let others = queues.queue("hook", "other", Start::Earliest).expect("it is made");
    assert_eq!([next(&others, 1).id, next(&made(&queues, "beside"), 1).id], [other.id.clone(), beside.id.clone()]);
}

/// Its records are not there: the log has lost them, or the plan says what never was.
#[test]
fn a_queue_that_is_made_again_takes_over_no_plan_of_records_that_are_not_there() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let stream = queues.log().stream("acme").expect("it is there");
    lock(&queues.set.keeping).orphans = vec![(0, plan_of("hook", stream, 0..4)), (1, plan_of("hook", stream, 4..11))];
    let queue = made(&queues, "hook");
    let batches = [next(&queue, 1), next(&queue, 100)];
    assert_eq!(batches.map(|batch| batch.offsets.clone()), [0..4, 4..10], "as if there were no plan of the second");
    assert!(lock(&queues.set.keeping).orphans.is_empty());
}

#[test]
fn what_is_deleted_after_damage_to_the_floor_takes_no_plan_of_another_destination_with_it() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let (gone, stays) = (planned(&made(&queues, "hook"), 4), planned(&made(&queues, "beside"), 5));
    drop(queues);
    rot_floor(&disk);
    let queues = open(&disk);
    queues.delete("hook", None).expect("memory writes");
    assert_eq!(next(&made(&queues, "beside"), 1).id, stays.id);
    assert_ne!(next(&made(&queues, "hook"), 4).id, gone.id);
}

#[test]
fn a_replay_goes_with_its_queue_and_counts_as_none() {
    let queues = open(&MemDisk::new());
    let queue = made(&queues, "hook");
    append(&queues, "acme", 10);
    queue.settle(&next(&queue, 6), Settled::Delivered);
    let replay = queues.replay("hook", "acme", ALL).expect("six are settled");
    let deleted = queues.delete("hook", None).expect("memory writes");
    assert_eq!((deleted.queues, deleted.pending.records), (1, 4), "the six were delivered once");
    assert!(queues.all().is_empty() && !replay.has_more());
    assert!(lock(&queue.inner.replays).as_ref().is_none_or(|replays| replays.under_way.is_none()));
}

#[test]
fn what_went_out_without_a_plan_is_replayed_where_there_never_was_any() {
    let queues = open(&MemDisk::new());
    let queue = made(&queues, "hook");
    append(&queues, "acme", 10);
    queue.settle(&next(&queue, 6), Settled::Delivered);
    assert_eq!(queues.log().stream(PLANS_STREAM), None);
    let replay = queues.replay("hook", "acme", ALL).expect("six are settled");
    assert_eq!((next(&replay, 100).offsets, replay.replay().expect("it is one").under_old_ids), (0..6, 0));
}

/// The batch is still out, so it will be sent whole: none of it is sent beside.
#[test]
fn of_a_batch_that_is_settled_in_part_nothing_is_replayed() {
    let queues = open(&MemDisk::new());
    let queue = made(&queues, "hook");
    append(&queues, "acme", 10);
    let batch = planned(&queue, 10);
    queue.settle_range(0..6, Settled::Delivered);
    let request = ReplayRequest { from: ReplayFrom::Offset(2), to: Some(4), ..ALL };
    assert!(matches!(queues.replay("hook", "acme", request), Err(ReplayError::Nothing { from: 2, to: 4, .. })));
    assert!(queues.replays().is_empty());
    queue.settle(&batch, Settled::Delivered);
    assert_eq!(next(&queues.replay("hook", "acme", request).expect("it is settled"), 1).offsets, 0..10);
}

#[test]
fn replays_that_are_done_with_one_tick_end_once_each() {
    let queues = open(&MemDisk::new());
    append(&queues, "acme", 10);
    let names = ["beside", "hook", "third"];
    let replays = names.map(|name| {
        let queue = made(&queues, name);
        queue.settle(&next(&queue, 10), Settled::Delivered);
        queues.replay(name, "acme", ALL).expect("ten are settled")
    });
    replays.iter().for_each(|replay| replay.settle(&next(replay, 10), Settled::Delivered));
    // Whoever hears that one has ended looks at the others at once: the commit that ends the one meets these, too.
    for name in names {
        let others = replays.clone();
        let look = move || others.iter().for_each(|replay| _ = replay.settle_range(0..10, Settled::Delivered));
        made(&queues, name).on_more(Arc::new(look));
    }
    ticks(&queues);
    assert!(queues.replays().is_empty());
    for name in names {
        let replayed = made(&queues, name).replayed();
        assert_eq!((replayed.replays, replayed.delivered.records), (1, 10), "{name}");
    }
}

#[test]
fn a_replay_that_is_resumed_goes_by_plans_of_its_destination_alone() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let (queue, beside) = (made(&queues, "hook"), made(&queues, "beside"));
    let sent = planned(&queue, 10);
    queue.settle(&sent, Settled::Delivered);
    beside.settle(&planned(&beside, 4), Settled::Delivered);
    queues.replay("hook", "acme", ALL).expect("ten are settled");
    ticks(&queues);
    drop((queue, beside, queues));
    let queues = open(&disk);
    let replay = queues.replays().pop().expect("it goes on");
    let again = next(&replay, 1);
    assert_eq!((&again.id, &again.offsets, replay.has_more()), (&sent.id, &(0..10), false));
}

#[test]
fn a_log_that_outlives_its_queues_takes_records_and_they_are_there_for_the_next() {
    let disk = MemDisk::new();
    let queues = open(&disk);
    made(&queues, "hook");
    queues.tick().expect("memory writes");
    let log = queues.log().clone();
    let set = Arc::downgrade(&queues.set);
    drop(queues);
    assert!(set.upgrade().is_none(), "nobody has to be woken");
    log.append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("it is taken");
    drop(log);
    assert_eq!(next(&made(&open(&disk), "hook"), 100).offsets, 0..10);
}
