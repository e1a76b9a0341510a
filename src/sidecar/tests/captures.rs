//! What real SDKs sent goes in, and what the application evaluated comes out, as a multiset.
//!
//! Without HTTP and without the log: parser, stored form and encoders alone.

mod evaluated;

use forebay_sidecar::impression::{
    BatchMeta, EnvironmentLabel, Form, Limits, Parsed, StoredBatch, parse, write_json_lines, write_split_objects,
};
use serde_json::{Map, Value, json};

use evaluated::{CAPTURES, arrived, expected, multiset};

const ENVIRONMENT: EnvironmentLabel<'_> = EnvironmentLabel { id: "env", name: "test" };

/// Parses a request of a capture, if it carries impressions and was taken.
fn parsed(request: &Value) -> Option<Parsed> {
    let form = match request["path"].as_str()? {
        "/api/testImpressions/bulk" => Form::Bulk,
        "/api/testImpressions/beacon" => Form::Beacon,
        _ => return None,
    };
    if request["answered"] != "200" {
        return None;
    }
    let header = |wanted: &str| -> &[u8] {
        let headers = request["headers"].as_array().unwrap();
        let found = headers.iter().find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted));
        found.map_or(b"", |header| header[1].as_str().unwrap().as_bytes())
    };
    let meta = BatchMeta {
        sdk: header("SplitSDKVersion"),
        machine_name: header("SplitSDKMachineName"),
        machine_ip: header("SplitSDKMachineIP"),
        mode: header("SplitSDKImpressionsMode"),
        received_ms: 1_795_450_895_000,
        sdk_key_index: 0,
    };
    let body = request["body_text"].as_str().unwrap();
    // Small parts, so that every capture is cut.
    let limits = Limits { part_bytes: 4_096, ..Limits::default() };
    Some(parse(body.as_bytes(), form, &meta, &limits).unwrap())
}

/// All objects and all lines that come of a capture.
fn delivered(requests: &str) -> (Vec<Value>, Vec<Value>) {
    let capture: Value = serde_json::from_str(requests).unwrap();
    let mut array = b"[".to_vec();
    let mut first = true;
    let mut lines = Vec::new();
    for parsed in capture["requests"].as_array().unwrap().iter().filter_map(parsed) {
        assert_eq!((parsed.rejected, parsed.rejects.len()), (0, 0));
        for part in &parsed.parts {
            let batch = StoredBatch::decode(&part.payload).unwrap();
            let records = part.records as usize;
            let half = records / 2;
            write_split_objects(&batch, 0, half, &ENVIRONMENT, &mut array, &mut first).unwrap();
            write_split_objects(&batch, half, records - half, &ENVIRONMENT, &mut array, &mut first).unwrap();
            write_json_lines(&batch, 0, records, &ENVIRONMENT, &mut lines, |place, out| {
                out.extend_from_slice(place.to_string().as_bytes());
            })
            .unwrap();
        }
    }
    array.push(b']');
    let lines = String::from_utf8(lines).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (serde_json::from_slice(&array).unwrap(), lines)
}

#[test]
fn what_was_evaluated_is_what_arrives() {
    for (name, requests, evaluated) in CAPTURES {
        let (objects, lines) = delivered(requests);
        let (plain, with_previous) = expected(name, evaluated);
        assert!(!plain.is_empty());
        assert_eq!(multiset(objects.iter().map(arrived)), plain, "{name}");
        let lines = lines.iter().map(|line| {
            let mut object = arrived(line);
            object["previous_time"] = line["previousTime"].clone();
            object
        });
        assert_eq!(multiset(lines), with_previous, "{name}");
    }
}

#[test]
fn lines_are_the_objects_and_what_the_webhook_leaves_out() {
    for (name, requests, _) in CAPTURES {
        let (objects, lines) = delivered(requests);
        assert_eq!(objects.len(), lines.len(), "{name}");
        for (object, mut line) in objects.into_iter().zip(lines) {
            let line: &mut Map<String, Value> = line.as_object_mut().unwrap();
            assert!(line.remove("id").is_some());
            assert_eq!(line.remove("receivedTime"), Some(json!(1_795_450_895_000_i64)));
            assert!(line.remove("impressionsMode").is_some_and(|mode| mode == "DEBUG" || mode == "OPTIMIZED"));
            line.remove("previousTime");
            assert_eq!(object.as_object().unwrap(), line, "{name}");
            let sdk = format!("{}-{}", object["sdk"].as_str().unwrap(), object["sdkVersion"].as_str().unwrap());
            assert!(requests.contains(&sdk), "{name}: {sdk}");
        }
    }
}
