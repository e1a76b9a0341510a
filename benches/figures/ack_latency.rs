//! How long an SDK waits for its answer at half the maximal load.

use crate::load::{Load, Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median, quantile};
use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use std::io::IoSlice;
use std::time::Duration;

const ROUNDS: usize = 5;
const IMPRESSIONS: usize = 100;

/// p99 of the answer, against p99 of a server that parses and stores nothing plus four times that of a bare write and
/// fdatasync of one group.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let null = Receiver::start(Reads::Nothing);
    let sidecar = Sidecar::start(&webhook("hook", receiver.address, "none"));
    let full = Load { connections: 16, impressions: IMPRESSIONS, time: Duration::from_secs(3), rate: None };
    full.run(sidecar.ingest);
    let most = full.run(sidecar.ingest);
    sidecar.drain();
    let rate = most.requests as f64 / most.seconds / 2.0;
    let half = Load { rate: Some(rate), time: Duration::from_secs(3), ..full };
    let (mut ours, mut bounds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (appends, commits) = counts(&sidecar);
        let answers = half.run(sidecar.ingest);
        let (appends, commits) = (counts(&sidecar).0 - appends, counts(&sidecar).1 - commits);
        sidecar.drain();
        let p99 = quantile(answers.latencies, 0.99);
        let null_p99 = quantile(half.run(null.address).latencies, 0.99);
        let group = (appends / commits.max(1.0) * IMPRESSIONS as f64 * 55.0) as usize;
        let bound = null_p99 + 4.0 * sync_p99(group.max(4096));
        ours.push(p99 * 1e3);
        bounds.push(bound * 1e3);
        ratios.push(p99 / bound);
    }
    vec![Figure {
        name: "ack_latency",
        what: format!(
            "p99 of the answer at {rate:.0} bulks/s of {IMPRESSIONS} (half of the most), against p99 of a null server + 4 x p99 \
             of write + fdatasync of the same group size; median of {ROUNDS} interleaved rounds"
        ),
        value: median(ours),
        unit: "ms",
        baseline: Some(median(bounds)),
        ratio: Some(median(ratios)),
        target: Target::RatioAtMost(1.0),
    }]
}

fn counts(sidecar: &Sidecar) -> (f64, f64) {
    (sidecar.metric("forebay_log_appends_total"), sidecar.metric("forebay_log_commits_total"))
}

/// p99 of overwriting and syncing groups of this size, in seconds.
fn sync_p99(group: usize) -> f64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    let file = RealDisk.create(&dir.path().join("bare")).expect("creates");
    let bytes = vec![1; group];
    let turn = (32usize << 20) / group;
    let clock = SystemClock::new();
    let mut times = Vec::new();
    for i in 0..turn * 3 {
        let from = clock.monotonic();
        file.write_all_at(&[IoSlice::new(&bytes)], (i % turn * group) as u64).expect("writes");
        file.sync_data().expect("syncs");
        if i >= turn {
            times.push((clock.monotonic() - from).as_secs_f64());
        }
        if times.len() >= 2000 {
            break;
        }
    }
    quantile(times, 0.99)
}
