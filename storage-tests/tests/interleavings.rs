//! Two things at once: while one thread is in the middle of a call to the disk, another one does its work. Played on
//! one thread: the disk itself does the other one's work before the call that is named.

use forebay::clock::ManualClock;
use forebay::{Item, Log, LogOptions, Payload};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::interrupted::Interrupted;
use storage_tests::sim_disk::{PowerCut, SimDisk};

/// A simulated disk that does something else when a file has just got its name, once.
type Interleaved = Interrupted<SimDisk>;

fn open(disk: &Interleaved) -> Log {
    let options = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 4 << 20,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let clock = ManualClock::at(1_000_000);
    Log::open(Arc::new(disk.clone()), Arc::new(clock), Path::new("/log"), options).expect("it opens")
}

fn append(log: &Log, stream: &str, bytes: usize) -> u64 {
    let payload = Payload { bytes: vec![7; bytes], records: 1 };
    log.append_wait(stream, vec![payload]).expect("it is taken").offsets.start
}

/// Before: a table that was written while a segment was in the making said that it covered that segment. A crash after
/// the segment was sealed, and before the next table, forgot the streams that had begun in it: their offsets and their
/// numbers were given out a second time.
#[test]
fn a_table_that_is_written_while_a_segment_is_made_does_not_cover_it() {
    for cut in [PowerCut::NothingUnsynced, PowerCut::Everything] {
        let sim = SimDisk::new(1);
        let disk = Interleaved::over(sim.clone());
        let log = open(&disk);
        append(&log, "old", 100);
        drop(log);
        sim.power_cut(cut);
        let log = open(&disk);
        let keeper = log.clone();
        disk.interrupt_next_name(move || keeper.housekeep());
        assert_eq!(append(&log, "new", 100), 0);
        assert!(disk.has_named());
        sim.inject(Fault::every(OpKind::Write, Failure::Eio).on("streams"));
        for _ in 0..4 {
            append(&log, "old", 2_000);
        }
        drop(log);
        sim.power_cut(cut);
        sim.clear_faults();
        let log = open(&disk);
        let new = log.stream("new").expect("its record was acknowledged");
        assert_eq!(log.durable(new).offset, 1);
        assert_eq!(append(&log, "newer", 100), 0);
        assert_eq!(append(&log, "new", 100), 1);
        assert!(log.damages().is_empty());
    }
}

/// Before: a sync of the log's directory that failed for housekeeping left to chance the name that the writer had just given
/// a segment, too. The writer's own sync returned `Ok`, an append was acknowledged, and a power cut took it.
#[test]
fn a_directory_sync_that_fails_for_housekeeping_promises_the_writer_nothing() {
    let mut refused = 0;
    for seed in 0..8 {
        let sim = SimDisk::new(seed);
        let disk = Interleaved::over(sim.clone());
        let log = open(&disk);
        // Housekeeping has a name to sync: the index of a segment that could not be written before.
        for name in [".idx", ".new"] {
            sim.inject(Fault::every(OpKind::Create, Failure::Eio).on(name));
        }
        append(&log, "a", 3_000);
        append(&log, "a", 3_000);
        sim.clear_faults();
        sim.inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio));
        let keeper = log.clone();
        disk.interrupt_next_name(move || keeper.housekeep());
        let third = log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }]);
        assert!(disk.has_named());
        refused += u64::from(third.is_err());
        log.housekeep(); // the disk is sound again
        append(&log, "a", 3_000);
        let tail = log.durable(log.stream("a").expect("it was appended to"));
        drop(log);
        sim.power_cut(PowerCut::NothingUnsynced);
        let log = open(&disk);
        assert!(log.damages().is_empty(), "seed {seed}: {:?}", log.damages());
        let stream = log.stream("a").expect("its records were acknowledged");
        assert_eq!(log.durable(stream), tail, "seed {seed}: all that was acknowledged is there");
    }
    assert_eq!(refused, 8, "who can't be promised its name hears so");
}

/// The name that was met, and who appended then.
type Met = (PathBuf, JoinHandle<()>);

/// When a file first gets a name like `what`, a sync of the directory fails for the writer. The answer waits for that writer to be
/// done, and says which name it was.
fn fails_for_the_writer(disk: &Interleaved, sim: &SimDisk, log: &Log, what: &'static str) -> impl FnOnce() -> PathBuf {
    let met: Arc<Mutex<Option<Met>>> = Arc::default();
    let (first, writer, sim) = (Arc::clone(&met), log.clone(), sim.clone());
    disk.interrupt(Some(Arc::new(move |path: &Path| {
        if !path.to_string_lossy().contains(what) || first.lock().expect("no panic").is_some() {
            return;
        }
        sim.inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio));
        let (answer, answered) = sync_channel(1);
        let writer = writer.clone();
        // On a thread of its own, which keeps house afterwards: when who does now is done with it.
        let append = move || {
            let done = move |appended: Result<_, _>| answer.send(appended.is_err()).expect("somebody listens");
            writer.append("a", vec![7; 3_000], 1, Box::new(done)).expect("it is queued");
        };
        let appends = std::thread::spawn(append);
        assert!(answered.recv().expect("it is answered"), "its segment's name may be lost");
        *first.lock().expect("no panic") = Some((path.to_owned(), appends));
    })));
    move || {
        let met = met.lock().expect("no panic").take();
        let (path, appends) = met.unwrap_or_else(|| panic!("nothing got a name like {what}"));
        appends.join().expect("no panic");
        path
    }
}

/// The other way round: one that fails for the writer leaves to chance what housekeeping has just named, a spare that was a segment
/// or an index.
#[test]
fn a_directory_sync_that_fails_for_the_writer_promises_housekeeping_nothing() {
    for what in ["spare-", ".idx"] {
        let sim = SimDisk::new(1);
        let disk = Interleaved::over(sim.clone());
        let log = open(&disk);
        (0..5).for_each(|_| _ = append(&log, "a", 3_000));
        log.housekeep();
        // One is full, all others are settled.
        for name in [".idx", ".new"] {
            sim.inject(Fault::every(OpKind::Create, Failure::Eio).on(name));
        }
        append(&log, "a", 3_000);
        sim.clear_faults();
        let stream = log.stream("a").expect("it was appended to");
        log.trim(stream, log.durable(stream).offset - 2);
        let appends = fails_for_the_writer(&disk, &sim, &log, what);
        log.housekeep();
        disk.interrupt(None);
        let named = appends();
        if what == "spare-" {
            assert!(!sim.paths().contains(&named), "it would be used, and a cut could bring the segment back into it");
            continue;
        }
        log.housekeep();
        drop(log);
        sim.power_cut(PowerCut::NothingUnsynced);
        assert!(sim.read_live(&named).is_some_and(|bytes| !bytes.is_empty()), "it gets its name anew");
    }
}

/// And a spare that compaction takes on a full disk: were its name lost it could become the segment of that number.
#[test]
fn a_directory_sync_that_fails_for_the_writer_promises_compaction_no_file() {
    let sim = SimDisk::new(1);
    let disk = Interleaved::over(sim.clone());
    let log = open(&disk);
    for _ in 0..8 {
        append(&log, "slow", 300);
        append(&log, "fast", 3_000);
    }
    log.housekeep();
    let fast = log.stream("fast").expect("it was appended to");
    log.trim(fast, log.durable(fast).offset);
    sim.inject(Fault::every(OpKind::Create, Failure::NoSpace).on(".new"));
    let appends = fails_for_the_writer(&disk, &sim, &log, ".new");
    log.housekeep();
    disk.interrupt(None);
    assert_eq!(log.stats().segments_compacted, 0, "its file's name may be lost");
    appends();
    sim.clear_faults();
    drop(log);
    let log = open(&disk);
    log.trim(fast, log.durable(fast).offset);
    log.housekeep();
    assert!(log.stats().segments_compacted > 0, "another time it goes");
}

/// Keeps no record in memory, no index, and no handle.
fn open_forgetful(disk: &Interleaved) -> Log {
    let options = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 4 << 20,
        replay_window: Duration::ZERO,
        tail_cache_bytes: 0,
        index_cache_bytes: 0,
        open_segments_max: 1,
        ..LogOptions::small()
    };
    let clock = ManualClock::at(1_000_000);
    Log::open(Arc::new(disk.clone()), Arc::new(clock), Path::new("/log"), options).expect("it opens")
}

/// Ten segments with a little of "slow" in each; of the rest, "fast", nothing is needed.
fn ten_sparse(disk: &Interleaved) -> Log {
    let log = open_forgetful(disk);
    for _ in 0..10 {
        append(&log, "slow", 100);
        append(&log, "fast", 3_600);
    }
    append(&log, "fast", 3_600);
    log.housekeep(); // it has their indexes now, and all is needed
    log.trim(log.stream("fast").expect("known"), u64::MAX);
    log
}

/// How many records of a stream can be read from its first on; nothing may be missing.
fn whole(log: &Log, stream: &str) -> usize {
    let mut reader = log.reader(log.stream(stream).expect("known"), 0);
    let read = std::iter::from_fn(|| reader.next().expect("the disk reads"));
    read.map(|item| assert!(matches!(item, Item::Frame(_)), "{stream}: {item:?}")).count()
}

/// Housekeeping looks into the segments, chooses a run, and looks into that once more. In between `meanwhile` comes to pass, of which
/// so many errors follow.
fn between_choice_and_look(disk: &Interleaved, log: &Log, errors: u64, meanwhile: impl FnOnce() + Send + 'static) {
    let (once, looks) = (Mutex::new(Some(meanwhile)), AtomicU64::new(0));
    disk.interrupt_opening(Some(Arc::new(move |path: &Path| {
        if path.ends_with("0000000000000000.idx") && looks.fetch_add(1, Ordering::Relaxed) == 1 {
            let meanwhile = once.lock().expect("no panic").take();
            meanwhile.expect("the second look is one")();
        }
    })));
    log.housekeep();
    disk.interrupt_opening(None);
    let stats = log.stats();
    assert_eq!((stats.segments_compacted, stats.segments, stats.housekeeping_errors), (0, 11, errors), "the run stays");
}

#[test]
fn a_run_of_which_more_is_needed_than_fits_when_it_is_looked_into_once_more_stays() {
    let disk = Interleaved::over(SimDisk::new(1));
    let log = ten_sparse(&disk);
    let (fast, again) = (log.stream("fast").expect("known"), log.clone());
    between_choice_and_look(&disk, &log, 0, move || assert_eq!(again.keep(fast, 0), 0));
    assert_eq!((whole(&log, "fast"), whole(&log, "slow")), (11, 10));
    log.trim(fast, u64::MAX);
    log.housekeep();
    assert_eq!((log.stats().segments_compacted, whole(&log, "slow")), (10, 10), "another time it goes");
}

/// A compact segment of nothing would stand for all of them, and be taken for damage.
#[test]
fn a_run_of_which_nothing_is_needed_when_it_is_looked_into_once_more_goes_by_itself() {
    let disk = Interleaved::over(SimDisk::new(1));
    let log = ten_sparse(&disk);
    let (slow, again) = (log.stream("slow").expect("known"), log.clone());
    between_choice_and_look(&disk, &log, 0, move || again.trim(slow, u64::MAX));
    log.housekeep();
    let stats = log.stats();
    assert_eq!((stats.segments_compacted, stats.segments_reclaimed, stats.segments), (0, 10, 1));
}

/// Somebody moves files under a log that is open, and brings them back.
#[test]
fn a_run_of_which_a_file_is_gone_when_it_is_looked_into_once_more_stays() {
    let sim = SimDisk::new(1);
    let disk = Interleaved::over(sim.clone());
    let log = ten_sparse(&disk);
    let files = ["idx", "seg"].map(|end| Path::new("/log/0000000000000000").with_extension(end));
    let bytes = files.clone().map(|path| sim.read_live(&path).expect("it is there"));
    let (theirs, gone) = (sim.clone(), files.clone());
    between_choice_and_look(&disk, &log, 1, move || gone.iter().for_each(|path| theirs.erase(path)));
    // Neither is it taken away, nor does it keep the others.
    log.housekeep();
    files.iter().zip(&bytes).for_each(|(path, bytes)| sim.overwrite(path, bytes));
    (0..2).for_each(|_| log.housekeep());
    assert_eq!((log.damages(), whole(&log, "slow")), (vec![], 10));
    assert!(log.stats().segments_compacted >= 10, "another time it goes");
}

/// Housekeeping looks into all segments, from the newest back, before any of them goes.
#[test]
fn segments_that_somebody_needs_again_while_older_ones_are_looked_into_stay_and_nothing_is_written_for_them() {
    let sim = SimDisk::new(1);
    let disk = Interleaved::over(sim.clone());
    let log = open_forgetful(&disk);
    (0..5).for_each(|_| _ = append(&log, "a", 3_000));
    log.housekeep();
    let (stream, again) = (log.stream("a").expect("known"), log.clone());
    log.trim(stream, u64::MAX);
    disk.interrupt_opening(Some(Arc::new(move |path: &Path| {
        if path.ends_with("0000000000000000.idx") {
            assert_eq!(again.keep(stream, 0), 0, "nothing has gone yet");
        }
    })));
    let before = sim.ops();
    log.housekeep();
    disk.interrupt_opening(None);
    let stats = log.stats();
    assert_eq!((stats.segments_reclaimed, stats.housekeeping_errors, sim.ops() - before), (0, 0, 0));
    assert_eq!(whole(&log, "a"), 5);
    log.trim(stream, u64::MAX);
    log.housekeep();
    assert_eq!(log.stats().segments_reclaimed, 4, "another time they go");
}

/// Before: a void segment was taken out of the catalog before its file went. A table that housekeeping wrote in between covered its
/// number, and after a power cut what had never been acknowledged passed for a sealed segment with damage in it.
#[test]
fn a_table_that_is_written_while_a_void_segment_goes_does_not_cover_it() {
    for seed in 0..32 {
        let sim = SimDisk::new(seed);
        let disk = Interleaved::over(sim.clone());
        let log = open(&disk);
        append(&log, "a", 3_700);
        sim.inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(".seg"));
        let (keeper, seen, left) = (log.clone(), sim.clone(), Arc::new(Mutex::new(None)));
        let (theirs, opened) = (Arc::clone(&left), AtomicU64::new(0));
        disk.interrupt_opening(Some(Arc::new(move |path: &Path| {
            // When it is made, and when it is emptied.
            if path.ends_with("0000000000000001.seg") && opened.fetch_add(1, Ordering::Relaxed) == 1 {
                keeper.housekeep();
                *theirs.lock().expect("no panic") = Some(seen.snapshot());
            }
        })));
        let payload = Payload { bytes: vec![7; 2_000], records: 1 };
        log.append_wait("a", vec![payload]).expect("another segment takes it");
        disk.interrupt_opening(None);
        let left = left.lock().expect("no panic").take().expect("a void segment was emptied");
        let crashed = SimDisk::from_snapshot(&left);
        crashed.power_cut(PowerCut::RandomSubset);
        let log = open(&Interleaved::over(crashed));
        assert!(log.damages().is_empty(), "seed {seed}: {:?}", log.damages());
        // The second record was not answered yet: it may be there or not.
        let next = append(&log, "a", 100);
        assert!(next == 1 || next == 2, "seed {seed}: {next}");
    }
}

/// Its file may be another segment's by the time that it is read: what stands there then is no damage. And it may go when its index
/// has just been found, or while that is made again from what stands there.
#[test]
fn a_segment_that_goes_while_it_is_read_is_gone_and_not_damaged() {
    // Where one goes alone its file is recycled, and holds another one's frames by the time that it is read.
    for (what, index_lost, trimmed) in [("seg", false, 4), ("idx", false, 4), ("seg", true, 1)] {
        let sim = SimDisk::new(1);
        let disk = Interleaved::over(sim.clone());
        let log = open(&disk);
        (0..5).for_each(|_| _ = append(&log, "a", 3_000));
        log.close().expect("a good disk");
        drop(log);
        let log = open(&disk); // nothing is in memory
        if index_lost {
            sim.erase("/log/0000000000000000.idx".as_ref());
        }
        let stream = log.stream("a").expect("it was appended to");
        let (keeper, name) = (log.clone(), format!("0000000000000000.{what}"));
        let once = Mutex::new(Some(move || {
            keeper.trim(stream, trimmed);
            keeper.housekeep();
            (0..5).for_each(|_| _ = append(&keeper, "other", 3_000));
        }));
        disk.interrupt_reading(Some(Arc::new(move |path: &Path| {
            let goes = once.lock().expect("no panic").take_if(|_| path.ends_with(&name));
            if let Some(goes) = goes {
                goes();
            }
        })));
        let case = format!("{what}, its index lost: {index_lost}");
        let mut reader = log.reader(stream, 0);
        let mut gone = 0;
        let met = loop {
            match reader.next().expect("it reads") {
                Some(Item::Lost { offsets, .. }) if offsets.start == gone => gone = offsets.end,
                met => break met,
            }
        };
        let is_next = matches!(&met, Some(Item::Frame(frame)) if frame.first == trimmed);
        assert!(gone == trimmed && is_next, "{case}: {gone}, {met:?}");
        let rest = std::iter::from_fn(|| reader.next().expect("it reads"));
        assert_eq!(rest.filter(|item| matches!(item, Item::Frame(_))).count() as u64, 4 - trimmed, "{case}");
        assert_eq!((log.stats().damages, log.stats().segments_reclaimed), (0, trimmed), "{case}");
    }
}

/// Before: the next offset of a stream could be raised between the moment an append got its offsets and the moment it
/// was durable: the writer found an offset given out twice, and the process ended.
#[test]
fn an_offset_that_is_raised_while_an_append_is_on_its_way_is_raised_behind_it() {
    let sim = SimDisk::new(1);
    let options = LogOptions { inline: false, ..LogOptions::small() };
    let clock = ManualClock::at(1_000_000);
    let log = Log::open(Arc::new(sim.clone()), Arc::new(clock), Path::new("/log"), options).expect("it opens");
    append(&log, "a", 100);
    log.housekeep(); // so that no sync but the append's is held
    let held = sim.hold_syncs();
    std::thread::scope(|scope| {
        let appends = scope.spawn(|| append(&log, "a", 100));
        held.wait_for(1);
        let raises = scope.spawn(|| {
            log.raise_next("other", 7);
            log.raise_next("a", 10);
        });
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
        assert_eq!(appends.join().expect("it is taken"), 1);
        raises.join().expect("no panic");
    });
    assert_eq!((append(&log, "a", 100), append(&log, "other", 100)), (10, 7));
}
