use serde_json::{Value, json};

use super::*;
use crate::delivery::record_id;
use crate::sinks::sample::{job, job_of};

fn events(config: impl FnOnce(&mut AmplitudeConfig)) -> Events {
    let mut amplitude = AmplitudeConfig::new("key");
    config(&mut amplitude);
    Events::new(&amplitude)
}

fn read(encoded: &Encoded) -> Vec<Value> {
    let whole = [&encoded.body[..], b"]}"].concat();
    let mut body: Value = serde_json::from_slice(&whole).unwrap();
    serde_json::from_value(body["events"].take()).unwrap()
}

/// The event of a bulk with one impression of these fields beside its key.
fn event_of(fields: &str) -> Value {
    let encoded = events(|_| ()).encode(&job_of(&format!(r#"[{{"f":"x","i":[{{"k":"user-1"{fields}}}]}}]"#))).unwrap();
    assert_eq!(encoded.records(), 1);
    read(&encoded).remove(0)
}

#[test]
fn an_event_holds_whose_when_and_splits_fields_under_the_records_id() {
    let job = job(8..23);
    let encoded = events(|_| ()).encode(&job).unwrap();
    let all = read(&encoded);
    assert_eq!(all.len(), 15);
    let expected = json!({
        "event_type": "get_treatment",
        "user_id": "user-9",
        "time": 1_700_000_000_009_i64,
        "insert_id": format!("{}9", record_id::prefix(&job.origin)),
        "event_properties": {
            "key": "user-9", "split": "checkout", "environmentId": "acme-prod", "environmentName": "production",
            "treatment": "on", "time": 1_700_000_000_009_i64, "label": "default rule", "machineName": "host",
            "machineIp": "10.0.0.1", "splitVersionNumber": 5, "sdk": "rust", "sdkVersion": "1.2.3",
        },
    });
    assert_eq!(all[1], expected);
    assert!(encoded.rejected.is_empty());
}

#[test]
fn keys_become_devices_and_events_get_a_name_as_told() {
    let told = events(|config| {
        config.identity = AmplitudeIdentity::DeviceId;
        config.event_type = "Flag \"seen\"".to_owned();
    });
    let event = read(&told.encode(&job(0..1)).unwrap()).remove(0);
    assert_eq!((&event["event_type"], &event["device_id"]), (&json!("Flag \"seen\""), &json!("user-0")));
    assert!(event.get("user_id").is_none());
}

#[test]
fn sinks_that_write_or_leave_out_other_events_have_other_formats() {
    let names = [
        events(|_| ()).settings(),
        events(|config| config.event_type = "seen".to_owned()).settings(),
        events(|config| config.identity = AmplitudeIdentity::DeviceId).settings(),
        events(|config| config.min_id_length = 5).settings(),
    ];
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "{name}");
    }
    assert_eq!(events(|config| config.api_key = "another".to_owned().into()).settings(), names[0]);
}

#[test]
fn ids_that_amplitude_refuses_are_known_beforehand_however_they_are_spelled() {
    let bulk = r#"[{"f":"x","i":[{"k":"anonymous"},{"k":"user-1"},{"k":"\u0030"},{"k":"n\/a"},{"k":"Anonymous"},
        {"k":"00000000-0000-0000-0000-000000000000"},{"k":"{}"},{"k":"01"}]}]"#;
    let encoded = events(|_| ()).encode(&job_of(bulk)).unwrap();
    let offsets: Vec<u64> = encoded.rejected.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [100, 102, 103, 105, 106]);
    assert_eq!(encoded.offsets().collect::<Vec<_>>(), [101, 104, 107]);
    assert_eq!(encoded.rejected[2].reason, "Amplitude takes no user_id \"n/a\"");
    let sent: Vec<Value> = read(&encoded).iter().map(|event| event["user_id"].clone()).collect();
    assert_eq!(sent, ["user-1", "Anonymous", "01"]);
}

#[test]
fn ids_shorter_than_was_told_are_known_beforehand_and_counted_in_characters() {
    let bulk =
        r#"[{"f":"x","i":[{"k":"üüüü"},{"k":"üüüüü"},{"k":"\u00fc\u00fc\u00fc\u00fc"},{"k":"\ud83d\ude00abcd"}]}]"#;
    let encoded = events(|config| config.min_id_length = 5).encode(&job_of(bulk)).unwrap();
    let offsets: Vec<u64> = encoded.rejected.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [100, 102]);
    assert_eq!(encoded.rejected[0].reason, "user_id is shorter than min_id_length, 5");
}

#[test]
fn what_does_not_say_when_happened_when_it_was_received() {
    assert_eq!(event_of("")["time"], 1_700_000_000_000_i64);
    assert!(event_of("")["event_properties"].get("time").is_none());
}

#[test]
fn an_impressions_own_properties_stand_beside_splits_fields() {
    let event = event_of(r#","t":"on","properties":" {\"plan\":\"pr\u00f6\",\"nested\":{\"a\":[1,{}]}} ""#);
    let properties = &event["event_properties"];
    assert_eq!((&properties["plan"], &properties["nested"]), (&json!("prö"), &json!({"a": [1, {}]})));
    assert_eq!((&properties["split"], &properties["treatment"]), (&json!("x"), &json!("on")));
    assert!(properties.get("properties").is_none());
    assert_eq!(event_of(r#","properties":"{ }""#)["event_properties"].as_object().unwrap().len(), 8);
}

#[test]
fn a_property_with_a_fields_name_takes_its_place_once() {
    let event = event_of(r#","t":"on","properties":"{\"treatm\\u0065nt\":1.50,\"plan\":\"pro\"}""#);
    assert_eq!(event["event_properties"]["plan"], "pro");
    let job = job_of(r#"[{"f":"x","i":[{"k":"user-1","t":"on","properties":"{\"treatment\":1.50,\"a\":1}"}]}]"#);
    let text = String::from_utf8(events(|_| ()).encode(&job).unwrap().body.to_vec()).unwrap();
    assert_eq!(text.matches("\"treatment\"").count(), 1, "{text}");
    assert!(text.contains("\"treatment\":1.50"), "as it came: {text}");
}

#[test]
fn properties_that_are_no_object_stay_text() {
    for properties in ["[1]", "{", "{\\\"a\\\":1}{}", "nil", ""] {
        let event = event_of(&format!(r#","properties":"{properties}""#));
        let plain = properties.replace('\\', "");
        assert_eq!(event["event_properties"]["properties"], plain, "{properties}");
    }
}

#[test]
fn the_same_job_gives_the_same_bytes() {
    let events = events(|_| ());
    assert_eq!(events.encode(&job(3..777)).unwrap(), events.encode(&job(3..777)).unwrap());
}
