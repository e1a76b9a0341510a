//! What an impression costs between the socket and the request: parse and store, then read and write Split's objects;
//! beside it the same with serde_json, in the same run.
//!
//! `cargo bench -p forebay-sidecar --bench impressions`. One thread, best of several rounds, so that what else the
//! machine does falls out.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use forebay_sidecar::impression::{
    BatchMeta, EnvironmentLabel, Form, Limits, StoredBatch, parse, write_json_lines, write_split_objects,
};
use serde::{Deserialize, Serialize};

const ENVIRONMENT: EnvironmentLabel<'_> = EnvironmentLabel { id: "acme-prod", name: "production" };
const ROUNDS: usize = 15;
const IMPRESSIONS_PER_ROUND: usize = 200_000;

fn main() {
    for (sdk, per_body) in [("node", 1_000), ("node", 100), ("python", 1_000)] {
        let body = body(sdk, per_body);
        let bytes = body.len() as f64 / per_body as f64;
        println!("{sdk}, {per_body} impressions a body, {bytes:.0} bytes each:");
        let ours = measure_ours(&body, per_body);
        let serde = measure_serde_json(&body, per_body);
        println!("  serde_json / forebay, both ways: {:.1}", serde / ours);
    }
}

/// A body as the SDK would write it: Node leaves out what was not given, Python writes nulls and spaces.
fn body(sdk: &str, impressions: usize) -> Vec<u8> {
    let flags = ["exp_checkout", "color_button", "killed_flag", "new_search"];
    let groups: Vec<String> = flags
        .iter()
        .enumerate()
        .map(|(group, flag)| {
            let impressions: Vec<String> = (0..impressions / flags.len())
                .map(|n| {
                    let time = 1_795_450_894_053_u64 + n as u64;
                    if sdk == "python" {
                        format!(
                            r#"{{"k": "user-{n:06}", "t": "on", "m": {time}, "c": 170000000000{group}, "r": "default rule", "b": null, "pt": null}}"#
                        )
                    } else {
                        format!(r#"{{"k":"user-{n:06}","t":"on","m":{time},"c":170000000000{group},"r":"default rule"}}"#)
                    }
                })
                .collect();
            format!(r#"{{"f":"{flag}","i":[{}]}}"#, impressions.join(","))
        })
        .collect();
    format!("[{}]", groups.join(",")).into_bytes()
}

/// Prints nanoseconds per impression for each step. Returns those of parsing and encoding together.
fn measure_ours(body: &[u8], per_body: usize) -> f64 {
    let meta = BatchMeta {
        sdk: b"nodejs-11.11.2",
        machine_name: b"web-1",
        machine_ip: b"10.1.2.3",
        mode: b"DEBUG",
        received_ms: 1_795_450_895_000,
        sdk_key_index: 0,
    };
    let limits = Limits::default();
    let parsed = parse(body, Form::Bulk, &meta, &limits).expect("the body is a bulk");
    assert_eq!(parsed.records as usize, per_body);
    let payloads: Vec<(&[u8], usize)> =
        parsed.parts.iter().map(|part| (part.payload.as_slice(), part.records as usize)).collect();

    let parsing = best(per_body, || {
        black_box(parse(black_box(body), Form::Bulk, &meta, &limits).expect("the body is a bulk"));
    });
    let reading = best(per_body, || {
        for (payload, _) in &payloads {
            let batch = StoredBatch::decode(black_box(payload)).expect("it was just written");
            for record in batch.records() {
                black_box(record.expect("it was just written"));
            }
        }
    });
    let mut out = Vec::new();
    let objects = best(per_body, || {
        out.clear();
        let mut first = true;
        for (payload, records) in &payloads {
            let batch = StoredBatch::decode(black_box(payload)).expect("it was just written");
            write_split_objects(&batch, 0, *records, &ENVIRONMENT, &mut out, &mut first).expect("all are there");
        }
        black_box(&out);
    });
    let object_bytes = out.len() / per_body;
    let lines = best(per_body, || {
        out.clear();
        for (payload, records) in &payloads {
            let batch = StoredBatch::decode(black_box(payload)).expect("it was just written");
            let id = |_: usize, out: &mut Vec<u8>| out.extend_from_slice(b"ABCDEFGHIJKLMNOPQRSTUV-B-Qk9");
            write_json_lines(&batch, 0, *records, &ENVIRONMENT, &mut out, id).expect("all are there");
        }
        black_box(&out);
    });
    let stored_bytes = payloads.iter().map(|(payload, _)| payload.len()).sum::<usize>() / per_body;
    println!("  parse and store {parsing:6.1} ns  ({stored_bytes} bytes stored)");
    println!("  read            {reading:6.1} ns");
    println!("  read and write  {objects:6.1} ns  ({object_bytes} bytes an object)");
    println!("  … as lines      {lines:6.1} ns");
    println!("  both ways       {:6.1} ns", parsing + objects);
    parsing + objects
}

#[derive(Deserialize)]
struct Group<'a> {
    #[serde(borrow)]
    f: Cow<'a, str>,
    #[serde(borrow)]
    i: Vec<Impression<'a>>,
}

#[derive(Deserialize)]
struct Impression<'a> {
    #[serde(borrow)]
    k: Cow<'a, str>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    m: i64,
    c: Option<i64>,
    #[serde(borrow)]
    r: Option<Cow<'a, str>>,
    #[serde(borrow)]
    b: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SplitObject<'a> {
    key: &'a str,
    split: &'a str,
    environment_id: &'a str,
    environment_name: &'a str,
    treatment: &'a str,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucketing_key: Option<&'a str>,
    label: Option<&'a str>,
    machine_name: &'a str,
    machine_ip: &'a str,
    split_version_number: Option<i64>,
    sdk: &'a str,
    sdk_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a str>,
}

/// Parses into borrowed structs and writes Split's objects of them, nothing stored in between.
fn measure_serde_json(body: &[u8], per_body: usize) -> f64 {
    let parsing = best(per_body, || {
        black_box(serde_json::from_slice::<Vec<Group<'_>>>(black_box(body)).expect("the body is a bulk"));
    });
    let groups: Vec<Group<'_>> = serde_json::from_slice(body).expect("the body is a bulk");
    let mut out = Vec::new();
    let objects = best(per_body, || {
        out.clear();
        for group in black_box(&groups) {
            for impression in &group.i {
                let object = SplitObject {
                    key: &impression.k,
                    split: &group.f,
                    environment_id: ENVIRONMENT.id,
                    environment_name: ENVIRONMENT.name,
                    treatment: &impression.t,
                    time: impression.m,
                    bucketing_key: impression.b.as_deref(),
                    label: impression.r.as_deref(),
                    machine_name: "web-1",
                    machine_ip: "10.1.2.3",
                    split_version_number: impression.c,
                    sdk: "nodejs",
                    sdk_version: "11.11.2",
                    properties: impression.properties.as_deref(),
                };
                serde_json::to_writer(&mut out, &object).expect("writing to memory");
                out.push(b',');
            }
        }
        black_box(&out);
    });
    println!("  serde_json      {parsing:6.1} ns in, {objects:.1} ns out");
    parsing + objects
}

/// Nanoseconds per impression of `step`, which handles `per_body` of them: the best of several rounds.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn best(per_body: usize, mut step: impl FnMut()) -> f64 {
    let bodies = IMPRESSIONS_PER_ROUND.div_ceil(per_body);
    let mut shortest = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..bodies {
            step();
        }
        shortest = shortest.min(start.elapsed());
    }
    shortest.as_nanos() as f64 / (bodies * per_body) as f64
}
