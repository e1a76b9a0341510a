//! What goes over the wire, byte for byte, of what real SDKs sent: kept as snapshots, so that no change of a request
//! goes unseen.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test -p forebay-sidecar requests`, and read the diff.

use std::fmt::Write;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde_json::Value;
use tokio::time::Instant;

use super::address_guard::AddressPolicy;
use super::amplitude::Amplitude;
use super::file::FileSink;
use super::receiver::{Received, serve};
use super::s3::S3Sink;
use super::s3::sample::{bucket_at, of as large_of};
use super::sample::{captured, captured_posts};
use super::segment::Segment;
use super::upstream::{SdkKeys, Upstream};
use super::webhook::Webhook;
use crate::config::{
    AmplitudeApi, AmplitudeConfig, AmplitudeIdentity, Compression, Endpoint, FileConfig, LinesCompression, S3Config,
    S3Format, S3Keys, Secret, SegmentConfig, SegmentIdentity, SigningSecret, UpstreamConfig, WebhookConfig,
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

/// The request of a sink that posts, at a path of `host`, as text.
async fn request(sink: &dyn Sink, job: &Job, received: &Received, host: &str) -> String {
    let encoded = sink.encode(job).unwrap();
    let outcome = sink.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(outcome, Outcome::Delivered);
    let text = as_text(&received.lock().unwrap().pop().unwrap(), host);
    let zipped = text.contains("content-encoding: gzip");
    let (_, plain) = text.split_once("\n\n").expect("a body");
    serde_json::from_str::<Value>(plain).expect("what is sent is JSON");
    assert_eq!(text.contains(SECRET), !zipped, "the services get their key, nobody else does");
    text.replace(SECRET, "[secret]")
}

/// A request as text: its headers in order, without those that differ each time, and its body, one object a line.
fn as_text((head, body): &(Parts, Bytes), host: &str) -> String {
    let mut text = format!("{} {}\n", head.method, head.uri);
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    let zipped = headers.contains(&("content-encoding", "gzip"));
    for (name, value) in headers {
        // How short gzip makes it is another crate's matter, and how long a version is, another day's.
        let length = name == "content-length";
        assert!(!length || value == body.len().to_string());
        let value = match name {
            "content-length" => "[that of the body]",
            "authorization" if value.starts_with("AWS4-HMAC-SHA256") => "[signature]",
            "amz-sdk-invocation-id" | "x-amz-date" | "x-amz-user-agent" => "[its own]",
            "user-agent" if value.starts_with("aws-sdk-rust") => "[its own]",
            _ => value,
        };
        writeln!(text, "{name}: {value}").unwrap();
    }
    let mut plain = String::new();
    if zipped {
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
    } else {
        plain.push_str(std::str::from_utf8(body).unwrap());
    }
    // The bytes stay as they are.
    write!(text, "\n{}", plain.replace("},{", "},\n{")).unwrap();
    let version = concat!("forebay/", env!("CARGO_PKG_VERSION"));
    let library = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"));
    text.replace(host, "[host]").replace(version, "forebay/[version]").replace(library, "\"version\":\"[version]")
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
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
    let settings = settings();
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

/// An object of lines as it is put, not packed: what zstd makes of them is another crate's matter.
#[tokio::test]
async fn objects_are_put_as_they_were() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let config = S3Config {
        keys: Some(S3Keys {
            access_key_id: Secret::new("AKIDEXAMPLE".to_owned()),
            secret_access_key: Secret::new(SECRET.to_owned()),
        }),
        format: S3Format::JsonLines(LinesCompression::None),
        ..bucket_at(&format!("http://{addr}"))
    };
    let clock = Arc::new(ManualClock::at(1_795_450_900_000));
    let sink = S3Sink::new("acme-s3", &config, AddressPolicy::Operator, 1, Arc::default(), clock);
    for (sdk, capture) in CAPTURES {
        let job = large_of(captured(capture, RECORDS));
        let put = sink.large().expect("its only way").put(&job, Duration::from_secs(20));
        assert_eq!(put.await, Outcome::Delivered);
        let text = as_text(&received.lock().unwrap().pop().unwrap(), &addr.to_string());
        assert!(!text.contains(SECRET), "it signs with its secret and does not send it");
        settings().bind(|| insta::assert_snapshot!(format!("s3_{sdk}"), text));
    }
}

/// The lines of a file destination: it has no requests.
#[test]
fn lines_are_as_they_were() {
    let clock = Arc::new(ManualClock::at(1_795_450_900_000));
    let sink = FileSink::new("archive", FileConfig::new("/out"), Arc::new(MemDisk::new()), clock);
    for (sdk, capture) in CAPTURES {
        let encoded = sink.encode(&captured(capture, RECORDS)).unwrap();
        let text = String::from_utf8(encoded.body.to_vec()).unwrap();
        settings().bind(|| insta::assert_snapshot!(format!("file_{sdk}"), text));
    }
}

/// What an SDK posted, relayed: one post of each kind that was captured.
#[tokio::test]
async fn posts_are_relayed_as_they_were() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let keys = SdkKeys::default();
    keys.replace([("acme-prod", &[(0, SECRET.to_owned())][..])]);
    let config = UpstreamConfig::at(&format!("http://{addr}")).unwrap();
    let clock = Arc::new(ManualClock::at(1_795_450_900_000));
    let sink = Upstream::new(&config, AddressPolicy::Operator, 1, Arc::new(keys), &Arc::default(), clock);
    for (sdk, capture) in CAPTURES {
        let mut text = String::new();
        for job in captured_posts(capture, SECRET) {
            let encoded = sink.encode(&job).unwrap();
            let outcome = sink.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await;
            assert_eq!(outcome, Outcome::Delivered);
            let request = as_text(&received.lock().unwrap().pop().unwrap(), &addr.to_string());
            // A bulk is long, and what follows in it is more of the same.
            text += &request.chars().take(1_500).collect::<String>();
            text += "\n\n";
        }
        assert!(text.contains(SECRET), "the SDK key is put back");
        let text = text.replace(SECRET, "[secret]").trim_end().to_owned();
        settings().bind(|| insta::assert_snapshot!(format!("upstream_{sdk}"), text));
    }
}
