//! How long an SDK waits for its answer at half the maximal load.

use crate::load::{Load, Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median, quantile};
use forebay::clock::{Clock, SystemClock};
use forebay::disk::real::RealDisk;
use forebay::disk::{Disk, File};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 5;
const IMPRESSIONS: usize = 100;

/// Syncs of the bare loop where it has the machine for itself, at each pace.
const SYNCS: usize = 2000;

/// p99 of the answer, against p99 of a server that parses and stores nothing plus four times that of a bare write and
/// fdatasync of one group.
///
/// The bare loop writes as large and as often as the sidecar commits, and while that server is loaded: senders keep the
/// cores as busy for it as for the sidecar, so that a machine that stands still then and now does so for both. What it
/// takes on an idle machine is told beside it, as often and one at once after the other: see docs/decisions/0158.
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
    let [half, idle, hurried] = at(0.5, "half of the most");
    // Beside senders and a receiver on the same cores the half may be all that a machine with a share of its cores gives.
    let [quarter, quarter_idle, _] = at(0.25, "a quarter of the most");
    vec![Figure { target: Target::RatioAtMost(1.0), ..half }, idle, hurried, quarter, quarter_idle]
}

/// What the sidecar is held against, in one of three ways.
#[derive(Default)]
struct Bounds {
    /// In seconds, one a round.
    nulls: Vec<f64>,
    bounds: Vec<f64>,
}

/// The same at this load, against the bare loop beside the loaded null server, and then against one on an idle machine: as
/// often as the sidecar commits, and one at once after the other.
fn at(sidecar: &Sidecar, null: &Receiver, load: Load, of_it: &str) -> [Figure; 3] {
    let (mut ours, mut medians) = (Vec::new(), Vec::new());
    let mut all: [Bounds; 3] = Default::default();
    for _ in 0..ROUNDS {
        let (appends, commits) = counts(sidecar);
        let answers = load.run(sidecar.ingest);
        let (appends, commits) = (counts(sidecar).0 - appends, counts(sidecar).1 - commits);
        sidecar.drain();
        ours.push(quantile(answers.latencies.clone(), 0.99));
        medians.push(quantile(answers.latencies, 0.5));
        let group = ((appends / commits.max(1.0) * IMPRESSIONS as f64 * 55.0) as usize).max(4096);
        let every = Duration::from_secs_f64(answers.seconds / commits.max(1.0));
        let bare = Bare::new(group);
        let beside = bare.beside(every, || quantile(load.run(null.address).latencies, 0.99));
        let alone = quantile(load.run(null.address).latencies, 0.99);
        let idle = bare.p99(every, |turn| turn < SYNCS);
        let hurried = bare.p99(Duration::ZERO, |turn| turn < SYNCS);
        for (of, (null, sync)) in all.iter_mut().zip([beside, (alone, idle), (alone, hurried)]) {
            of.nulls.push(null);
            of.bounds.push(null + 4.0 * sync);
        }
    }
    let rate = load.rate.unwrap_or_default();
    let paces = [
        "as often as the sidecar commits and while the null server is loaded",
        "as often as the sidecar commits, on an idle machine",
        "one at once after the other, on an idle machine",
    ];
    let figure = |(paced, of): (&str, Bounds)| Figure {
        name: "ack_latency",
        what: format!(
            "p99 of the answer at {rate:.0} bulks/s of {IMPRESSIONS} ({of_it}), the log's room written ahead, against p99 of a \
             null server + 4 x p99 of a bare write + fdatasync of the same group size that overwrites written blocks, {paced}; \
             null server {:.2} ms, our median {:.2} ms; median of {ROUNDS} interleaved rounds",
            median(of.nulls) * 1e3,
            median(medians.clone()) * 1e3
        ),
        value: median(ours.clone()) * 1e3,
        unit: "ms",
        ratio: Some(median(ours.iter().zip(&of.bounds).map(|(p99, bound)| p99 / bound).collect())),
        baseline: Some(median(of.bounds) * 1e3),
        target: Target::None,
    };
    let mut figures = paces.into_iter().zip(all).map(figure);
    [(); 3].map(|()| figures.next().expect("three of each"))
}

fn counts(sidecar: &Sidecar) -> (f64, f64) {
    (sidecar.metric("forebay_log_appends_total"), sidecar.metric("forebay_log_commits_total"))
}

/// Overwrites and syncs groups of one size in a file whose blocks are all written.
struct Bare {
    file: Arc<dyn File>,
    bytes: Vec<u8>,
    /// Groups in the file.
    groups: usize,
    /// Removes it.
    _dir: tempfile::TempDir,
}

impl Bare {
    fn new(group: usize) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
        let file = RealDisk.create(&dir.path().join("bare")).expect("creates");
        let bare = Self { file, bytes: vec![1; group], groups: (32usize << 20).div_ceil(group), _dir: dir };
        (0..bare.groups).for_each(|turn| bare.write(turn)); // so that what is measured overwrites
        bare.file.sync_data().expect("syncs");
        bare
    }

    fn write(&self, turn: usize) {
        let position = (turn % self.groups * self.bytes.len()) as u64;
        self.file.write_all_at(&[IoSlice::new(&self.bytes)], position).expect("writes");
    }

    /// p99 of a write and sync, in seconds: one `every` so often, while `goes_on` says so.
    fn p99(&self, every: Duration, goes_on: impl Fn(usize) -> bool) -> f64 {
        let clock = SystemClock::new();
        let began = clock.monotonic();
        let times = (0..).take_while(|turn| goes_on(*turn)).map(|turn| {
            std::thread::sleep((began + every * turn as u32).saturating_sub(clock.monotonic()));
            let from = clock.monotonic();
            self.write(turn);
            self.file.sync_data().expect("syncs");
            (clock.monotonic() - from).as_secs_f64()
        });
        quantile(times.collect(), 0.99)
    }

    /// The same for as long as `load` takes, behind what that returns.
    fn beside(&self, every: Duration, load: impl FnOnce() -> f64 + Send) -> (f64, f64) {
        std::thread::scope(|scope| {
            let load = scope.spawn(load);
            let sync = self.p99(every, |turn| turn == 0 || !load.is_finished());
            (load.join().expect("no panic"), sync)
        })
    }
}
