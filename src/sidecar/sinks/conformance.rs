//! One table of faults for every sink that speaks HTTP: what each makes of each, and that what it sends has the same
//! ids whatever happened before.
//!
//! A sink that joins gets a line in `SINKS` and a column in the table of statuses; of what is no whole answer all sinks
//! make the same. An upstream relays posts, one a request, so it has jobs of its own. The file has no receiver and is
//! not here: its faults are its disk's, and in its own tests.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::ManualClock;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::address_guard::{AddressGuard, AddressPolicy};
use super::amplitude::Amplitude;
use super::receiver::{Received, raw, serve};
use super::s3::S3Sink;
use super::s3::sample::of as large_of;
use super::sample::job;
use super::segment::Segment;
use super::upstream::{Gates, SdkKeys, Upstream};
use super::webhook::Webhook;
use crate::config::{
    AmplitudeConfig, Compression, Endpoint, LinesCompression, S3Config, S3Format, S3Keys, Secret, SegmentConfig,
    UpstreamConfig, WebhookConfig,
};
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::record_id;
use crate::delivery::sink::{Job, Origin, Part, Sink};
use crate::post::{self, Arrival, Kind};
use Class::{Delivered, Refused, Rejected, Retry, Throttled, TooLarge};

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
            let config = S3Config {
                endpoint: Some(Endpoint::parse(base).unwrap()),
                path_style: true,
                keys: Some(S3Keys {
                    access_key_id: Secret::new("AK".to_owned()),
                    secret_access_key: Secret::new("SK".to_owned()),
                }),
                format: S3Format::JsonLines(LinesCompression::None),
                ..S3Config::new("impressions")
            };
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
    Arc::new(Upstream::new(
        &config,
        policy,
        4,
        Arc::new(keys),
        Arc::new(Gates::new("split".into())),
        &Arc::default(),
        clock(),
    ))
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
    let payload = Bytes::from(post::keep(&arrival, &headers, &Bytes::from(body)));
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
}

impl Class {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Delivered,
            Outcome::Throttled { .. } => Throttled,
            Outcome::Retry { .. } => Retry,
            Outcome::TooLarge { .. } => TooLarge,
            Outcome::Rejected { .. } => Rejected,
            Outcome::Partial(_) => Class::Partial,
            Outcome::Refused { .. } => Refused,
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

/// Statuses, and what the webhook, Amplitude, Segment, S3 and an upstream make of them.
const STATUSES: [(u16, [Class; 5]); 27] = [
    (200, [Delivered, Delivered, Delivered, Delivered, Delivered]),
    (201, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (202, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (204, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (301, [Retry, Retry, Retry, Refused, Retry]),
    (302, [Retry, Retry, Retry, Retry, Retry]),
    (304, [Retry, Retry, Retry, Retry, Retry]),
    (307, [Retry, Retry, Retry, Refused, Retry]),
    (400, [Rejected, Rejected, Rejected, Retry, Rejected]),
    (401, [Refused, Refused, Refused, Refused, Retry]),
    (403, [Refused, Refused, Refused, Refused, Retry]),
    (404, [Refused, Refused, Refused, Retry, Refused]),
    (405, [Retry, Retry, Retry, Retry, Refused]),
    (408, [Retry, Retry, Retry, Retry, Retry]),
    (409, [Retry, Retry, Retry, Retry, Retry]),
    (410, [Refused, Retry, Retry, Retry, Refused]),
    (413, [TooLarge, TooLarge, TooLarge, Retry, Rejected]),
    (415, [Rejected, Retry, Retry, Retry, Rejected]),
    (422, [Rejected, Retry, Retry, Retry, Rejected]),
    (429, [Throttled, Throttled, Throttled, Throttled, Throttled]),
    (460, [Retry, Retry, Retry, Retry, Rejected]),
    (500, [Retry, Retry, Retry, Retry, Retry]),
    (501, [Retry, Retry, Retry, Retry, Retry]),
    (502, [Retry, Retry, Retry, Retry, Retry]),
    (503, [Throttled, Throttled, Throttled, Throttled, Throttled]),
    (504, [Retry, Retry, Retry, Retry, Retry]),
    (599, [Retry, Retry, Retry, Retry, Retry]),
];

#[tokio::test]
async fn each_status_has_its_meaning_and_a_repeat_has_the_same_ids() {
    for (column, subject) in SINKS.iter().enumerate() {
        for (status, classes) in STATUSES {
            // To itself: who followed a redirect would be seen twice.
            let (addr, received) = serve(move |n| {
                let status = if n == 0 { status } else { 200 };
                Response::builder().status(status).header("location", "/in").body(Full::default()).unwrap()
            })
            .await;
            let (mut sink, job) = (subject.at(addr), (subject.job)(8..23));
            let outcome = deliver(&*sink, &job, LATER).await;
            if classes[column] == TooLarge {
                // It would know beforehand.
                sink = subject.at(addr);
            }
            assert_eq!(Class::of(&outcome), classes[column], "{} {status}: {outcome:?}", subject.name);
            assert_eq!(received.lock().unwrap().len(), 1, "{} {status}: one request an attempt", subject.name);
            assert_eq!(deliver(&*sink, &job, LATER).await, Outcome::Delivered, "{} {status}", subject.name);
            same_ids(subject, &job, &received);
        }
    }
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

#[tokio::test]
async fn retry_after_is_read_in_all_its_forms() {
    let seconds = Duration::from_secs;
    let forms = [
        ("0", Some(seconds(0))),
        ("120", Some(seconds(120))),
        ("99999999999999999999", Some(seconds(86_400))),
        ("Sun, 06 Nov 1994 09:50:37 GMT", Some(seconds(60))),
        ("Sun, 06 Nov 1994 00:00:00 GMT", Some(seconds(0))),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ];
    for subject in &SINKS {
        for status in [429, 503, 500] {
            for (text, asked) in forms {
                // This receiver believes that it is an hour later than we do.
                let (addr, _) = serve(move |_| {
                    let answer = Response::builder().status(status).header("date", "Sun, 06 Nov 1994 09:49:37 GMT");
                    answer.header("retry-after", text).body(Full::default()).unwrap()
                })
                .await;
                let outcome = deliver(&*subject.at(addr), &(subject.job)(0..3), LATER).await;
                let place = format!("{} {status} {text:?}", subject.name);
                match (&outcome, asked) {
                    (Outcome::Throttled { retry_after, .. }, Some(_)) => assert_eq!(*retry_after, asked, "{place}"),
                    (Outcome::Throttled { retry_after, .. }, None) if status == 429 => {
                        assert_eq!(*retry_after, subject.unasked_pause, "{place}");
                    }
                    (Outcome::Throttled { retry_after: None, .. }, None) => assert_eq!(status, 503, "{place}"),
                    (Outcome::Retry { .. }, None) => assert_eq!(status, 500, "{place}"),
                    _ => panic!("{place}: {outcome:?}"),
                }
            }
        }
    }
}

/// What becomes of a connection once the request was read and the start of an answer was written.
#[derive(Debug, Clone, Copy)]
enum Then {
    Close,
    Reset,
    Hang,
    Drip,
    Flood,
    /// Informational heads, one after the other, and never the answer.
    Hints,
}

impl Then {
    async fn play(self, mut stream: TcpStream) {
        match self {
            Then::Close => drop(stream),
            Then::Reset => stream.set_zero_linger().unwrap(),
            Then::Hang => tokio::time::sleep(LATER).await,
            Then::Drip => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Then::Hints => {
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Then::Flood => while stream.write_all(&[b'x'; 65_536]).await.is_ok() {},
        }
    }
}

const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 No\r\ncontent-length: 1000000000000\r\n\r\n";
const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// What is answered, what then, and what the sinks that post make of it, and S3: that one hears an answer to its end, and may send
/// again what is there, since it is the same object.
const TROUBLES: [(&[u8], Then, [Class; 2]); 28] = [
    (b"", Then::Close, [Retry, Retry]),
    (b"", Then::Reset, [Retry, Retry]),
    (b"", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 2", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\n", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nx-drip: ", Then::Drip, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nx-long: ", Then::Flood, [Retry, Retry]),
    (b"HTTP/1.1 nonsense\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"no HTTP at all\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 099 Low\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/3.0 200 OK\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"", Then::Hints, [Retry, Retry]),
    (b"HTTP/1.1 102 Processing\r\n\r\n", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Close, [Delivered, Delivered]),
    (
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        Then::Close,
        [Delivered, Delivered],
    ),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", Then::Close, [Delivered, Delivered]),
    (CHUNKS, Then::Flood, [Delivered, Delivered]),
    (LENGTH, Then::Close, [Delivered, Delivered]),
    (LENGTH, Then::Hang, [Delivered, Retry]),
    (LENGTH, Then::Drip, [Delivered, Retry]),
    (LENGTH, Then::Flood, [Delivered, Delivered]),
    (CLOSED, Then::Flood, [Delivered, Delivered]),
    (FAILED, Then::Drip, [Retry, Retry]),
    (FAILED, Then::Flood, [Retry, Retry]),
];

#[tokio::test]
async fn broken_slow_and_endless_answers_end_by_the_deadline_as_their_heads_say() {
    let began = Instant::now();
    for subject in &SINKS {
        for (answer, then, [posted, put]) in TROUBLES {
            let addr = raw(answer, move |stream| then.play(stream)).await;
            let patience = if matches!(then, Then::Hang | Then::Drip | Then::Hints) { SOON } else { LATER };
            let sink = subject.at(addr);
            let outcome = deliver(&*sink, &(subject.job)(0..3), patience).await;
            let place = format!("{} {:?} {then:?}", subject.name, String::from_utf8_lossy(answer));
            let class = if sink.large().is_some() { put } else { posted };
            assert_eq!(Class::of(&outcome), class, "{place}: {outcome:?}");
            if answer.is_empty() && matches!(then, Then::Hang) {
                assert_eq!(outcome, Outcome::Retry { why: Failure::Timeout }, "{place}");
            }
        }
    }
    assert!(Instant::now() - began < LATER * SINKS.len() as u32, "nothing is read for ever");
}

#[tokio::test]
async fn nobody_listening_and_a_cut_before_the_request_was_read_are_retries() {
    for subject in &SINKS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = subject.at(listener.local_addr().unwrap());
        let cutting = tokio::spawn(async move {
            // Twice: the client may try another connection where it knows that nothing was read.
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
        });
        // Large enough not to be taken by the socket's buffers before the cut is noticed.
        let outcome = deliver(&*sink, &(subject.job)(0..500), SOON).await;
        assert_eq!(Class::of(&outcome), Retry, "{}: {outcome:?}", subject.name);
        cutting.abort();
        // The listener is gone with its task, whenever that is.
        let _ = cutting.await;
        let outcome = deliver(&*sink, &(subject.job)(0..3), LATER).await;
        let connected = matches!(outcome, Outcome::Retry { why: Failure::Connect(_) });
        assert!(connected, "{}: {outcome:?}", subject.name);
    }
}

#[tokio::test]
async fn a_giant_answer_leaves_the_sink_usable_and_is_not_shown_whole() {
    for subject in &SINKS {
        let (addr, received) = serve(|n| {
            let body = Full::from(vec![b'x'; if n == 0 { 50 << 20 } else { 2 }]);
            Response::builder().status(if n == 0 { 500 } else { 200 }).body(body).unwrap()
        })
        .await;
        let (sink, job) = (subject.at(addr), (subject.job)(0..3));
        let outcome = deliver(&*sink, &job, LATER).await;
        assert!(outcome.failure().unwrap().to_string().len() < 300, "{}", subject.name);
        assert_eq!(deliver(&*sink, &job, LATER).await, Outcome::Delivered, "{}", subject.name);
        same_ids(subject, &job, &received);
    }
}

#[tokio::test]
async fn a_request_that_is_cut_in_its_middle_is_a_retry() {
    for subject in &SINKS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = subject.at(listener.local_addr().unwrap());
        let cutting = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Some of it, and then a reset.
                stream.read_exact(&mut [0; 1024]).await.unwrap();
                stream.set_zero_linger().unwrap();
            }
        });
        let outcome = deliver(&*sink, &(subject.job)(0..500), LATER).await;
        let broken = matches!(outcome, Outcome::Retry { why: Failure::Broken(_) });
        assert!(broken, "{}: {outcome:?}", subject.name);
        cutting.abort();
    }
}

/// What answers a TLS handshake.
#[derive(Debug, Clone, Copy)]
enum Handshake {
    /// Somebody who speaks HTTP without TLS.
    Plain,
    /// Nobody.
    Silence,
    /// The connection ends.
    Close,
    /// An alert: the handshake failed.
    Alert,
    /// What is no TLS at all.
    Noise,
}

#[tokio::test]
async fn a_failed_handshake_is_a_retry_and_no_byte_of_the_request_leaves() {
    use Handshake::{Alert, Close, Noise, Plain, Silence};
    for subject in &SINKS {
        for handshake in [Plain, Silence, Close, Alert, Noise] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let sink = (subject.make)(&format!("https://{}", listener.local_addr().unwrap()));
            let answering = tokio::spawn(async move {
                let mut heard = Vec::new();
                // As often as it is tried.
                while let Ok(Ok((mut stream, _))) = tokio::time::timeout(SOON, listener.accept()).await {
                    let answer: &[u8] = match handshake {
                        Plain => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
                        Alert => &[0x15, 3, 3, 0, 2, 2, 40],
                        Noise => &[0x80; 64],
                        Silence | Close => b"",
                    };
                    let mut hello = vec![0; 16 << 10];
                    let n = stream.read(&mut hello).await.unwrap_or(0);
                    heard.extend_from_slice(&hello[..n]);
                    stream.write_all(answer).await.unwrap();
                    if matches!(handshake, Silence) {
                        let more = tokio::time::timeout(SOON * 2, stream.read_to_end(&mut heard)).await;
                        drop(more);
                    }
                }
                heard
            });
            let patience = if matches!(handshake, Silence) { SOON } else { LATER };
            let outcome = deliver(&*sink, &(subject.job)(0..3), patience).await;
            let place = format!("{} {handshake:?}", subject.name);
            assert_eq!(Class::of(&outcome), Retry, "{place}: {outcome:?}");
            let heard = answering.await.unwrap();
            assert!(!heard.is_empty(), "{place}: nobody came");
            assert!(memchr::memmem::find(&heard, b"user-").is_none() && !heard.starts_with(b"POST"), "{place}");
        }
    }
}

#[tokio::test]
async fn what_is_excepted_is_in_no_body_and_the_rest_keeps_its_ids() {
    // A post has no rest.
    for subject in SINKS.iter().filter(|subject| subject.name != "upstream") {
        let (addr, received) = serve(|_| Response::new(Full::default())).await;
        let (sink, whole) = (subject.at(addr), (subject.job)(8..23));
        let job = Job { except: [8, 13, 14, 22].into(), ..whole };
        assert_eq!(deliver(&*sink, &job, LATER).await, Outcome::Delivered, "{}", subject.name);
        let received = received.lock().unwrap();
        let body = String::from_utf8(received[0].1.to_vec()).unwrap();
        for offset in job.origin.offsets.clone() {
            let there = body.contains(&format!("\"user-{offset}\""));
            assert_eq!(there, !job.except.contains(&offset), "{} {offset}", subject.name);
        }
        if sink.large().is_none() {
            assert_eq!(sink.encode(&job).unwrap(), sink.encode(&job).unwrap(), "{}: the same bytes", subject.name);
        }
    }
}

#[tokio::test]
async fn no_sink_of_a_customers_making_reaches_this_machine() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let base = format!("http://{addr}");
    let webhook = WebhookConfig::new(endpoint(&base));
    let amplitude = AmplitudeConfig { endpoint: Some(endpoint(&base)), ..AmplitudeConfig::new("hush") };
    let segment = SegmentConfig { endpoint: Some(endpoint(&base)), ..SegmentConfig::new("hush") };
    let customer = AddressPolicy::Customer;
    let sinks: [(&str, Arc<dyn Sink>); 4] = [
        ("webhook", Arc::new(Webhook::new(&webhook, customer, 4, Arc::default(), clock()))),
        (
            "amplitude",
            Arc::new(Amplitude::new(&amplitude, 4, Arc::default(), clock()).behind(AddressGuard::customer(&[]))),
        ),
        ("segment", Arc::new(Segment::new(&segment, 4, Arc::default(), clock()).behind(AddressGuard::customer(&[])))),
        ("upstream", upstream(&base, customer)),
    ];
    for (name, sink) in sinks {
        let job = if name == "upstream" { post(0..3) } else { job(0..3) };
        let outcome = deliver(&*sink, &job, LATER).await;
        let refused = matches!(&outcome, Outcome::Retry { why: Failure::Connect(why) } if why.contains("loopback"));
        assert!(refused, "{name}: {outcome:?}");
    }
    assert!(received.lock().unwrap().is_empty());
}
