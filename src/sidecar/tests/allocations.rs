//! What is allocated on the way of an impression does not grow with the number of impressions.
//!
//! Counted, not timed, and on this thread alone. Allowed are: what a post costs whatever is in it, a fixed number for
//! each part, and one for each doubling of a buffer whose size could not be known ahead.

use std::sync::Arc;

use allocation_counter::measure;
use forebay::clock::SystemClock;
use forebay::{LogId, StreamId};
use forebay_sidecar::config::{AmplitudeConfig, SegmentConfig};
use forebay_sidecar::delivery::except::Except;
use forebay_sidecar::delivery::sink::{Environment, Job, Origin, Part, Sink};
use forebay_sidecar::impression::{
    BatchMeta, EnvironmentLabel, Form, Limits, Parsed, StoredBatch, parse, write_json_lines, write_split_objects,
};
use forebay_sidecar::sinks::amplitude::Amplitude;
use forebay_sidecar::sinks::segment::Segment;
use serde_json::Value;

const ENVIRONMENT: EnvironmentLabel<'_> = EnvironmentLabel { id: "acme-prod", name: "production" };
const META: BatchMeta<'_> = BatchMeta {
    sdk: b"nodejs-11.11.2",
    machine_name: b"web-1",
    machine_ip: b"10.1.2.3",
    mode: b"DEBUG",
    received_ms: 1_795_450_895_000,
    sdk_key_index: 0,
};
const FEW: usize = 100;
const MANY: usize = 10_000;
/// `MANY` is seven doublings of `FEW`.
const DOUBLINGS: u64 = 7;
/// For each part: its buffer, and the cut to what it holds.
const PER_PART: u64 = 2;

/// A way to spell a post of so many impressions.
type Shape = fn(usize) -> (Form, String);

const SHAPES: [(&str, Shape); 7] = [
    ("as Node sends", |n| (Form::Bulk, format!("[{}]", groups("\"f\"", "\"i\"", "exp_checkout", node, n, 400)))),
    ("as Python sends", |n| (Form::Bulk, format!("[{}]", groups("\"f\"", "\"i\"", "exp_checkout", python, n, 400)))),
    ("everything given, with escapes", |n| {
        (Form::Bulk, format!("[{}]", groups("\"f\"", "\"i\"", "a\\\"flag", everything, n, 400)))
    }),
    ("a flag to each impression", |n| (Form::Bulk, format!("[{}]", groups("\"f\"", "\"i\"", "flag", node, n, 1)))),
    ("names spelled with escapes", |n| {
        (Form::Bulk, format!("[{}]", groups("\"\\u0066\"", "\"\\u0069\"", "flag", spelled_out, n, 10)))
    }),
    ("a beacon", |n| {
        let entries = groups("\"f\"", "\"i\"", "exp_checkout", node, n, 400);
        (Form::Beacon, format!(r#"{{"entries":[{entries}],"token":"key","sdk":"browserjs-1.7.1","sim":"DEBUG"}}"#))
    }),
    ("the flag behind its impressions", |n| {
        let list: Vec<String> = (0..n).map(node).collect();
        (Form::Bulk, format!(r#"[{{"i":[{}],"f":"exp_checkout"}}]"#, list.join(",")))
    }),
];

/// `n` impressions, `per_group` of them under a flag.
fn groups(
    flag_name: &str,
    list_name: &str,
    flag: &str,
    one: fn(usize) -> String,
    n: usize,
    per_group: usize,
) -> String {
    let numbers: Vec<usize> = (0..n).collect();
    let group = |numbers: &[usize]| {
        let list: Vec<String> = numbers.iter().map(|number| one(*number)).collect();
        format!(r#"{{{flag_name}:"{flag}-{}",{list_name}:[{}]}}"#, numbers[0], list.join(","))
    };
    numbers.chunks(per_group).map(group).collect::<Vec<_>>().join(",")
}

fn node(n: usize) -> String {
    let time = 1_795_450_894_053 + n;
    format!(r#"{{"k":"user-{n:06}","t":"on","m":{time},"c":1700000000001,"r":"default rule"}}"#)
}

fn python(n: usize) -> String {
    let time = 1_795_450_894_053 + n;
    format!(r#"{{"k": "user-{n:06}", "t": "on", "m": {time}, "c": 17, "r": "default rule", "b": null, "pt": null}}"#)
}

/// Every field, each another than the impression's before it.
fn everything(n: usize) -> String {
    let time = 1_795_450_894_053 + n;
    format!(
        r#"{{"k":"\ud83d\ude00 user-{n:06}","t":"on\n{n:06}","m":{time},"c":{time},"r":"rule \"{n:06}\"","b":"b-{n:06}","pt":{time},"properties":"{{\"n\":{n:06}}}","unknown":{{"a":[1,"\t"]}}}}"#
    )
}

fn spelled_out(n: usize) -> String {
    format!(r#"{{"\u006b":"user-{n:06}","\u0074":"on","\u006d":{n},"p\u0074":1,"unkn\u006fwn":2}}"#)
}

/// Parses, and says how many allocations that took.
fn parsed(body: &str, form: Form, limits: &Limits) -> (Parsed, u64) {
    let mut parsed = None;
    let counted = measure(|| parsed = parse(body.as_bytes(), form, &META, limits).ok());
    (parsed.expect("a post"), counted.count_total)
}

/// Allocations of the whole way out, for every part: decode, read, and write in both forms.
fn sending(parsed: &Parsed) -> u64 {
    let (mut out, mut read) = (Vec::with_capacity(64 << 20), 0);
    let counted = measure(|| {
        for part in &parsed.parts {
            let batch = StoredBatch::decode(&part.payload).expect("just stored");
            read +=
                batch.records().map(|record| record.expect("just stored").key.as_bytes().len().min(1)).sum::<usize>();
            let records = part.records as usize;
            write_split_objects(&batch, 0, records, &ENVIRONMENT, &mut out, &mut true).expect("all are there");
            let id = |_: usize, out: &mut Vec<u8>| out.extend_from_slice(b"ABCDEFGHIJKLMNOPQRSTUV-B-Qk9");
            write_json_lines(&batch, 0, records, &ENVIRONMENT, &mut out, id).expect("all are there");
        }
    });
    assert_eq!(read as u64, parsed.records);
    counted.count_total
}

/// Before: a body of more rejects than are kept one by one was kept whole beside them, so that it was in memory three times.
#[test]
fn a_body_in_which_nothing_is_an_impression_takes_its_size_again_and_no_more() {
    let beside = 512 << 10; // the reasons, and an array that grows
    for (element, elements) in
        [("\"no impression\"".to_owned(), 500_000), ("7".repeat(8_000), 1_000), ("8".repeat(8_000), 1_001)]
    {
        let body = format!("[{}]", vec![element.as_str(); elements].join(","));
        let mut rejected = 0;
        let counted = measure(|| {
            rejected = parse(body.as_bytes(), Form::Bulk, &META, &Limits::default()).expect("it is JSON").rejected;
        });
        assert_eq!(rejected, elements as u64);
        let most = body.len() as u64 + beside;
        assert!(counted.bytes_max <= most, "{} of {most} bytes, {elements} elements", counted.bytes_max);
    }
}

#[test]
fn storing_allocates_for_posts_and_parts_and_not_for_impressions() {
    for (name, shape) in SHAPES {
        let [(few, at_few), (many, at_many)] = [FEW, MANY].map(|records| {
            let (form, body) = shape(records);
            let (parsed, count) = parsed(&body, form, &Limits::default());
            assert_eq!((parsed.records, parsed.rejected), (records as u64, 0), "{name}");
            (parsed, count)
        });
        let parts = (many.parts.len() - few.parts.len()) as u64;
        assert!(at_few > 0, "{name}: the counter counts");
        assert!(
            at_many <= at_few + PER_PART * parts + DOUBLINGS,
            "{name}: {at_few}, then {at_many} with {parts} parts more"
        );
    }
}

#[test]
fn reading_and_sending_allocate_as_much_for_a_hundred_impressions_as_for_ten_thousand() {
    // One part, however large: what is written anew for each part is counted once.
    let limits = Limits { part_bytes: 64 << 20, ..Limits::default() };
    for (name, shape) in SHAPES {
        let [at_few, at_many] = [FEW, MANY].map(|records| {
            let (form, body) = shape(records);
            let (parsed, _) = parsed(&body, form, &limits);
            assert_eq!(parsed.parts.len(), 1, "{name}");
            sending(&parsed)
        });
        assert_eq!(at_few, at_many, "{name}");
    }
}

#[test]
fn reading_a_stored_batch_allocates_nothing() {
    for (name, shape) in SHAPES {
        let (form, body) = shape(MANY);
        let (parsed, _) = parsed(&body, form, &Limits::default());
        let mut read = 0;
        let counted = measure(|| {
            for part in &parsed.parts {
                let batch = StoredBatch::decode(&part.payload).expect("just stored");
                read += batch.records().filter(|record| record.is_ok()).count();
            }
        });
        assert_eq!((read, counted.count_total), (MANY, 0), "{name}");
    }
}

/// Properties that are read on the way, apart from Split's fields. Flat ones: for objects in them the reader allocates.
fn with_properties(n: usize) -> String {
    let time = 1_795_450_894_053 + n;
    format!(r#"{{"k":"user-{n:06}","t":"on","m":{time},"properties":"{{\"plan\":\"pro\",\"n\":1{n:06}}}"}}"#)
}

#[test]
fn events_are_encoded_with_as_many_allocations_for_a_hundred_as_for_ten_thousand() {
    let clock = Arc::new(SystemClock::new());
    let amplitude = Amplitude::new(&AmplitudeConfig::new("key"), 1, Arc::default(), clock.clone());
    let segment = Segment::new(&SegmentConfig::new("key"), 1, Arc::default(), clock);
    let sinks: [(&str, &dyn Sink); 2] = [("amplitude", &amplitude), ("segment", &segment)];
    let limits = Limits { part_bytes: 64 << 20, ..Limits::default() };
    for (name, sink) in sinks {
        for one in [node, with_properties] {
            let [at_few, at_many] = [FEW, MANY].map(|records| {
                let body = format!("[{}]", groups("\"f\"", "\"i\"", "exp_checkout", one, records, records));
                let part = parsed(&body, Form::Bulk, &limits).0.parts.remove(0);
                let job = Job {
                    id: "batch".into(),
                    origin: Origin { log: LogId(7), stream: StreamId(1), offsets: 0..records as u64 },
                    environment: Arc::new(Environment { id: "acme-prod".to_owned(), name: "production".to_owned() }),
                    bytes: part.payload.len() as u64,
                    parts: vec![Part { payload: part.payload.into(), skip: 0, take: records, first: 0 }],
                    except: Except::default(),
                };
                let mut encoded = None;
                let counted = measure(|| encoded = sink.encode(&job).ok());
                assert_eq!(encoded.expect("just stored").records(), records as u64);
                counted.count_total
            });
            assert!(at_few > 0 && at_many <= at_few + DOUBLINGS, "{name}: {at_few}, then {at_many}");
        }
    }
}

/// Rejects are kept one by one with their reasons, so they cost; but only as many as are kept so.
#[test]
fn rejects_beyond_those_that_are_kept_one_by_one_allocate_only_where_their_array_grows() {
    let limits = Limits { rejects_max: 10, ..Limits::default() };
    let [at_few, at_many] = [FEW, MANY].map(|records| {
        let body = format!(r#"[{{"f":"flag","i":[{}]}}]"#, vec![r#"{"t":"on"}"#; records].join(","));
        let (parsed, count) = parsed(&body, Form::Bulk, &limits);
        assert_eq!((parsed.records, parsed.rejected), (0, records as u64));
        count
    });
    assert!(at_many <= at_few + DOUBLINGS, "{at_few}, then {at_many}");
}

/// What real SDKs sent, once and fifty times over.
#[test]
fn captured_posts_fifty_times_over_allocate_no_more_than_once() {
    const TIMES: usize = 50;
    let captures = [
        include_str!("../../../storage-tests/captures/java-debug.json"),
        include_str!("../../../storage-tests/captures/node-debug.json"),
        include_str!("../../../storage-tests/captures/python-debug.json"),
    ];
    let limits = Limits { part_bytes: 64 << 20, ..Limits::default() };
    for capture in captures {
        let capture: Value = serde_json::from_str(capture).unwrap();
        let requests = capture["requests"].as_array().unwrap();
        let bulk = requests.iter().find(|request| request["path"] == "/api/testImpressions/bulk").unwrap();
        let once = bulk["body_text"].as_str().unwrap();
        let groups = once.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap();
        let often = format!("[{}]", vec![groups; TIMES].join(","));
        let (one, at_one) = parsed(once, Form::Bulk, &limits);
        let (fifty, at_fifty) = parsed(&often, Form::Bulk, &limits);
        assert!(one.records > 100);
        assert_eq!(fifty.records, one.records * TIMES as u64);
        assert!(at_fifty <= at_one + DOUBLINGS, "{at_one}, then {at_fifty}");
        assert_eq!(sending(&one), sending(&fifty));
    }
}
