//! What goes over the wire, byte for byte, of what real SDKs sent: kept as snapshots, so that no change of a request
//! goes unseen.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test -p forebay-sidecar requests`, and read the diff.

use std::fmt::Write;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock::ManualClock;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::Instant;

use super::address_guard::AddressPolicy;
use super::amplitude::Amplitude;
use super::receiver::serve;
use super::sample::captured;
use super::segment::Segment;
use super::webhook::Webhook;
use crate::config::{
    AmplitudeApi, AmplitudeConfig, AmplitudeIdentity, Compression, Endpoint, Secret, SegmentConfig, SegmentIdentity,
    SigningSecret, WebhookConfig,
};
use crate::delivery::outcome::Outcome;
use crate::delivery::sink::{Job, Sink};

const CAPTURES: [(&str, &str); 4] = [
    ("python", include_str!("../../../storage-tests/captures/python-debug.json")),
    ("node", include_str!("../../../storage-tests/captures/node-debug.json")),
    ("java", include_str!("../../../storage-tests/captures/java-debug.json")),
    ("browser", include_str!("../../../storage-tests/captures/browser-debug-navigate.json")),
];

/// Enough to see each SDK's ways, little enough to be read.
const RECORDS: u64 = 12;

const SECRET: &str = "a-key-of-ours";

/// The request of a sink at a path of `host`, as text.
async fn request(sink: &dyn Sink, job: &Job, received: &super::receiver::Received, host: &str) -> String {
    let encoded = sink.encode(job).unwrap();
    let outcome = sink.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(outcome, Outcome::Delivered);
    let (head, body) = received.lock().unwrap().pop().unwrap();
    let mut text = format!("{} {}\n", head.method, head.uri);
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    let zipped = headers.contains(&("content-encoding", "gzip"));
    for (name, value) in headers {
        // How short gzip makes it is another crate's matter, and how long a version is, another day's.
        let length = name == "content-length";
        assert!(!length || value == body.len().to_string());
        let value = if length { "[that of the body]" } else { value };
        writeln!(text, "{name}: {value}").unwrap();
    }
    let mut plain = String::new();
    if zipped {
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
    } else {
        plain.push_str(std::str::from_utf8(&body).unwrap());
    }
    serde_json::from_str::<Value>(&plain).expect("what is sent is JSON");
    // One object a line; the bytes stay as they are.
    write!(text, "\n{}", plain.replace("},{", "},\n{")).unwrap();
    let version = concat!("forebay/", env!("CARGO_PKG_VERSION"));
    let library = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(text.contains(SECRET), !zipped, "the services get their key, nobody else does");
    text.replace(SECRET, "[secret]")
        .replace(host, "[host]")
        .replace(version, "forebay/[version]")
        .replace(library, "\"version\":\"[version]")
}

/// Each sink once more, with all that its settings can add to a request.
fn of_other_settings(endpoint: Endpoint, clock: Arc<ManualClock>) -> [(&'static str, Box<dyn Sink>); 3] {
    let webhook = WebhookConfig {
        compression: Compression::None,
        headers: vec![(HeaderName::from_static("x-team"), Secret::new(HeaderValue::from_static(SECRET)))],
        signing: vec![SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()],
        ..WebhookConfig::new(endpoint.clone())
    };
    let amplitude = AmplitudeConfig {
        endpoint: Some(endpoint.clone()),
        api: AmplitudeApi::HttpV2,
        identity: AmplitudeIdentity::DeviceId,
        event_type: "[Experiment] Exposure".to_owned(),
        min_id_length: 3,
        ..AmplitudeConfig::new(SECRET)
    };
    let segment = SegmentConfig {
        endpoint: Some(endpoint),
        event: "Flag Evaluated".to_owned(),
        identity: SegmentIdentity::AnonymousId,
        ..SegmentConfig::new(SECRET)
    };
    let tls = Arc::default();
    let webhook = Webhook::new(&webhook, AddressPolicy::Operator, 1, Arc::clone(&tls), clock.clone());
    let amplitude = Amplitude::new(&amplitude, 1, Arc::clone(&tls), clock.clone());
    let segment = Segment::new(&segment, 1, tls, clock);
    [
        ("webhook_signed", Box::new(webhook)),
        ("amplitude_http_v2_device", Box::new(amplitude)),
        ("segment_anonymous", Box::new(segment)),
    ]
}

#[tokio::test]
async fn requests_are_as_they_were() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let endpoint = |path: &str| Endpoint::parse(&format!("http://{addr}{path}")).unwrap();
    let clock = Arc::new(ManualClock::at(1_795_450_900_000));
    let tls = Arc::default();
    let webhook = Webhook::new(
        &WebhookConfig::new(endpoint("/hook")),
        AddressPolicy::Operator,
        1,
        Arc::clone(&tls),
        clock.clone(),
    );
    let amplitude = AmplitudeConfig { endpoint: Some(endpoint("/batch")), ..AmplitudeConfig::new(SECRET) };
    let amplitude = Amplitude::new(&amplitude, 1, Arc::clone(&tls), clock.clone());
    let segment = SegmentConfig {
        endpoint: Some(endpoint("/v1/batch")),
        write_key: Secret::new(SECRET.to_owned()),
        ..SegmentConfig::new("")
    };
    let segment = Segment::new(&segment, 1, tls, clock.clone());
    let sinks: [(&str, &dyn Sink); 3] = [("webhook", &webhook), ("amplitude", &amplitude), ("segment", &segment)];
    let own = of_other_settings(endpoint("/own"), clock);
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, sink) in own {
        let text = request(&*sink, &captured(CAPTURES[0].1, 2), &received, &addr.to_string()).await;
        settings.bind(|| insta::assert_snapshot!(name, text));
    }
    for (sdk, capture) in CAPTURES {
        let job = captured(capture, RECORDS);
        for (name, sink) in sinks {
            let text = request(sink, &job, &received, &addr.to_string()).await;
            settings.bind(|| insta::assert_snapshot!(format!("{name}_{sdk}"), text));
        }
    }
}
