use super::*;
use crate::impression::{BatchMeta, Form, Limits, parse};

const ENVIRONMENT: EnvironmentLabel<'_> = EnvironmentLabel { id: "acme-prod", name: "prod \"1\"" };

/// The only payload of a bulk from one SDK.
fn payload(body: &str) -> Vec<u8> {
    let meta = BatchMeta {
        sdk: b"python-10.7.0",
        machine_name: b"web-1",
        machine_ip: b"10.1.2.3",
        mode: b"DEBUG",
        received_ms: 1_795_450_895_000,
        sdk_key_index: 0,
    };
    parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap().parts.remove(0).payload
}

fn split_objects(payload: &[u8], skip: usize, take: usize) -> Result<String, EncodeError> {
    let batch = StoredBatch::decode(payload).unwrap();
    let mut out = Vec::new();
    write_split_objects(&batch, skip, take, &ENVIRONMENT, &mut out, &mut true)?;
    Ok(String::from_utf8(out).unwrap())
}

const FULL: &str = r#"[{"f":"exp_checkout","i":[{"k":"us\u00e9r 🙂","t":"on","m":1795450894053,"c":1700000000001,"r":"default rule","b":"bucket","pt":1795450890000,"properties":"{\"plan\":\"pro\"}"}]}]"#;

#[test]
fn an_object_has_splits_fields_in_the_documented_order() {
    let expected = concat!(
        r#"{"key":"us\u00e9r 🙂","split":"exp_checkout","environmentId":"acme-prod","environmentName":"prod \"1\"","treatment":"on","#,
        r#""time":1795450894053,"bucketingKey":"bucket","label":"default rule","machineName":"web-1","machineIp":"10.1.2.3","#,
        r#""splitVersionNumber":1700000000001,"sdk":"python","sdkVersion":"10.7.0","properties":"{\"plan\":\"pro\"}"}"#,
    );
    assert_eq!(split_objects(&payload(FULL), 0, 1).unwrap(), expected);
}

#[test]
fn a_line_has_the_id_and_the_previous_and_receive_times_too() {
    let payload = payload(FULL);
    let batch = StoredBatch::decode(&payload).unwrap();
    let mut out = Vec::new();
    write_json_lines(&batch, 0, 1, &ENVIRONMENT, &mut out, |place, out| {
        out.extend_from_slice(format!("log-{}", 40 + place).as_bytes());
    })
    .unwrap();
    let line = String::from_utf8(out).unwrap();
    assert!(line.starts_with(r#"{"id":"log-40","key":"us\u00e9r 🙂","split":"exp_checkout","#), "{line}");
    let tail = r#","properties":"{\"plan\":\"pro\"}","previousTime":1795450890000,"impressionsMode":"DEBUG","receivedTime":1795450895000}"#;
    assert!(line.ends_with(&format!("{tail}\n")), "{line}");
}

#[test]
fn what_was_not_given_is_left_out() {
    let parsed =
        parse(br#"[{"f":"x","i":[{"k":"a"}]}]"#, Form::Bulk, &BatchMeta::default(), &Limits::default()).unwrap();
    let expected = r#"{"key":"a","split":"x","environmentId":"acme-prod","environmentName":"prod \"1\""}"#;
    assert_eq!(split_objects(&parsed.parts[0].payload, 0, 1).unwrap(), expected);
}

#[test]
fn any_range_of_a_batch_is_written_and_ranges_join_with_commas() {
    let payload = payload(r#"[{"f":"x","i":[{"k":"0"},{"k":"1"}]},{"f":"y","i":[{"k":"2"},{"k":"3"}]}]"#);
    let batch = StoredBatch::decode(&payload).unwrap();
    let mut out = b"[".to_vec();
    let mut first = true;
    for (skip, take) in [(1, 0), (1, 2), (3, 1)] {
        write_split_objects(&batch, skip, take, &ENVIRONMENT, &mut out, &mut first).unwrap();
    }
    out.push(b']');
    let objects: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
    let keys: Vec<(&str, &str)> =
        objects.iter().map(|object| (object["key"].as_str().unwrap(), object["split"].as_str().unwrap())).collect();
    assert_eq!(keys, [("1", "x"), ("2", "y"), ("3", "y")]);
    let mut ids = Vec::new();
    write_json_lines(&batch, 1, 2, &ENVIRONMENT, &mut Vec::new(), |place, _| ids.push(place)).unwrap();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn records_that_are_not_there_are_an_error_and_no_silence() {
    let payload = payload(r#"[{"f":"x","i":[{"k":"0"},{"k":"1"}]}]"#);
    assert_eq!(split_objects(&payload, 1, 2), Err(EncodeError::TooFew { wanted_from: 1, wanted_to: 3, found: 2 }));
    assert_eq!(split_objects(&payload, 5, 0), Err(EncodeError::TooFew { wanted_from: 5, wanted_to: 5, found: 2 }));
}

#[test]
fn an_sdk_is_cut_at_its_first_hyphen() {
    let cut = |sdk: &'static str| {
        let (name, version) = sdk_name_and_version(JsonText::checked(sdk.as_bytes()));
        (std::str::from_utf8(name.as_bytes()).unwrap(), std::str::from_utf8(version.as_bytes()).unwrap())
    };
    assert_eq!(cut("python-10.7.0"), ("python", "10.7.0"));
    assert_eq!(cut("ReactNative-1.0.0-rc.1"), ("ReactNative", "1.0.0-rc.1"));
    assert_eq!(cut("unknown"), ("unknown", ""));
    assert_eq!(cut(""), ("", ""));
}

#[test]
fn a_lone_surrogate_goes_through_as_it_came() {
    let out = split_objects(&payload(r#"[{"f":"x","i":[{"k":"a\ud800"}]}]"#), 0, 1).unwrap();
    assert!(out.starts_with(r#"{"key":"a\ud800","#), "{out}");
}
