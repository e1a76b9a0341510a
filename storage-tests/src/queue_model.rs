//! What happened to queues, as those outside know it, and the random steps that make it happen.
//!
//! What it finds wrong is a panic: whoever drives it says which case it was.

use crate::queues::{self, ANY};
use crate::rng::Rng;
use crate::sim_disk::SimDisk;
use forebay::clock::ManualClock;
use forebay::{Batch, BatchLimits, Cursor, Much, Payload, Queue, Queues, Settled, SplitError, Start};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who takes what is appended.
pub const DESTINATIONS: [&str; 3] = ["hook", "archive", "slow"];

/// What is appended to.
pub const STREAMS: [&str; 2] = ["acme", "umbrella"];

/// What happened, as those outside know it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Per stream, the content of each acknowledged record.
    pub acked: BTreeMap<&'static str, BTreeMap<u64, u64>>,
    /// What is known of each queue, by destination and stream.
    pub queues: BTreeMap<(&'static str, &'static str), QueueModel>,
    content: u64,
}

/// What is known of one queue.
#[derive(Debug, Clone, Default)]
pub struct QueueModel {
    /// Settled by us, and how, so that cursor and books may say so.
    settled: BTreeMap<u64, Settled>,
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

impl QueueModel {
    /// Settles these as far as they are not yet: the first word about a record stands.
    fn settle(&mut self, offsets: Range<u64>, as_: Settled) {
        offsets.for_each(|offset| _ = self.settled.entry(offset).or_insert(as_));
    }

    /// The books say of every record what became of it, and nothing is missing.
    fn check_books(&self, queue: &Queue) {
        use Settled::{DeadLettered, Delivered, Expired, Filtered, Held, Lost, Purged};
        let balance = queue.balance();
        let place = format!("{}/{}: {balance:?}", queue.destination(), queue.stream());
        let told = [
            (Delivered, balance.delivered),
            (DeadLettered, balance.dead_lettered),
            (Filtered, balance.filtered),
            (Expired, balance.expired),
            (Purged, balance.purged),
            (Lost, balance.lost),
            (Held, balance.held),
        ];
        for (as_, count) in told {
            let known = self.settled.values().filter(|known| **known == as_).count();
            assert_eq!(count.records, known as u64, "{as_:?} of {place}");
        }
        let tail = queue.lag().durable_tail;
        assert_eq!(
            (balance.accepted.records, balance.pending.records),
            (tail, tail - self.settled.len() as u64),
            "{place}"
        );
        assert!(balance.closes(), "{place}");
    }
}

fn offsets_settled(cursor: &Cursor) -> impl Fn(u64) -> bool + '_ {
    |offset| offset < cursor.low || cursor.settled.iter().any(|range| (range.start..range.end).contains(&offset))
}

impl Model {
    /// Checks what a crash left against what must and what may be left, and goes on from there.
    ///
    /// # Panics
    /// When it is anything else.
    pub fn check_after_crash(&mut self, queues: &Queues) {
        let stats = queues.stats();
        assert_eq!((stats.cursors_ahead, stats.cursors_below, stats.plans_lost), (0, 0, 0), "{stats:?}");
        assert_eq!((stats.floor_damage, stats.pinned), (vec![], false));
        for (&(destination, stream), model) in &mut self.queues {
            let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
            let cursor = queue.cursor();
            assert!(cursor.covers(&model.durable), "{destination}/{stream}: {cursor:?} after {:?}", model.durable);
            let settled = offsets_settled(&cursor);
            assert!((0..cursor.end()).filter(|o| settled(*o)).all(|o| model.settled.contains_key(&o)), "{cursor:?}");
            model.settled.retain(|offset, _| settled(*offset));
            model.check_books(&queue);

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
            model.durable = cursor.clone();
            model.out.clear();
            model.maybe_split.clear();
            model.planned = (resumed.iter().filter(|batch| batch.planned))
                .map(|batch| (batch.offsets.start, (batch.offsets.clone(), batch.id.clone())))
                .collect();
        }
    }

    /// All cursors are durable as they stand.
    fn after_tick(&mut self, queues: &Queues) {
        for (&(destination, stream), model) in &mut self.queues {
            model.durable = queues.queue(destination, stream, Start::Earliest).expect("it is there").cursor();
        }
    }
}

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
        for destination in DESTINATIONS {
            queues.queue(destination, stream, Start::Earliest).expect("it is made");
            model.queues.entry((destination, stream)).or_default();
        }
    }
    queues.tick().expect("the disk is sound");
    (disk, clock, model, queues)
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
            let limits = BatchLimits { records_max: 1 + rng.below(40) as u64, ..ANY };
            let (queue, entry) = (queue(), model.queues.get_mut(&key).expect("all are known"));
            let Some(batch) = claim(&queue, limits) else { return };
            assert!(batch.offsets.clone().any(|offset| !entry.settled.contains_key(&offset)));
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
                queue.settle_range(part.clone(), Settled::DeadLettered);
                entry.settle(part, Settled::DeadLettered);
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
            let settled = offsets_settled(&cursor);
            offsets
                .filter(|offset| settled(*offset))
                .for_each(|offset| entry.settle(offset..offset + 1, Settled::Purged));
            entry.check_books(&queue);
        }
        16..19 => {
            if queues.tick().is_ok() {
                model.after_tick(queues);
            }
        }
        _ => queues.log().housekeep(),
    }
}

/// Drops some of the oldest: none that is out, and each counts once.
fn drop_oldest(rng: &mut Rng, queue: &Queue, entry: &mut QueueModel) {
    let before = queue.cursor();
    let below = before.low + rng.below(120) as u64;
    let much = if rng.chance(1, 2) { Much::Bytes(8 * rng.below(100) as u64) } else { Much::OlderThan(u64::MAX) };
    let Ok(dropped) = queue.drop_oldest(much, below) else { return };
    let after = queue.cursor();
    let (was, is) = (offsets_settled(&before), offsets_settled(&after));
    let gone: Vec<u64> = (before.low..after.end()).filter(|offset| is(*offset) && !was(*offset)).collect();
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
///
/// # Panics
/// When something has not.
pub fn drain(queues: &Queues, model: &mut Model) {
    for (&(destination, stream), entry) in &mut model.queues {
        let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
        for batch in entry.out.drain(..) {
            queue.release(&batch);
        }
        while let Some(batch) = claim(&queue, ANY) {
            check_content(&model.acked[stream], &batch);
            queue.settle(&batch, Settled::Delivered);
            entry.settle(batch.offsets.clone(), Settled::Delivered);
        }
        let missing: Vec<_> = model.acked[stream].keys().filter(|offset| !entry.settled.contains_key(offset)).collect();
        assert!(missing.is_empty(), "{destination}/{stream}: never delivered: {missing:?}");
        entry.check_books(&queue);
        assert_eq!(queue.balance().pending.records, 0);
    }
}
