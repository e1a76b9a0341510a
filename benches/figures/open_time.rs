//! Opening: a log of 10 GB with 10,000 streams.

use crate::behind;
use crate::report::{Figure, Target, median};
use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use forebay::{Log, LogOptions, Payload};
use std::path::Path;
use std::sync::Arc;

const LOG_BYTES: usize = 10_000_000_000;
const STREAMS: usize = 10_000;
const PAYLOAD_BYTES: usize = 50_000;

/// Writes the log once, kills it (drops it without closing), and opens it three times. Beside it: what was not sealed, all of
/// which the first of them has to look at, is read and nothing is done with it.
pub(crate) fn measure() -> Vec<Figure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    let clock = Arc::new(SystemClock::new());
    let options = LogOptions { budget_bytes: 64 << 30, prewrite: false, ..LogOptions::default() };
    let disk = Arc::new(RealDisk);
    let open = || Log::open(disk.clone(), clock.clone(), dir.path(), options.clone()).expect("opens");
    let log = open();
    for i in 0..LOG_BYTES / PAYLOAD_BYTES {
        let part = Payload { bytes: vec![i as u8; PAYLOAD_BYTES], records: 500 };
        behind::append(&log, &format!("env-{}", i % STREAMS), &[part]);
    }
    log.append_wait("last", vec![Payload { bytes: vec![1], records: 1 }]).expect("all before it are durable");
    drop(log);
    std::thread::sleep(std::time::Duration::from_secs(2)); // its threads end by themselves
    let from = clock.monotonic();
    let unsealed_bytes = read_unsealed(dir.path());
    let read = (clock.monotonic() - from).as_secs_f64();
    let mut times = Vec::new();
    let mut segments = 0;
    for _ in 0..3 {
        let from = clock.monotonic();
        let log = open();
        times.push((clock.monotonic() - from).as_secs_f64());
        let stats = log.stats();
        segments = stats.segments;
        assert_eq!((stats.streams, stats.damages), (STREAMS + 1, 0), "it is the log that was written");
        // The first open recovers what was not sealed; the others follow a close.
        log.close().expect("closes");
        drop(log);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    vec![Figure {
        name: "open_time",
        what: format!(
            "10 GB, {STREAMS} streams, {segments} segments, room not written ahead: after a kill {:.3} s, after a close {:.3} s; the \
             worst counts; baseline reads the {:.0} MB of segments that are not sealed, from where the system keeps them",
            times[0],
            median(times[1..].to_vec()),
            unsealed_bytes as f64 / 1e6
        ),
        value: worst,
        unit: "s",
        baseline: Some(read),
        ratio: Some(worst / read),
        target: Target::ValueAtMost(1.0),
    }]
}

/// Reads all segments that have no index, one after the other; returns their bytes.
fn read_unsealed(dir: &Path) -> usize {
    let names = RealDisk.list(dir).expect("the log is there");
    let is_sealed = |segment: &str| names.iter().any(|name| name.strip_suffix(".idx") == Some(segment));
    let segment = |name: &&String| {
        let of_number = name.strip_suffix(".seg").or(name.strip_suffix(".sys"));
        of_number.is_some_and(|number| !is_sealed(number))
    };
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    for name in names.iter().filter(segment) {
        let file = RealDisk.open(&dir.join(name)).expect("it was listed");
        let mut position = 0;
        loop {
            let read = file.read_at(&mut piece, position).expect("it reads");
            position += read as u64;
            bytes += read;
            if read == 0 {
                break;
            }
        }
    }
    assert!(bytes > 0, "the one that was written to is not sealed");
    std::hint::black_box(&piece);
    bytes
}
