//! What turning stored records into a request's body costs, for each sink that speaks HTTP.

use std::hint::black_box;
use std::sync::Arc;

use crate::report::{Figure, Target};
use bytes::Bytes;
use forebay::clock::{Clock, SystemClock};
use forebay::{LogId, StreamId};
use forebay_sidecar::config::{AmplitudeConfig, Compression, Endpoint, SegmentConfig, WebhookConfig};
use forebay_sidecar::delivery::except::Except;
use forebay_sidecar::delivery::sink::{Environment, Job, Origin, Part, Sink};
use forebay_sidecar::impression::{BatchMeta, Form, Limits, parse};
use forebay_sidecar::sinks::address_guard::AddressPolicy;
use forebay_sidecar::sinks::amplitude::Amplitude;
use forebay_sidecar::sinks::segment::Segment;
use forebay_sidecar::sinks::webhook::Webhook;

const RECORDS: u64 = 1_000;
const BATCHES_PER_ROUND: u64 = 100;
/// The best of these counts, so that what else the machine does falls out. One thread that never waits: its time is CPU.
const ROUNDS: usize = 15;

/// CPU per million impressions.
pub(crate) fn measure() -> Vec<Figure> {
    let endpoint = Endpoint::parse("http://localhost/").expect("an address");
    let clock = Arc::new(SystemClock::new());
    let webhook = WebhookConfig { compression: Compression::None, ..WebhookConfig::new(endpoint) };
    let webhook = Webhook::new(&webhook, AddressPolicy::Operator, 1, Arc::default(), clock.clone());
    let segment = Segment::new(&SegmentConfig::new("key"), 1, Arc::default(), clock.clone());
    let amplitude = Amplitude::new(&AmplitudeConfig::new("key"), 1, Arc::default(), clock);
    let job = job(0);
    let sinks: [(&str, &dyn Sink, f64); 3] =
        [("webhook, uncompressed", &webhook, 0.35), ("Segment", &segment, 0.5), ("Amplitude", &amplitude, 0.5)];
    let figure = |(name, sink, most): (&str, &dyn Sink, f64)| {
        let bytes = sink.encode(&job).expect("it was just stored").body.len() as u64 / RECORDS;
        Figure {
            name: "encode_cost",
            what: format!("CPU to encode a million impressions for {name}, {RECORDS} a batch, {bytes} bytes each"),
            value: (0..ROUNDS).map(|_| round(sink, &job)).fold(f64::INFINITY, f64::min),
            unit: "s",
            baseline: None,
            ratio: None,
            target: Target::ValueAtMost(most),
        }
    };
    sinks.into_iter().map(figure).collect()
}

/// Seconds per million records.
fn round(sink: &dyn Sink, job: &Job) -> f64 {
    let clock = SystemClock::new();
    for _ in 0..BATCHES_PER_ROUND {
        black_box(sink.encode(black_box(job)).expect("it was just stored"));
    }
    clock.monotonic().as_secs_f64() * 1e6 / (RECORDS * BATCHES_PER_ROUND) as f64
}

/// A batch as Node's SDK posts it, of users from `first` on.
pub(crate) fn job(first: u64) -> Job {
    job_with(first, |_| String::new())
}

/// The same, each impression with `more` members.
pub(crate) fn job_with(first: u64, more: impl Fn(u64) -> String) -> Job {
    let impressions: Vec<String> = (first..first + RECORDS)
        .map(|n| {
            let (time, more) = (1_795_450_894_053 + n, more(n));
            format!(r#"{{"k":"user-{n:06}","t":"on","m":{time},"c":1700000000001,"r":"default rule"{more}}}"#)
        })
        .collect();
    let body = format!(r#"[{{"f":"exp_checkout","i":[{}]}}]"#, impressions.join(","));
    let meta = BatchMeta {
        sdk: b"nodejs-11.11.2",
        machine_name: b"web-1",
        machine_ip: b"10.1.2.3",
        mode: b"DEBUG",
        received_ms: 1_795_450_895_000,
        sdk_key_index: 0,
    };
    let mut parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).expect("the body is a bulk");
    let payload = Bytes::from(parsed.parts.remove(0).payload);
    Job {
        id: "batch".into(),
        origin: Origin { log: LogId(7), stream: StreamId(1), offsets: 123_456_000..123_456_000 + RECORDS },
        environment: Arc::new(Environment { id: "acme-prod".to_owned(), name: "production".to_owned() }),
        bytes: payload.len() as u64,
        parts: vec![Part { payload, skip: 0, take: RECORDS as usize, first: 123_456_000 }],
        except: Except::default(),
    }
}
