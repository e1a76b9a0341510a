//! The sink against a real receiver: what arrives, and what is never shown.

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
