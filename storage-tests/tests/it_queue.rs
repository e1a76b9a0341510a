//! The queues over everything that a disk and a cursor store can do to them.
//!
//! On the simulated disk: histories with crashes at any change, checked against a model of what was acknowledged,
//! settled and planned. On a real directory: sled deleted, damaged, cut, replaced by an older copy, hanging, on a full
//! disk; each may cost repeats and nothing else.

use forebay::clock::{ManualClock, SystemClock};
use forebay::disk::{Disk, real::RealDisk};
use forebay::{
    Batch, BatchLimits, Cursor, FloorDamage, LogOptions, OpenError, OpenQueuesError, OpenStore, Payload, Queue,
    QueueOptions, Queues, RangeError, Settled, SplitError, Start, StoreChoice,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::{PowerCut, SimDisk};

const DESTINATIONS: [&str; 3] = ["hook", "archive", "slow"];
const STREAMS: [&str; 2] = ["acme", "umbrella"];
const ANY: BatchLimits = BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX };

fn tiny() -> LogOptions {
    LogOptions { segment_bytes: 4 << 10, budget_bytes: 4 << 20, replay_window: Duration::ZERO, ..LogOptions::small() }
}

/// Opens on the simulated disk, all on this thread.
fn open(disk: &SimDisk, clock: &ManualClock) -> Queues {
    let opened = Queues::open(
        Arc::new(disk.clone()),
        Arc::new(clock.clone()),
        Path::new("/data"),
        tiny(),
        QueueOptions::inline(),
    );
    opened.expect("no crash keeps it from opening")
}

/// What happened, as those outside know it.
#[derive(Default)]
struct Model {
    /// Per stream, the content of each acknowledged record.
    acked: BTreeMap<&'static str, BTreeMap<u64, u64>>,
    queues: BTreeMap<(&'static str, &'static str), QueueModel>,
    content: u64,
}

#[derive(Default)]
struct QueueModel {
    /// Settled by us, so that the cursor may say so.
    settled: BTreeSet<u64>,
    /// What the last tick that succeeded made durable.
    durable: Cursor,
    out: Vec<Batch>,
    /// Planned and acknowledged as such, by first offset. Each comes again as it stood until it is settled.
    planned: BTreeMap<u64, (Range<u64>, String)>,
    /// Splits that failed, and where: after a crash such a batch may come whole or in halves.
    maybe_split: Vec<(Range<u64>, u64)>,
    /// Every id that ever was, and its records.
    ids: BTreeMap<String, Range<u64>>,
}

fn offsets_settled(cursor: &Cursor) -> impl Fn(u64) -> bool + '_ {
    |offset| offset < cursor.low || cursor.settled.iter().any(|range| (range.start..range.end).contains(&offset))
}

impl Model {
    /// Checks what a crash left against what must and what may be left, and goes on from there.
    fn check_after_crash(&mut self, queues: &Queues) {
        let stats = queues.stats();
        assert_eq!((stats.cursors_ahead, stats.cursors_below, stats.plans_lost), (0, 0, 0), "{stats:?}");
        assert_eq!((stats.floor_damage, stats.pinned), (vec![], false));
        for (&(destination, stream), model) in &mut self.queues {
            let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
            let cursor = queue.cursor();
            assert!(cursor.covers(&model.durable), "{destination}/{stream}: {cursor:?} after {:?}", model.durable);
            let settled = offsets_settled(&cursor);
            assert!((0..cursor.end()).filter(|o| settled(*o)).all(|o| model.settled.contains(&o)), "{cursor:?}");
            let balance = queue.balance();
            assert!(balance.closes() && balance.lost.records == 0, "{balance:?}");

            // Open plans come first and as they stood; those whose answer the crash swallowed may come, too.
            model.planned.retain(|_, (offsets, _)| !offsets.clone().all(&settled));
            let mut resumed = Vec::new();
            let mut missing: BTreeMap<_, _> = model.planned.clone();
            while let Some(batch) = claim(&queue, ANY) {
                assert!(batch.planned || missing.is_empty(), "plans come first: {missing:?} not before {batch:?}");
                check_content(&self.acked[stream], &batch);
                if let Some((offsets, id)) = missing.remove(&batch.offsets.start) {
                    if model.maybe_split.contains(&(offsets.clone(), batch.offsets.end)) {
                        // The first half: the second one must come as well.
                        let second = batch.offsets.end..offsets.end;
                        let id = half_id(&batch, &second);
                        missing.insert(second.start, (second, id));
                    } else {
                        assert_eq!((&offsets, &id), (&batch.offsets, &batch.id));
                    }
                }
                if let Some(before) = model.ids.get(&batch.id) {
                    assert_eq!(*before, batch.offsets, "an id is never given to other records");
                }
                if batch.planned {
                    model.ids.insert(batch.id.clone(), batch.offsets.clone());
                    model.planned.insert(batch.offsets.start, (batch.offsets.clone(), batch.id.clone()));
                }
                resumed.push(batch);
            }
            // Of a batch whose first half is settled only the second one comes.
            let second = |whole: &Range<u64>| {
                let halves = model.maybe_split.iter().filter(|(split, _)| split == whole);
                halves.map(|(_, at)| *at).any(|at| resumed.iter().any(|half| half.offsets == (at..whole.end)))
            };
            missing.retain(|_, (whole, _)| !second(whole));
            assert!(missing.is_empty(), "{destination}/{stream}: plans lost: {missing:?}");
            resumed.iter().for_each(|batch| queue.release(batch));
            model.settled = (0..cursor.end()).filter(|o| settled(*o)).collect();
            model.durable = cursor.clone();
            model.out.clear();
            model.maybe_split.clear();
            model.planned = (resumed.iter().filter(|batch| batch.planned))
                .map(|batch| (batch.offsets.start, (batch.offsets.clone(), batch.id.clone())))
                .collect();
        }
    }

    fn after_tick(&mut self, queues: &Queues) {
        for (&(destination, stream), model) in &mut self.queues {
            model.durable = queues.queue(destination, stream, Start::Earliest).expect("it is there").cursor();
        }
    }
}

/// The id of a batch with other boundaries, as documented: digits for the first offset and the count, each behind one
/// that says how many they are.
fn half_id(of: &Batch, offsets: &Range<u64>) -> String {
    let numbers = |offsets: &Range<u64>| -> String {
        let number = |n: u64| {
            let digits = forebay::base64_digits(u128::from(n));
            forebay::base64_digits(digits.len() as u128) + &digits
        };
        number(offsets.start) + &number(offsets.end - offsets.start)
    };
    let destination = DESTINATIONS.iter().find(|name| of.id.ends_with(**name)).expect("one of ours");
    let front = of.id.strip_suffix(*destination).and_then(|id| id.strip_suffix(&numbers(&of.offsets)));
    format!("{}{}{destination}", front.expect("as documented"), numbers(offsets))
}

/// Eight bytes a record, and every record says who it is.
fn check_content(acked: &BTreeMap<u64, u64>, batch: &Batch) {
    for slice in &batch.slices {
        for offset in slice.offsets.clone() {
            let at = usize::try_from(offset - slice.frame.first).expect("small") * 8;
            let content = u64::from_le_bytes(slice.frame.payload()[at..at + 8].try_into().expect("eight bytes"));
            // A record that was written but not acknowledged when the power failed may be there.
            assert!(acked.get(&offset).is_none_or(|acked| *acked == content), "offset {offset}");
        }
    }
}

/// One random step. Errors are the disk's, and what they mean is checked after the crash.
fn step(rng: &mut Rng, queues: &Queues, model: &mut Model) {
    let stream = STREAMS[rng.below(STREAMS.len())];
    let key = (DESTINATIONS[rng.below(DESTINATIONS.len())], stream);
    let queue = || queues.queue(key.0, key.1, Start::Earliest).expect("it is there");
    match rng.below(20) {
        0..6 => append(rng, queues, model, stream),
        6..11 => {
            let limits = BatchLimits { records_max: 1 + rng.below(40) as u64, ..ANY };
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            let Some(batch) = claim(&queue, limits) else { return };
            assert!(batch.offsets.clone().any(|offset| !entry.settled.contains(&offset)));
            assert!(
                entry.out.iter().all(|o| o.offsets.end <= batch.offsets.start || batch.offsets.end <= o.offsets.start)
            );
            check_content(&model.acked[stream], &batch);
            if rng.chance(3, 4) {
                let planned = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&planned);
                queue.plan(&batch, Box::new(move |result| heard.store(result.is_ok(), Ordering::SeqCst)));
                if planned.load(Ordering::SeqCst) {
                    entry.planned.insert(batch.offsets.start, (batch.offsets.clone(), batch.id.clone()));
                    let before = entry.ids.insert(batch.id.clone(), batch.offsets.clone());
                    assert!(before.is_none_or(|before| before == batch.offsets));
                }
            }
            entry.out.push(batch);
        }
        11..16 => {
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            if entry.out.is_empty() {
                return;
            }
            let batch = entry.out.swap_remove(rng.below(entry.out.len()));
            if rng.chance(1, 4) {
                queue.release(&batch);
                return;
            }
            if rng.chance(1, 3) && batch.offsets.end - batch.offsets.start > 1 {
                split(rng, &queue, entry, batch);
                return;
            }
            if rng.chance(1, 4) {
                let part = batch.offsets.start..batch.offsets.start + 1;
                queue.settle_range(part, Settled::DeadLettered);
            }
            if rng.chance(1, 2) {
                let middle = batch.offsets.start + rng.below(40) as u64;
                let parts = [(middle..middle + 3, Settled::Held), (middle + 5..middle + 6, Settled::DeadLettered)];
                queue.settle_parts(&batch, &parts, Settled::Delivered);
            } else {
                queue.settle(&batch, Settled::Delivered);
            }
            entry.settled.extend(batch.offsets.clone());
        }
        16 if rng.chance(1, 4) => {
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            let low = queue.cursor().low;
            let offsets = low.saturating_sub(5)..low + rng.below(40) as u64;
            let before = queue.balance();
            let Ok(purged) = queue.purge(offsets.clone()) else { return };
            let after = queue.balance();
            assert!(after.closes());
            assert_eq!(after.purged.records - before.purged.records, purged.records);
            assert_eq!(before.pending.records - after.pending.records, purged.records);
            let cursor = queue.cursor();
            let settled = offsets_settled(&cursor);
            entry.settled.extend(offsets.filter(|offset| settled(*offset)));
        }
        16..19 => {
            if queues.tick().is_ok() {
                model.after_tick(queues);
            }
        }
        _ => queues.log().housekeep(),
    }
}

/// Splits a batch somewhere. Its halves are out from then on, or it is itself.
fn split(rng: &mut Rng, queue: &Queue, entry: &mut QueueModel, batch: Batch) {
    let at = batch.offsets.start + 1 + rng.below((batch.offsets.end - batch.offsets.start - 1) as usize) as u64;
    let halves = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&halves);
    queue.split(&batch, at, Box::new(move |result| *heard.lock().expect("one thread") = Some(result)));
    match halves.lock().expect("one thread").take().expect("inline") {
        Ok(halves) => {
            let planned = entry.planned.remove(&batch.offsets.start).is_some();
            for half in halves {
                let bytes: u64 = (half.slices.iter())
                    .map(|slice| slice.frame.bytes_at(slice.offsets.end) - slice.frame.bytes_at(slice.offsets.start))
                    .sum();
                assert!(half.slices.is_empty() || half.bytes == bytes, "{half:?}");
                assert_eq!(half.id, half_id(&batch, &half.offsets));
                if planned {
                    entry.planned.insert(half.offsets.start, (half.offsets.clone(), half.id.clone()));
                    entry.ids.insert(half.id.clone(), half.offsets.clone());
                }
                entry.out.push(half);
            }
        }
        Err(SplitError::Plan(_)) => {
            entry.maybe_split.push((batch.offsets.clone(), at));
            let refused = Arc::new(AtomicBool::new(false));
            let heard = Arc::clone(&refused);
            queue.plan(&batch, Box::new(move |result| heard.store(result.is_err(), Ordering::SeqCst)));
            assert!(refused.load(Ordering::SeqCst), "it is not to be sent whole");
            entry.out.push(batch);
        }
        Err(SplitError::NotOut) => {} // purged, or settled in parts
        Err(SplitError::NoRoom | SplitError::Read(_)) => entry.out.push(batch),
        Err(error @ SplitError::NoBoundary { .. }) => panic!("{error}"),
    }
}

fn append(rng: &mut Rng, queues: &Queues, model: &mut Model, stream: &'static str) {
    let records = 1 + rng.below(50) as u64;
    let contents = model.content..model.content + records;
    model.content = contents.end;
    let bytes = contents.clone().flat_map(u64::to_le_bytes).collect();
    let payload = Payload { bytes, records: u32::try_from(records).expect("small") };
    if let Ok(appended) = queues.log().append_wait(stream, vec![payload]) {
        model.acked.entry(stream).or_default().extend(appended.offsets.zip(contents));
    }
}

/// The next batch with its records; of the archive as a range that is read one frame at a time, twice.
fn claim(queue: &Queue, limits: BatchLimits) -> Option<Batch> {
    if queue.destination() != "archive" {
        return queue.next_batch(limits).expect("the disk reads");
    }
    let mut range = queue.next_range(limits.into()).expect("the disk reads")?;
    let read = || {
        let mut reader = queue.read(&range);
        std::iter::from_fn(move || reader.next().expect("the disk reads")).collect::<Vec<_>>()
    };
    let (slices, again) = (read(), read());
    let outline = |slices: &[forebay::Slice]| -> Vec<_> {
        slices.iter().map(|slice| (slice.offsets.clone(), slice.frame.payload().to_vec())).collect()
    };
    assert_eq!(outline(&slices), outline(&again));
    range.slices = slices;
    Some(range)
}

/// Settles everything, and checks that all that was acknowledged has come by.
fn drain(queues: &Queues, model: &mut Model) {
    for (&(destination, stream), entry) in &mut model.queues {
        let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
        for batch in entry.out.drain(..) {
            queue.release(&batch);
        }
        while let Some(batch) = claim(&queue, ANY) {
            check_content(&model.acked[stream], &batch);
            queue.settle(&batch, Settled::Delivered);
            entry.settled.extend(batch.offsets.clone());
        }
        let missing: Vec<_> = model.acked[stream].keys().filter(|offset| !entry.settled.contains(offset)).collect();
        assert!(missing.is_empty(), "{destination}/{stream}: never delivered: {missing:?}");
        let balance = queue.balance();
        assert!(balance.closes() && balance.pending.records == 0 && balance.lost.records == 0, "{balance:?}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// A directory with a queue for each destination and stream.
fn begin(seed: u64) -> (SimDisk, ManualClock, Model, Queues) {
    let (disk, clock) = (SimDisk::new(seed), ManualClock::at(1_000_000));
    let mut model = Model::default();
    let queues = open(&disk, &clock);
    for stream in STREAMS {
        model.acked.entry(stream).or_default();
        for destination in DESTINATIONS {
            queues.queue(destination, stream, Start::Earliest).expect("it is made");
            model.queues.entry((destination, stream)).or_default();
        }
    }
    queues.tick().expect("the disk is sound");
    (disk, clock, model, queues)
}

/// Lives through crashes, and on a bad disk through faults; then all that was acknowledged is delivered. Returns the
/// number of crashes.
fn history(seed: u64, bad_disk: bool) -> u64 {
    let mut rng = Rng::new(seed);
    let (disk, clock, mut model, mut queues) = begin(seed);
    let mut crashes = 0;
    for _ in 0..8 {
        let performed = [Performed::Nothing, Performed::All, Performed::Bytes(rng.below(9_000))][rng.below(3)];
        disk.crash_at(disk.ops() + rng.below(150) as u64, performed);
        for _ in 0..400 {
            if bad_disk && rng.chance(1, 12) {
                inject(&mut rng, &disk);
            } else if bad_disk && rng.chance(1, 6) {
                disk.clear_faults();
            }
            step(&mut rng, &queues, &mut model);
            clock.advance(Duration::from_millis(50));
            if disk.crashed() {
                break;
            }
        }
        drop(queues);
        disk.clear_faults();
        let cuts = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix, PowerCut::RandomSubset];
        disk.power_cut(cuts[rng.below(cuts.len())]);
        crashes += 1;
        if rng.chance(1, 3) {
            // It crashes again while it opens, or soon after.
            disk.crash_at(disk.ops() + rng.below(30) as u64, Performed::Nothing);
            let (again, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
            if let Ok(again) = Queues::open(again, clock, Path::new("/data"), tiny(), QueueOptions::inline()) {
                let _ = again.tick();
            }
            disk.power_cut(PowerCut::RandomSubset);
            crashes += 1;
        }
        queues = open(&disk, &clock);
        model.check_after_crash(&queues);
    }
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
    crashes
}

/// The next few calls of some kind fail, on the floor or anywhere.
fn inject(rng: &mut Rng, disk: &SimDisk) {
    use OpKind::{Allocate, Create, Rename, Sync, SyncDir, Write};
    let kind = [Sync, Sync, Write, Create, Rename, Allocate, SyncDir][rng.below(7)];
    let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite][rng.below(3)];
    let from = rng.below(4) as u64;
    let fault = Fault::nths(kind, from..from + 1 + rng.below(3) as u64, failure);
    disk.inject(if rng.chance(2, 3) { fault.on("floor") } else { fault });
}

fn histories(bad_disk: bool) {
    let first = number("FOREBAY_SEED", 1);
    let crashes: u64 = (first..first + number("FOREBAY_HISTORIES", 40)).map(|seed| history(seed, bad_disk)).sum();
    println!("{crashes} crashes");
}

/// Repeat one history with `FOREBAY_SEED=n FOREBAY_HISTORIES=1`.
#[test]
fn no_crash_loses_a_record_a_cursor_or_a_plan() {
    histories(false);
}

/// The same on a disk that refuses, fills up and fails its syncs now and then.
#[test]
fn no_crash_of_a_bad_disk_does_either() {
    histories(true);
}

/// One life as a script, ended at every change that it makes in turn. Repeat one with `FOREBAY_CASE=n`.
#[test]
fn a_crash_at_any_change_of_a_life_of_queues_loses_nothing() {
    const STEPS: usize = 70;
    let seed = number("FOREBAY_SEED", 1);
    let cuts = [PowerCut::Everything, PowerCut::NothingUnsynced, PowerCut::Prefix, PowerCut::RandomSubset];
    // The same steps each time, up to the change at which it crashes.
    let live = |crash: Option<(u64, Performed)>| {
        let mut rng = Rng::new(seed);
        let (disk, clock, mut model, queues) = begin(seed);
        let from = disk.ops();
        if let Some((change, performed)) = crash {
            disk.crash_at(from + change, performed);
        }
        for _ in 0..STEPS {
            step(&mut rng, &queues, &mut model);
            clock.advance(Duration::from_millis(50));
            if disk.crashed() {
                break;
            }
        }
        let changes = disk.ops() - from;
        (disk, clock, model, changes)
    };
    let (.., changes) = live(None);
    assert!(changes > 80, "{changes} changes");
    let only = std::env::var("FOREBAY_CASE").ok().map(|case| case.parse::<u64>().expect("a number"));
    for change in (0..changes).filter(|change| only.is_none_or(|only| only == *change)) {
        for (way, performed) in [Performed::Nothing, Performed::Bytes(600), Performed::All].into_iter().enumerate() {
            // Each way of ending it meets each kind of change many times over.
            let cut = cuts[(change as usize + way) % cuts.len()];
            println!("change {change}, {performed:?}, {cut:?}");
            let (disk, clock, mut model, _) = live(Some((change, performed)));
            assert!(disk.crashed());
            disk.power_cut(cut);
            let queues = open(&disk, &clock);
            model.check_after_crash(&queues);
            drain(&queues, &mut model);
            queues.close().expect("the disk is sound");
        }
    }
}

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
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        let payload = Payload { bytes: vec![7; 100], records: 10 };
        queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
        let batch = queue.next_batch(ANY).expect("reads").expect("more");
        queue.plan(&batch, Box::new(|result| result.expect("the plan is durable")));
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
            let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
            if queue.cursor().low == 0 {
                let again = queue.next_batch(ANY).expect("reads").expect("more");
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
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        let payload = Payload { bytes: vec![7; 100], records: 10 };
        queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
        let batch = queue.next_batch(ANY).expect("reads").expect("more");
        queue.plan(&batch, Box::new(|result| result.expect("the plan is durable")));
        queues.tick().expect("the disk is sound");
        (queues, queue, batch)
    };
    // What was told before the power went: the halves, and how many of them are settled for good.
    let act = |queues: &Queues, queue: &Queue, batch: &Batch| {
        let halves = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&halves);
        queue.split(batch, 4, Box::new(move |result| *heard.lock().expect("one thread") = result.ok()));
        let Some(halves) = halves.lock().expect("one thread").take() else { return (None, 0) };
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

    let cuts = [PowerCut::Everything, PowerCut::NothingUnsynced, PowerCut::Prefix, PowerCut::RandomSubset];
    for (crash, cut) in (0..=changes).flat_map(|crash| cuts.map(|cut| (crash, cut))) {
        let disk = SimDisk::new(crash);
        let (queues, queue, whole) = prepare(&disk);
        disk.crash_at(disk.ops() + crash, Performed::Nothing);
        let (halves, settled) = act(&queues, &queue, &whole);
        drop((queues, queue));
        disk.power_cut(cut);
        let queues = open(&disk, &clock);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
        let mut again = Vec::new();
        while let Some(batch) = queue.next_batch(ANY).expect("reads") {
            assert!(batch.planned);
            again.push((batch.offsets, batch.id));
        }
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
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    let fill = || {
        for _ in 0..100 {
            let payload = Payload { bytes: vec![7; 1_000], records: 10 };
            queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
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
    let queue = open(&disk, &clock).queue("hook", "acme", Start::Earliest).expect("it is there");
    assert_eq!(queue.cursor().low, 1_000);
}

#[test]
fn a_lost_floor_pins_the_log_and_everything_comes_again_under_the_ids_it_had() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    let payload = Payload { bytes: vec![7; 1_000], records: 100 };
    queues.log().append_wait("acme", vec![payload.clone()]).expect("the log is sound");
    let first = queue.next_batch(BatchLimits { records_max: 30, ..ANY }).expect("reads").expect("more");
    queue.plan(&first, Box::new(|result| result.expect("the plan is durable")));
    queues.tick().expect("the disk is sound");
    drop((queue, queues));
    disk.erase(Path::new("/data/floor"));

    let queues = open(&disk, &clock);
    let stats = queues.stats();
    assert_eq!((stats.floor_damage, stats.pinned), (vec![FloorDamage::Missing], true));
    let queue = queues.queue("hook", "acme", Start::Now).expect("it is made");
    let again = queue.next_batch(ANY).expect("reads").expect("all of it");
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

#[test]
fn damage_to_records_is_settled_as_lost_and_the_rest_is_delivered() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    for n in 0..40u8 {
        let payload = Payload { bytes: vec![n; 1_000], records: 10 };
        queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
    }
    queues.close().expect("the disk is sound");
    drop(queues);
    // The middle of a sealed segment in the middle of the log.
    let segments: Vec<_> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    disk.flip_bit(&segments[segments.len() / 2], 8 * 1_500);

    let queues = open(&disk, &clock);
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
    let mut seen = BTreeSet::new();
    while let Some(batch) = queue.next_batch(BatchLimits { records_max: 25, ..ANY }).expect("reads") {
        seen.extend(batch.offsets.clone());
        queue.settle(&batch, Settled::Delivered);
    }
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    assert_eq!((balance.lost.records, balance.lost.bytes, balance.delivered.records), (10, 1_000, 390));
    assert_eq!(seen.len(), 390);
    assert_eq!(queue.cursor(), Cursor::at(400, 40_000));
}

/// A range is claimed by the headers of its frames, so damage to a payload is met only when it is sent.
#[test]
fn damage_inside_of_a_range_gives_it_up_and_the_rest_is_delivered_in_others() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    queues.queue("archive", "acme", Start::Earliest).expect("it is made");
    for n in 0..40u8 {
        let payload = Payload { bytes: vec![n; 1_000], records: 10 };
        queues.log().append_wait("acme", vec![payload]).expect("the log is sound");
    }
    queues.close().expect("the disk is sound");
    drop(queues);
    let segments: Vec<_> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    disk.flip_bit(&segments[segments.len() / 2], 8 * 1_500);

    let queues = open(&disk, &clock);
    let queue = queues.queue("archive", "acme", Start::Earliest).expect("it is there");
    let (mut seen, mut given_up) = (BTreeSet::new(), Vec::new());
    while let Some(range) = queue.next_range(ANY.into()).expect("reads") {
        queue.plan(&range, Box::new(|result| result.expect("the plan is durable")));
        let mut reader = queue.read(&range);
        let mut records = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(slice)) => records.extend(slice.offsets),
                Ok(None) => {
                    assert_eq!(records, range.offsets.clone().collect::<Vec<_>>());
                    queue.settle(&range, Settled::Delivered);
                    records.iter().for_each(|offset| assert!(seen.insert(*offset)));
                    break;
                }
                Err(RangeError::Lost { offsets }) => {
                    assert_eq!(offsets.end - offsets.start, 10);
                    assert!(matches!(reader.next(), Err(RangeError::Lost { .. })), "it does not go on behind the hole");
                    queue.release(&range); // to no effect
                    given_up.push(range.id.clone());
                    break;
                }
                Err(RangeError::Read(error)) => panic!("{error}"),
            }
        }
        assert!(queue.balance().closes());
    }
    assert_eq!((given_up.len(), seen.len()), (1, 390));
    let balance = queue.balance();
    assert_eq!((balance.lost.records, balance.lost.bytes, balance.delivered.records), (10, 1_000, 390));
    assert_eq!(queue.cursor(), Cursor::at(400, 40_000));
}

/// Without the floor's word damage to the very last frame looks like a write that a crash tore.
#[test]
fn the_floor_tells_damage_at_the_very_end_from_a_torn_tail() {
    let (disk, clock) = (SimDisk::new(7), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    queues.log().append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("the log is sound");
    queues.tick().expect("the disk is sound");
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    let segment = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "seg")).expect("one");
    let bytes = disk.read_live(&segment).expect("it is there");
    let payload = bytes.windows(100).position(|window| window == [7; 100]).expect("the payload");
    disk.flip_bit(&segment, payload as u64 * 8);

    let queues = open(&disk, &clock);
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
    assert!(queue.next_batch(ANY).expect("reads").is_none());
    let balance = queue.balance();
    assert!(balance.closes());
    assert_eq!(balance.lost.records, 10, "named and counted, not cut");
}

#[test]
fn a_log_that_lost_its_end_is_told_and_no_offset_is_given_again() {
    let (disk, clock) = (SimDisk::new(6), ManualClock::at(1_000_000));
    let payload = || vec![Payload { bytes: vec![7; 100], records: 10 }];
    let queues = open(&disk, &clock);
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    let batch = |queue: &Queue| queue.next_batch(ANY).expect("reads").expect("more");
    queues.log().append_wait("acme", payload()).expect("the log is sound");
    queue.settle(&batch(&queue), Settled::Delivered);
    queues.tick().expect("the disk is sound");
    let old_log: Vec<_> = (disk.paths().into_iter())
        .filter(|path| path.starts_with("/data/log"))
        .map(|path| (path.clone(), disk.read_live(&path).expect("it is there")))
        .collect();
    queues.log().append_wait("acme", payload()).expect("the log is sound");
    queue.settle(&batch(&queue), Settled::Delivered);
    queues.tick().expect("the disk is sound");
    drop((queue, queues));
    // The log comes from a backup, the floor does not.
    disk.paths().iter().filter(|path| path.starts_with("/data/log")).for_each(|path| disk.erase(path));
    old_log.iter().for_each(|(path, bytes)| disk.overwrite(path, bytes));

    let queues = open(&disk, &clock);
    assert_eq!(queues.stats().cursors_ahead, 1);
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
    assert!(queue.balance().closes());
    let appended = queues.log().append_wait("acme", payload()).expect("the log is sound");
    assert_eq!(appended.offsets, 20..30);
    assert_eq!(batch(&queue).offsets, 20..30);
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    assert_eq!((balance.accepted.records, balance.delivered.records, balance.delivered.bytes), (30, 20, 200));
}

// === sled, on a real directory ===

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn open(&self, store: StoreChoice) -> Queues {
        self.open_within(store, Duration::from_secs(10))
    }

    fn open_within(&self, store: StoreChoice, store_deadline: Duration) -> Queues {
        let log = LogOptions { inline: false, ..LogOptions::small() };
        let by_hand = Duration::from_secs(3_600);
        let options = QueueOptions { store, store_deadline, tick: by_hand, ..QueueOptions::default() };
        let (disk, clock, dir) = (Arc::new(RealDisk), Arc::new(SystemClock::new()), self.dir.path().join("data"));
        for _ in 0..1_000 {
            match Queues::open(disk.clone(), clock.clone(), &dir, log.clone(), options.clone()) {
                // A set that is dropped has threads that hold the lock a moment longer.
                Err(OpenQueuesError::Locked { .. } | OpenQueuesError::Log(OpenError::Locked { .. })) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => return opened.expect("it opens"),
            }
        }
        panic!("the lock is not let go");
    }

    /// Appends and settles some; ten records are not settled.
    fn live(&self, store: StoreChoice) -> u64 {
        let queues = self.open(store);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        for _ in 0..10 {
            queues.log().append_wait("acme", vec![Payload { bytes: vec![1; 100], records: 10 }]).expect("it is taken");
        }
        let waiting = queue.lag().records;
        let limits = BatchLimits { records_max: waiting - 10, ..ANY };
        while queue.lag().records > 10 {
            let batch = queue.next_batch(limits).expect("reads").expect("more");
            queue.settle(&batch, Settled::Delivered);
        }
        let low = queue.cursor().low;
        queues.close().expect("the disk is sound"); // waits for sled, so that its files are whole
        low
    }

    /// Starts, and everything is delivered that is not.
    fn check(&self, store: StoreChoice, low: u64) -> Queues {
        let queues = self.open(store);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
        assert_eq!(queue.cursor().low, low, "the floor had the same: not even a repeat");
        let batch = queue.next_batch(ANY).expect("reads").expect("ten");
        assert_eq!(batch.offsets, low..low + 10);
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("the disk is sound");
        assert!(queue.balance().closes() && queue.lag().records == 0);
        queues
    }
}

/// The store opened as it was, and is in use.
fn assert_sound(queues: &Queues) {
    let stats = queues.stats();
    assert_eq!((stats.store_resets, stats.store_given_up), (0, None));
}

fn files_of(dir: &Path) -> Vec<std::path::PathBuf> {
    let disk = RealDisk;
    disk.list(dir).expect("it is there").into_iter().map(|name| dir.join(name)).collect()
}

fn read(path: &Path) -> Vec<u8> {
    forebay::disk::read_all(&*RealDisk.open(path).expect("it is there")).expect("reads")
}

fn write(path: &Path, bytes: &[u8]) {
    let disk = RealDisk;
    let _ = disk.remove(path);
    let file = disk.create(path).expect("it can be made");
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0).expect("writes");
}

#[test]
fn sled_deleted_is_only_hints_deleted() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    RealDisk.remove_dir(&home.path("sled")).expect("removed");
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    queues.close().expect("closes");
}

#[test]
fn sled_damaged_anyhow_costs_hints_and_nothing_else() {
    for seed in 0..number("FOREBAY_DAMAGES", 12) {
        let (home, mut rng) = (Home::new(), Rng::new(seed));
        let low = home.live(StoreChoice::Sled);
        for path in files_of(&home.path("sled")) {
            let mut bytes = read(&path);
            if bytes.is_empty() {
                continue;
            }
            match seed % 4 {
                0 => bytes.truncate(rng.below(bytes.len())),
                1 => bytes.clear(),
                2 => {
                    let at = rng.below(bytes.len());
                    let end = bytes.len().min(at + 4096);
                    bytes[at..end].fill(0);
                }
                _ => (0..20).for_each(|_| {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 << rng.below(8);
                }),
            }
            write(&path, &bytes);
        }
        home.check(StoreChoice::Sled, low).close().expect("closes");
    }
}

#[test]
fn an_older_copy_of_sled_is_not_believed_against_the_floor() {
    let home = Home::new();
    let sled = home.path("sled");
    home.live(StoreChoice::Sled);
    let old: Vec<_> = files_of(&sled).into_iter().map(|path| (path.clone(), read(&path))).collect();
    let low = home.live(StoreChoice::Sled);
    files_of(&sled).iter().for_each(|path| RealDisk.remove(path).expect("removed"));
    old.iter().for_each(|(path, bytes)| write(path, bytes));
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    assert_eq!((queues.stats().hints_taken, queues.stats().hints_refused), (0, 1));
    queues.close().expect("closes");
}

#[test]
fn a_store_that_hangs_when_it_opens_is_set_aside_and_the_next_start_has_a_new_one() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    let hangs: OpenStore = Arc::new(|| {
        loop {
            std::thread::park();
        }
    });
    let queues = home.open_within(StoreChoice::Other(hangs), Duration::from_millis(100));
    let stats = queues.stats();
    assert_eq!(stats.store_resets, 1);
    assert!(stats.store_given_up.is_some_and(|why| why.contains("did not open within")));
    drop(queues);
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    queues.close().expect("closes");
}

#[test]
fn a_store_on_a_full_disk_is_gone_without_and_one_directory_set_aside_is_kept() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    let opens = Arc::new(Mutex::new(0));
    let theirs = Arc::clone(&opens);
    let full: OpenStore = Arc::new(move || {
        *theirs.lock().expect("not poisoned") += 1;
        Err(forebay::StoreError("no space left on device".into()))
    });
    let aside = || -> Vec<String> {
        let names = std::process::Command::new("ls").arg(home.path("")).output().expect("ls").stdout;
        let names = String::from_utf8(names).expect("ASCII");
        names.lines().filter(|name| name.starts_with("sled.bad-")).map(str::to_owned).collect()
    };
    drop(home.open(StoreChoice::Other(Arc::clone(&full))));
    assert_eq!(*opens.lock().expect("not poisoned"), 2, "once as it was, once empty");
    let first = aside();
    assert_eq!(first.len(), 1);
    // Again, with a sled to set aside again.
    drop(home.open(StoreChoice::Sled));
    std::thread::sleep(Duration::from_millis(5));
    drop(home.open(StoreChoice::Other(full)));
    let second = aside();
    assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");
    home.check(StoreChoice::Sled, low).close().expect("closes");
}

/// Before: the floor remembered the number of a stream whose first append had failed. After a crash that forgot the
/// stream its number went to the next new one, and the queue delivered that one's records as its own.
#[test]
fn a_queue_never_reads_a_stream_that_got_the_number_of_a_forgotten_one() {
    for cut in [PowerCut::NothingUnsynced, PowerCut::Everything] {
        let (disk, clock) = (SimDisk::new(3), ManualClock::at(0));
        let queues = open(&disk, &clock);
        let payload = || vec![Payload { bytes: vec![1; 8], records: 1 }];
        queues.log().append_wait("first", payload()).expect("a good disk");
        let queue = queues.queue("hook", "umbrella", Start::Earliest).expect("it is made");
        for part in [".seg", "streams", ".idx"] {
            disk.inject(Fault::every(OpKind::Write, Failure::NoSpace).on(part));
        }
        queues.log().append_wait("umbrella", payload()).expect_err("the disk is full");
        assert!(!queue.has_more());
        queues.tick().expect("the floor has its blocks");
        drop((queue, queues));
        disk.power_cut(cut);
        disk.clear_faults();

        let queues = open(&disk, &clock);
        queues.log().append_wait("acme", payload()).expect("a good disk");
        let queue = queues.queue("hook", "umbrella", Start::Earliest).expect("it is known");
        assert!(!queue.has_more(), "these are acme's");
        assert!(queue.next_batch(ANY).expect("the disk reads").is_none());
        queues.log().append_wait("umbrella", payload()).expect("a good disk");
        let batch = queue.next_batch(ANY).expect("the disk reads").expect("its own");
        assert_eq!(batch.offsets, 0..1);
        assert_eq!(Some(batch.slices[0].frame.stream), queues.log().stream("umbrella"));
    }
}
