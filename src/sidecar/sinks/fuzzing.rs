//! What the fuzzer of answers calls: see [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use forebay::clock::{Clock, ManualClock};
use forebay::{LogId, StreamId};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::address_guard::AddressPolicy;
use super::amplitude::Amplitude;
use super::http::{Answer, Tls};
use super::segment::Segment;
use super::webhook::Webhook;
use crate::config::{AmplitudeApi, AmplitudeConfig, AmplitudeIdentity, Endpoint, SegmentConfig, WebhookConfig};
use crate::delivery::outcome::{Failure, Outcome, Partial};
use crate::delivery::retry_after::WAIT_MAX;
use crate::delivery::sink::{Encoded, Environment, Job, Origin, Part, Sink};
use crate::impression::{BatchMeta, Form, Limits, parse};

pub use super::s3::fuzzing::store_answers;

/// What an answer must never be shown with.
const KEY: &str = "write-key-9f2c";

/// Of an answer's body, with a word about it at most.
const SHOWN_CHARS_MAX: usize = 400;

static JOB: LazyLock<Job> = LazyLock::new(|| {
    let impression = |n| format!(r#"{{"k":"user-{n}","t":"on","m":1700000000000,"r":"rule"}}"#);
    let impressions: Vec<String> = (0..12).map(impression).collect();
    let body = format!(r#"[{{"f":"flag","i":[{}]}}]"#, impressions.join(","));
    let parsed = parse(body.as_bytes(), Form::Bulk, &BatchMeta::default(), &Limits::default()).expect("a bulk");
    let payload = Bytes::from(parsed.parts.into_iter().next().expect("a part").payload);
    Job {
        id: "batch".into(),
        origin: Origin { log: LogId(7), stream: StreamId(3), offsets: 100..112 },
        environment: Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() }),
        bytes: payload.len() as u64,
        parts: vec![Part { payload, skip: 0, take: 12, first: 100 }],
        except: [103].into(),
    }
});

/// `data`: whose answer it is (1 byte), its status (2 bytes), how long its headers are (1 byte), the headers as lines, and
/// its body. Only a success delivers; what is set apart was sent, and once; no wait is longer than a day; what is shown is
/// short and holds no key.
pub fn answers(data: &[u8]) {
    let [who, low, high, head, rest @ ..] = data else { return };
    let status = 100 + u16::from_le_bytes([*low, *high]) % 900;
    let (head, body) = rest.split_at(rest.len().min(usize::from(*head)));
    let answer = Answer {
        status: StatusCode::from_u16(status).expect("100 to 999"),
        headers: headers(head),
        body: body.to_vec(),
    };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_795_450_895_000));
    let tls: Arc<Tls> = Arc::default();
    let (outcome, encoded) = match who % 4 {
        0 => {
            let config = WebhookConfig::new(Endpoint::parse("http://127.0.0.1:9/").expect("an address"));
            let sink = Webhook::new(&config, AddressPolicy::Operator, 1, tls, clock);
            (sink.judge(&answer), Encoded::whole(&JOB, Bytes::new()))
        }
        1 => {
            let sink = Segment::new(&SegmentConfig::new(KEY), 1, tls, clock);
            (sink.judge(answer), Encoded::whole(&JOB, Bytes::new()))
        }
        kind => {
            let api = if kind == 2 { AmplitudeApi::Batch } else { AmplitudeApi::HttpV2 };
            let identity = if who & 0x80 == 0 { AmplitudeIdentity::UserId } else { AmplitudeIdentity::DeviceId };
            let sink = Amplitude::new(&AmplitudeConfig { api, identity, ..AmplitudeConfig::new(KEY) }, 1, tls, clock);
            let encoded = sink.encode(&JOB).expect("a job of good records");
            (sink.judge(answer, &encoded), encoded)
        }
    };
    holds(&outcome, status, &encoded);
    // A webhook never had it: what it says it says of itself.
    if who % 4 != 0
        && let Some(Failure::Status { words, excerpt, .. }) = outcome.failure()
    {
        assert!(!words.contains(KEY) && !excerpt.contains(KEY), "the key is shown");
    }
}

/// What holds for every answer to a request that carried `encoded`.
fn holds(outcome: &Outcome, status: u16, encoded: &Encoded) {
    assert!(*outcome != Outcome::Delivered || (200..300).contains(&status), "{status} delivers nothing");
    if let Outcome::Throttled { retry_after: Some(wait), .. } = outcome {
        assert!(*wait <= WAIT_MAX);
    }
    if let Outcome::Partial(Partial { rejected, held, .. }) = outcome {
        let sent: Vec<u64> = encoded.offsets().collect();
        let apart: Vec<u64> = rejected.iter().map(|r| r.offset).chain(held.iter().map(|h| h.offset)).collect();
        let mut once = apart.clone();
        once.sort_unstable();
        once.dedup();
        assert!(!apart.is_empty() && once.len() == apart.len(), "each is set apart once: {apart:?}");
        assert!(apart.iter().all(|offset| sent.contains(offset)), "{apart:?} of {sent:?}");
        assert!(rejected.is_sorted_by_key(|r| r.offset) && held.is_sorted_by_key(|h| h.offset));
        assert!(held.iter().all(|held| held.wait <= WAIT_MAX));
        assert!(rejected.iter().all(|rejected| rejected.reason.len() <= SHOWN_CHARS_MAX));
    }
    if let Some(Failure::Status { excerpt, .. }) = outcome.failure() {
        assert!(excerpt.chars().count() <= SHOWN_CHARS_MAX && !excerpt.chars().any(char::is_control), "{excerpt:?}");
    }
}

/// Lines of a name, a colon and a value, as far as these can be headers.
pub(super) fn headers(lines: &[u8]) -> HeaderMap {
    let header = |line: &[u8]| {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    lines.split(|byte| *byte == b'\n').filter_map(header).collect()
}
