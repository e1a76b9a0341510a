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

/// Syncs of the bare loop, at each pace.
const SYNCS: usize = 2000;

/// p99 of the answer, against p99 of a server that parses and stores nothing plus four times that of a bare write and
/// fdatasync of one group.
///
/// The bare loop writes as large and as often as the sidecar commits. One that writes again as soon as it can meets a
/// disk and a core that are awake, which no lone commit does, and is told beside it.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let null = Receiver::start(Reads::Nothing);
    let sidecar = Sidecar::start(&webhook("hook", receiver.address, "none"));
    let full = Load { connections: 16, impressions: IMPRESSIONS, time: Duration::from_secs(3), rate: None };
    full.run(sidecar.ingest);
    let most = full.run(sidecar.ingest);
    sidecar.drain();
    let most = most.requests as f64 / most.seconds;
    let at = |part: f64, of_it| at(&sidecar, &null, Load { rate: Some(most * part), ..full }, of_it);
    let [half, hurried] = at(0.5, "half of the most");
    // Beside senders and a receiver on the same cores the half may be all that a machine with a share of its cores gives.
    let [quarter, _] = at(0.25, "a quarter of the most");
    vec![
        Figure { target: Target::RatioAtMost(1.0), ..half },
        Figure { target: Target::None, ..hurried },
        Figure { target: Target::None, ..quarter },
    ]
}

/// The same at this load: against the bare loop that writes as often as the sidecar commits, and one that does at once.
fn at(sidecar: &Sidecar, null: &Receiver, load: Load, of_it: &str) -> [Figure; 2] {
    let (mut ours, mut medians, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bounds, mut ratios, mut hurried_bounds, mut hurried_ratios) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (appends, commits) = counts(sidecar);
        let answers = load.run(sidecar.ingest);
        let (appends, commits) = (counts(sidecar).0 - appends, counts(sidecar).1 - commits);
        sidecar.drain();
        let p99 = quantile(answers.latencies.clone(), 0.99);
        let null_p99 = quantile(load.run(null.address).latencies, 0.99);
        let group = ((appends / commits.max(1.0) * IMPRESSIONS as f64 * 55.0) as usize).max(4096);
        let every = Duration::from_secs_f64(answers.seconds / commits.max(1.0));
        let bound = null_p99 + 4.0 * sync_p99(group, every);
        let hurried = null_p99 + 4.0 * sync_p99(group, Duration::ZERO);
        ours.push(p99 * 1e3);
        medians.push(quantile(answers.latencies, 0.5) * 1e3);
        nulls.push(null_p99 * 1e3);
        bounds.push(bound * 1e3);
        ratios.push(p99 / bound);
        hurried_bounds.push(hurried * 1e3);
        hurried_ratios.push(p99 / hurried);
    }
    let rate = load.rate.unwrap_or_default();
    let load = format!("p99 of the answer at {rate:.0} bulks/s of {IMPRESSIONS} ({of_it})");
    let told = format!(
        "null server {:.2} ms, our median {:.2} ms; median of {ROUNDS} interleaved rounds",
        median(nulls),
        median(medians)
    );
    let figure = |paced: &str, bounds, ratios| Figure {
        name: "ack_latency",
        what: format!(
            "{load}, against p99 of a null server + 4 x p99 of write + fdatasync of the same group size, {paced}; {told}"
        ),
        value: median(ours.clone()),
        unit: "ms",
        baseline: Some(median(bounds)),
        ratio: Some(median(ratios)),
        target: Target::None,
    };
    [
        figure("as often as the sidecar commits", bounds, ratios),
        figure("one at once after the other", hurried_bounds, hurried_ratios),
    ]
}

fn counts(sidecar: &Sidecar) -> (f64, f64) {
    (sidecar.metric("forebay_log_appends_total"), sidecar.metric("forebay_log_commits_total"))
}

/// p99 of overwriting and syncing groups of this size, one `every` so often, in seconds.
fn sync_p99(group: usize, every: Duration) -> f64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    let file = RealDisk.create(&dir.path().join("bare")).expect("creates");
    let bytes = vec![1; group];
    let turn = (32usize << 20) / group;
    let clock = SystemClock::new();
    let write = |i: usize| {
        file.write_all_at(&[IoSlice::new(&bytes)], (i % turn * group) as u64).expect("writes");
    };
    for i in 0..turn {
        write(i); // so that what is measured overwrites
    }
    file.sync_data().expect("syncs");
    let began = clock.monotonic();
    let times = (0..SYNCS).map(|i| {
        std::thread::sleep((began + every * i as u32).saturating_sub(clock.monotonic()));
        let from = clock.monotonic();
        write(i);
        file.sync_data().expect("syncs");
        (clock.monotonic() - from).as_secs_f64()
    });
    quantile(times.collect(), 0.99)
}
