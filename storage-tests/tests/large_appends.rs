//! Appends that are large, beside everybody else's: who waits for whom, counted, and what a failure in their midst leaves.
//! Crashes at every change of them are in `crash.rs`, failures in `faults/any.rs`.

use forebay::clock::ManualClock;
use forebay::disk::counted::CountedDisk;
use forebay::disk::mem::MemDisk;
use forebay::{AppendError, Log, LogOptions, OnFull, Payload};
use std::path::Path;
use std::sync::{Arc, Mutex};
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::interrupted::Interrupted;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step, tiny_steps};

type MemoryDisk = Interrupted<CountedDisk>;

fn disk() -> MemoryDisk {
    Interrupted::over(CountedDisk::new(Arc::new(MemDisk::new())))
}

fn open(disk: &MemoryDisk, options: LogOptions) -> Log {
    let clock = Arc::new(ManualClock::at(1_000_000));
    Log::open(Arc::new(disk.clone()), clock, Path::new("/log"), options).expect("it opens")
}

fn parts(count: usize, len: usize) -> Vec<Payload> {
    vec![Payload { bytes: vec![7; len], records: 1 }; count]
}

/// What somebody sees who appends a little all the time.
#[derive(Default)]
struct Watched {
    /// Bytes that were written to the disk so far.
    written: usize,
    /// What of that was when the append was queued that is not answered yet.
    waits_since: Option<usize>,
    /// Of each answered append, what was written between.
    waited: Vec<usize>,
}

#[test]
fn nobody_waits_for_more_than_a_step_of_a_large_append() {
    const STEP: usize = 1000;
    let options = LogOptions { large_append_bytes: 8 * STEP as u32, ..LogOptions::small() };
    let disk = disk();
    let log = open(&disk, options);
    for stream in ["large", "small"] {
        log.append_wait(stream, parts(1, 10)).expect("taken");
    }
    let watched: Arc<Mutex<Watched>> = Arc::default();
    let (seen, theirs) = (Arc::clone(&watched), log.clone());
    disk.interrupt_writing(Some(Arc::new(move |_, bytes| {
        let mut watched = seen.lock().expect("no panic");
        let since = watched.written;
        watched.written += bytes;
        if watched.waits_since.is_some() {
            return;
        }
        watched.waits_since = Some(since);
        drop(watched);
        let seen = Arc::clone(&seen);
        let done = Box::new(move |answer: Result<_, AppendError>| {
            answer.expect("taken");
            let mut watched = seen.lock().expect("no panic");
            let since = watched.waits_since.take().expect("it waits");
            let waited = watched.written - since;
            watched.waited.push(waited);
        });
        theirs.append_group("small", parts(1, 10), OnFull::Refuse, done).expect("queued");
    })));
    let done = Arc::clone(&watched);
    let before_it = Arc::new(Mutex::new(0));
    let answered = Arc::clone(&before_it);
    let tell = Box::new(move |answer: Result<_, AppendError>| {
        answer.expect("taken");
        *answered.lock().expect("no panic") = done.lock().expect("no panic").waited.len();
    });
    log.append_group("large", parts(40, 1000), OnFull::Refuse, tell).expect("queued");
    disk.interrupt_writing(None);
    let before_it = *before_it.lock().expect("no panic");
    assert!(before_it >= 40, "{before_it} were answered before it, one a step");
    let most = watched.lock().expect("no panic").waited.iter().copied().max();
    assert!(most.is_some_and(|most| most <= STEP + 300), "{most:?} bytes were written meanwhile");
}

#[test]
fn where_no_segment_can_be_had_a_large_append_goes_into_the_one_that_is_written_to() {
    let segment_bytes = 4 << 10;
    let options = LogOptions {
        segment_bytes,
        budget_bytes: 4 * u64::from(segment_bytes),
        large_append_bytes: 1000,
        ..LogOptions::small()
    };
    let log = open(&disk(), options);
    log.append_wait("a", parts(1, 10)).expect("taken");
    log.housekeep();
    let (mut own, mut shared, mut next) = (0, 0, 1);
    let refused = loop {
        let before = log.synced();
        match log.append_wait("a", parts(3, 500)) {
            Ok(appended) => assert_eq!(appended.offsets, next..next + 3),
            Err(refused) => break refused,
        }
        next += 3;
        let is_same = log.synced()[0].sequence == before[0].sequence;
        *(if is_same { &mut shared } else { &mut own }) += 1;
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    assert!(
        own > 0 && shared > 0,
        "{own} into segments of their own, {shared} where there was no room for another one"
    );
}

/// A step that fails is given up with its file, whose bytes may land late and whose name may come back: what was appended
/// anew and what came after it is read, and nothing twice.
#[test]
fn what_a_failed_step_left_behind_competes_with_nothing() {
    let ends = [
        End::Kill,
        End::Cut(PowerCut::NothingUnsynced),
        End::Cut(PowerCut::Everything),
        End::Cut(PowerCut::RandomSubset),
    ];
    for case in 0..64u64 {
        let mut session = Session::new(case, tiny_steps());
        assert_eq!(session.open(), Ok(true));
        for stream in ["a", "b"] {
            session.append(stream, &[(100, 1)]).expect("right offsets").expect("taken");
        }
        let fails = Fault::nth(OpKind::Sync, case / 4, Failure::Eio).on(".seg");
        session.act(&Step::Inject(fails)).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio))).expect("armed");
        let others = [("b", vec![(10, 1)]), ("b", vec![(20, 1)]), ("a", vec![(30, 1)])].to_vec();
        session.act(&Step::Among(("a", vec![(700, 3), (700, 1), (900, 2)]), others)).expect("as promised");
        assert_eq!(session.model.next("a"), 8, "case {case}: it was written again");
        session.act(&Step::Heal).expect("healed");
        for stream in ["a", "b", "a"] {
            session.append(stream, &[(50, 2)]).expect("right offsets").expect("taken");
        }
        session.end(ends[case as usize % 4]);
        assert_eq!(session.open(), Ok(true), "case {case}");
        session.goes_on().unwrap_or_else(|e| panic!("case {case}: {e}"));
    }
}
