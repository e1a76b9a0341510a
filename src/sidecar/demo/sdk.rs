//! The demo's SDKs: evaluate flags, and post the impressions in bulk every quarter of a second, as real ones do.
//!
//! Like the most careful of them they keep a bulk that was refused and send it again. Every impression has a number of
//! its own, so that whoever gets it can say which one it was.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::Clock;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{MissedTickBehavior, interval};

use super::ledger;

/// The applications of the demo: what each calls itself, and where it runs.
pub(super) const APPLICATIONS: [Application; 4] = [
    Application { version: "python-10.7.0", machine: "shop-1", ip: "10.0.0.1" },
    Application { version: "nodejs-11.11.2", machine: "shop-2", ip: "10.0.0.2" },
    Application { version: "java-4.18.2", machine: "billing-1", ip: "10.0.0.3" },
    Application { version: "go-6.8.1", machine: "search-1", ip: "10.0.0.4" },
];

/// Impressions in a bulk.
pub(super) const BULK: u64 = 250;

/// Between two bulks of one application.
const PERIOD: Duration = Duration::from_millis(250);

/// What all applications send together.
pub(super) const RECORDS_PER_SECOND: u64 = BULK * APPLICATIONS.len() as u64 * 4;

/// The flags that are evaluated, with what they come to.
const FLAGS: [(&str, [&str; 2]); 4] = [
    ("new_checkout", ["on", "off"]),
    ("search_ranking", ["v1", "v2"]),
    ("dark_mode", ["on", "off"]),
    ("free_shipping", ["50_eur", "none"]),
];

/// One application with an SDK in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Application {
    version: &'static str,
    machine: &'static str,
    ip: &'static str,
}

/// What the applications have done together.
#[derive(Debug, Default)]
pub(super) struct Sent {
    evaluated: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

impl Sent {
    /// Impressions evaluated: their numbers are those below.
    pub(super) fn evaluated(&self) -> u64 {
        self.evaluated.load(Ordering::Relaxed)
    }

    /// Impressions in posts that were answered with 2xx.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Posts that were not.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The numbers of the next bulk.
    fn evaluate(&self) -> std::ops::Range<u64> {
        let first = self.evaluated.fetch_add(BULK, Ordering::Relaxed);
        first..first + BULK
    }
}

/// Runs an application until `until` by the clock, and then until its last bulk is taken.
pub(super) async fn run(
    application: Application,
    sidecar: SocketAddr,
    sdk_key: Arc<str>,
    clock: Arc<dyn Clock>,
    until: Duration,
    sent: Arc<Sent>,
) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut periods = interval(PERIOD);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        if clock.monotonic() >= until {
            return;
        }
        let body = Bytes::from(bulk(sent.evaluate(), clock.wall_ms()));
        while !post(&client, application, sidecar, &sdk_key, body.clone()).await {
            sent.refused.fetch_add(1, Ordering::Relaxed);
            periods.tick().await;
        }
        sent.acknowledged.fetch_add(BULK, Ordering::Relaxed);
    }
}

/// Posts a bulk. Whether it was taken.
async fn post(
    client: &Client<HttpConnector, Full<Bytes>>,
    application: Application,
    sidecar: SocketAddr,
    sdk_key: &str,
    body: Bytes,
) -> bool {
    let request = Request::post(format!("http://{sidecar}/api/testImpressions/bulk"))
        .header(AUTHORIZATION, format!("Bearer {sdk_key}"))
        .header(CONTENT_TYPE, "application/json")
        .header("SplitSDKVersion", application.version)
        .header("SplitSDKMachineName", application.machine)
        .header("SplitSDKMachineIP", application.ip)
        .header("SplitSDKImpressionsMode", "DEBUG")
        .body(Full::new(body))
        .expect("an address, a key without control characters and constants make a request");
    match client.request(request).await {
        Ok(answer) => {
            let taken = answer.status().is_success();
            // Read to its end, so that the connection is used again; what it says does not matter to an SDK.
            let _ = answer.into_body().collect().await;
            taken
        }
        Err(_) => false,
    }
}

/// The body of a post: impressions by flag, those of the same flag together.
fn bulk(numbers: std::ops::Range<u64>, now_ms: u64) -> String {
    let mut body = String::with_capacity(96 * BULK as usize);
    for (place, (flag, treatments)) in (0..).zip(FLAGS) {
        // Writing to a String cannot fail.
        let _ = write!(body, "{}{{\"f\":\"{flag}\",\"i\":[", if place == 0 { "[" } else { "," });
        let of_flag = numbers.clone().filter(|number| number % FLAGS.len() as u64 == place);
        for (count, number) in of_flag.enumerate() {
            let comma = if count == 0 { "" } else { "," };
            let (key, treatment) = (ledger::key(number), treatments[(number / 7 % 2) as usize]);
            let _ = write!(
                body,
                "{comma}{{\"k\":\"{key}\",\"t\":\"{treatment}\",\"m\":{now_ms},\"c\":1700000000001,\"r\":\"default rule\"}}"
            );
        }
        body.push_str("]}");
    }
    body.push(']');
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impression::{BatchMeta, Form, Limits, StoredBatch, parse};

    #[test]
    fn a_bulk_is_what_an_sdk_sends_and_holds_each_number_once() {
        let body = bulk(500..750, 1_795_450_895_000);
        let meta =
            BatchMeta { sdk: b"", machine_name: b"", machine_ip: b"", mode: b"", received_ms: 0, sdk_key_index: 0 };
        let parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap();
        assert_eq!((parsed.records, parsed.rejected), (250, 0));
        let mut numbers: Vec<u64> = Vec::new();
        for part in &parsed.parts {
            for record in StoredBatch::decode(&part.payload).unwrap().records() {
                numbers.push(ledger::number(&record.unwrap().key.unescape()).unwrap());
            }
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (500..750).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_are_given_out_once() {
        let sent = Sent::default();
        assert_eq!((sent.evaluate(), sent.evaluate(), sent.evaluated()), (0..250, 250..500, 500));
    }
}
