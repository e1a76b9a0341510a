//! The sink against a real receiver: what arrives, and what is never shown.

mod over_rate;

use std::time::Duration;

use forebay::clock::ManualClock;
use http_body_util::Full;
use hyper::Response;

use super::*;
use crate::config::Endpoint;
use crate::sinks::receiver::serve;
use crate::sinks::sample::{job, job_of};

fn amplitude(addr: impl std::fmt::Display) -> Amplitude {
    let endpoint = Some(Endpoint::parse(&format!("http://{addr}/batch")).unwrap());
    let config = AmplitudeConfig { endpoint, ..AmplitudeConfig::new("hush\"key") };
    Amplitude::new(&config, 4, Arc::default(), Arc::new(ManualClock::at(784_111_777_000)))
}

async fn deliver(amplitude: &Amplitude, job: &Job) -> Outcome {
    let encoded = amplitude.encode(job).unwrap();
    amplitude.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn events_arrive_with_the_key_and_the_least_length_of_ids() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    assert_eq!(deliver(&amplitude(addr), &job(8..23)).await, Outcome::Delivered);
    let received = received.lock().unwrap();
    let (head, body) = &received[0];
    assert_eq!((head.uri.path(), &head.headers["content-type"]), ("/batch", &"application/json".parse().unwrap()));
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["api_key"], &body["options"]["min_id_length"]), (&"hush\"key".into(), &1.into()));
    assert_eq!(body["events"].as_array().unwrap().len(), 15);
}

#[tokio::test]
async fn a_key_that_the_answer_repeats_is_not_shown() {
    let (addr, _) = serve(|_| {
        let body = r#"{"code":400,"error":"Invalid API key: hush\"key"}"#;
        Response::builder().status(400).body(Full::from(body.replace("\\\"", "\""))).unwrap()
    })
    .await;
    let outcome = deliver(&amplitude(addr), &job(0..3)).await;
    let shown = format!("{outcome:?}");
    assert!(shown.contains("[secret]") && !shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn new_events_of_a_throttled_user_wait_with_the_others_and_are_not_sent() {
    let (addr, received) = serve(|n| {
        let throttled = r#"{"code":429,"error":"Too many requests for some devices and users","eps_threshold":1000,
            "throttled_devices":{},"throttled_users":{"user-1":4000},"exceeded_daily_quota_users":{"user-3":500200},
            "exceeded_daily_quota_devices":{},"throttled_events":[1,3]}"#;
        let (status, body) = if n == 0 { (429, throttled) } else { (200, "{}") };
        Response::builder().status(status).body(Full::from(body)).unwrap()
    })
    .await;
    let clock = ManualClock::at(784_111_777_000);
    let amplitude = Amplitude { clock: Arc::new(clock.clone()), ..amplitude(addr) };
    let held = |outcome: Outcome| {
        let Outcome::Partial(partial) = outcome else { panic!("{outcome:?}") };
        assert!(partial.rejected.is_empty());
        partial.held.iter().map(|record| (record.offset, record.wait.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(held(deliver(&amplitude, &job(0..5)).await), [(1, 15), (3, 3600)]);
    clock.advance(Duration::from_secs(5));
    // Later events of those two, in a batch large enough to be looked through elsewhere.
    assert_eq!(held(deliver(&amplitude, &job(0..500)).await), [(1, 10), (3, 3595)]);
    assert_eq!(received.lock().unwrap().len(), 1, "known beforehand");
    let rest = Job { except: [1, 3].into(), ..job(0..500) };
    assert_eq!(deliver(&amplitude, &rest).await, Outcome::Delivered, "the others go on");
    clock.advance(Duration::from_secs(10));
    assert_eq!(held(deliver(&amplitude, &job(0..5)).await), [(3, 3585)]);
    clock.advance(Duration::from_secs(3585));
    assert_eq!(deliver(&amplitude, &job(0..5)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_payload_that_was_too_large_lowers_what_is_sent() {
    let (addr, received) = serve(|n| {
        let large = r#"{"code":413,"error":"Payload too large"}"#;
        let (status, body) = if n == 0 { (413, large) } else { (200, "{}") };
        Response::builder().status(status).body(Full::from(body)).unwrap()
    })
    .await;
    let amplitude = amplitude(addr);
    assert!(matches!(deliver(&amplitude, &job(0..100)).await, Outcome::TooLarge { .. }));
    assert!(matches!(deliver(&amplitude, &job(100..200)).await, Outcome::TooLarge { .. }));
    assert_eq!(deliver(&amplitude, &job(0..50)).await, Outcome::Delivered);
    assert_eq!(received.lock().unwrap().len(), 2);
}

#[test]
fn what_is_encoded_and_shared_holds_no_key() {
    let encoded = amplitude("localhost:1").encode(&job(0..3)).unwrap();
    assert!(!format!("{encoded:?}").contains("hush"));
}

#[tokio::test]
async fn a_batch_of_which_nothing_can_be_sent_is_not_sent() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let job = job_of(r#"[{"f":"x","i":[{"k":"null"},{"k":"0"}]}]"#);
    assert_eq!(amplitude(addr).encode(&job).unwrap().rejected.len(), 2);
    assert_eq!(deliver(&amplitude(addr), &job).await, Outcome::Delivered);
    assert!(received.lock().unwrap().is_empty());
}

#[test]
fn what_would_be_refused_for_its_size_need_not_be_sent() {
    for (api, bytes_max) in [(AmplitudeApi::Batch, 20_000_000), (AmplitudeApi::HttpV2, 1_000_000)] {
        assert_eq!(too_large(api, bytes_max), None);
        assert!(too_large(api, bytes_max + 1).unwrap().to_string().contains("more than Amplitude takes"));
    }
}

#[test]
fn an_idle_destination_is_a_small_value() {
    assert!(size_of::<Amplitude>() <= 120, "{} bytes", size_of::<Amplitude>());
}

/// What was hidden in it made it shorter than the most that is read: it was taken for one that broke off, and the same batch
/// was sent for ever.
#[tokio::test]
async fn an_answer_that_is_too_long_to_be_read_is_too_long_whatever_is_hidden_in_it() {
    let (addr, _) = serve(|_| {
        let body = format!(r#"{{"code":400,"error":"hush\"key","why":"{}"}}"#, "hush\"key ".repeat(200_000));
        Response::builder().status(400).body(Full::from(body)).unwrap()
    })
    .await;
    let key = AmplitudeConfig {
        endpoint: Some(Endpoint::parse(&format!("http://{addr}/")).unwrap()),
        ..AmplitudeConfig::new("hush\"key hush\"key")
    };
    let amplitude = Amplitude::new(&key, 4, Arc::default(), Arc::new(ManualClock::at(0)));
    let outcome = deliver(&amplitude, &job(0..3)).await;
    assert!(matches!(outcome, Outcome::Rejected { .. }), "it is asked for with fewer events: {outcome:?}");
}
