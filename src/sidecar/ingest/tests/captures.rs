//! What real SDKs sent, with the headers they sent, lies in the log as it was sent. That it is also what was evaluated
//! is shown beside the parser.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::harness::{Running, frames, post, start};
use crate::impression::{Impression, JsonText, StoredBatch};

macro_rules! capture {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../storage-tests/captures/", $name, ".json")))
    };
}

const CAPTURES: [(&str, &str); 8] = [
    capture!("browser-debug-navigate"),
    capture!("browser-optimized-navigate"),
    capture!("java-debug"),
    capture!("node-debug"),
    capture!("node-same-ms"),
    capture!("python-debug"),
    capture!("python-debug-repeat"),
    capture!("python-fail-503x3"),
];

#[tokio::test]
async fn what_sdks_sent_is_what_is_stored() {
    for (name, text) in CAPTURES {
        let capture: Value = serde_json::from_str(text).unwrap();
        let server = start().await;
        let mut sent = Vec::new();
        for request in capture["requests"].as_array().unwrap() {
            replay(&server, request).await;
            sent.extend(impressions_of(request));
        }
        assert!(!sent.is_empty());
        assert_eq!(multiset(stored(&server)), multiset(sent), "{name}");
        assert_eq!(server.prod().rejected, 0, "{name}");
    }
}

async fn replay(server: &Running, request: &Value) {
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
        .filter(|(name, _)| !["host", "content-length", "connection"].contains(&&*name.to_lowercase()))
        .collect();
    let path = request["path"].as_str().unwrap();
    let body = request["body_text"].as_str().unwrap();
    let reply = server.send(post(path, &headers, body)).await;
    let expected = if is_impressions(path) { 200 } else { 202 };
    assert_eq!(reply.status, expected, "{path}: {reply:?}");
}

fn is_impressions(path: &str) -> bool {
    path.ends_with("testImpressions/bulk") || path.ends_with("testImpressions/beacon")
}

/// The impressions of a request with what its headers say of the SDK; what is null or missing is null.
fn impressions_of(request: &Value) -> Vec<Value> {
    if !is_impressions(request["path"].as_str().unwrap()) {
        return Vec::new();
    }
    let headers = request["headers"].as_array().unwrap();
    let header = |wanted: &str| {
        let found = headers.iter().find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted));
        found.map_or("", |header| header[1].as_str().unwrap())
    };
    let body: Value = serde_json::from_str(request["body_text"].as_str().unwrap()).unwrap();
    let beacon = body.is_object();
    let sdk = if beacon { body["sdk"].as_str().unwrap() } else { header("SplitSDKVersion") };
    let groups = if beacon { &body["entries"] } else { &body };
    let of_group = |group: &Value| {
        let flag = group["f"].clone();
        let machine = header("SplitSDKMachineName");
        let all = group["i"].as_array().unwrap().clone();
        all.into_iter().map(move |one| {
            json!([
                sdk,
                machine,
                flag,
                one["k"],
                one["t"],
                one["m"],
                one["c"],
                one["r"],
                one["b"],
                one["pt"],
                one["properties"]
            ])
        })
    };
    groups.as_array().unwrap().iter().flat_map(of_group).collect()
}

fn stored(server: &Running) -> Vec<Value> {
    let mut all = Vec::new();
    for (payload, records) in frames(&server.log, "prod") {
        let batch = StoredBatch::decode(&payload).unwrap();
        let shared = (text(batch.shared().sdk), text(batch.shared().machine_name));
        let before = all.len();
        all.extend(batch.records().map(|record| as_sent(&shared, &record.unwrap())));
        assert_eq!(all.len() - before, records as usize);
    }
    all
}

fn as_sent((sdk, machine): &(String, String), one: &Impression<'_>) -> Value {
    json!([
        sdk,
        machine,
        text(one.flag),
        text(one.key),
        one.treatment.map(text),
        one.time_ms,
        one.change_number,
        one.label.map(text),
        one.bucketing_key.map(text),
        one.previous_time_ms,
        one.properties.map(text)
    ])
}

fn text(text: JsonText<'_>) -> String {
    text.unescape().into_owned()
}

/// Identical impressions are legitimate, so they are counted.
fn multiset(all: Vec<Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one.to_string()).or_default() += 1;
    }
    counts
}
