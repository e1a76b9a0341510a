//! What a tick makes durable, what it lets go, and what it costs.

use super::*;

fn rot_floor(disk: &dyn Disk) {
    let floor = disk.open(Path::new("data/floor")).expect("it was written");
    let len = floor.len().expect("memory tells") as usize;
    floor.write_all_at(&[std::io::IoSlice::new(&vec![0xff; len])], 0).expect("memory writes");
}

#[test]
fn plans_are_let_go_one_tick_after_the_cursor_that_settled_them() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let mark = || queues.next_plan_mark();
    for n in 0..5 {
        let batch = next(&queue, 10);
        plan(&queue, &batch);
        assert_eq!(mark(), n, "nothing is let go while it is open");
        queues.tick().expect("memory writes");
        assert_eq!(mark(), n);
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("memory writes");
        assert_eq!(mark(), n + 1, "for the next tick to write");
    }
}

/// Between the moment a plan is durable and the moment its queue hears of it a tick must not let it go. Here the writer
/// is stopped right there.
#[test]
fn a_plan_that_is_durable_but_not_yet_known_to_its_queue_is_not_let_go() {
    use std::sync::mpsc::sync_channel;
    let by_hand =
        QueueOptions { store: StoreChoice::None, tick: Duration::from_secs(3_600), ..QueueOptions::default() };
    let log = LogOptions { inline: false, ..LogOptions::small() };
    let clock = Arc::new(crate::clock::SystemClock::new());
    let queues = Queues::open(mem(), clock, Path::new("data"), log, by_hand).expect("it opens");
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let batches: Vec<_> = (0..3).map(|_| next(&queue, 10)).collect();

    let (let_go, gate) = sync_channel::<()>(0);
    let stop = move |_: Result<crate::Appended, crate::AppendError>| assert!(gate.recv().is_err(), "let go by a drop");
    queues.log().append("other", vec![1], 1, Box::new(stop)).expect("it is taken");
    queue.plan(&batches[0], Box::new(|result| result.expect("durable")));
    // These two gather behind the first, and go as one append; the writer stops between them.
    let (reached, is_there) = sync_channel(0);
    let (let_go_again, gate) = sync_channel::<()>(0);
    queue.plan(
        &batches[1],
        Box::new(move |result| {
            result.expect("durable");
            reached.send(()).expect("somebody waits");
            let _ = gate.recv();
        }),
    );
    let (done, is_done) = sync_channel(1);
    queue.plan(&batches[2], Box::new(move |_| done.send(()).expect("somebody waits")));
    drop(let_go);
    is_there.recv().expect("the writer comes by");
    queue.settle(&batches[0], Settled::Delivered);
    queue.settle(&batches[1], Settled::Delivered);
    queues.tick().expect("memory writes");
    queues.tick().expect("memory writes");
    assert_eq!(queues.next_plan_mark(), 1, "the third plan has offset 2, and nobody knows yet");
    drop(let_go_again);
    is_done.recv().expect("the writer goes on");
    // The writer has told everybody, and takes the append off its way in a moment.
    let moved_on = (0..600_000).any(|_| {
        queues.tick().expect("memory writes");
        std::thread::sleep(Duration::from_micros(100));
        queues.next_plan_mark() == 2
    });
    assert!(moved_on);
}

/// Before: while the log's writer was slow each tick wrote the same old plans again, until they took the place of new ones.
#[test]
fn old_plans_that_are_on_their_way_are_not_written_once_more() {
    use std::sync::mpsc::sync_channel;
    let by_hand = QueueOptions {
        store: StoreChoice::None,
        tick: Duration::from_secs(3_600),
        plans_kept_min: 2,
        ..QueueOptions::default()
    };
    let log = LogOptions { inline: false, ..LogOptions::small() };
    let clock = Arc::new(crate::clock::SystemClock::new());
    let queues = Queues::open(mem(), clock, Path::new("data"), log, by_hand).expect("it opens");
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let batches: Vec<Batch> = (0..10).map(|_| next(&queue, 5)).collect();
    for (n, batch) in batches.iter().enumerate() {
        let (done, is_done) = sync_channel(1);
        queue.plan(batch, Box::new(move |planned| done.send(planned.is_ok()).expect("somebody waits")));
        assert!(is_done.recv().expect("the writer answers"));
        if n > 0 {
            queue.settle(batch, Settled::Delivered);
        }
    }
    let (let_go, gate) = sync_channel::<()>(0);
    let stop = move |_: Result<crate::Appended, crate::AppendError>| assert!(gate.recv().is_err(), "let go by a drop");
    queues.log().append("other", vec![1], 1, Box::new(stop)).expect("it is taken");
    (0..5).for_each(|_| queues.tick().expect("memory writes"));
    assert_eq!(queues.stats().plans_moved, 1, "the first batch's");
    drop(let_go);
    queues.close().expect("memory closes");
}

/// Before: it had the first epoch. What the store had of a replay of the same number, before the damage, was believed of it at the next
/// start.
#[test]
fn a_replay_that_is_made_after_damage_to_the_floor_is_another_life() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.settle(&next(&queue, 10), Settled::Delivered);
    queues.close().expect("memory closes");
    drop((queue, queues));
    rot_floor(&*disk);
    let queues = open(&disk);
    let queue = hook(&queues);
    queue.settle(&next(&queue, 10), Settled::Delivered);
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    let replay = queues.replay("hook", "acme", request).expect("ten records are settled");
    assert!(queue.inner.epoch > 0 && replay.inner.epoch > 0);
}

/// Before: the pin was gone from memory. The operator heard that it failed, and the next tick took the loss all the same.
#[test]
fn a_floors_loss_is_not_taken_where_that_could_not_be_written() {
    let disk = mem();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    drop(hook(&queues));
    queues.close().expect("memory closes");
    drop(queues);
    rot_floor(&*disk);
    let queues = open(&disk);
    drop(hook(&queues));
    // The next floor is written to the room that was taken ahead. Without a name that can't take the old one's place.
    disk.remove(Path::new("data/floor.new")).expect("it was taken");
    queues.accept_floor_loss().expect_err("the floor can't be written");
    queues.tick().expect("memory writes");
    assert!(queues.stats().pinned);
    let late = queues.queue("late", "acme", Start::Now).expect("it is made");
    assert_eq!(late.cursor().low, 0, "it has what is kept, as long as the loss is not taken");
    drop((late, queues));
    let queues = open(&disk);
    assert!(queues.stats().pinned, "nor is it after a restart");
    queues.accept_floor_loss().expect("memory writes");
    assert!(!queues.stats().pinned);
    drop(queues);
    assert!(!open(&disk).stats().pinned, "it is durable");
}

#[test]
fn settled_segments_go_after_the_floor_that_says_so_and_only_then() {
    let disk = mem();
    let queues = open(&disk);
    let (fast, slow) = (hook(&queues), queues.queue("slow", "acme", Start::Earliest).expect("it is made"));
    (0..40).for_each(|_| append(&queues, "acme", 100));
    let segments = queues.log().stats().segments;
    while let Some(batch) = fast.next_batch(ANY).expect("memory reads") {
        fast.settle(&batch, Settled::Delivered);
    }
    queues.tick().expect("memory writes");
    queues.log().housekeep();
    assert_eq!(queues.log().stats().segments, segments, "the slow one needs them");
    while let Some(batch) = slow.next_batch(ANY).expect("memory reads") {
        slow.settle(&batch, Settled::Delivered);
    }
    queues.log().housekeep();
    assert_eq!(queues.log().stats().segments, segments, "not durable yet");
    queues.tick().expect("memory writes");
    queues.log().housekeep();
    assert_eq!(queues.log().stats().segments, segments, "one slot says so, and could rot");
    queues.tick().expect("memory writes");
    queues.log().housekeep();
    assert!(queues.log().stats().segments < segments);
}

#[test]
fn what_was_settled_before_a_restart_is_let_go_after_it() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    (0..40).for_each(|_| append(&queues, "acme", 100));
    let batch = queue.next_batch(ANY).expect("memory reads").expect("all");
    queue.settle(&batch, Settled::Delivered);
    queues.tick().expect("memory writes");
    let segments = queues.log().stats().segments;
    drop((queue, queues));
    let queues = open(&disk);
    queues.tick().expect("memory writes");
    queues.log().housekeep();
    assert!(queues.log().stats().segments < segments);
}

#[test]
fn a_stream_without_a_queue_is_kept_for_the_replay_window_only_and_our_own_streams_for_ever() {
    let disk = mem();
    let queues = open(&disk);
    for stream in ["unrouted", "!rejects/acme", "!dead/hook"] {
        (0..40).for_each(|_| append(&queues, stream, 100));
    }
    queues.tick().expect("memory writes");
    (0..3).for_each(|_| queues.log().housekeep());
    let first_kept = |stream| queues.log().first_kept(queues.log().stream(stream).expect("it was appended to"));
    assert!(first_kept("unrouted") > 0 && first_kept("!rejects/acme") > 0);
    assert_eq!(first_kept("!dead/hook"), 0);
}

#[test]
fn ten_thousand_settles_cost_one_sync_and_a_tick_without_news_none() {
    let counted = CountedDisk::new(mem());
    let disk: Arc<dyn Disk> = Arc::new(counted.clone());
    let store = MemStore::default();
    let options = QueueOptions { store: StoreChoice::Memory(store), ..QueueOptions::inline() };
    let queues = open_with(&disk, &ManualClock::at(0), options);
    let queue = hook(&queues);
    (0..100).for_each(|_| append(&queues, "acme", 100));
    queues.tick().expect("memory writes");
    let (before, batches) = (counted.counts(), queues.stats().store_batches);
    for _ in 0..10_000 {
        let batch = next(&queue, 1);
        queue.settle(&batch, Settled::Delivered);
    }
    queues.tick().expect("memory writes");
    assert_eq!((counted.counts() - before).file_syncs, 1);
    assert_eq!(queues.stats().store_batches, batches + 1);

    for (nth, syncs) in [(1, 1), (2, 0), (3, 0)] {
        let before = counted.counts();
        queues.tick().expect("memory writes");
        let counts = counted.counts() - before;
        let found = (counts.file_syncs, counts.writes, queues.stats().store_batches);
        assert_eq!(found, (syncs, syncs, batches + 1), "tick {nth}: the other slot of one page, and then nothing");
    }
}

#[test]
fn a_tick_takes_up_the_queues_that_moved_and_no_other() {
    let disk = mem();
    let queues = open(&disk);
    let made: Vec<Queue> = (0..1_000)
        .map(|n| queues.queue(&format!("hook-{n}"), &format!("customer-{n}"), Start::Earliest).expect("it is made"))
        .collect();
    queues.tick().expect("memory writes");
    assert!(queues.touched().is_empty());
    append(&queues, "customer-7", 10);
    let batch = next(&made[7], 5);
    queues.tick().expect("memory writes");
    // From two sides at once, and again while nobody has taken it up.
    made[7].settle(&batch, Settled::Delivered);
    made[7].settle_range(6..7, Settled::Purged);
    assert_eq!(queues.touched(), ["hook-7"]);
    queues.tick().expect("memory writes");
    assert!(queues.touched().is_empty());
    made[7].settle_range(7..8, Settled::Purged);
    assert_eq!(queues.touched(), ["hook-7"], "what moves behind a tick is for the next one");
    // Nobody takes it up under its name any more, and whoever has the name next is not held up by it.
    queues.delete("hook-7", None).expect("memory writes");
    made[7].settle_range(8..9, Settled::Purged);
    let anew = queues.queue("hook-7", "customer-7", Start::Earliest).expect("it is made");
    anew.settle_range(0..3, Settled::Purged);
    queues.tick().expect("memory writes");
    assert!(queues.touched().is_empty());
    drop((made, anew, queues));
    let queues = open(&disk);
    let low = |n: usize| queues.find(&format!("hook-{n}"), &format!("customer-{n}")).expect("it was made").cursor().low;
    assert_eq!((low(6), low(7)), (0, 3));
}

#[test]
fn a_tick_looks_for_what_nobody_takes_only_where_records_came() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queues.tick().expect("memory writes");
    assert_eq!(queues.unrouted(), (false, 0), "at the start it may have been any");
    // Plans have no queue, nor have letters without one; both come with every batch.
    let batch = next(&queue, 5);
    plan(&queue, &batch);
    append(&queues, "!dead/hook", 1);
    append(&queues, "acme", 10);
    assert_eq!(queues.unrouted(), (false, 0));
    append(&queues, "nobodys", 1);
    append(&queues, "nobodys", 1);
    append(&queues, "!rejects/acme", 1);
    assert_eq!(queues.unrouted(), (false, 2));
    queues.tick().expect("memory writes");
    assert_eq!(queues.unrouted(), (false, 0));
    queues.delete("hook", None).expect("memory writes");
    assert_eq!(queues.unrouted(), (false, 0), "deleting looks at all of them once");
    append(&queues, "acme", 10);
    assert_eq!(queues.unrouted(), (false, 1), "it was somebody's");
}

/// Before: each replay left what the cursor store knew of it there for ever, and so did each destination that was deleted.
#[test]
fn the_store_keeps_nothing_of_queues_that_are_gone() {
    let (disk, store) = (mem(), MemStore::default());
    let options = || QueueOptions { store: StoreChoice::Memory(store.clone()), ..QueueOptions::inline() };
    let all = || store.clone().load().expect("it is memory");
    let queues = open_with(&disk, &ManualClock::at(1_000_000), options());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.settle_range(0..6, Settled::Delivered);
    queues.tick().expect("memory writes");
    let (own, mut midst) = (all().len(), Vec::new());
    for _ in 0..3 {
        let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
        let replay = queues.replay("hook", "acme", request).expect("six records were settled");
        replay.settle_range(0..4, Settled::Delivered);
        queues.tick().expect("memory writes");
        midst = all();
        assert_eq!(midst.len(), own + 2, "its cursor and its hours");
        replay.settle_range(4..6, Settled::Delivered);
        queues.tick().expect("memory writes");
        assert_eq!((queues.replays().len(), all().len()), (0, own));
    }
    drop((queue, queues));

    // A store that lost its last values, as sled does with the power.
    store.clone().store(&midst).expect("it is memory");
    let queues = open_with(&disk, &ManualClock::at(1_000_000), options());
    assert_eq!(all().len(), own, "what it knows of a replay that is over goes when it is opened");
    queues.delete("hook", None).expect("memory writes");
    queues.tick().expect("memory writes");
    assert_eq!(all(), []);
}

#[test]
fn the_revisions_that_plans_name_are_told_by_destination_and_not_at_all_where_one_cannot_be_read() {
    let disk = mem();
    let queues = open(&disk);
    let told = || {
        let named = queues.revisions_planned().expect("memory reads")?;
        Some(named.into_iter().map(|(of, all)| (of.to_string(), Vec::from_iter(all))).collect::<Vec<_>>())
    };
    assert_eq!(told(), Some(vec![]), "there is no plan yet");
    let (queue, other) = (hook(&queues), queues.queue("other", "acme", Start::Earliest).expect("it is made"));
    append(&queues, "acme", 30);
    for (queue, revision) in [(&queue, 3), (&queue, 4), (&other, 9)] {
        queue.set_settings_revision(revision);
        assert_eq!(queue.settings_revision(), revision);
        let batch = next(queue, 5);
        plan(queue, &batch);
        queue.settle(&batch, Settled::Delivered);
    }
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    let replay = queues.replay("hook", "acme", request).expect("ten records are settled");
    replay.set_settings_revision(7);
    plan(&replay, &next(&replay, 5));
    let expected = [("hook".to_owned(), vec![3, 4, 7]), ("other".to_owned(), vec![9])];
    assert_eq!(told().as_deref(), Some(&expected[..]), "those of a replay are its destination's");
    append(&queues, "!plans", 2); // no plans
    assert_eq!(told(), None);
    drop((queue, other, replay, queues));
    assert_eq!(open(&disk).stats().plans_lost, 2);
}

#[test]
fn a_plan_that_keeps_few_others_is_not_written_again_with_one_that_keeps_many() {
    let options = QueueOptions { plans_kept_min: 2, ..QueueOptions::inline() };
    let queues = open_with(&mem(), &ManualClock::at(0), options);
    let (queue, late) = (hook(&queues), queues.queue("late", "acme", Start::Earliest).expect("it is made"));
    append(&queues, "acme", 100);
    let old = next(&queue, 5);
    plan(&queue, &old);
    (0..3).for_each(|_| {
        let batch = next(&queue, 5);
        plan(&queue, &batch);
        queue.settle(&batch, Settled::Delivered);
    });
    let new = next(&late, 5);
    plan(&late, &new);
    queues.tick().expect("memory writes");
    let lies_at = |queue: &Queue, batch: &Batch| queue.inner.window().plan_of(&batch.offsets).map(|plan| plan.offset);
    assert_eq!((lies_at(&queue, &old), lies_at(&late, &new), queues.stats().plans_moved), (Some(5), Some(4), 1));
}

#[test]
fn old_plans_are_written_again_when_more_is_kept_for_them_than_last_time() {
    let options = QueueOptions { plans_kept_min: 2, ..QueueOptions::inline() };
    let queues = open_with(&mem(), &ManualClock::at(0), options);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let open = next(&queue, 5);
    plan(&queue, &open);
    let moved = (0..9).map(|_| {
        let batch = next(&queue, 5);
        plan(&queue, &batch);
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("memory writes");
        queues.stats().plans_moved
    });
    // Three are more than two; then seven more than two and four times one.
    assert_eq!(moved.collect::<Vec<_>>(), [0, 1, 1, 1, 1, 1, 1, 2, 2]);
}
