//! Queues on the simulated disk, as tests of them begin: small segments, everything on the caller's thread.
//!
//! What always holds: whatever a crash has left, the balance of every queue closes when it is opened.

use crate::budget;
use crate::sim_disk::{PowerCut, SimDisk};
use forebay::clock::ManualClock;
use forebay::{
    Batch, BatchLimits, Log, LogOptions, OpenQueuesError, Payload, Queue, QueueError, QueueOptions, Queues, RangeError,
    SplitError, Start,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where they lie on the disk.
pub const DIR: &str = "/data";

/// Who takes what is appended.
pub const DESTINATIONS: [&str; 3] = ["hook", "archive", "slow"];

/// What is appended to.
pub const STREAMS: [&str; 2] = ["acme", "umbrella"];

/// A batch of whatever waits.
pub const ANY: BatchLimits = BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX };

/// The ways in which the power goes that a crash at every change is ended by in turn.
pub const CUTS: [PowerCut; 4] =
    [PowerCut::Everything, PowerCut::NothingUnsynced, PowerCut::Prefix, PowerCut::RandomSubset];

/// Segments of 4 KiB, so that a test has many, and a cache of little more than the last append, so that much is read.
#[must_use]
pub fn tiny(replay_window: Duration) -> LogOptions {
    LogOptions {
        segment_bytes: 4 << 10,
        tail_cache_bytes: 1 << 10,
        budget_bytes: 4 << 20,
        replay_window,
        ..LogOptions::small()
    }
}

/// Has a log of [`LogOptions::small`] forget what it was given last: it is read from the disk from now on. Of three streams, since one
/// that has half of what is kept pushes out its own.
///
/// # Panics
/// When the log takes nothing.
pub fn out_of_memory(log: &Log) {
    let bytes = 8 << 10;
    for n in 0..2 * LogOptions::small().tail_cache_bytes / bytes {
        let payload = Payload { bytes: vec![7; bytes], records: 1 };
        log.append_wait(&format!("other-{}", n % 3), vec![payload]).expect("it takes some");
    }
}

/// Opens what lies there, without a replay window.
///
/// # Panics
/// When it does not open, or a balance does not close.
#[must_use]
pub fn open(disk: &SimDisk, clock: &ManualClock) -> Queues {
    open_for(disk, clock, Duration::ZERO)
}

/// Opens what lies there.
///
/// # Panics
/// When it does not open, or a balance does not close.
#[must_use]
pub fn open_for(disk: &SimDisk, clock: &ManualClock, replay_window: Duration) -> Queues {
    let queues = try_open(disk, clock, replay_window).expect("no crash keeps it from opening");
    books_close(&queues);
    queues
}

/// Opens what lies there on a disk that may not let it.
///
/// # Errors
/// As the queues say.
pub fn try_open(disk: &SimDisk, clock: &ManualClock, replay_window: Duration) -> Result<Queues, OpenQueuesError> {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    Queues::open(disk, clock, Path::new(DIR), tiny(replay_window), QueueOptions::inline())
}

/// Every accepted record of every queue is accounted for, once.
///
/// # Panics
/// When one is not.
pub fn books_close(queues: &Queues) {
    for queue in queues.all() {
        let balance = queue.balance();
        let place = format!("{}/{}: {balance:?}", queue.destination(), queue.stream());
        assert!(balance.closes(), "{place}");
        assert_eq!(balance.pending.records, queue.lag().records, "{place}");
    }
}

/// What their log has on the disk is what it counts against its budget.
///
/// # Panics
/// When it is not.
pub fn budget_holds(disk: &SimDisk, queues: &Queues) {
    budget::check(disk, queues.log(), tiny(Duration::ZERO).budget_bytes).expect("the budget holds");
}

/// The queue of `hook` for `acme`, made where there is none.
///
/// # Panics
/// When it cannot be made.
pub fn hook(queues: &Queues) -> Queue {
    queues.queue("hook", "acme", Start::Earliest).expect("it is there, or made")
}

/// Appends so many records of 100 bytes.
///
/// # Panics
/// When the log takes nothing.
pub fn append(queues: &Queues, stream: &str, records: u32) {
    let payload = Payload { bytes: vec![7; records as usize * 100], records };
    queues.log().append_wait(stream, vec![payload]).expect("the log is sound");
}

/// The next batch.
///
/// # Panics
/// When there is none.
pub fn next(queue: &Queue, records_max: u64) -> Batch {
    queue.next_batch(BatchLimits { records_max, ..ANY }).expect("it reads").expect("something waits")
}

/// Makes a batch's plan durable.
///
/// # Panics
/// When it is not.
pub fn plan(queue: &Queue, batch: &Batch) {
    queue.plan(batch, Box::new(|planned| planned.expect("the plan is durable")));
}

/// Splits a batch.
///
/// # Errors
/// The queue's: then it is whole, or will be told after a crash.
///
/// # Panics
/// When the queue does not answer at once.
pub fn split(queue: &Queue, batch: &Batch, at: u64) -> Result<[Batch; 2], SplitError> {
    let halves = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&halves);
    queue.split(batch, at, Box::new(move |result| *heard.lock().expect("one thread") = Some(result)));
    halves.lock().expect("one thread").take().expect("inline")
}

/// The next batch with its records; of the archive as a range that is read one frame at a time, twice.
pub(crate) fn claim(queue: &Queue, limits: BatchLimits) -> Option<Batch> {
    try_claim(queue, limits).expect("the disk reads")
}

/// The same from a disk that may not read; then it waits again.
pub(crate) fn try_claim(queue: &Queue, limits: BatchLimits) -> Result<Option<Batch>, QueueError> {
    if queue.destination() != "archive" {
        return queue.next_batch(limits);
    }
    let Some(mut range) = queue.next_range(limits.into())? else { return Ok(None) };
    let read = || {
        let mut reader = queue.read(&range);
        std::iter::from_fn(|| reader.next().transpose()).collect::<Result<Vec<_>, RangeError>>()
    };
    let outline = |slices: &[forebay::Slice]| -> Vec<_> {
        slices.iter().map(|slice| (slice.offsets.clone(), slice.frame.payload().to_vec())).collect()
    };
    match (read(), read()) {
        (Ok(slices), Ok(again)) => {
            assert_eq!(outline(&slices), outline(&again));
            range.slices = slices;
            Ok(Some(range))
        }
        (Err(RangeError::Read(error)), _) | (_, Err(RangeError::Read(error))) => {
            queue.release(&range);
            Err(error.into())
        }
        (Err(error), _) | (_, Err(error)) => panic!("nothing was damaged: {error}"),
    }
}

/// The id of a batch with other boundaries, as documented: digits for the first offset and the count, each behind one
/// that says how many they are.
///
/// # Panics
/// When the id of `of` is not as documented.
#[must_use]
pub fn half_id(of: &Batch, offsets: &Range<u64>) -> String {
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

/// Eight bytes a record, and every record says who it is. An append that was asked for and not answered may be there, whole;
/// where nobody knows what was `asked`, whatever is one.
pub(crate) fn check_content(acked: &BTreeMap<u64, u64>, asked: Option<&Vec<Range<u64>>>, batch: &Batch) {
    for slice in &batch.slices {
        let content = slice.frame.payload().chunks(8).map(|bytes| bytes.try_into().expect("eight bytes"));
        let content: Vec<u64> = content.map(u64::from_le_bytes).collect();
        let first = content[0];
        assert!(content.iter().copied().eq(first..first + content.len() as u64), "{:?}: {content:?}", slice.offsets);
        let all = first..first + u64::from(slice.frame.records);
        for offset in slice.offsets.clone() {
            match acked.get(&offset) {
                Some(acked) => assert_eq!(*acked, first + (offset - slice.frame.first), "offset {offset}"),
                None => {
                    assert!(asked.is_none_or(|asked| asked.contains(&all)), "offset {offset}: nobody asked for {all:?}")
                }
            }
        }
    }
}
