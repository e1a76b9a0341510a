//! What real SDKs sent, and what their applications evaluated, in terms that can be compared.
//!
//! Shared by the tests that put the captures in at different doors.

use std::collections::BTreeMap;

use serde_json::{Value, json};

macro_rules! capture {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../../storage-tests/captures/", $name, ".json")),
            include_str!(concat!("../../../../storage-tests/captures/", $name, ".evaluated.json")),
        )
    };
}

/// Name, requests, and what was evaluated.
pub(crate) const CAPTURES: [(&str, &str, &str); 8] = [
    capture!("browser-debug-navigate"),
    capture!("browser-optimized-navigate"),
    capture!("java-debug"),
    capture!("node-debug"),
    capture!("node-same-ms"),
    capture!("python-debug"),
    capture!("python-debug-repeat"),
    capture!("python-fail-503x3"),
];

pub(crate) type Multiset = BTreeMap<String, usize>;

pub(crate) fn multiset(objects: impl IntoIterator<Item = Value>) -> Multiset {
    let mut counts = Multiset::new();
    for object in objects {
        *counts.entry(object.to_string()).or_default() += 1;
    }
    counts
}

/// A webhook's object or a file's line by the names of the evaluated ones; what is not given is null.
pub(crate) fn arrived(object: &Value) -> Value {
    json!({
        "flag": object["split"],
        "key": object["key"],
        "bucketing_key": object["bucketingKey"],
        "treatment": object["treatment"],
        "time": object["time"],
        "label": object["label"],
        "change_number": object["splitVersionNumber"],
        "properties": properties(&object["properties"]),
    })
}

/// SDKs escape and order the JSON inside in their own ways, so what it says is compared.
fn properties(text: &Value) -> Value {
    text.as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

/// What the application evaluated and the SDK was to send, by the same names, with and without the previous time.
pub(crate) fn expected(name: &str, evaluated: &str) -> (Multiset, Multiset) {
    let evaluated: Value = serde_json::from_str(evaluated).unwrap();
    let mut plain = Vec::new();
    let mut with_previous = Vec::new();
    for one in evaluated["evaluated"].as_array().unwrap() {
        let browser = one.get("feature").is_some();
        let sent = if browser {
            one["feature"] != "quiet_flag" && (one["pt"].is_null() || !name.contains("optimized"))
        } else {
            one["on_wire"] == true
        };
        if !sent {
            continue;
        }
        let field = |name: &str, browsers: &str| one[if browser { browsers } else { name }].clone();
        let mut object = json!({
            "flag": field("flag", "feature"),
            "key": field("key", "keyName"),
            "bucketing_key": field("bucketing_key", "bucketingKey"),
            "treatment": one["treatment"],
            "time": one["time"],
            "label": one["label"],
            "change_number": field("change_number", "changeNumber"),
            "properties": properties(&one["properties"]),
        });
        plain.push(object.clone());
        object["previous_time"] = one["pt"].clone();
        with_previous.push(object);
    }
    (multiset(plain), multiset(with_previous))
}
