//! A disk on which one environment holds more than its share, since its destination hangs, and what the others notice: how
//! much of theirs is accepted and delivered, against a sidecar that has no such one, round by round.
//!
//! It goes on posting and is refused. The others post as fast as they get answers, in what is left of the disk.

use crate::behind;
use crate::load::{Keys, Load, Reads, Receiver, Sidecar, wait_until, webhook};
use crate::neighbours::{Manner, receiver};
use crate::report::{Figure, Target, median, quantile};
use crate::scale::{key, tables, with_keys};
use forebay::clock::{Clock, SystemClock};
use forebay::{LogOptions, Start};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Environments beside the one that is sick.
const OTHERS: usize = 50;
const ROUNDS: usize = 5;
const LOAD: Load = Load { connections: 16, impressions: 100, time: Duration::from_secs(2), rate: None };

/// What the sick one goes on posting.
const SICK: Load = Load { connections: 2, impressions: 1000, time: LOAD.time, rate: Some(20.0) };

/// The disk is short from nine tenths of it on; what is left is more than the others hold while they are kept up with.
const BUDGET_BYTES: u64 = 1 << 30;
/// As many segments as 64 GiB have of those that a log has by default, and as many as 8 GiB have: in few of them each that comes
/// takes much of what is left.
const SEGMENTS_BYTES: [u32; 2] = [1 << 20, 8 << 20];
/// What lies there at the start, of the sick one: it posts the rest.
const BEHIND_BYTES: u64 = BUDGET_BYTES / 100 * 88;

/// How long what is late may take before it is missed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Posts accepted and impressions delivered a second.
pub(crate) fn measure() -> Vec<Figure> {
    SEGMENTS_BYTES.into_iter().flat_map(on_segments_of).collect()
}

fn on_segments_of(segment_bytes: u32) -> [Figure; 2] {
    let (alone, mut beside) = (Side::start(false, segment_bytes), Side::start(true, segment_bytes));
    beside.post_until_refused();
    let mut next = 0;
    let mut round = |side: &mut Side| {
        let done = side.round(next);
        next += done.posts as usize;
        done
    };
    let mut sides = [alone, beside];
    for side in &mut sides {
        round(side); // to warm up
    }
    let mut done = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, done) in sides.iter_mut().zip(&mut done) {
            done.push(round(side));
        }
    }
    let [alone, beside] = sides;
    alone.assert_that_nothing_is_lost();
    beside.assert_that_nothing_is_lost();
    let [well, sick] = &done;
    let refused = |of: &[Done]| of.iter().map(|done| done.refused).sum::<u64>();
    let (first, others) = ([beside.refused, beside.posts], [refused(well), refused(sick)]);
    let figure = |what: &str, unit, of: fn(&Done) -> f64| {
        let [well, sick] = [well, sick].map(|done| done.iter().map(of).collect::<Vec<f64>>());
        let ratios: Vec<f64> = sick.iter().zip(&well).map(|(sick, well)| sick / well).collect();
        let (least, most) = (quantile(ratios.clone(), 0.0), quantile(ratios.clone(), 1.0));
        Figure {
            name: "disk_share",
            what: format!(
                "{what} of {OTHERS} environments, {} connections, {} impressions a bulk, beside one that holds more than its share \
                 of a disk of {} segments since its destination hangs, against without it; {} of {} posts of that one \
                 were refused meanwhile, and {others:?} of the others', without and with it; nothing acknowledged was lost; ratios \
                 of {ROUNDS} interleaved rounds from {least:.2} to {most:.2}",
                LOAD.connections,
                LOAD.impressions,
                BUDGET_BYTES / u64::from(segment_bytes),
                first[0],
                first[1],
            ),
            value: median(sick),
            unit,
            baseline: Some(median(well)),
            ratio: Some(median(ratios)),
            target: Target::RatioAtLeast(0.95),
        }
    };
    [
        figure("posts accepted", "posts/s", |done| done.accepted_a_second),
        figure("impressions delivered", "impressions/s", |done| done.delivered_a_second),
    ]
}

/// What the others did in a round.
struct Done {
    posts: u64,
    refused: u64,
    accepted_a_second: f64,
    delivered_a_second: f64,
}

/// A sidecar with the others' receiver.
struct Side {
    sidecar: Sidecar,
    receiver: Receiver,
    is_sick: bool,
    /// Impressions of the sick one that were acknowledged; its posts in all rounds, and those that were refused.
    behind: u64,
    posts: u64,
    refused: u64,
}

impl Side {
    fn start(is_sick: bool, segment_bytes: u32) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
        let receiver = Receiver::start(Reads::Braces);
        let mut destinations = tables(OTHERS, receiver.address);
        let mut behind = 0;
        if is_sick {
            behind = write(&dir.path().join("data"), segment_bytes);
            // It is tried again and again.
            destinations += &(webhook("sick", self::receiver(Manner::Hangs), "none") + "timeout = \"1s\"\n");
        }
        let log = format!("budget_bytes = {BUDGET_BYTES}\nsegment_bytes = {segment_bytes}\n");
        let sidecar = Sidecar::start_with(with_keys(), dir, &log, &destinations);
        Self { sidecar, receiver, is_sick, behind, posts: 0, refused: 0 }
    }

    /// The sick one posts until it holds more than it may.
    fn post_until_refused(&mut self) {
        let load = Load { connections: 4, rate: None, time: Duration::from_millis(500), ..SICK };
        let clock = SystemClock::new();
        loop {
            let sent = load.run(self.sidecar.ingest);
            self.behind += (sent.requests - sent.refused) * load.impressions as u64;
            if sent.refused == sent.requests {
                return;
            }
            assert!(clock.monotonic() < PATIENCE, "it is not refused: {} of {}", sent.refused, sent.requests);
        }
    }

    /// The others post from the turn `first` on, and the sick one goes on.
    fn round(&mut self, first: usize) -> Done {
        let before = self.delivered();
        let clock = SystemClock::new();
        let keys = Keys { of: key, first, count: OTHERS, timed: false };
        let (sent, sick) = std::thread::scope(|scope| {
            let sick = self.is_sick.then(|| scope.spawn(|| SICK.run(self.sidecar.ingest)));
            let sent = LOAD.run_with(self.sidecar.ingest, keys);
            (sent, sick.map(|sick| sick.join().expect("no panic")))
        });
        let accepted = sent.requests - sent.refused;
        let all = accepted * LOAD.impressions as u64;
        wait_until(PATIENCE, || self.delivered() - before >= all);
        let seconds = clock.monotonic().as_secs_f64();
        let came = self.delivered() - before;
        assert_eq!(came, all, "each that was acknowledged is delivered once; after {PATIENCE:?} these are");
        if let Some(sick) = sick {
            // Where housekeeping has just made room some of it is taken.
            assert!(
                sick.refused * 2 > sick.requests,
                "it holds more than its share: {} of {}",
                sick.refused,
                sick.requests
            );
            self.behind += (sick.requests - sick.refused) * SICK.impressions as u64;
            (self.posts, self.refused) = (self.posts + sick.requests, self.refused + sick.refused);
        }
        Done {
            posts: sent.requests,
            refused: sent.refused,
            accepted_a_second: accepted as f64 / sent.seconds,
            delivered_a_second: all as f64 / seconds,
        }
    }

    fn delivered(&self) -> u64 {
        self.receiver.objects.load(Ordering::Relaxed)
    }

    /// What the sick one was told is kept waits for it; of the others nothing waits.
    fn assert_that_nothing_is_lost(&self) {
        let waits = || self.sidecar.metric("forebay_lag_records") as u64;
        wait_until(PATIENCE, || waits() == self.behind);
        assert_eq!(waits(), self.behind, "what was acknowledged and is not delivered waits");
    }
}

/// A data directory in which the sick one is behind; returns by how many impressions.
fn write(dir: &Path, segment_bytes: u32) -> u64 {
    let (parts, bytes) = behind::stored(SICK.impressions);
    let log = LogOptions { budget_bytes: BUDGET_BYTES, segment_bytes, ..LogOptions::default() };
    let queues = behind::queues(dir, log);
    queues.queue("sick", "bench", Start::Earliest).expect("it is made");
    let appends = BEHIND_BYTES / bytes;
    (1..appends).for_each(|_| behind::append(queues.log(), "bench", &parts));
    queues.log().append_wait("bench", parts).expect("all before it are durable");
    queues.close().expect("the disk is sound");
    appends * SICK.impressions as u64
}
