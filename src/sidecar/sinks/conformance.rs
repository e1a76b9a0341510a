//! One table of faults for every sink: what each makes of each, and that what it sends has the same ids whatever happened
//! before.
//!
//! A sink that joins gets a line in `SINKS` and a column in the table of statuses; of what is no whole answer all sinks
//! make the same. An upstream relays posts, one a request, so it has jobs of its own. The receiver of a file is a disk: it
//! has a column in what is asked of all, `repeats` and `records`, and is opened anew between two attempts.

mod files;
mod records;
mod repeated;
mod repeats;
mod statuses;
mod troubles;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::ManualClock;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request;
use serde_json::Value;
use tokio::time::Instant;

use super::address_guard::AddressPolicy;
use super::amplitude::Amplitude;
use super::receiver::Received;
use super::s3::S3Sink;
use super::s3::sample::{bucket_at, of as large_of};
use super::sample::job;
use super::segment::Segment;
use super::upstream::{SdkKeys, Upstream};
use super::webhook::Webhook;
use crate::config::{
    AmplitudeConfig, Compression, Endpoint, LinesCompression, S3Config, S3Format, SegmentConfig, UpstreamConfig,
    WebhookConfig,
};
use crate::delivery::outcome::Outcome;
use crate::delivery::record_id;
use crate::delivery::sink::{Job, Origin, Part, Sink};
use crate::post::{self, Arrival, Kind};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(20);

/// A sink under test.
struct Subject {
    name: &'static str,
    /// For the receiver at this address: `http://127.0.0.1:80`.
    make: fn(&str) -> Arc<dyn Sink>,
    /// What it is given of these offsets: their records, or a post that holds them.
    job: fn(Range<u64>) -> Job,
    /// The ids by which a receiver tells repeats apart.
    ids: fn(&request::Parts, &Bytes) -> Vec<String>,
    /// What they must be; else the same at every attempt, and they hold the batch's offsets.
    expected_ids: Option<fn(&Job) -> Vec<String>>,
    /// The pause asked for by a 429 that does not say for how long.
    unasked_pause: Option<Duration>,
}

const SINKS: [Subject; 5] = [
    Subject {
        name: "webhook",
        make: |base| {
            let config = WebhookConfig { compression: Compression::None, ..WebhookConfig::new(endpoint(base)) };
            Arc::new(Webhook::new(&config, AddressPolicy::Operator, 4, Arc::default(), clock()))
        },
        job,
        ids: |head, _| vec![head.headers["webhook-id"].to_str().unwrap().to_owned()],
        expected_ids: Some(|job| vec![job.id.to_string()]),
        unasked_pause: None,
    },
    Subject {
        name: "amplitude",
        make: |base| {
            let config = AmplitudeConfig { endpoint: Some(endpoint(base)), ..AmplitudeConfig::new("hush") };
            Arc::new(Amplitude::new(&config, 4, Arc::default(), clock()))
        },
        job,
        ids: |_, body| event_ids(body, "events", "insert_id"),
        expected_ids: Some(record_ids),
        unasked_pause: Some(Duration::from_secs(15)),
    },
    Subject {
        name: "segment",
        make: |base| {
            let config = SegmentConfig { endpoint: Some(endpoint(base)), ..SegmentConfig::new("hush") };
            Arc::new(Segment::new(&config, 4, Arc::default(), clock()))
        },
        job,
        ids: |_, body| event_ids(body, "batch", "messageId"),
        expected_ids: Some(record_ids),
        unasked_pause: None,
    },
    Subject {
        name: "s3",
        make: |base| {
            let config = S3Config { format: S3Format::JsonLines(LinesCompression::None), ..bucket_at(base) };
            Arc::new(S3Sink::new("acme-s3", &config, AddressPolicy::Operator, 2, Arc::default(), clock()))
        },
        job,
        ids: |head, _| vec![head.uri.path().to_owned()],
        expected_ids: None,
        unasked_pause: None,
    },
    Subject {
        name: "upstream",
        make: |base| upstream(base, AddressPolicy::Operator),
        job: post,
        // It tells none apart: a repeat is the same post.
        ids: |head, body| vec![head.uri.path().to_owned(), String::from_utf8(body.to_vec()).unwrap()],
        expected_ids: None,
        unasked_pause: None,
    },
];

const SDK_KEY: &str = "sdk-key-of-a-customer-0001";

fn upstream(base: &str, policy: AddressPolicy) -> Arc<dyn Sink> {
    let keys = SdkKeys::default();
    keys.replace([("acme-prod", &[(0, SDK_KEY.to_owned())][..])]);
    let config = UpstreamConfig::at(base).unwrap();
    Arc::new(Upstream::new(&config, policy, 4, Arc::new(keys), &Arc::default(), clock()))
}

/// One record: a post of the impressions that [`job`] would hold.
fn post(offsets: Range<u64>) -> Job {
    let impression =
        |n| format!(r#"{{"k":"user-{n}","t":"on","m":1700000000000,"c":5,"r":"default rule","pad":"{n:0200}"}}"#);
    let body =
        format!(r#"[{{"f":"checkout","i":[{}]}}]"#, offsets.clone().map(impression).collect::<Vec<_>>().join(","));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {SDK_KEY}").parse().unwrap());
    let (environment, key) = ("acme-prod", SDK_KEY.as_bytes());
    let arrival = Arrival { kind: Kind::Impressions, received_ms: 7, environment, key, sdk_key_index: 0 };
    let payload = Bytes::from(post::keep(&arrival, &headers, &Bytes::from(body)).unwrap());
    let first = offsets.start;
    Job {
        bytes: payload.len() as u64,
        parts: vec![Part { payload, skip: 0, take: 1, first }],
        origin: Origin { offsets: first..first + 1, ..job(0..0).origin },
        ..job(0..0)
    }
}

fn endpoint(base: &str) -> Endpoint {
    Endpoint::parse(&format!("{base}/in")).unwrap()
}

impl Subject {
    fn at(&self, addr: SocketAddr) -> Arc<dyn Sink> {
        (self.make)(&format!("http://{addr}"))
    }
}

/// Sun, 06 Nov 1994 08:49:37 GMT.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(784_111_777_000))
}

fn event_ids(body: &Bytes, list: &str, id: &str) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap();
    body[list].as_array().unwrap().iter().map(|event| event[id].as_str().unwrap().to_owned()).collect()
}

fn record_ids(job: &Job) -> Vec<String> {
    let prefix = record_id::prefix(&job.origin);
    job.origin.offsets.clone().map(|offset| format!("{prefix}{offset}")).collect()
}

/// An outcome without what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Delivered,
    Throttled,
    Retry,
    TooLarge,
    Rejected,
    Partial,
    Refused,
    QueueRefused,
}

impl Class {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Self::Delivered,
            Outcome::Throttled { .. } => Self::Throttled,
            Outcome::Retry { .. } => Self::Retry,
            Outcome::TooLarge { .. } => Self::TooLarge,
            Outcome::Rejected { .. } => Self::Rejected,
            Outcome::Partial(_) => Self::Partial,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::QueueRefused { .. } => Self::QueueRefused,
        }
    }
}

async fn deliver(sink: &dyn Sink, job: &Job, within: Duration) -> Outcome {
    if let Some(large) = sink.large() {
        return large.put(&large_of(job.clone()), within).await;
    }
    let encoded = sink.encode(job).unwrap();
    sink.send(&encoded, &job.id, Instant::now() + within).await
}

fn same_ids(subject: &Subject, job: &Job, received: &Received) {
    let received = received.lock().unwrap();
    let first = received.first().map(|(head, body)| (subject.ids)(head, body)).unwrap_or_default();
    for (head, body) in received.iter() {
        let ids = (subject.ids)(head, body);
        let expected = subject.expected_ids.map_or_else(|| first.clone(), |expected| expected(job));
        assert_eq!(ids, expected, "{}", subject.name);
    }
}
