//! Starting: ten thousand destinations, each behind, with a log of 10 GB under them.

use crate::behind;
use crate::load::{Sidecar, nowhere};
use crate::report::{Figure, Target};
use crate::scale::{MANY, tables, with_keys};
use forebay::{LogOptions, Payload, Start};
use std::path::Path;

const LOG_BYTES: u64 = 10_000_000_000;
/// Impressions of one append.
const IMPRESSIONS: usize = 1_000;
const STARTS: usize = 3;

/// Writes the log, stops without closing it, and starts the binary over it again and again, each time killing it.
pub(crate) fn measure() -> Vec<Figure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    write(&dir.path().join("data"));
    // All destinations stay as far behind as they are.
    let nowhere = nowhere();
    let mut sidecar = Sidecar::start_on(with_keys(), dir, &tables(MANY, nowhere));
    let mut times = vec![sidecar.started_seconds];
    let mut behind = Vec::new();
    for _ in 1..STARTS {
        behind.push(sidecar.metric("forebay_lag_bytes"));
        sidecar = sidecar.again(with_keys());
        times.push(sidecar.started_seconds);
    }
    assert!(behind.iter().all(|bytes| *bytes > 0.99 * LOG_BYTES as f64), "nothing is delivered: {behind:?}");
    let memory = sidecar.memory_mb().0;
    let told = times.iter().map(|time| format!("{time:.2}")).collect::<Vec<_>>().join(", ");
    let worst = times.into_iter().fold(0.0, f64::max);
    vec![Figure {
        name: "start_time",
        what: format!(
            "until ready with {MANY} webhooks that nobody answers, {:.0} GB behind together, after a kill: {told} s, of which the \
             worst counts; at most {memory:.0} MB resident a second later",
            LOG_BYTES as f64 / 1e9
        ),
        value: worst,
        unit: "s",
        baseline: None,
        ratio: None,
        target: Target::ValueAtMost(2.0),
    }]
}

/// A data directory with a queue for each destination, whose cursors are at the beginning.
fn write(dir: &Path) {
    let (parts, bytes) = behind::stored(IMPRESSIONS);
    let queues = behind::queues(dir, LogOptions { budget_bytes: 64 << 30, ..LogOptions::default() });
    for n in 0..MANY {
        queues.queue(&format!("hook-{n}"), &format!("env-{n}"), Start::Earliest).expect("it is made");
    }
    for i in 0..LOG_BYTES / bytes {
        behind::append(queues.log(), &format!("env-{}", i % MANY as u64), &parts);
    }
    queues.log().append_wait("last", vec![Payload { bytes: vec![1], records: 1 }]).expect("all before it are durable");
    queues.tick().expect("the floor is written");
    drop(queues);
    std::thread::sleep(std::time::Duration::from_secs(2)); // its threads end by themselves
}
