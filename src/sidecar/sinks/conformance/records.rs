//! What goes out of a job, and where to: what is excepted, and customers' addresses.

use std::sync::Arc;

use http_body_util::Full;
use hyper::Response;

use super::files::Files;
use super::{LATER, SINKS, clock, deliver, endpoint, post, upstream};
use crate::config::{AmplitudeConfig, SegmentConfig, WebhookConfig};
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::sink::{Job, Sink};
use crate::sinks::address_guard::{AddressGuard, AddressPolicy};
use crate::sinks::amplitude::Amplitude;
use crate::sinks::receiver::serve;
use crate::sinks::s3::S3Sink;
use crate::sinks::s3::sample::bucket_at;
use crate::sinks::sample::job;
use crate::sinks::segment::Segment;
use crate::sinks::webhook::Webhook;

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
            assert_eq!(there, !job.except.contains(offset), "{} {offset}", subject.name);
        }
        if sink.large().is_none() {
            assert_eq!(sink.encode(&job).unwrap(), sink.encode(&job).unwrap(), "{}: the same bytes", subject.name);
        }
    }
    let (files, whole) = (Files::new(), job(8..23));
    let job = Job { except: [8, 13, 14, 22].into(), ..whole };
    for _ in 0..2 {
        assert_eq!(deliver(&files.sink(), &job, LATER).await, Outcome::Delivered);
        let keys: Vec<String> = files.lines().iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
        let sent = (8..23).filter(|offset| !job.except.contains(*offset)).map(|offset| format!("user-{offset}"));
        assert_eq!(keys, sent.collect::<Vec<_>>(), "each once, though the file was opened anew");
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
    let s3 = bucket_at(&base);
    let sinks: [(&str, Arc<dyn Sink>); 5] = [
        ("webhook", Arc::new(Webhook::new(&webhook, customer, 4, Arc::default(), clock()))),
        (
            "amplitude",
            Arc::new(Amplitude::new(&amplitude, 4, Arc::default(), clock()).behind(AddressGuard::customer(&[]))),
        ),
        ("segment", Arc::new(Segment::new(&segment, 4, Arc::default(), clock()).behind(AddressGuard::customer(&[])))),
        ("s3", Arc::new(S3Sink::new("acme-s3", &s3, customer, 2, Arc::default(), clock()))),
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
