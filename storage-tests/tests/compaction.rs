//! Compaction: disk use follows what is undelivered, whoever is behind; and a crash anywhere leaves all that is needed.

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{Item, Log, LogOptions, LogState, PLANS_STREAM, Payload};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage_tests::crash_points::{self, Plan, number};
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::interrupted::Interrupted;
use storage_tests::sim_disk::{PowerCut, SimDisk};
use storage_tests::workload::{End, Session, Step, tiny};

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        budget_bytes: 32 << 20,
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    }
}

fn open_with(disk: &SimDisk, clock: &ManualClock, options: LogOptions) -> Log {
    Log::open(Arc::new(disk.clone()), Arc::new(clock.clone()), Path::new("/log"), options).expect("it opens")
}

fn open(disk: &SimDisk, clock: &ManualClock) -> Log {
    open_with(disk, clock, options())
}

fn append(log: &Log, stream: &str, bytes: usize) {
    log.append_wait(stream, vec![Payload { bytes: vec![bytes as u8; bytes], records: 1 }]).expect("there is room");
}

fn trim_to(log: &Log, stream: &str, back: u64) {
    let id = log.stream(stream).expect("it was appended to");
    log.trim(id, log.durable(id).offset.saturating_sub(back));
}

/// One round of housekeeping, a second after the last.
fn keep_house(log: &Log, clock: &ManualClock) {
    clock.advance(Duration::from_secs(1));
    log.housekeep();
}

/// The offsets of a stream that can be read from `from` on; nothing may be missing.
fn read(log: &Log, stream: &str, from: u64) -> u64 {
    let mut reader = log.reader(log.stream(stream).expect("it was appended to"), from);
    let mut at = from;
    while let Some(item) = reader.next().expect("the disk reads") {
        let Item::Frame(frame) = item else { panic!("{stream}: {item:?}") };
        assert_eq!(frame.offsets().start, at);
        assert!(frame.payload().iter().all(|byte| *byte == frame.payload().len() as u8));
        at = frame.offsets().end;
    }
    at
}

fn segment_bytes(log: &Log, disk: &SimDisk) -> u64 {
    let spares = disk.paths().iter().filter(|path| path.to_string_lossy().contains("spare-")).count() as u64;
    log.stats().bytes_used - spares * u64::from(options().segment_bytes)
}

/// A stream that trickles and is never delivered pins every segment that it trickles into; nine others fill them. Without
/// compaction the disk holds everything.
#[test]
fn disk_use_follows_what_is_undelivered_whoever_is_behind() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let log = open(&disk, &clock);
    let healthy: Vec<String> = (0..9).map(|n| format!("env-{n}")).collect();
    let (mut written, mut undelivered) = (0, 0);
    for round in 0..1_500u64 {
        append(&log, "behind", 2_000);
        undelivered += 2_000;
        for name in &healthy {
            append(&log, name, 2_000);
            trim_to(&log, name, 1);
        }
        written += 20_000;
        keep_house(&log, &clock);
        if round % 100 == 99 {
            (0..10).for_each(|_| keep_house(&log, &clock));
            let used = segment_bytes(&log, &disk);
            // The healthy ones keep one record each.
            let needed = undelivered + 9 * 2_000;
            let most = needed * 13 / 10 + 2 * u64::from(options().segment_bytes);
            assert!(used <= most, "round {round}: {used} bytes for {needed} that are needed, {written} written");
        }
    }
    assert!(written > 7 * segment_bytes(&log, &disk), "and most of what was written went");
    assert_eq!(read(&log, "behind", 0), 1_500);
    for name in &healthy {
        assert_eq!(read(&log, name, 1_499), 1_500);
    }
    let compacted = log.stats().segments_compacted;
    assert!(compacted > 100, "{compacted}");
    drop(log);
    disk.power_cut(PowerCut::NothingUnsynced);
    let log = open(&disk, &clock);
    assert_eq!((read(&log, "behind", 0), log.damages().len()), (1_500, 0));
    trim_to(&log, "behind", 0);
    healthy.iter().for_each(|name| trim_to(&log, name, 0));
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments <= 2, "compact segments go like others: {}", log.stats().segments);
}

/// Before: of segments of which a bit more than half was needed two did not fit one, and one alone was not taken, so the disk held
/// up to twice of what was needed, for good.
#[test]
fn however_much_of_each_segment_is_needed_disk_use_follows_it() {
    for tenths in [3, 5, 6, 7, 8] {
        let (disk, clock) = (SimDisk::new(tenths), ManualClock::at(1_000_000));
        let log = open(&disk, &clock);
        let mut undelivered = 0;
        for _ in 0..250 {
            append(&log, "behind", 1_000 * tenths as usize);
            append(&log, "healthy", 1_000 * (10 - tenths) as usize);
            trim_to(&log, "healthy", 0);
            undelivered += 1_000 * tenths;
            keep_house(&log, &clock);
        }
        (0..60).for_each(|_| keep_house(&log, &clock));
        let (used, most) = (segment_bytes(&log, &disk), undelivered * 13 / 10 + 2 * u64::from(options().segment_bytes));
        assert!(used <= most, "{tenths} tenths: {used} bytes for {undelivered} that are needed");
        assert_eq!(read(&log, "behind", 0), 250);
    }
}

/// Segments of which "slow" needs a little and "fast" nothing, on either side of `!dead/x`.
fn script() -> Vec<Step> {
    use Step::{Advance, Append, Housekeep, Read, Trim};
    let mut steps = Vec::new();
    for n in 0..7 {
        steps.push(Append("slow", vec![(300 + n, 2)]));
        steps.push(Append("fast", vec![(1_500, 3), (1_400, 1)]));
        steps.push(Append("!dead/x", vec![(300, 1)]));
        steps.push(Append("!held/x", vec![(3_000, 1)]));
        steps.extend([Trim("fast", 0), Trim("!held/x", 0)]);
    }
    for _ in 0..4 {
        steps.extend([Advance(Duration::from_secs(1)), Housekeep]);
    }
    steps.extend([Read, Append("slow", vec![(10, 1)]), Append("fast", vec![(3_000, 1)])]);
    steps.push(Trim("slow", 9));
    for _ in 0..3 {
        steps.extend([Append("fast", vec![(3_700, 1)]), Trim("fast", 0), Advance(Duration::from_secs(1)), Housekeep]);
    }
    steps.extend([Read, Append("!dead/x", vec![(40, 1)])]);
    steps
}

#[test]
fn a_crash_at_any_change_of_a_compaction_loses_nothing_that_is_needed() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    script().iter().for_each(|step| session.act(step).expect("a good disk"));
    let compacted = session.log().stats().segments_compacted;
    assert!(compacted >= 10, "the script compacts, and what is compact already: {compacted}");

    let cuts = number("FOREBAY_CUTS", 2);
    let seed = number("FOREBAY_SEED", 1);
    let plan = Plan { steps: script(), options: tiny(), seed, cuts, nested_every: 120 / cuts.max(1) };
    let count = crash_points::run(&plan, "compaction");
    println!("{count:?}");
    assert!(count.changes > 150 && count.crashes > 400 && count.nested > 500, "{count:?}");
}

/// Ten segments with a little of "slow" in each; the rest is not needed.
fn ten_segments(log: &Log) {
    fill_ten_segments(log);
    trim_to(log, "fast", 0);
}

fn fill_ten_segments(log: &Log) {
    for _ in 0..10 {
        append(log, "slow", 1_000);
        (0..20).for_each(|_| append(log, "fast", 3_000));
    }
}

#[test]
fn readers_in_the_midst_of_a_run_go_on_where_they_were() {
    let (disk, clock) = (SimDisk::new(3), ManualClock::at(1_000_000));
    let log = open(&disk, &clock);
    ten_segments(&log);
    let slow = log.stream("slow").expect("it is known");
    let mut readers: Vec<_> = (0..10)
        .map(|n| {
            let mut reader = log.reader(slow, 0);
            (0..n).for_each(|_| drop(reader.next().expect("the disk reads")));
            reader
        })
        .collect();
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments < 5, "{}", log.stats().segments);
    for (n, reader) in (0..).zip(&mut readers) {
        for offset in n..10 {
            let item = reader.next().expect("the disk reads");
            assert!(matches!(&item, Some(Item::Frame(frame)) if frame.first == offset), "{n}: {item:?}");
        }
        assert_eq!(reader.next().expect("the disk reads"), None);
    }
}

#[test]
fn what_is_kept_again_before_it_goes_does_not_go_and_what_went_is_told() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let log = open(&disk, &clock);
    ten_segments(&log);
    let fast = log.stream("fast").expect("it is known");
    assert_eq!(log.keep(fast, 0), 0, "nothing went yet");
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert_eq!(read(&log, "fast", 0), 200);
    trim_to(&log, "fast", 0);
    (0..5).for_each(|_| keep_house(&log, &clock));
    let first_kept = log.keep(fast, 0);
    assert!(first_kept > 100, "{first_kept}");
    assert_eq!(read(&log, "fast", first_kept), 200);
}

/// A replay may begin while a run is being copied: then the run stays.
#[test]
fn what_is_kept_again_while_it_is_copied_does_not_go() {
    let (disk, clock) = (Interrupted::over(MemDisk::new()), ManualClock::at(1_000_000));
    let log =
        Log::open(Arc::new(disk.clone()), Arc::new(clock.clone()), Path::new("/log"), options()).expect("it opens");
    ten_segments(&log);
    let (fast, again, kept) = (log.stream("fast").expect("it is known"), log.clone(), Arc::new(AtomicU64::new(0)));
    let asked = Arc::clone(&kept);
    disk.interrupt(Some(Arc::new(move |path| {
        if path.extension().is_some_and(|end| end == "new") && again.keep(fast, 0) == 0 {
            asked.fetch_add(1, Ordering::Relaxed);
        }
    })));
    keep_house(&log, &clock);
    assert_eq!((kept.load(Ordering::Relaxed), log.stats().segments_compacted), (1, 0));
    assert_eq!((read(&log, "fast", 0), read(&log, "slow", 0)), (200, 10));
    disk.interrupt(None);
    trim_to(&log, "fast", 0);
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments_compacted > 5, "and it is not forgotten");
    assert_eq!(read(&log, "slow", 0), 10);
}

/// A reader looks from the newest segment back. What it has passed already may be where its frames are put meanwhile.
#[test]
fn a_reader_whose_frames_move_past_its_search_looks_again() {
    let (disk, clock) = (Interrupted::over(MemDisk::new()), ManualClock::at(1_000_000));
    let open = || {
        let log = Log::open(Arc::new(disk.clone()), Arc::new(clock.clone()), Path::new("/log"), options());
        log.expect("it opens")
    };
    let log = open();
    fill_ten_segments(&log);
    log.housekeep();
    drop(log);
    let log = open();
    let (other, looks) = (log.clone(), AtomicU64::new(0));
    disk.interrupt_opening(Some(Arc::new(move |path| {
        let is_index = path.extension().is_some_and(|end| end == "idx");
        if is_index && looks.fetch_add(1, Ordering::Relaxed) == 3 {
            trim_to(&other, "fast", 0);
            other.housekeep();
        }
    })));
    assert_eq!(read(&log, "slow", 0), 10);
    disk.interrupt_opening(None);
    assert!(log.stats().segments_compacted > 5, "{:?}", log.stats());
}

/// With its threads: readers go through what is behind again and again while it is compacted under their hands, and
/// nobody ever misses a record.
#[test]
fn nobody_misses_a_record_while_others_append_and_runs_are_compacted() {
    let (disk, clock) = (SimDisk::new(8), ManualClock::at(1_000_000));
    let log = open_with(&disk, &clock, LogOptions { inline: false, segment_bytes: 16 << 10, ..options() });
    (0..40).for_each(|_| append(&log, "slow", 200));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(read(&log, "slow", 0) >= 40);
                }
            });
        }
        for n in 0..1_500 {
            append(&log, "fast", 2_000);
            if n % 10 == 0 {
                append(&log, "slow", 200);
                trim_to(&log, "fast", 0);
                keep_house(&log, &clock);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(log.stats().segments_compacted > 20, "{:?}", log.stats());
    assert_eq!(read(&log, "slow", 0), 190);
    log.close().expect("a good disk");
}

/// Within the replay window nothing is compacted, unless the disk is short.
#[test]
fn what_is_kept_for_replay_is_not_compacted() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let options = LogOptions { replay_window: Duration::from_secs(3_600), ..options() };
    let log = open_with(&disk, &clock, options);
    ten_segments(&log);
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert_eq!((log.stats().segments_compacted, read(&log, "fast", 0)), (0, 200));
    clock.advance(Duration::from_secs(3_600));
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments_compacted > 5 && log.stats().segments < 5);
}

/// Before: a segment of ours, older than the one before it, ended the window.
#[test]
fn the_replay_window_goes_on_behind_an_older_segment_of_ours() {
    let (disk, clock) = (SimDisk::new(5), ManualClock::at(1_000_000));
    let options = LogOptions { replay_window: Duration::from_secs(3_600), ..options() };
    let log = open_with(&disk, &clock, options);
    append(&log, "slow", 100);
    append(&log, "fast", 100);
    append(&log, "!dead/hook", 100);
    clock.advance(Duration::from_secs(7_200));
    for _ in 0..100 {
        append(&log, "fast", 3_000);
    }
    trim_to(&log, "fast", 0);
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert_eq!((log.stats().segments_compacted, read(&log, "fast", 0)), (0, 101));
    clock.advance(Duration::from_secs(3_600));
    (0..5).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments_reclaimed > 0, "{:?}", log.stats());
}

/// A place that the disk refuses to read keeps its segment as it is, and no other; damage likewise.
#[test]
fn what_cannot_be_read_is_left_alone_and_parts_what_is_compacted() {
    let (disk, clock) = (SimDisk::new(6), ManualClock::at(1_000_000));
    let log = open(&disk, &clock);
    fill_ten_segments(&log);
    log.housekeep();
    drop(log);
    let log = open(&disk, &clock);
    trim_to(&log, "fast", 0);
    let bad = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).nth(4);
    let bad = bad.expect("there are ten").to_string_lossy().into_owned();
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&bad));
    (0..12).for_each(|_| keep_house(&log, &clock));
    disk.clear_faults();
    assert!(disk.paths().iter().any(|path| path.to_string_lossy() == bad), "it is as it was");
    assert!(log.stats().segments_compacted >= 4, "{}", log.stats().segments_compacted);
    assert_eq!(read(&log, "slow", 0), 10);
}

/// On a disk without any room compaction takes a spare of the reserve, and gives back more.
#[test]
fn a_full_disk_is_compacted_with_the_reserve() {
    let (disk, clock) = (SimDisk::new(7), ManualClock::at(1_000_000));
    let log = open_with(&disk, &clock, LogOptions { budget_bytes: 13 * (64 << 10), ..options() });
    for _ in 0..100 {
        let full =
            |stream, bytes| log.append_wait(stream, vec![Payload { bytes: vec![0; bytes], records: 1 }]).is_err();
        if full("slow", 1_000) || (0..20).any(|_| full("fast", 3_000)) {
            break;
        }
    }
    let before = log.stats();
    assert!(before.bytes_used + (64 << 10) > before.bytes_limit, "{before:?}");
    assert_ne!(before.state, LogState::Serving);
    trim_to(&log, "fast", 0);
    (0..6).for_each(|_| keep_house(&log, &clock));
    assert!(log.stats().segments < 5, "{:?}", log.stats());
    append(&log, "slow", 100);
}

/// On a full disk compaction writes into a spare, which may be the segment of the same number after a cut: what was meant
/// for the compact one must not lie behind its frames and prove itself.
#[test]
fn a_spare_that_is_compacted_into_brings_nothing_back_after_a_cut() {
    let full = |log: &Log| {
        let full = |stream, bytes: usize| {
            log.append_wait(stream, vec![Payload { bytes: vec![bytes as u8; bytes], records: 1 }]).is_err()
        };
        for _ in 0..100 {
            if full("slow", 1_000) || (0..20).any(|_| full("fast", 3_000)) {
                break;
            }
        }
        trim_to(log, "fast", 0);
    };
    let options = || LogOptions { budget_bytes: 13 * (64 << 10), ..options() };
    let (mut changes, mut cuts, mut rolled) = (1, 0, 0);
    while changes > 0 {
        let case = changes;
        changes += 1;
        for (way, performed) in [Performed::Nothing, Performed::Bytes(4_000), Performed::All].into_iter().enumerate() {
            for cut in [PowerCut::RandomSubset, PowerCut::RandomSubset, PowerCut::Prefix] {
                let (disk, clock) = (SimDisk::new(case * 8 + way as u64 + cuts), ManualClock::at(1_000_000));
                let log = open_with(&disk, &clock, options());
                full(&log);
                disk.crash_at(disk.ops() + case - 1, performed);
                (0..4).for_each(|_| keep_house(&log, &clock));
                let kept = log.durable(log.stream("slow").expect("known")).offset;
                drop(log);
                if !disk.crashed() {
                    changes = 0; // all of them were the last one once
                }
                disk.power_cut(cut);
                // Goes on in the segments that come next, of the reserve too; is killed, and starts once more.
                let log = open_with(&disk, &clock, options());
                assert!(log.damages().is_empty(), "change {case}, {performed:?}, {cut:?}: {:?}", log.damages());
                let plan = || vec![Payload { bytes: vec![232; 1_000], records: 1 }];
                let before = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
                let plans =
                    before + (0..70).take_while(|_| log.append_wait(PLANS_STREAM, plan()).is_ok()).count() as u64;
                drop(log);
                disk.process_kill();
                let log = open_with(&disk, &clock, options());
                assert!(log.damages().is_empty(), "change {case}, {performed:?}, {cut:?}: {:?}", log.damages());
                assert_eq!(read(&log, "slow", 0), kept, "change {case}, {performed:?}, {cut:?}");
                assert_eq!(read(&log, PLANS_STREAM, before), plans, "change {case}, {performed:?}, {cut:?}");
                rolled += u64::from(plans > before + 64);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 200 && rolled > cuts / 2, "{rolled} of {cuts}");
}

#[test]
fn a_log_on_a_bad_disk_keeps_what_is_needed_through_its_compactions() {
    for case in 0..60 * number("FOREBAY_CUTS", 2) {
        let mut session = Session::new(case, tiny());
        assert_eq!(session.open(), Ok(true));
        let kinds = [OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::Create, OpKind::Rename, OpKind::Remove];
        let kind = kinds[case as usize % kinds.len()];
        let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite][case as usize / 6 % 3];
        let from = case * 7 % 60;
        session.act(&Step::Inject(Fault::nths(kind, from..from + 1 + case % 4, failure))).expect("armed");
        for step in script() {
            session.act(&step).unwrap_or_else(|e| panic!("case {case}: {e}"));
        }
        session.act(&Step::Heal).unwrap_or_else(|e| panic!("case {case}: {e}"));
        let ends = [End::Kill, End::Cut(PowerCut::NothingUnsynced), End::Cut(PowerCut::RandomSubset)];
        session.end(ends[case as usize % 3]);
        assert_eq!(session.open(), Ok(true), "case {case}");
        session.goes_on().unwrap_or_else(|e| panic!("case {case}: {e}"));
    }
}
