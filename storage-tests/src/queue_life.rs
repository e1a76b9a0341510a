//! The life of some queues: the random steps that make something happen, each told to the model, which is asked after
//! each whether it may be so.

use crate::fault::{Failure, Fault, OpKind};
use crate::model::queues::{Model, QueueModel};
use crate::queues::{self, ANY, DESTINATIONS, STREAMS, check_content, half_id, try_claim};
use crate::rng::Rng;
use crate::sim_disk::SimDisk;
use forebay::clock::ManualClock;
use forebay::{Batch, BatchLimits, Cursor, LogState, Much, Payload, Queue, Queues, Settled, SplitError, Start};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A directory with a queue for each destination and stream, and the model of it.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn begin(seed: u64) -> (SimDisk, ManualClock, Model, Queues) {
    let (disk, clock) = (SimDisk::new(seed), ManualClock::at(1_000_000));
    let mut model = Model::default();
    let queues = queues::open(&disk, &clock);
    for stream in STREAMS {
        model.acked.entry(stream).or_default();
        model.asked.entry(stream).or_default();
        for destination in DESTINATIONS {
            queues.queue(destination, stream, Start::Earliest).expect("it is made");
            model.queues.entry((destination, stream)).or_default();
        }
    }
    queues.tick().expect("the disk is sound");
    (disk, clock, model, queues)
}

/// The life of a seed on a disk that `arm` prepares once there are queues: so many steps, or up to its crash.
///
/// # Panics
/// When a queue does what it must not.
#[must_use]
pub fn play(seed: u64, steps: usize, arm: impl FnOnce(&SimDisk)) -> (SimDisk, ManualClock, Model, Queues) {
    let mut rng = Rng::new(seed);
    let (disk, clock, mut model, queues) = begin(seed);
    arm(&disk);
    go_on(&mut rng, steps, (&disk, &clock), &queues, &mut model);
    (disk, clock, model, queues)
}

/// So many steps more, or up to a crash.
///
/// # Panics
/// When a queue does what it must not.
pub fn go_on(rng: &mut Rng, steps: usize, (disk, clock): (&SimDisk, &ManualClock), queues: &Queues, model: &mut Model) {
    for _ in 0..steps {
        step(rng, queues, model);
        clock.advance(Duration::from_millis(50));
        if disk.crashed() {
            break;
        }
    }
}

/// The disk works again, and so must the log and the floor, without help and at once.
///
/// # Panics
/// When they do not.
pub fn heal(disk: &SimDisk, queues: &Queues, model: &mut Model) {
    disk.clear_faults();
    (0..2).for_each(|_| queues.log().housekeep());
    assert_eq!(queues.log().state(), LogState::Serving);
    queues.tick().expect("the disk is good again");
    model.after_tick(queues);
}

/// A part of the floor could not be read: what its last commits made durable may be taken back, and is to come again.
pub fn forget_what_is_durable(model: &mut Model) {
    model.queues.values_mut().for_each(|queue| queue.durable = Cursor::default());
}

/// One random step. Errors are the disk's, and what they mean is checked after the crash.
///
/// # Panics
/// When a queue does what it must not.
pub fn step(rng: &mut Rng, queues: &Queues, model: &mut Model) {
    let stream = STREAMS[rng.below(STREAMS.len())];
    let key = (DESTINATIONS[rng.below(DESTINATIONS.len())], stream);
    let queue = || queues.queue(key.0, key.1, Start::Earliest).expect("it is there");
    match rng.below(20) {
        0..6 => append(rng, queues, model, stream),
        6..11 => {
            let records = rng.below(40) as u64;
            let limits = BatchLimits { records_max: 1 + records, ..ANY };
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            // Some of them from either of two read positions, if it has two.
            let queue = match records % 5 {
                0 | 1 => queue.live(),
                2 | 3 => queue.backlog(),
                _ => queue,
            };
            let Ok(Some(batch)) = try_claim(&queue, limits) else { return };
            assert!(batch.offsets.clone().any(|offset| !entry.settled.contains_key(&offset)));
            assert!(
                entry.out.iter().all(|o| o.offsets.end <= batch.offsets.start || batch.offsets.end <= o.offsets.start)
            );
            check_content(&model.acked[stream], model.asked.get(stream), &batch);
            if rng.chance(3, 4) {
                let planned = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&planned);
                queue.plan(&batch, Box::new(move |result| heard.store(result.is_ok(), Ordering::SeqCst)));
                if planned.load(Ordering::SeqCst) {
                    entry.plan(batch.offsets.clone(), &batch.id);
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
                if queue.settle_range(part.clone(), Settled::DeadLettered) > 0 {
                    entry.settle(part, Settled::DeadLettered);
                } else {
                    // Of a range the log is asked where its parts end, and a disk may not read.
                    assert!(entry.settled.contains_key(&part.start) || key.0 == "archive", "{part:?}");
                }
            }
            if rng.chance(1, 2) {
                let middle = batch.offsets.start + rng.below(40) as u64;
                let parts = [(middle..middle + 3, Settled::Held), (middle + 5..middle + 6, Settled::DeadLettered)];
                queue.settle_parts(&batch, &parts, Settled::Delivered);
                let within = |at: u64| at.clamp(batch.offsets.start, batch.offsets.end);
                parts.into_iter().for_each(|(part, as_)| entry.settle(within(part.start)..within(part.end), as_));
            } else {
                queue.settle(&batch, Settled::Delivered);
            }
            entry.settle(batch.offsets.clone(), Settled::Delivered);
            entry.check_books(&queue);
        }
        16 if rng.chance(1, 4) => {
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            if rng.chance(1, 2) {
                return drop_oldest(rng, &queue, entry);
            }
            let low = queue.cursor().low;
            let offsets = low.saturating_sub(5)..low + rng.below(40) as u64;
            let before = queue.balance();
            let Ok(purged) = queue.purge(offsets.clone()) else { return };
            let after = queue.balance();
            assert!(after.closes());
            assert_eq!(after.purged.records - before.purged.records, purged.records);
            assert_eq!(before.pending.records - after.pending.records, purged.records);
            let cursor = queue.cursor();
            offsets
                .filter(|offset| cursor.is_settled(*offset))
                .for_each(|offset| entry.settle(offset..offset + 1, Settled::Purged));
            entry.check_books(&queue);
        }
        16..19 => {
            if queues.tick().is_ok() {
                model.after_tick(queues);
            }
        }
        _ => {
            queues.log().housekeep();
            // Where what is settled ends, or at the tail.
            queue().part(if model.content.is_multiple_of(2) { u64::MAX } else { 0 });
        }
    }
}

/// The next few calls of some kind fail, on the floor or anywhere: EIO, ENOSPC, short, or EROFS, EDQUOT, EMFILE.
pub fn inject(rng: &mut Rng, disk: &SimDisk) {
    use OpKind::{Allocate, Create, Rename, Sync, SyncDir, Write};
    let kind = [Sync, Sync, Write, Create, Rename, Allocate, SyncDir][rng.below(7)];
    let refusal = [Failure::Os(30), Failure::Os(122), Failure::Os(24)][rng.below(3)];
    let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite, refusal][rng.below(4)];
    let from = rng.below(4) as u64;
    let fault = Fault::nths(kind, from..from + 1 + rng.below(3) as u64, failure);
    disk.inject(if rng.chance(2, 3) { fault.on("floor") } else { fault });
}

/// Drops some of the oldest: none that is out, and each counts once.
fn drop_oldest(rng: &mut Rng, queue: &Queue, entry: &mut QueueModel) {
    let before = queue.cursor();
    let below = before.low + rng.below(120) as u64;
    let much = if rng.chance(1, 2) { Much::Bytes(8 * rng.below(100) as u64) } else { Much::OlderThan(u64::MAX) };
    let Ok(dropped) = queue.drop_oldest(much, below) else { return };
    let after = queue.cursor();
    let gone: Vec<u64> =
        (before.low..after.end()).filter(|offset| after.is_settled(*offset) && !before.is_settled(*offset)).collect();
    // What waited inside its batch for a place among the ranges may have found one.
    let fresh = gone.iter().filter(|offset| !entry.settled.contains_key(offset)).count();
    assert!(dropped.records >= fresh as u64 && gone.iter().all(|offset| *offset < below), "{gone:?}");
    assert!(gone.iter().all(|offset| entry.out.iter().all(|batch| !batch.offsets.contains(offset))), "{gone:?}");
    gone.into_iter().for_each(|offset| entry.settle(offset..offset + 1, Settled::Expired));
    entry.check_books(queue);
}

/// Splits a batch somewhere. Its halves are out from then on, or it is itself.
fn split(rng: &mut Rng, queue: &Queue, entry: &mut QueueModel, batch: Batch) {
    let at = batch.offsets.start + 1 + rng.below((batch.offsets.end - batch.offsets.start - 1) as usize) as u64;
    match queues::split(queue, &batch, at) {
        Ok(halves) => {
            let planned = entry.planned.remove(&batch.offsets.start).is_some();
            for half in halves {
                let bytes: u64 = (half.slices.iter())
                    .map(|slice| slice.frame.bytes_at(slice.offsets.end) - slice.frame.bytes_at(slice.offsets.start))
                    .sum();
                assert!(half.slices.is_empty() || half.bytes == bytes, "{half:?}");
                assert_eq!(half.id, half_id(&batch, &half.offsets));
                if planned {
                    entry.plan(half.offsets.clone(), &half.id);
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
    model.asked.entry(stream).or_default().push(contents.clone());
    let bytes = contents.clone().flat_map(u64::to_le_bytes).collect();
    let payload = Payload { bytes, records: u32::try_from(records).expect("small") };
    if let Ok(appended) = queues.log().append_wait(stream, vec![payload]) {
        model.acknowledge(stream, appended.offsets.start, contents);
    }
}

/// Settles all that can be read, also what is out.
///
/// # Panics
/// When a queue does what it must not.
pub fn catch_up(queues: &Queues, model: &mut Model) {
    for (&(destination, stream), entry) in &mut model.queues {
        let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
        for batch in entry.out.drain(..) {
            queue.release(&batch);
        }
        for queue in [queue.live(), queue.backlog(), queue.clone()] {
            while let Ok(Some(batch)) = try_claim(&queue, ANY) {
                check_content(&model.acked[stream], model.asked.get(stream), &batch);
                queue.settle(&batch, Settled::Delivered);
                entry.settle(batch.offsets.clone(), Settled::Delivered);
            }
        }
        entry.check_books(&queue);
    }
}

/// Settles everything, and checks that all that was acknowledged has come by.
///
/// # Panics
/// When something has not.
pub fn drain(queues: &Queues, model: &mut Model) {
    catch_up(queues, model);
    for (&(destination, stream), entry) in &model.queues {
        let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
        let missing: Vec<_> = model.acked[stream].keys().filter(|offset| !entry.settled.contains_key(offset)).collect();
        assert!(missing.is_empty(), "{destination}/{stream}: never delivered: {missing:?}");
        assert_eq!(queue.balance().pending.records, 0);
    }
}
