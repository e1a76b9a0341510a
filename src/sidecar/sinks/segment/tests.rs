//! The sink against a real receiver, and its events.

use std::time::Duration;

use forebay::clock::ManualClock;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};

use super::*;
use crate::config::{Endpoint, SegmentIdentity};
use crate::delivery::record_id;
use crate::sinks::receiver::serve;
use crate::sinks::sample::{job, job_of};

/// Nov 6, 1994, 08:49:37 GMT.
fn clock() -> ManualClock {
    ManualClock::at(784_111_777_000)
}

fn config(addr: impl std::fmt::Display) -> SegmentConfig {
    let endpoint = Some(Endpoint::parse(&format!("http://{addr}/v1/batch")).unwrap());
    SegmentConfig { endpoint, ..SegmentConfig::new("hush") }
}

fn segment(config: &SegmentConfig, clock: ManualClock) -> Segment {
    Segment::new(config, 4, Arc::default(), Arc::new(clock))
}

fn encoded(job: &Job) -> Encoded {
    segment(&config("localhost:1"), clock()).encode(job).unwrap()
}

fn read(encoded: &Encoded) -> Vec<Value> {
    let mut body: Value = serde_json::from_slice(&[&encoded.body[..], b"]}"].concat()).unwrap();
    serde_json::from_value(body["batch"].take()).unwrap()
}

async fn deliver(segment: &Segment, job: &Job) -> Outcome {
    let encoded = segment.encode(job).unwrap();
    segment.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await
}

#[test]
fn an_event_holds_whose_when_and_splits_object_under_the_records_id() {
    let job = job(8..23);
    let all = read(&encoded(&job));
    assert_eq!(all.len(), 15);
    let expected = json!({
        "type": "track", "event": "get_treatment", "userId": "user-9",
        "messageId": format!("{}9", record_id::prefix(&job.origin)),
        "timestamp": "2023-11-14T22:13:20.009Z",
        "properties": {
            "key": "user-9", "split": "checkout", "environmentId": "acme-prod", "environmentName": "production",
            "treatment": "on", "time": 1_700_000_000_009_i64, "label": "default rule", "machineName": "host",
            "machineIp": "10.0.0.1", "splitVersionNumber": 5, "sdk": "rust", "sdkVersion": "1.2.3",
        },
    });
    assert_eq!(all[1], expected);
}

#[test]
fn keys_become_anonymous_and_events_get_a_name_as_told() {
    let told =
        SegmentConfig { identity: SegmentIdentity::AnonymousId, event: "Seen".to_owned(), ..config("localhost:1") };
    let told = segment(&told, clock());
    let event = read(&told.encode(&job(0..1)).unwrap()).remove(0);
    assert_eq!((&event["event"], &event["anonymousId"]), (&json!("Seen"), &json!("user-0")));
    assert!(event.get("userId").is_none());
    assert_ne!(told.format(), segment(&config("localhost:1"), clock()).format());
}

#[test]
fn times_that_no_calendar_has_are_those_of_receipt() {
    let events = read(&encoded(&job_of(
        r#"[{"f":"x","i":[{"k":"a"},{"k":"b","m":-1},{"k":"c","m":9223372036854775807},{"k":"d","m":0}]}]"#,
    )));
    let times: Vec<&str> = events.iter().map(|event| event["timestamp"].as_str().unwrap()).collect();
    let received = "2023-11-14T22:13:20.000Z";
    assert_eq!(times, [received, received, received, "1970-01-01T00:00:00.000Z"]);
    assert_eq!(events[2]["properties"]["time"], i64::MAX);
}

#[test]
fn what_segment_would_drop_in_silence_is_known_beforehand() {
    let large = "x".repeat(33 << 10);
    let bulk = format!(r#"[{{"f":"x","i":[{{"k":""}},{{"k":"a"}},{{"k":"b","properties":"{large}"}},{{"k":"c"}}]}}]"#);
    let encoded = encoded(&job_of(&bulk));
    let rejected: Vec<_> = encoded.rejected.iter().map(|record| (record.offset, record.reason.as_str())).collect();
    assert_eq!((rejected[0], rejected[1].0), ((100, "Segment takes no empty userId"), 102));
    assert!(rejected[1].1.contains("at most 32768"), "{}", rejected[1].1);
    assert_eq!(read(&encoded).len(), 2);
}

#[tokio::test]
async fn the_key_arrives_and_the_time_of_sending_is_that_of_the_attempt() {
    let (addr, received) = serve(|n| Response::builder().status([500, 200][n]).body(Full::default()).unwrap()).await;
    let clock = clock();
    let segment = segment(&config(addr), clock.clone());
    let job = job(0..3);
    assert!(matches!(deliver(&segment, &job).await, Outcome::Retry { .. }));
    clock.advance(Duration::from_secs(3600));
    assert_eq!(deliver(&segment, &job).await, Outcome::Delivered);
    let received = received.lock().unwrap();
    let bodies: Vec<Value> = received.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
    assert_eq!(
        (&bodies[0]["sentAt"], &bodies[1]["sentAt"]),
        (&json!("1994-11-06T08:49:37.000Z"), &json!("1994-11-06T09:49:37.000Z"))
    );
    assert_eq!(bodies[0]["batch"], bodies[1]["batch"], "the same records, ids and times");
    assert_eq!((&bodies[0]["writeKey"], &bodies[0]["context"]["library"]["name"]), (&json!("hush"), &json!("forebay")));
    assert_eq!(received[0].0.uri.path(), "/v1/batch");
}

#[tokio::test]
async fn a_body_above_the_margin_is_not_sent_and_says_so() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let outcome = deliver(&segment(&config(addr), clock()), &job(0..1500)).await;
    let Outcome::TooLarge { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.to_string().contains("480000"), "{why}");
    assert!(received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn more_events_than_segment_takes_are_not_sent_to_be_dropped_in_silence() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let segment = segment(&config(addr), clock());
    let mut encoded = encoded(&job(0..2_501));
    encoded.body = encoded.body.slice(..1_000);
    let outcome = segment.send(&encoded, "id", Instant::now() + Duration::from_secs(20)).await;
    let Outcome::TooLarge { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.to_string().starts_with("2501 events"), "{why}");
    assert!(received.lock().unwrap().is_empty());
}

#[test]
fn no_message_id_reaches_the_hundred_characters_at_which_segment_stops() {
    use crate::delivery::record_id;
    use crate::delivery::sink::Origin;
    use forebay::{LogId, StreamId};
    let origin = Origin { log: LogId(u128::MAX), stream: StreamId(u32::MAX), offsets: 0..0 };
    let mut id = Vec::new();
    record_id::write(&record_id::prefix(&origin), u64::MAX, &mut id);
    assert!(id.len() < 100, "{}", id.len());
}

#[tokio::test]
async fn a_limit_is_waited_for_as_long_as_segment_says() {
    let (addr, _) = serve(|n| {
        let (name, value) = [("retry-after", "7"), ("x-ratelimit-reset", "11")][n];
        Response::builder().status(429).header(name, value).body(Full::default()).unwrap()
    })
    .await;
    let segment = segment(&config(addr), clock());
    for seconds in [7, 11] {
        let Outcome::Throttled { retry_after, .. } = deliver(&segment, &job(0..3)).await else { panic!("no throttle") };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_key_that_the_answer_repeats_is_not_shown() {
    let (addr, _) = serve(|_| Response::builder().status(401).body(Full::from("no key hush here")).unwrap()).await;
    let outcome = deliver(&segment(&config(addr), clock()), &job(0..3)).await;
    let Outcome::Refused { why } = outcome else { panic!("{outcome:?}") };
    let excerpt = "no key [secret] here".to_owned();
    assert_eq!(why, Failure::Status { status: 401, words: String::new(), excerpt });
}

#[test]
fn the_same_job_gives_the_same_bytes_and_they_hold_no_key() {
    assert_eq!(encoded(&job(3..777)), encoded(&job(3..777)));
    assert!(!format!("{:?}", encoded(&job(0..3))).contains("hush"));
}

#[test]
fn an_idle_destination_is_a_small_value() {
    assert!(size_of::<Segment>() <= 120, "{} bytes", size_of::<Segment>());
}
