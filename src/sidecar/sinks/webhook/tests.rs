//! The webhook against a real receiver: what arrives, and what each answer means.

use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::{ManualClock, SystemClock};
use http_body_util::Full;
use hyper::Response;

use super::*;
use crate::config::{Endpoint, SigningSecret};
use crate::delivery::outcome::Failure;
use crate::sinks::receiver::{raw, serve};
use crate::sinks::sample::job;

fn config(addr: impl std::fmt::Display) -> WebhookConfig {
    WebhookConfig::new(Endpoint::parse(&format!("http://{addr}/hook")).unwrap())
}

fn webhook(config: &WebhookConfig) -> Webhook {
    Webhook::new(config, AddressPolicy::Operator, 4, Arc::default(), Arc::new(ManualClock::at(784_111_777_000)))
}

async fn deliver(webhook: &Webhook, job: &Job) -> Outcome {
    let encoded = webhook.encode(job).unwrap();
    webhook.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn splits_array_arrives_compressed_under_the_batchs_id() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let headers = vec![(HeaderName::from_static("x-api-key"), Secret::new(HeaderValue::from_static("hush")))];
    let webhook = webhook(&WebhookConfig { headers, ..config(addr) });
    assert_eq!(deliver(&webhook, &job(8..23)).await, Outcome::Delivered);
    let received = received.lock().unwrap();
    let (head, body) = &received[0];
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["content-encoding"], "gzip");
    assert_eq!(head.headers["webhook-id"], "batch-8-23");
    assert_eq!(head.headers["x-api-key"], "hush");
    let mut json = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut json).unwrap();
    let array: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let keys: Vec<_> = array.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, (8..23).map(|n| format!("user-{n}")).collect::<Vec<_>>());
    assert_eq!((&array[0]["split"], &array[0]["environmentId"]), (&"checkout".into(), &"acme-prod".into()));
}

#[tokio::test]
async fn without_compression_the_same_json_arrives_plain() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let webhook = webhook(&WebhookConfig { compression: Compression::None, ..config(addr) });
    assert_eq!(deliver(&webhook, &job(0..1)).await, Outcome::Delivered);
    let received = received.lock().unwrap();
    assert!(!received[0].0.headers.contains_key("content-encoding"));
    assert!(received[0].1.starts_with(b"[{\"key\":\"user-0\",") && received[0].1.ends_with(b"}]"));
}

#[tokio::test]
async fn each_answer_means_what_it_should() {
    let script: Arc<Mutex<Response<Full<Bytes>>>> = Arc::default();
    let answer = Arc::clone(&script);
    let (addr, _) = serve(move |_| std::mem::take(&mut *answer.lock().unwrap())).await;
    let webhook = webhook(&config(addr));
    let say = async |status: u16, headers: &[(&str, &str)]| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        *script.lock().unwrap() = response.body(Full::from("nope")).unwrap();
        deliver(&webhook, &job(0..5)).await
    };
    let why = |status| Failure::Status { status, words: String::new(), excerpt: "nope".to_owned() };
    let minute = Some(Duration::from_secs(60));
    for status in [200, 201, 202, 299] {
        assert_eq!(say(status, &[]).await, Outcome::Delivered);
    }
    for status in [302, 405, 408, 409, 500, 502, 504] {
        assert_eq!(say(status, &[]).await, Outcome::Retry { why: why(status) });
    }
    for status in [400, 415, 422] {
        assert_eq!(say(status, &[]).await, Outcome::Rejected { why: why(status) });
    }
    for status in [401, 403, 404, 410] {
        assert_eq!(say(status, &[]).await, Outcome::Refused { why: why(status) });
    }
    for status in [429, 503] {
        assert_eq!(say(status, &[]).await, Outcome::Throttled { retry_after: None, why: why(status) });
    }
    assert_eq!(say(429, &[("retry-after", "60")]).await, Outcome::Throttled { retry_after: minute, why: why(429) });
    // The manual clock stands at 08:49:37; this receiver believes that it is an hour later.
    let date = [("date", "Sun, 06 Nov 1994 09:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 09:50:37 GMT")];
    assert_eq!(say(503, &date).await, Outcome::Throttled { retry_after: minute, why: why(503) });
}

/// Before: what a gateway repeats of a request stood in the log, in `forebay lag`, and in dead letters.
#[tokio::test]
async fn what_an_answer_repeats_of_headers_and_address_is_not_shown() {
    let says = "no: POST /hook?token=t0k3n with Bearer hush-hush, that is hush-hush; token=t0k3n";
    let (addr, _) = serve(move |_| Response::builder().status(401).body(Full::from(says)).unwrap()).await;
    let secret = Secret::new(HeaderValue::from_static("Bearer hush-hush"));
    let headers = vec![(HeaderName::from_static("authorization"), secret)];
    let url = Endpoint::parse(&format!("http://{addr}/hook?token=t0k3n")).unwrap();
    let webhook = webhook(&WebhookConfig { headers, ..WebhookConfig::new(url) });
    let excerpt = "no: POST [secret] with [secret], that is [secret]; [secret]".to_owned();
    let why = Failure::Status { status: 401, words: String::new(), excerpt };
    assert_eq!(deliver(&webhook, &job(0..1)).await, Outcome::Refused { why });
}

#[tokio::test]
async fn the_reference_library_takes_what_is_signed_with_either_secret() {
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let signing: Vec<_> = [NEW, OLD].iter().map(|secret| SigningSecret::parse(secret).unwrap()).collect();
    // The library looks at the machine's clock.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    for compression in [Compression::None, Compression::Gzip] {
        let config = WebhookConfig { signing: signing.clone(), compression, ..config(addr) };
        let webhook = Webhook::new(&config, AddressPolicy::Operator, 4, Arc::default(), Arc::clone(&clock));
        assert_eq!(deliver(&webhook, &job(0..2_000)).await, Outcome::Delivered);
    }
    for (n, (head, body)) in received.lock().unwrap().iter().enumerate() {
        let mut json = body.to_vec();
        if n == 1 {
            json.clear();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut json).unwrap();
        }
        for secret in [OLD, NEW] {
            standardwebhooks::Webhook::new(secret).unwrap().verify(&json, &head.headers).unwrap();
        }
        json[1] ^= 1;
        assert!(standardwebhooks::Webhook::new(NEW).unwrap().verify(&json, &head.headers).is_err(), "one bit");
    }
}

#[tokio::test]
async fn what_was_too_large_is_not_sent_in_that_size_again() {
    let (addr, received) =
        serve(|n| Response::builder().status([413, 200][n.min(1)]).body(Full::default()).unwrap()).await;
    let webhook = webhook(&WebhookConfig { compression: Compression::None, ..config(addr) });
    assert!(matches!(deliver(&webhook, &job(0..100)).await, Outcome::TooLarge { why: Failure::Status { .. } }));
    assert!(matches!(deliver(&webhook, &job(100..200)).await, Outcome::TooLarge { why: Failure::Local(_) }));
    assert_eq!(deliver(&webhook, &job(0..50)).await, Outcome::Delivered);
    assert_eq!(received.lock().unwrap().len(), 2, "the second would have been refused too");
}

#[tokio::test]
async fn a_limit_that_tells_when_it_is_reset_is_waited_for() {
    let (addr, _) = serve(|n| {
        // An hour ahead of us, and a moment by that clock.
        let ahead = [("x-ratelimit-reset", "1767229260"), ("date", "Thu, 01 Jan 2026 01:00:00 GMT")];
        let headers = [ahead, [("ratelimit", "\"a\";r=0;t=60"), ("x-ratelimit-reset", "5")]][n];
        let response = Response::builder().status(429).header(headers[0].0, headers[0].1);
        response.header(headers[1].0, headers[1].1).body(Full::default()).unwrap()
    })
    .await;
    let webhook = webhook(&config(addr));
    for _ in 0..2 {
        let Outcome::Throttled { retry_after, .. } = deliver(&webhook, &job(0..5)).await else { panic!("no throttle") };
        assert_eq!(retry_after, Some(Duration::from_secs(60)));
    }
}

#[tokio::test]
async fn each_attempt_is_signed_for_its_own_time_under_the_same_id() {
    let (addr, received) = serve(|n| Response::builder().status([500, 200][n]).body(Full::default()).unwrap()).await;
    let signing = vec![SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()];
    let config = WebhookConfig { signing, ..config(addr) };
    let clock = Arc::new(ManualClock::at(784_111_777_900));
    let webhook =
        Webhook::new(&config, AddressPolicy::Operator, 4, Arc::default(), Arc::clone(&clock) as Arc<dyn Clock>);
    assert!(matches!(deliver(&webhook, &job(0..5)).await, Outcome::Retry { .. }));
    clock.advance(Duration::from_secs(60));
    assert_eq!(deliver(&webhook, &job(0..5)).await, Outcome::Delivered);
    let received = received.lock().unwrap();
    let header = |n: usize, name: &str| received[n].0.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"));
    assert_eq!(
        (header(0, "webhook-timestamp"), header(1, "webhook-timestamp")),
        ("784111777".into(), "784111837".into())
    );
    assert_ne!(header(0, "webhook-signature"), header(1, "webhook-signature"));
}

#[tokio::test]
async fn a_customers_webhook_does_not_reach_this_machine() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    for url in [format!("http://{addr}/"), format!("http://localhost:{}/", addr.port())] {
        let config = WebhookConfig::new(Endpoint::parse(&url).unwrap());
        let clock = Arc::new(ManualClock::at(784_111_777_000));
        let webhook = Webhook::new(&config, AddressPolicy::Customer, 4, Arc::default(), clock);
        let Outcome::Retry { why: Failure::Connect(why) } = deliver(&webhook, &job(0..5)).await else {
            panic!("{url} was not refused")
        };
        assert!(why.contains("loopback") && !why.contains("127.0.0.1"), "{why}");
    }
    assert!(received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_success_whose_body_never_ends_is_a_success() {
    let addr = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", |stream| async move { drop(stream) }).await;
    assert_eq!(deliver(&webhook(&config(addr)), &job(0..5)).await, Outcome::Delivered);
}

#[tokio::test]
async fn an_answer_lost_after_the_request_is_a_retry() {
    let addr = raw(b"", |stream| async move { drop(stream) }).await;
    let outcome = deliver(&webhook(&config(addr)), &job(0..5)).await;
    assert!(matches!(outcome, Outcome::Retry { why: Failure::Broken(_) }), "{outcome:?}");
}

#[test]
fn the_same_job_gives_the_same_bytes() {
    let webhook = webhook(&config("localhost:1"));
    assert_eq!(webhook.encode(&job(3..777)).unwrap(), webhook.encode(&job(3..777)).unwrap());
}

#[test]
fn a_batch_with_fewer_records_than_the_log_says_is_refused() {
    let mut job = job(0..10);
    job.parts[0].take = 11;
    let error = webhook(&config("localhost:1")).encode(&job).unwrap_err();
    assert!(error.to_string().contains("offsets 0..10"), "{error}");
}

#[test]
fn an_idle_webhook_is_a_small_value() {
    assert!(size_of::<Webhook>() <= 88, "{} bytes", size_of::<Webhook>());
}
