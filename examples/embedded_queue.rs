//! One log, two destinations, each at its own pace: what one does not take waits, and the other never notices.
//!
//! `cargo run --example embedded_queue`; it works in a temporary directory and removes it.

use forebay::clock::SystemClock;
use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use forebay::{BatchLimits, LogOptions, Payload, Queue, QueueOptions, Queues, Settled, Start};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

const LIMITS: BatchLimits = BatchLimits { records_max: 100, bytes_max: 64 << 10 };

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("forebay-queue-example-{}", std::process::id()));
    let queues = open(&dir)?;
    let quick = queues.queue("quick", "orders", Start::Earliest)?;
    let throttled = queues.queue("throttled", "orders", Start::Earliest)?;
    for n in 0..1000 {
        let bytes = format!("order {n}").into_bytes();
        queues.log().append_wait("orders", vec![Payload { bytes, records: 1 }])?;
    }
    deliver(&quick, usize::MAX)?;
    let last = deliver(&throttled, 3)?;
    show(&quick);
    show(&throttled);
    queues.close()?;
    drop((quick, throttled, queues));

    let queues = open(&dir)?;
    let throttled = queues.queue("throttled", "orders", Start::Earliest)?;
    let again = throttled.next_batch(LIMITS)?.ok_or("it has more")?;
    println!(
        "after a second start the batch that was refused comes again: {} (same id: {})",
        again.id,
        again.id == last
    );
    throttled.release(&again);
    deliver(&throttled, usize::MAX)?;
    show(&throttled);
    assert!(throttled.balance().closes() && throttled.lag().records == 0);
    queues.close()?;
    Ok(RealDisk.remove_dir(&dir)?)
}

fn open(dir: &Path) -> Result<Queues, Box<dyn Error>> {
    let log = LogOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, ..LogOptions::default() };
    Ok(Queues::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, log, QueueOptions::default())?)
}

/// Delivers until there is nothing more, or until the destination refuses, after so many batches. Returns the id of the last batch.
fn deliver(queue: &Queue, takes: usize) -> Result<String, Box<dyn Error>> {
    let (mut sent, mut last) = (0, String::new());
    while let Some(batch) = queue.next_batch(LIMITS)? {
        // Durable boundaries first: whatever happens now, these records go out under this id and no other.
        let (done, planned) = sync_channel(1);
        queue.plan(&batch, Box::new(move |result| done.send(result).unwrap_or_default()));
        planned.recv()??;
        last.clone_from(&batch.id);
        if sent == takes {
            queue.release(&batch); // a 429: later, and unchanged
            break;
        }
        sent += 1;
        let records: u64 = batch.slices.iter().map(|slice| slice.offsets.end - slice.offsets.start).sum();
        assert_eq!(records, batch.offsets.end - batch.offsets.start);
        queue.settle(&batch, Settled::Delivered);
    }
    Ok(last)
}

fn show(queue: &Queue) {
    let (lag, balance) = (queue.lag(), queue.balance());
    println!(
        "{:>9}: {} delivered, {} records ({} bytes) behind, oldest {:?} ms",
        queue.destination(),
        balance.delivered.records,
        lag.records,
        lag.bytes,
        lag.oldest_age_ms
    );
}
