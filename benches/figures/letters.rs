//! What a start costs that finds a million dead letters, and a search among them: there is no index, so both read them all.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::{Clock, SystemClock};
use forebay::disk::real::RealDisk;
use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
use forebay_sidecar::delivery::parking::{Kind, Letter, LetterOrigin, Parking};
use forebay_sidecar::delivery::sink::Environment;
use forebay_sidecar::impression::{BatchMeta, Form, Limits, parse};
use forebay_sidecar::letters::{Filter, Letters};

use crate::load::memory_mb;
use crate::report::{Figure, Target};

const LETTERS: u64 = 1_000_000;

/// Those of one batch: so many are kept at once.
const BATCH: u64 = 250;

/// The child's first argument.
const OPEN: &str = "open-letters";

const DESTINATION: &str = "acme-hook";
const STREAM: &str = "acme-prod";

/// Fills a log with letters, then has a process of its own open it.
pub(crate) fn measure() -> Vec<Figure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    fill(dir.path());
    let own = std::env::current_exe().expect("it runs");
    let output = Command::new(own).arg(OPEN).arg(dir.path()).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).expect("numbers");
    let numbers: Vec<f64> = told.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [opened_s, grown_mb, peak_mb, searched_s, stored_mb] = numbers[..] else { panic!("{told}") };
    let figure = |name, what: String, value, unit| Figure {
        name,
        what,
        value,
        unit,
        baseline: None,
        ratio: None,
        target: Target::None,
    };
    vec![
        figure(
            "letters_open",
            format!("a start over {LETTERS} dead letters ({stored_mb:.0} MB) beyond opening the log"),
            opened_s,
            "s",
        ),
        figure(
            "letters_memory",
            format!("resident memory at most while they are read; {grown_mb:.1} MB stay"),
            peak_mb,
            "MB",
        ),
        figure("letters_search", "looking through all of them for a reason that none has".to_owned(), searched_s, "s"),
    ]
}

fn open(dir: &Path) -> (Queues, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = LogOptions { budget_bytes: 64 << 30, ..LogOptions::default() };
    let disk = Arc::new(RealDisk);
    (Queues::open(disk, Arc::clone(&clock), dir, options, QueueOptions::default()).expect("opens"), clock)
}

/// A stored batch of records as SDKs send them.
fn batch() -> Vec<u8> {
    let impression = |n| {
        format!(r#"{{"k":"user-{n:06}","t":"on","m":1700000000000,"c":1700000000001,"r":"default rule","b":null}}"#)
    };
    let impressions: Vec<String> = (0..BATCH).map(impression).collect();
    let body = format!(r#"[{{"f":"checkout_button","i":[{}]}}]"#, impressions.join(","));
    let meta = BatchMeta {
        sdk: b"python-10.7.0",
        machine_name: b"host-1",
        machine_ip: b"10.0.0.1",
        mode: b"DEBUG",
        received_ms: 1_700_000_000_000,
        sdk_key_index: 0,
    };
    parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).expect("a bulk").parts.remove(0).payload
}

fn fill(dir: &Path) {
    let (queues, clock) = open(dir);
    let queue = queues.queue(DESTINATION, STREAM, Start::Earliest).expect("it is made");
    let letters = Letters::open(queues.clone(), Arc::clone(&clock));
    let environment = Arc::new(Environment { id: STREAM.to_owned(), name: "production".to_owned() });
    let payload = batch();
    for _ in 0..LETTERS / BATCH {
        let part = Payload { bytes: payload.clone(), records: BATCH as u32 };
        queues.log().append_wait(STREAM, vec![part]).expect("it is taken");
        let limits = BatchLimits { records_max: BATCH, bytes_max: u64::MAX };
        let batch = queue.next_batch(limits).expect("it reads").expect("what was appended");
        let stored = Bytes::copy_from_slice(batch.slices[0].frame.payload());
        let letter = |offset: u64| Letter {
            kind: Kind::Dead,
            destination: DESTINATION.into(),
            origin: LetterOrigin { log: queues.log().log_id(), stream: batch.slices[0].frame.stream, offset },
            replay: 0,
            environment: Arc::clone(&environment),
            payload: stored.clone(),
            index: (offset - batch.offsets.start) as usize,
            reason: "answered 400: the field \"time\" is missing".to_owned(),
            excerpt: "the field \"time\" is missing".to_owned(),
            at_ms: clock.wall_ms(),
            attempts: 3,
        };
        letters.park(batch.offsets.clone().map(letter).collect(), Box::new(|kept| kept.expect("it is kept")));
        queue.settle(&batch, Settled::DeadLettered);
    }
    assert_eq!(letters.desk(DESTINATION).dead().records, LETTERS);
    queues.close().expect("the disk is sound");
}

/// In a process of its own: opens what lies there and looks through it, and tells what that took.
pub(crate) fn play() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != OPEN {
        return None;
    }
    let dir = args.next()?;
    let (queues, clock) = open(Path::new(&dir));
    let before_mb = memory_mb("self").1;
    let from = clock.monotonic();
    let letters = Letters::open(queues, Arc::clone(&clock));
    let opened = clock.monotonic() - from;
    let (peak_mb, now_mb) = memory_mb("self");
    let desk = letters.desk(DESTINATION);
    let from = clock.monotonic();
    let filter = Filter { reason: Some("nobody says this".to_owned()), ..Filter::default() };
    let mut next = Some(0);
    while let Some(at) = next {
        let page = desk.list(&filter, at, 100).expect("it reads");
        assert!(page.letters.is_empty());
        next = page.next;
    }
    let searched = clock.monotonic() - from;
    let dead = desk.dead();
    assert_eq!(dead.records, LETTERS);
    println!(
        "{} {} {} {} {}",
        opened.as_secs_f64(),
        now_mb - before_mb,
        peak_mb - before_mb,
        searched.as_secs_f64(),
        dead.bytes as f64 / 1e6
    );
    Some(ExitCode::SUCCESS)
}
