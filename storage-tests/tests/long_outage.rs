//! One destination is behind for a day and a half among a thousand that keep up: what the disk holds meanwhile, and that
//! nothing is missing at the end. Simulated time; the numbers stand in docs/performance.md.

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{Batch, LogOptions, Payload, Queue, QueueOptions, Queues, Settled, Start};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::queues::{ANY, books_close, next, plan};

const HEALTHY: u64 = 1_000;
const MINUTES: u64 = 36 * 60;
/// A healthy one has something in every so manieth minute.
const EVERY: u64 = 60;
const PAYLOAD_BYTES: usize = 4_000;
/// What a payload takes in the log, with its header; and a plan.
const STORED_BYTES: u64 = 4_056;
const PLAN_BYTES: u64 = 112;
const SEGMENT_BYTES: u64 = 1 << 20;
const REPLAY_MINUTES: u64 = 60;

struct House {
    disk: MemDisk,
    clock: ManualClock,
    queues: Queues,
    behind: Queue,
    healthy: Vec<Queue>,
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES as u32,
        budget_bytes: 256 << 20,
        tail_cache_bytes: 1 << 20,
        replay_window: Duration::from_secs(60 * REPLAY_MINUTES),
        ..LogOptions::small()
    }
}

impl House {
    fn open(disk: MemDisk, clock: ManualClock) -> Self {
        let on = Arc::new(disk.clone());
        let queues = Queues::open(on, Arc::new(clock.clone()), Path::new("/data"), options(), QueueOptions::inline());
        let queues = queues.expect("it opens");
        let queue = |name: &str| queues.queue(name, name, Start::Earliest).expect("it is there, or made");
        let behind = queue("behind");
        let healthy = (0..HEALTHY).map(|n| queue(&format!("hook-{n}"))).collect();
        books_close(&queues);
        Self { disk, clock, queues, behind, healthy }
    }

    fn append(&self, stream: &str) -> u64 {
        let payload = Payload { bytes: vec![7; PAYLOAD_BYTES], records: 5 };
        self.queues.log().append_wait(stream, vec![payload]).expect("there is room");
        STORED_BYTES
    }

    /// Sends all that waits, each batch with a plan. Returns how many batches.
    fn drain(queue: &Queue) -> u64 {
        let mut batches = 0;
        while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
            plan(queue, &batch);
            queue.settle(&batch, Settled::Delivered);
            batches += 1;
        }
        batches
    }

    /// A minute passes: the house is kept.
    fn keep(&self) {
        for _ in 0..3 {
            self.clock.advance(Duration::from_secs(20));
            self.queues.tick().expect("the disk is sound");
            self.queues.log().housekeep();
        }
    }

    /// Bytes on the disk, without the room that is taken ahead.
    fn used(&self) -> u64 {
        self.queues.log().stats().bytes_used - 2 * SEGMENT_BYTES
    }

    fn undelivered(&self) -> u64 {
        self.queues.all().iter().map(|queue| queue.lag().bytes).sum()
    }
}

/// The batch that nobody answers for in a day and a half comes again under the id that it had.
fn claim(house: &House) -> Batch {
    let batch = next(&house.behind, 5);
    plan(&house.behind, &batch);
    batch
}

#[test]
fn disk_use_follows_what_is_undelivered_through_a_day_and_a_half_of_one_destination() {
    let mut house = House::open(MemDisk::new(), ManualClock::at(1_000_000_000));
    let mut by_minute = Vec::new();
    let (mut stuck, mut plans, mut worst): (Option<Batch>, u64, f64) = (None, 0, 0.0);
    for minute in 0..MINUTES {
        let mut written = house.append("behind");
        for n in (minute % EVERY..HEALTHY).step_by(EVERY as usize) {
            written += house.append(&format!("hook-{n}"));
            let sent = House::drain(&house.healthy[n as usize]);
            written += sent * PLAN_BYTES;
            plans += sent;
        }
        by_minute.push(written);
        let claimed = stuck.get_or_insert_with(|| claim(&house));
        house.keep();
        if minute == MINUTES / 2 {
            let House { disk, clock, queues, behind, healthy } = house;
            drop((queues, behind, healthy)); // killed
            house = House::open(disk, clock);
            let again = claim(&house);
            assert_eq!(again.id, claimed.id, "its plan was written again meanwhile, as it was");
            *claimed = again;
        }
        if minute % 60 == 59 {
            let (used, undelivered) = (house.used(), house.undelivered());
            // The segment that it begins in is kept whole.
            let window = by_minute.iter().rev().take(REPLAY_MINUTES as usize).sum::<u64>() + SEGMENT_BYTES;
            let most = undelivered * 13 / 10 + 2 * SEGMENT_BYTES + window;
            assert!(used <= most, "minute {minute}: {used} bytes, {undelivered} undelivered, {window} of the window");
            worst = worst.max(used as f64 / most as f64);
        }
    }
    let written: u64 = by_minute.iter().sum();
    let (used, undelivered, stats) = (house.used(), house.undelivered(), house.queues.log().stats());
    println!(
        "{written} bytes written, {undelivered} undelivered, {used} on disk, at most {worst:.2} of what may be; {plans} plans, \
         {} written again; since the restart {} segments compacted",
        house.queues.stats().plans_moved,
        stats.segments_compacted,
    );
    assert!(written > 10 * used, "{written} written, {used} on disk");
    assert!(plans > 35_000 && house.queues.stats().plans_moved > 0);
    let kept = house.queues.log().streams().into_iter().find(|stream| &*stream.name == "!plans").expect("made");
    assert!(kept.backlog_bytes < kept.tail.bytes / 2, "{} of {}", kept.backlog_bytes, kept.tail.bytes);

    // It is back, and takes all of it.
    house.behind.release(&stuck.expect("claimed in the first minute"));
    House::drain(&house.behind);
    books_close(&house.queues);
    assert_eq!(house.behind.balance().delivered.records, MINUTES * 5, "all that was accepted, and nothing lost");
    (0..REPLAY_MINUTES + 1).for_each(|_| house.keep());
    assert!(house.queues.log().stats().segments <= 3, "{}", house.queues.log().stats().segments);
}
