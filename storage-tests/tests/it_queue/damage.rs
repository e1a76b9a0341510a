//! Damage to the log under its queues: counted as lost, and everything else is delivered.

use forebay::clock::ManualClock;
use forebay::disk::counted::CountedDisk;
use forebay::{BatchLimits, Cursor, LogOptions, Payload, Queue, QueueOptions, Queues, RangeError, Settled, Start};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::queues::{ANY, DIR, append, hook, next, open, plan};
use storage_tests::sim_disk::{PowerCut, SimDisk};

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect()
}

/// Forty appends of ten records of which nothing was delivered, and one of them damaged.
fn damaged_for(destination: &str) -> (SimDisk, ManualClock) {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    queues.queue(destination, "acme", Start::Earliest).expect("it is made");
    (0..40).for_each(|_| append(&queues, "acme", 10));
    queues.close().expect("the disk is sound");
    drop(queues);
    // The middle of a sealed segment in the middle of the log.
    let segments = segments(&disk);
    disk.flip_bit(&segments[segments.len() / 2], 8 * 1_500);
    (disk, clock)
}

/// That one is lost, and all the others are delivered.
fn assert_one_is_lost(queue: &Queue, seen: &BTreeSet<u64>) {
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    assert_eq!((balance.lost.records, balance.lost.bytes, balance.delivered.records), (10, 1_000, 390));
    assert_eq!(seen.len(), 390);
    assert_eq!(queue.cursor(), Cursor::at(400, 40_000));
}

#[test]
fn damage_to_records_is_settled_as_lost_and_the_rest_is_delivered() {
    // Found behind the records of a batch, and as the first that the next batch would have.
    for records_max in [25, 10] {
        let (disk, clock) = damaged_for("hook");
        let queues = open(&disk, &clock);
        let queue = hook(&queues);
        let mut seen = BTreeSet::new();
        while let Some(batch) = queue.next_batch(BatchLimits { records_max, ..ANY }).expect("reads") {
            seen.extend(batch.offsets.clone());
            queue.settle(&batch, Settled::Delivered);
        }
        assert_one_is_lost(&queue, &seen);
    }
}

/// Before: a frame that could not be read was read two times for a settlement, and three times for a purge.
#[test]
fn what_cannot_be_read_is_read_once() {
    let (sim, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let disk = CountedDisk::new(Arc::new(sim.clone()));
    let log = LogOptions { tail_cache_bytes: 0, ..LogOptions::small() };
    let queues = Queues::open(Arc::new(disk.clone()), Arc::new(clock), DIR.as_ref(), log, QueueOptions::inline());
    let queues = queues.expect("it opens");
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    sim.inject(Fault::every(OpKind::Read, Failure::Eio));
    let reads = |what: &dyn Fn()| {
        let before = disk.counts();
        what();
        (disk.counts() - before).reads
    };
    assert_eq!(reads(&|| assert!(queue.purge(0..5).is_err())), 1);
    // Once before the window is locked, and nothing then.
    assert_eq!(reads(&|| assert_eq!(queue.settle_range(0..5, Settled::Purged), 0)), 1);
}

/// A disk that does not read the old records of one destination: whoever reads others, old or fresh, waits for nothing.
#[test]
fn who_cannot_read_what_it_needs_holds_up_nobody_who_can() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let make = |queues: &Queues, stream| queues.queue("hook", stream, Start::Earliest).expect("it is made");
    let (bad, good) = (make(&queues, "bad"), make(&queues, "good"));
    (0..20).for_each(|_| append(&queues, "bad", 10));
    (0..20).for_each(|_| append(&queues, "good", 10));
    drop((bad, good));
    queues.close().expect("the disk is sound");
    drop(queues);

    let queues = open(&disk, &clock);
    let (bad, good) = (make(&queues, "bad"), make(&queues, "good"));
    let first = segments(&disk).into_iter().min().expect("there are some");
    let first = first.file_stem().expect("a name").to_string_lossy().into_owned();
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&first));
    let (mut errors, mut delivered) = (0, 0);
    for _ in 0..20 {
        append(&queues, "good", 10);
        errors += usize::from(bad.next_batch(ANY).is_err());
        while let Some(batch) = good.next_batch(BatchLimits { records_max: 20, ..ANY }).expect("these are read") {
            delivered += batch.offsets.end - batch.offsets.start;
            good.settle(&batch, Settled::Delivered);
        }
        assert_eq!(good.lag().records, 0, "old ones and fresh ones, in the same turn");
        queues.tick().expect("and the floor is written");
    }
    assert_eq!((errors, delivered), (20, 400));
    disk.clear_faults();
    let mut late = 0;
    while let Some(batch) = bad.next_batch(ANY).expect("the disk reads again") {
        late += batch.offsets.end - batch.offsets.start;
        bad.settle(&batch, Settled::Delivered);
    }
    assert_eq!(late, 200);
    assert!(bad.balance().closes() && good.balance().closes());
}

/// Before: where the disk did not read the oldest record the age of the lag was not known, and an alert on it fell silent.
#[test]
fn the_age_of_a_lag_is_known_also_where_the_oldest_record_cannot_be_read() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    hook(&queues);
    for _ in 0..40 {
        append(&queues, "acme", 10);
        clock.advance(Duration::from_secs(1));
    }
    queues.close().expect("the disk is sound");
    drop(queues);
    let segments = segments(&disk);
    let age = |what: &dyn Fn()| {
        disk.clear_faults();
        what();
        let queues = open(&disk, &clock);
        let lag = hook(&queues).lag();
        assert_eq!(lag.records, 400);
        // No bound passes for the record's own time.
        let exact = hook(&queues).oldest_ingest_ms();
        assert_eq!(exact.is_some(), lag.oldest_age_ms == Some(40_000));
        lag.oldest_age_ms
    };
    assert_eq!(age(&|| ()), Some(40_000));
    let unread = |segments: &[PathBuf]| {
        for segment in segments {
            let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
            disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&name));
        }
    };
    let next = age(&|| unread(&segments[..1])).expect("the next segment tells");
    assert!((10_000..40_000).contains(&next), "{next}");
    assert!(age(&|| unread(&segments[..segments.len() - 1])).is_some(), "the last one tells");
    assert_eq!(age(&|| unread(&segments)), None, "nothing tells");
    // The header of the first frame behind the stream's name: that one is lost.
    let lost = age(&|| disk.flip_bit(&segments[0], 8 * (128 + 64)));
    assert_eq!(lost, Some(39_000));
}

/// A range is claimed by the headers of its frames, so damage to a payload is met only when it is sent.
#[test]
fn damage_inside_of_a_range_gives_it_up_and_the_rest_is_delivered_in_others() {
    let (disk, clock) = damaged_for("archive");
    let queues = open(&disk, &clock);
    let queue = queues.queue("archive", "acme", Start::Earliest).expect("it is there");
    let (mut seen, mut given_up) = (BTreeSet::new(), Vec::new());
    while let Some(range) = queue.next_range(ANY.into()).expect("reads") {
        plan(&queue, &range);
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
    assert_eq!(given_up.len(), 1);
    assert_one_is_lost(&queue, &seen);
}

/// A sealed segment in the midst of the log that is cut short, of a header only, of nothing, of zeros or of ones: what lay there
/// is lost, once, and all else comes, under its id if that was planned and is whole. It goes on where the log does.
#[test]
fn a_queue_over_a_segment_that_is_cut_short_or_holds_nothing_of_ours_drains_and_goes_on() {
    let (victim, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&victim, &clock);
    let queue = hook(&queues);
    (0..40).for_each(|_| append(&queues, "acme", 10));
    let mut planned = BTreeMap::new();
    for _ in 0..16 {
        let batch = next(&queue, 25);
        plan(&queue, &batch);
        planned.insert(batch.id, batch.offsets);
    }
    queues.close().expect("the disk is sound");
    drop((queue, queues));
    let segments = segments(&victim);
    let segment = &segments[segments.len() / 2];
    let whole = victim.read_live(segment).expect("it is there");
    let used = whole.iter().rposition(|byte| *byte != 0).expect("it holds frames");
    let cuts = (0..=used).step_by(509).chain([128, used]).map(|len| whole[..len].to_vec());
    let fills = [0, 0xff].map(|fill| vec![fill; whole.len()]);
    let mut most = 0;
    for bytes in cuts.chain(fills) {
        let (disk, case) = (SimDisk::from_snapshot(&victim.snapshot()), format!("{} bytes", bytes.len()));
        disk.overwrite(segment, &bytes);
        let queues = open(&disk, &clock);
        let queue = hook(&queues);
        let (mut seen, mut kept) = (BTreeSet::new(), 0);
        while let Some(batch) = queue.next_batch(ANY).expect("reads") {
            assert!(batch.slices.iter().all(|slice| slice.frame.payload() == [7; 1_000]), "{case}: altered");
            let all = batch.slices.iter().flat_map(|slice| slice.offsets.clone());
            assert!(all.eq(batch.offsets.clone()), "{case}: {:?} has a hole", batch.offsets);
            let before = planned.get(&batch.id);
            assert!(before.is_none_or(|before| *before == batch.offsets), "{case}: an id for other records");
            kept += usize::from(before.is_some());
            batch.offsets.clone().for_each(|offset| assert!(seen.insert(offset), "{case}: {offset} twice"));
            queue.settle(&batch, Settled::Delivered);
        }
        let lost = 400 - seen.len();
        assert!(lost > 0 && lost <= 40, "{case}: {lost} lost");
        // The records of a segment are in a few batches, and no other is touched.
        assert!(kept + 3 >= planned.len(), "{case}: {kept} came as they were planned");
        most = most.max(lost);
        let books = |queue: &Queue| {
            let balance = queue.balance();
            assert!(balance.closes(), "{case}: {balance:?}");
            (balance.delivered.records as usize, balance.lost.records as usize, balance.pending.records)
        };
        assert_eq!((books(&queue), queue.cursor().low), ((seen.len(), lost, 0), 400), "{case}");
        append(&queues, "acme", 10);
        let batch = next(&queue, 100);
        assert_eq!(batch.offsets, 400..410, "{case}");
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
        drop((queue, queues));
        disk.power_cut(PowerCut::NothingUnsynced);
        let queue = hook(&open(&disk, &clock));
        assert_eq!((books(&queue), queue.cursor().low), ((seen.len() + 10, lost, 0), 410), "{case}, once more");
    }
    assert!(most >= 30, "{most}: a whole segment of them");
}

/// Without the floor's word damage to the very last frame looks like a write that a crash tore.
#[test]
fn the_floor_tells_damage_at_the_very_end_from_a_torn_tail() {
    let (disk, clock) = (SimDisk::new(7), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    hook(&queues);
    queues.log().append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("the log is sound");
    queues.tick().expect("the disk is sound");
    drop(queues);
    disk.power_cut(PowerCut::NothingUnsynced);
    let segment = segments(&disk).remove(0);
    let bytes = disk.read_live(&segment).expect("it is there");
    let payload = bytes.windows(100).position(|window| window == [7; 100]).expect("the payload");
    disk.flip_bit(&segment, payload as u64 * 8);

    let queues = open(&disk, &clock);
    let queue = hook(&queues);
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
    let queue = hook(&queues);
    let batch = |queue: &Queue| next(queue, u64::MAX);
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
    let queue = hook(&queues);
    assert!(queue.balance().closes());
    let appended = queues.log().append_wait("acme", payload()).expect("the log is sound");
    assert_eq!(appended.offsets, 20..30);
    assert_eq!(batch(&queue).offsets, 20..30);
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    assert_eq!((balance.accepted.records, balance.delivered.records, balance.delivered.bytes), (30, 20, 200));
}

/// A floor of last week beside the log of now: what went meanwhile is counted as lost, all that is there is delivered again,
/// and nothing goes before that.
#[test]
fn a_floor_from_a_backup_repeats_what_is_there_and_lets_nothing_go_that_it_has_not_passed() {
    fn deliver(queue: &Queue, records: u64) -> u64 {
        let mut delivered = 0;
        while delivered < records {
            let Some(batch) = queue.next_batch(BatchLimits { records_max: 10, ..ANY }).expect("reads") else { break };
            delivered += batch.offsets.end - batch.offsets.start;
            queue.settle(&batch, Settled::Delivered);
        }
        delivered
    }
    let housekeep = |queues: &Queues| {
        for _ in 0..3 {
            queues.tick().expect("the disk is sound");
            queues.log().housekeep();
        }
    };
    let (disk, clock) = (SimDisk::new(8), ManualClock::at(1_000_000));
    let both = |queues: &Queues| {
        ["hook", "archive"].map(|id| queues.queue(id, "acme", Start::Earliest).expect("it is there, or made"))
    };
    let queues = open(&disk, &clock);
    let [hook, archive] = both(&queues);
    (0..20).for_each(|_| append(&queues, "acme", 10));
    assert_eq!((deliver(&hook, 200), deliver(&archive, 100)), (200, 100));
    queues.tick().expect("the disk is sound");
    let floor = disk.paths().into_iter().find(|path| path.ends_with("floor")).expect("it was written");
    let old = disk.read_live(&floor).expect("it is there");
    (0..20).for_each(|_| append(&queues, "acme", 10));
    assert_eq!((deliver(&hook, 200), deliver(&archive, 200)), (200, 200));
    housekeep(&queues);
    drop((hook, archive, queues));
    disk.overwrite(&floor, &old);

    let queues = open(&disk, &clock);
    let [hook, archive] = both(&queues);
    let first = hook.cursor().low;
    assert!((201..=300).contains(&first), "it had passed 200, and the log begins above: {first}");
    assert_eq!(archive.cursor().low, first);
    housekeep(&queues);
    for (queue, before) in [(&hook, 200), (&archive, 100)] {
        assert_eq!(deliver(queue, u64::MAX), 400 - first, "all that is there");
        let balance = queue.balance();
        assert!(balance.closes(), "{balance:?}");
        assert_eq!((balance.lost.records, balance.pending.records), (first - before, 0));
    }
    let stats = queues.log().stats();
    assert!(stats.bytes_used <= 4 << 20, "{stats:?}");
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

/// Before: the stream went on without a name, and what was not delivered of it was nobody's: in no balance, and kept for ever.
#[test]
fn a_stream_whose_name_is_damaged_goes_on_under_the_name_that_the_floor_knows() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock);
    let queue = hook(&queues);
    (0..5).for_each(|_| append(&queues, "acme", 2));
    let batch = queue.next_batch(BatchLimits { records_max: 3, ..ANY }).expect("reads").expect("more");
    queue.settle(&batch, Settled::Delivered);
    queues.tick().expect("the disk is sound");
    drop((queue, queues));
    disk.process_kill();
    let [segment] = &segments(&disk)[..] else { panic!("one segment holds all of it") };
    let bytes = disk.read_live(segment).expect("there");
    let name = bytes.windows(4).position(|four| four == b"acme").expect("it is declared");
    disk.flip_bit(segment, name as u64 * 8);

    // The second start finds it as the first one left it; the third one is behind a sealed segment.
    for start in 0..3 {
        let queues = open(&disk, &clock);
        assert_eq!(queues.stats().streams_named_again, u64::from(start == 0), "start {start}");
        assert_eq!(queues.stats().streams_renumbered, 0);
        let queue = hook(&queues);
        let low = 3 + start * 2;
        assert_eq!((queue.cursor().low, queue.lag().records), (low, 10 + start - low), "start {start}");
        append(&queues, "acme", 1);
        let batch = queue.next_batch(BatchLimits { records_max: 2, ..ANY }).expect("reads").expect("more");
        assert_eq!(batch.offsets, low..low + 2);
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("the disk is sound");
        if start == 1 {
            queues.close().expect("the disk is sound");
        }
        drop((queue, queues));
        disk.process_kill();
    }
}
