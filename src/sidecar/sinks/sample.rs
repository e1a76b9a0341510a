//! Jobs of known records for the tests of sinks, made by the real parser from a bulk as SDKs post it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;
use forebay::{LogId, LogOptions, OpenError, OpenQueuesError, Payload, QueueOptions, Queues, StoreChoice, StreamId};
use hyper::header::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::delivery::except::Except;
use crate::delivery::sink::{Environment, Job, Origin, Part};
use crate::impression::{BatchMeta, Form, Limits, parse};
use crate::post::{self, Arrival, Kind};

/// The records at `offsets` of a stream whose record `n` has the key `user-<n>`. Stored batches hold ten records each,
/// so a range may begin and end within one.
pub(crate) fn job(offsets: Range<u64>) -> Job {
    let mut parts = Vec::new();
    for batch in offsets.start / 10..offsets.end.div_ceil(10) {
        let first = batch * 10;
        let from = offsets.start.max(first);
        let to = offsets.end.min(first + 10);
        parts.push(Part {
            payload: stored(first..first + 10),
            skip: (from - first) as usize,
            take: (to - from) as usize,
            first: from,
        });
    }
    Job {
        except: Except::default(),
        id: format!("batch-{}-{}", offsets.start, offsets.end).into(),
        bytes: parts.iter().map(|part| part.payload.len() as u64).sum(),
        origin: Origin { log: LogId(77), stream: StreamId(3), offsets },
        environment: Arc::new(Environment { id: "acme-prod".to_owned(), name: "production".to_owned() }),
        parts,
    }
}

/// Queues over a log on this disk, and the clock that they go by.
pub(crate) fn queues(disk: &MemDisk) -> (Queues, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    (queues_by(disk, &clock), clock)
}

/// The same, by this clock.
pub(crate) fn queues_by(disk: &MemDisk, clock: &Arc<dyn Clock>) -> Queues {
    queues_over(&(Arc::new(disk.clone()) as Arc<dyn Disk>), clock)
}

/// The same, over a log on any disk.
pub(crate) fn queues_over(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Queues {
    let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::default() };
    reopened(|| {
        let (disk, clock) = (Arc::clone(disk), Arc::clone(clock));
        Queues::open(disk, clock, Path::new("data"), LogOptions::default(), options.clone())
    })
}

/// Opens queues, also where others were until now: who worked for a call that is answered, or was told to stop, lets go of
/// the last handle, and so of the directory, a moment later.
pub(crate) fn reopened(open: impl Fn() -> Result<Queues, OpenQueuesError>) -> Queues {
    for _ in 0..6_000 {
        match open() {
            Err(OpenQueuesError::Locked { .. } | OpenQueuesError::Log(OpenError::Locked { .. })) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock is not let go");
}

/// Appends ten records to a stream: those of the keys `first` and the nine that follow.
pub(crate) fn append(queues: &Queues, stream: &str, first: u64) {
    let parts = job(first..first + 10).parts;
    let payloads = parts.iter().map(|part| Payload { bytes: part.payload.to_vec(), records: 10 });
    queues.log().append_wait(stream, payloads.collect()).unwrap();
}

/// The records of a bulk, from offset 100 on.
pub(crate) fn job_of(bulk: &str) -> Job {
    let (payload, records) = stored_bulk(bulk);
    let offsets = 100..100 + u64::from(records);
    Job {
        parts: vec![Part { payload: payload.clone(), skip: 0, take: records as usize, first: offsets.start }],
        bytes: payload.len() as u64,
        origin: Origin { offsets, ..job(0..0).origin },
        ..job(0..0)
    }
}

/// Up to `records_max` records of the largest post with impressions that a captured SDK sent: its last ones, among which
/// are the odd ones.
pub(crate) fn captured(capture: &str, records_max: u64) -> Job {
    let capture: Value = serde_json::from_str(capture).unwrap();
    let posts = capture["requests"].as_array().unwrap().iter();
    let impressions = posts.filter(|post| post["path"].as_str().unwrap().starts_with("/api/testImpressions/b"));
    let post = impressions.max_by_key(|post| post["body_bytes"].as_u64()).unwrap();
    let header = |wanted: &str| -> &[u8] {
        let headers = post["headers"].as_array().unwrap();
        let found = headers.iter().find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted));
        found.map_or(b"", |header| header[1].as_str().unwrap().as_bytes())
    };
    let meta = BatchMeta {
        sdk: header("SplitSDKVersion"),
        machine_name: header("SplitSDKMachineName"),
        machine_ip: header("SplitSDKMachineIP"),
        mode: header("SplitSDKImpressionsMode"),
        received_ms: 1_795_450_895_000,
        sdk_key_index: 0,
    };
    let form = if post["path"].as_str().unwrap().ends_with("beacon") { Form::Beacon } else { Form::Bulk };
    let body = post["body_text"].as_str().unwrap();
    let mut parsed = parse(body.as_bytes(), form, &meta, &Limits::default()).unwrap();
    let part = parsed.parts.remove(0);
    let records = u64::from(part.records);
    let take = records.min(records_max);
    let (payload, skip) = (Bytes::from(part.payload), (records - take) as usize);
    let offsets = 100..100 + take;
    Job {
        bytes: payload.len() as u64,
        parts: vec![Part { payload, skip, take: take as usize, first: offsets.start }],
        origin: Origin { offsets, ..job(0..0).origin },
        ..job(0..0)
    }
}

/// One post of each kind that a captured SDK sent, the first, as an upstream keeps it; the SDK shows `key`.
pub(crate) fn captured_posts(capture: &str, key: &str) -> Vec<Job> {
    let capture: Value = serde_json::from_str(capture).unwrap();
    let (mut jobs, mut seen) = (Vec::new(), Vec::new());
    for post in capture["requests"].as_array().unwrap() {
        let path = post["path"].as_str().unwrap();
        let kind = Kind::ALL.into_iter().find(|kind| path.trim_start_matches("/api/").ends_with(kind.path()));
        let Some(kind) = kind.filter(|kind| !seen.contains(kind)) else { continue };
        seen.push(kind);
        let shown = capture_key(post);
        let with_ours = |text: &str| text.replace(&shown, key);
        let mut headers = HeaderMap::new();
        for header in post["headers"].as_array().unwrap() {
            let name = header[0].as_str().unwrap();
            let value = match name.eq_ignore_ascii_case("splitsdkclientkey") {
                // Java's: the end of its key.
                true => key[key.len() - 4..].to_owned(),
                false => with_ours(header[1].as_str().unwrap()),
            };
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let body = Bytes::from(with_ours(post["body_text"].as_str().unwrap()));
        let arrival = Arrival {
            kind,
            received_ms: 1_795_450_895_000,
            environment: "acme-prod",
            key: key.as_bytes(),
            sdk_key_index: 0,
        };
        let payload = Bytes::from(post::keep(&arrival, &headers, &body).unwrap());
        let first = 100 + jobs.len() as u64;
        jobs.push(Job {
            bytes: payload.len() as u64,
            parts: vec![Part { payload, skip: 0, take: 1, first }],
            origin: Origin { offsets: first..first + 1, ..job(0..0).origin },
            ..job(0..0)
        });
    }
    jobs
}

/// The SDK key that a captured post shows: in its header, or in a beacon's body.
fn capture_key(post: &Value) -> String {
    let headers = post["headers"].as_array().unwrap();
    let bearer = headers.iter().find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("authorization"));
    match bearer {
        Some(bearer) => bearer[1].as_str().unwrap().trim_start_matches("Bearer ").to_owned(),
        None => post::token(post["body_text"].as_str().unwrap().as_bytes()).expect("a beacon shows its key"),
    }
}

fn stored(keys: Range<u64>) -> Bytes {
    let impressions: Vec<String> = keys
        .map(|n| format!(r#"{{"k":"user-{n}","t":"on","m":{},"c":5,"r":"default rule"}}"#, 1_700_000_000_000 + n))
        .collect();
    stored_bulk(&format!(r#"[{{"f":"checkout","i":[{}]}}]"#, impressions.join(","))).0
}

fn stored_bulk(body: &str) -> (Bytes, u32) {
    let meta = BatchMeta {
        sdk: b"rust-1.2.3",
        machine_name: b"host",
        machine_ip: b"10.0.0.1",
        mode: b"optimized",
        received_ms: 1_700_000_000_000,
        sdk_key_index: 0,
    };
    let mut parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap();
    assert_eq!((parsed.parts.len(), parsed.rejects.len()), (1, 0));
    let part = parsed.parts.remove(0);
    (part.payload.into(), part.records)
}
