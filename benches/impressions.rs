//! What an impression costs between the socket and the request, step by step, each beside the same done with the crates
//! that everybody would take: serde_json for JSON, prost for the stored form.
//!
//! `cargo bench --bench impressions [-- NAME]`. One thread, one body; the numbers are for the whole body, the throughput
//! for one impression. `gzip` is of what a webhook is sent, at each level that could be chosen, by flate2's backend that
//! this was built with.

#[path = "baseline/serde.rs"]
mod baseline;

use std::cell::Cell;
use std::hint::black_box;

use baseline::{Group, split_object};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, FlushCompress, Status};
use forebay_sidecar::impression::{
    BatchMeta, EnvironmentLabel, Form, Limits, Part, StoredBatch, beacon_token, parse, write_json_lines,
    write_split_objects,
};
use forebay_sidecar::proto::v1;
use prost::Message;
use serde::de::IgnoredAny;

const ENVIRONMENT: EnvironmentLabel<'_> = EnvironmentLabel { id: "acme-prod", name: "production" };

const META: BatchMeta<'_> = BatchMeta {
    sdk: b"nodejs-11.11.2",
    machine_name: b"web-1",
    machine_ip: b"10.1.2.3",
    mode: b"DEBUG",
    received_ms: 1_795_450_895_000,
    sdk_key_index: 0,
};

/// flate2's fastest and smallest, its default (6), and what lies between.
const GZIP_LEVELS: [u32; 5] = [1, 2, 4, 6, 9];

criterion_group!(benches, impressions, gzip);
criterion_main!(benches);

fn impressions(criterion: &mut Criterion) {
    for (sdk, per_body) in [("node", 1_000), ("node", 100), ("python", 1_000)] {
        let body = body(sdk, per_body);
        let stored = stored(&body, per_body);
        let mut step = |name: &str, bench: &dyn Fn(&mut BenchmarkGroup<'_, WallTime>)| {
            let mut group = criterion.benchmark_group(format!("{name}/{sdk}-{per_body}"));
            group.throughput(Throughput::Elements(per_body as u64));
            bench(&mut group);
            group.finish();
        };
        step("scan", &|group| scan(group, &body));
        step("parse", &|group| parse_and_store(group, &body));
        step("read", &|group| read(group, &stored));
        step("write", &|group| write(group, &body, &stored));
    }
}

/// A webhook's body of 1,000 impressions, compressed as the sidecar does it. Once with users that are counted, which hardly
/// differ from each other, once with users that are 32 digits of chance, of which nothing can be left out.
fn gzip(criterion: &mut Criterion) {
    let counted = body("node", 1_000);
    let by_chance = with_users_by_chance(&counted);
    for (users, body) in [("counted", counted), ("by-chance", by_chance)] {
        let plain = split_objects(&stored(&body, 1_000));
        let mut group = criterion.benchmark_group(format!("gzip/{users}-1000"));
        group.throughput(Throughput::Elements(1_000));
        for level in GZIP_LEVELS {
            let mut deflate = Compress::new_gzip(Compression::new(level), 15);
            let mut packed = Vec::with_capacity(plain.len());
            let told = Cell::new(false);
            group.bench_function(BenchmarkId::new("level", level), |bencher| {
                bencher.iter(|| {
                    deflate.reset();
                    packed.clear();
                    let status = deflate.compress_vec(black_box(&plain), &mut packed, FlushCompress::Finish);
                    assert!(matches!(status, Ok(Status::StreamEnd)), "there is room for all of it");
                });
                if !told.replace(true) {
                    let of = plain.len() as f64 / packed.len() as f64;
                    println!("{} bytes from {}, 1/{of:.2}", packed.len(), plain.len());
                }
            });
        }
        group.finish();
    }
}

/// What a webhook is sent of these, but for the brackets around it.
fn split_objects(stored: &[Part]) -> Vec<u8> {
    let (mut out, mut first) = (Vec::new(), true);
    for part in stored {
        let batch = StoredBatch::decode(&part.payload).expect("it was just written");
        write_split_objects(&batch, 0, part.records as usize, &ENVIRONMENT, &mut out, &mut first)
            .expect("all are there");
    }
    out
}

/// Another user for each impression: 32 hexadecimal digits of a simple sequence, the same in each run.
fn with_users_by_chance(body: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(body).expect("it is JSON");
    let mut state = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834_u128;
    let mut out = String::new();
    for (n, part) in text.split("user-").enumerate() {
        if n == 0 {
            out.push_str(part);
            continue;
        }
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5).wrapping_add(1);
        let user = state ^ (state >> 64);
        out.push_str(&format!("{user:032x}{}", &part["000000".len()..]));
    }
    out.into_bytes()
}

/// The JSON checked and stepped over, nothing taken from it: what a beacon's token costs.
fn scan(group: &mut BenchmarkGroup<'_, WallTime>, body: &[u8]) {
    let beacon = [br#"{"entries":"#, body, br#","token":"key"}"#].concat();
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| beacon_token(black_box(&beacon)).expect("the body is a beacon"));
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(&beacon)).expect("the body is JSON"));
    });
}

/// From a body to payloads for the log; beside it into borrowed structs, nothing stored.
fn parse_and_store(group: &mut BenchmarkGroup<'_, WallTime>, body: &[u8]) {
    let limits = Limits::default();
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| parse(black_box(body), Form::Bulk, &META, &limits).expect("the body is a bulk"));
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Vec<Group<'_>>>(black_box(body)).expect("the body is a bulk").len());
    });
}

/// The stored form read.
fn read(group: &mut BenchmarkGroup<'_, WallTime>, stored: &[Part]) {
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| {
            for part in stored {
                let batch = StoredBatch::decode(black_box(&part.payload)).expect("it was just written");
                for record in batch.records() {
                    black_box(record.expect("it was just written"));
                }
            }
        });
    });
    group.bench_function("prost", |bencher| {
        bencher.iter(|| {
            for part in stored {
                black_box(v1::StoredBatch::decode(black_box(&*part.payload)).expect("it was just written"));
            }
        });
    });
}

/// From the stored form to JSON for destinations; beside it from structs that are read already.
fn write(group: &mut BenchmarkGroup<'_, WallTime>, body: &[u8], stored: &[Part]) {
    let mut out = Vec::new();
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut first = true;
            for part in stored {
                let batch = StoredBatch::decode(black_box(&part.payload)).expect("it was just written");
                let records = part.records as usize;
                write_split_objects(&batch, 0, records, &ENVIRONMENT, &mut out, &mut first).expect("all are there");
            }
            out.len()
        });
    });
    group.bench_function("forebay, as lines", |bencher| {
        bencher.iter(|| {
            out.clear();
            for part in stored {
                let batch = StoredBatch::decode(black_box(&part.payload)).expect("it was just written");
                let id = |_: usize, out: &mut Vec<u8>| out.extend_from_slice(b"ABCDEFGHIJKLMNOPQRSTUV-B-Qk9");
                let records = part.records as usize;
                write_json_lines(&batch, 0, records, &ENVIRONMENT, &mut out, id).expect("all are there");
            }
            out.len()
        });
    });
    let groups: Vec<Group<'_>> = serde_json::from_slice(body).expect("the body is a bulk");
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| {
            out.clear();
            for group in black_box(&groups) {
                for impression in &group.i {
                    serde_json::to_writer(&mut out, &split_object(&group.f, impression, &ENVIRONMENT))
                        .expect("writing to memory");
                    out.push(b',');
                }
            }
            out.len()
        });
    });
}

fn stored(body: &[u8], per_body: usize) -> Vec<Part> {
    let parsed = parse(body, Form::Bulk, &META, &Limits::default()).expect("the body is a bulk");
    assert_eq!(parsed.records as usize, per_body);
    parsed.parts
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
