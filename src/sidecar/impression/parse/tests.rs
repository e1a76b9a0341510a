use super::*;
use crate::impression::{EnvironmentLabel, StoredBatch, UnreadableWhy, write_split_objects};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse_form(body: &str, form: Form) -> Parsed {
    parse(body.as_bytes(), form, &BatchMeta::default(), &Limits::default()).unwrap()
}

fn parse_bulk(body: &str) -> Parsed {
    parse_form(body, Form::Bulk)
}

fn refused(body: &str, form: Form) -> Unreadable {
    parse(body.as_bytes(), form, &BatchMeta::default(), &Limits::default()).unwrap_err()
}

/// Everything that was stored, as Split's objects without what is the same in all.
fn stored(parsed: &Parsed) -> Vec<Value> {
    let mut out = b"[".to_vec();
    let mut first = true;
    for part in &parsed.parts {
        let batch = StoredBatch::decode(&part.payload).unwrap();
        let environment = EnvironmentLabel { id: "", name: "" };
        write_split_objects(&batch, 0, part.records as usize, &environment, &mut out, &mut first).unwrap();
    }
    out.push(b']');
    let mut objects: Vec<Value> = serde_json::from_slice(&out).unwrap();
    for object in &mut objects {
        let object = object.as_object_mut().unwrap();
        object.remove("environmentId");
        object.remove("environmentName");
    }
    objects
}

fn reasons(parsed: &Parsed) -> Vec<&str> {
    parsed.rejects.iter().map(|reject| reject.reason.as_str()).collect()
}

#[test]
fn a_body_without_impressions_is_fine() {
    for body in ["[]", " [ ] ", r#"[{"f":"x","i":[]}]"#, r#"[{"f":"x","i":null}]"#] {
        let parsed = parse_bulk(body);
        assert_eq!((parsed.records, parsed.parts.len(), parsed.rejected), (0, 0, 0), "{body}");
    }
    assert_eq!(parse_form(r#"{"entries":[]}"#, Form::Beacon).records, 0);
    assert_eq!(parse_form(r#"{"impressions":[]}"#, Form::Listener).records, 0);
}

#[test]
fn only_flag_and_key_are_needed_and_null_is_as_good_as_missing() {
    let parsed = parse_bulk(
        r#"[{"f":"x","i":[{"k":"a"},{"k":"b","t":null,"m":null,"c":null,"r":null,"b":null,"pt":null,"properties":null}]}]"#,
    );
    assert_eq!(stored(&parsed), [json!({"key": "a", "split": "x"}), json!({"key": "b", "split": "x"})]);
}

#[test]
fn an_element_that_cannot_be_an_impression_is_kept_raw_and_the_rest_is_stored() {
    let parsed = parse_bulk(
        r#"[7, {"i":[{"k":"lost"}]}, {"f":5,"i":[]}, {"f":"x"}, {"f":"x","i":{}},
            {"f":"x","i":[{"t":"on"}, {"k": 1}, [], {"k":"a","m":1e3}, {"k":"a","c":9223372036854775808}, {"k":"a","properties":{}}, {"k":"kept"}]}]"#,
    );
    assert_eq!(stored(&parsed), [json!({"key": "kept", "split": "x"})]);
    let raws: Vec<&str> = parsed.rejects.iter().map(|reject| std::str::from_utf8(&reject.raw).unwrap()).collect();
    assert_eq!(
        raws,
        [
            "7",
            r#"{"i":[{"k":"lost"}]}"#,
            r#"{"f":5,"i":[]}"#,
            r#"{"f":"x"}"#,
            r#"{"f":"x","i":{}}"#,
            r#"{"t":"on"}"#,
            r#"{"k": 1}"#,
            "[]",
            r#"{"k":"a","m":1e3}"#,
            r#"{"k":"a","c":9223372036854775808}"#,
            r#"{"k":"a","properties":{}}"#,
        ]
    );
    assert_eq!(parsed.rejected, 11);
    assert_eq!(
        reasons(&parsed)[..7],
        [
            "a group must be an object (byte 1 of the body)",
            "the group has no \"f\" (byte 4 of the body)",
            "the group's \"f\" must be a string (byte 26 of the body)",
            "the group has no \"i\" (byte 42 of the body, flag \"x\")",
            "the group's \"i\" must be an array (byte 53 of the body, flag \"x\")",
            "the impression has no \"k\" (byte 97 of the body, flag \"x\")",
            "the impression's \"k\" must be a string (byte 109 of the body, flag \"x\")",
        ]
    );
    assert!(reasons(&parsed)[8].starts_with("the impression's \"m\" must be a whole number of 64 bits"));
}

#[test]
fn a_flag_behind_its_impressions_is_their_flag() {
    let parsed = parse_bulk(r#"[{"i":[{"k":"a"},{"k":"b"}],"f":"x"},{"i":[{"k":"c"}],"f":"y"}]"#);
    let flags: Vec<Value> = stored(&parsed).iter().map(|object| object["split"].clone()).collect();
    assert_eq!(flags, ["x", "x", "y"]);
}

#[test]
fn where_a_name_comes_twice_the_last_counts() {
    let parsed = parse_bulk(r#"[{"f":"w","i":[{"k":"a","k":"b","m":"x","m":1}]},{"f":"x","i":[{"k":"c"},5],"f":"y"}]"#);
    assert_eq!(stored(&parsed), [json!({"key": "b", "split": "w", "time": 1}), json!({"key": "c", "split": "y"})]);
    assert_eq!(parsed.rejected, 1);
    let parsed = parse_bulk(r#"[{"f":"x","i":[{"k":"a"}],"i":[{"k":"b"}]}]"#);
    assert_eq!(stored(&parsed), [json!({"key": "b", "split": "x"})]);
    // A right value that a wrong one follows does not count.
    assert_eq!(parse_bulk(r#"[{"f":"x","i":[{"k":"a","k":1}]}]"#).rejected, 1);
}

#[test]
fn names_are_known_in_any_spelling() {
    let parsed = parse_bulk(r#"[{"\u0066":"x","\u0069":[{"\u006b":"a","p\u0074":5}]}]"#);
    let payload = &parsed.parts[0].payload;
    let record = StoredBatch::decode(payload).unwrap().records().next().unwrap().unwrap();
    assert_eq!((record.key.as_bytes(), record.previous_time_ms), (&b"a"[..], Some(5)));
}

#[test]
fn a_beacon_says_its_key_sdk_and_mode_wherever_they_stand() {
    let body = r#"{"token":"key-\u0031","entries":[{"f":"x","i":[{"k":"a"}]}],"sdk":"browserjs-1.7.1","sim":"OPTIMIZED","new":[]}"#;
    let meta = BatchMeta { sdk: b"from-header", machine_name: b"host", ..BatchMeta::default() };
    let parsed = parse(body.as_bytes(), Form::Beacon, &meta, &Limits::default()).unwrap();
    assert_eq!(parsed.token.as_ref().unwrap().secret(), "key-1");
    assert_eq!(beacon_token(body.as_bytes()).unwrap(), parsed.token);
    let batch = StoredBatch::decode(&parsed.parts[0].payload).unwrap();
    let shared = batch.shared();
    assert_eq!(shared.sdk.as_bytes(), b"browserjs-1.7.1");
    assert_eq!(shared.mode.as_bytes(), b"OPTIMIZED");
    assert_eq!(shared.machine_name.as_bytes(), b"host");
}

#[test]
fn a_key_of_a_beacon_is_shown_by_no_formatter() {
    let parsed = parse_form(r#"{"entries":[],"token":"s3cret"}"#, Form::Beacon);
    assert!(!format!("{parsed:?}").contains("s3cret"));
    assert_eq!(parse_form(r#"{"entries":[],"token":5}"#, Form::Beacon).token, None);
}

#[test]
fn a_listener_post_is_read_by_its_own_names() {
    let body = r#"{"impressions":[{"testName":"flag","keyImpressions":[
        {"keyName":"u1","treatment":"on","time":1795450894053,"changeNumber":1700000000001,"label":"default rule","bucketingKey":"b?","pt":0,"properties":"{}"},
        {"keyName":"u2","treatment":"off","time":1,"changeNumber":2,"label":""},
        {"k":"not a listener's name"}]}],
        "sdkVersion":"java-4.18.2","machineIP":"10.0.0.1","machineName":"host"}"#;
    let parsed = parse_form(body, Form::Listener);
    let common =
        json!({"split": "flag", "sdk": "java", "sdkVersion": "4.18.2", "machineIp": "10.0.0.1", "machineName": "host"});
    let with = |fields: Value| {
        let mut object = common.clone();
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        object
    };
    assert_eq!(
        stored(&parsed),
        [
            with(
                json!({"key": "u1", "treatment": "on", "time": 1_795_450_894_053_i64, "splitVersionNumber": 1_700_000_000_001_i64,
                        "label": "default rule", "bucketingKey": "b?", "properties": "{}"})
            ),
            with(json!({"key": "u2", "treatment": "off", "time": 1, "splitVersionNumber": 2, "label": ""})),
        ]
    );
    assert!(reasons(&parsed)[0].starts_with("the impression has no \"keyName\""));
    // Split Evaluator sends the impressions alone.
    let evaluator =
        r#"{"impressions":[{"testName":"flag","keyImpressions":[{"keyName":"u1","treatment":"on","time":1}]}]}"#;
    assert_eq!(parse_form(evaluator, Form::Listener).records, 1);
}

#[test]
fn a_body_of_another_shape_is_refused_where_it_differs() {
    let wrong_shape = |unreadable: Unreadable| match unreadable.why {
        UnreadableWhy::WrongShape { .. } => unreadable.at,
        other => panic!("{other:?}"),
    };
    assert_eq!(wrong_shape(refused(" {}", Form::Bulk)), 1);
    assert_eq!(wrong_shape(refused("null", Form::Bulk)), 0);
    assert_eq!(wrong_shape(refused("[]", Form::Beacon)), 0);
    assert_eq!(wrong_shape(refused(r#"{"sdk":"x"}"#, Form::Beacon)), 0);
    assert_eq!(wrong_shape(refused(r#"{"entries":{"pf":[]}}"#, Form::Beacon)), 11);
    assert_eq!(wrong_shape(refused(r#"{"entries":[]}"#, Form::Listener)), 0);
    let message = refused(r#"{"entries":5}"#, Form::Beacon).to_string();
    assert_eq!(message, "cannot be read from byte 11 on: expected an object with an array \"entries\"");
    // What is not JSON is called so, whatever it begins like.
    assert_eq!(refused("{", Form::Bulk), Unreadable { at: 1, why: UnreadableWhy::Truncated });
}

#[test]
fn a_body_that_is_not_json_is_refused_as_a_whole() {
    let body = r#"[{"f":"x","i":[{"k":"a"},{"k":"b"}]}"#;
    assert_eq!(refused(body, Form::Bulk), Unreadable { at: body.len(), why: UnreadableWhy::Truncated });
    assert_eq!(refused("[] x", Form::Bulk).at, 3);
    assert_eq!(refused("", Form::Bulk), Unreadable { at: 0, why: UnreadableWhy::Truncated });
    assert_eq!(refused(r#"{"entries":[]} x"#, Form::Beacon).at, 15);
    let deep = format!(r#"[{{"f":"x","i":[{{"k":"a","u":{}}}]}}]"#, "[".repeat(200));
    assert!(matches!(refused(&deep, Form::Bulk).why, UnreadableWhy::TooDeep { limit: 128 }));
    // The limit counts from the outermost bracket: four of them are around an unknown field.
    let nested =
        |depth: usize| format!(r#"[{{"f":"x","i":[{{"k":"a","u":{}{}}}]}}]"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(parse_bulk(&nested(124)).records, 1);
    assert!(matches!(refused(&nested(125), Form::Bulk).why, UnreadableWhy::TooDeep { .. }));
}

#[test]
fn header_values_of_any_bytes_become_text() {
    let meta = BatchMeta { sdk: b"x-\"1\"", machine_name: b"h\xF6st", machine_ip: b"", ..BatchMeta::default() };
    let parsed = parse(br#"[{"f":"x","i":[{"k":"a"}]}]"#, Form::Bulk, &meta, &Limits::default()).unwrap();
    assert_eq!(
        stored(&parsed),
        [json!({"key": "a", "split": "x", "sdk": "x", "sdkVersion": "\"1\"", "machineName": "h\u{FFFD}st"})]
    );
}

#[test]
fn what_every_part_repeats_is_bounded() {
    let limits = Limits { part_bytes: 1_000, flag_bytes_max: 10, shared_bytes_max: 8, ..Limits::default() };
    let host = "ä".repeat(1_000);
    let meta = BatchMeta { machine_name: host.as_bytes(), ..BatchMeta::default() };
    let body = format!(r#"[{{"f":"{}","i":[{{"k":"a"}}]}},{{"f":"0123456789","i":[{{"k":"b"}}]}}]"#, "x".repeat(11));
    let parsed = parse(body.as_bytes(), Form::Bulk, &meta, &limits).unwrap();
    assert_eq!(stored(&parsed), [json!({"key": "b", "split": "0123456789", "machineName": "ääää"})]);
    assert_eq!(reasons(&parsed), ["the flag's name is longer than 10 bytes (byte 1 of the body)"]);
}

#[test]
fn too_many_rejects_are_kept_in_arrays() {
    let body = r#"[1,2,3,[4, 4],{"f":"x","i":[{"k":"a"},{"k":5}]}]"#;
    let limits = Limits { rejects_max: 2, ..Limits::default() };
    let parsed = parse(body.as_bytes(), Form::Bulk, &BatchMeta::default(), &limits).unwrap();
    assert_eq!((parsed.records, parsed.rejected), (1, 5));
    let raws: Vec<&[u8]> = parsed.rejects.iter().map(|reject| reject.raw.as_slice()).collect();
    assert_eq!(raws, [&b"1"[..], b"2", br#"[3,[4, 4],{"k":5}]"#]);
    assert!(reasons(&parsed)[2].starts_with("3 more elements"));
}

#[test]
fn an_array_of_rejects_is_of_a_frames_size_at_most_unless_one_of_them_is_larger() {
    let [small, large] = [100_000, 300_000].map(|bytes| format!("\"{}\"", "x".repeat(bytes)));
    let body = format!("[{}]", [&small, &small, &small, &large, &small].map(String::as_str).join(","));
    let limits = Limits { rejects_max: 0, ..Limits::default() };
    let parsed = parse(body.as_bytes(), Form::Bulk, &BatchMeta::default(), &limits).unwrap();
    let raws: Vec<&[u8]> = parsed.rejects.iter().map(|reject| reject.raw.as_slice()).collect();
    let expected = [format!("[{small},{small}]"), format!("[{small}]"), format!("[{large}]"), format!("[{small}]")];
    assert!(raws == expected.each_ref().map(|array| array.as_bytes()));
}

#[test]
fn a_large_body_is_cut_into_parts_that_hold_all_of_it() {
    let impressions: Vec<String> = (0..20_000).map(|n| format!(r#"{{"k":"user-{n}","t":"on","m":{n}}}"#)).collect();
    let body = format!(r#"[{{"f":"x","i":[{}]}}]"#, impressions.join(","));
    let parsed = parse_bulk(&body);
    assert_eq!(parsed.records, 20_000);
    assert!(
        parsed.parts.len() > 1 && parsed.parts.iter().all(|part| part.payload.len() <= Limits::default().part_bytes)
    );
    let times: Vec<Value> = stored(&parsed).iter().map(|object| object["time"].clone()).collect();
    assert_eq!(times, (0..20_000).map(Value::from).collect::<Vec<_>>());
}

/// A payload is allocated once, at its final size or a little above, unless the impressions are of an odd kind.
#[test]
fn payloads_of_usual_impressions_do_not_grow() {
    let impressions: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"k":"user-{n:06}","t":"on","m":1795450894053,"c":1700000000001,"r":"default rule"}}"#))
        .collect();
    let body = format!(r#"[{{"f":"exp_checkout","i":[{}]}}]"#, impressions.join(","));
    let part = parse_bulk(&body).parts.remove(0);
    let expected = body.len() / 8 * 5 + 64;
    assert!(
        part.payload.len() <= expected && part.payload.capacity() <= expected + 64,
        "{} of {}",
        part.payload.len(),
        part.payload.capacity()
    );
}

// The oracle: what the same body means by serde_json and the rules, written down a second time.

/// The objects that should be stored and the number of rejects.
fn meaning(body: &Value) -> (Vec<Value>, u64) {
    let mut objects = Vec::new();
    let mut rejected = 0;
    for group in body.as_array().unwrap() {
        match (group.get("f").and_then(Value::as_str), group.get("i")) {
            (Some(_), Some(Value::Null)) => {}
            (Some(flag), Some(Value::Array(impressions))) => {
                for impression in impressions {
                    match object_of(flag, impression) {
                        Some(object) => objects.push(object),
                        None => rejected += 1,
                    }
                }
            }
            _ => rejected += 1,
        }
    }
    (objects, rejected)
}

fn object_of(flag: &str, impression: &Value) -> Option<Value> {
    let mut object = json!({"split": flag, "key": impression.get("k")?.as_str()?});
    let names = [
        ("t", "treatment"),
        ("r", "label"),
        ("b", "bucketingKey"),
        ("properties", "properties"),
        ("m", "time"),
        ("c", "splitVersionNumber"),
    ];
    for (name, split_name) in names {
        let value = impression.get(name).filter(|value| !value.is_null());
        if value.is_some_and(|value| if matches!(name, "m" | "c") { !value.is_i64() } else { !value.is_string() }) {
            return None;
        }
        if let Some(value) = value {
            object[split_name] = value.clone();
        }
    }
    impression.get("pt").is_none_or(|pt| pt.is_null() || pt.is_i64()).then_some(object)
}

fn string_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(r"\u0041".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just(r#"\""#.to_owned()),
        Just(r"\\n".to_owned()),
        Just("é🙂".to_owned()),
        "[ -!#-\\[\\]-~]{0,20}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn value_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => string_text(),
        4 => any::<i64>().prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["null", "true", "1.5", "1e3", "[]", r#"{"k":["x",{}]}"#, "12345678901234567890"]).prop_map(str::to_owned),
    ]
}

fn impression_text() -> impl Strategy<Value = String> {
    let names = vec!["k", "t", "m", "c", "r", "b", "pt", "properties", "et", r"\u006b", r"\u0074"];
    let odd = prop::collection::vec((prop::sample::select(names), value_text()), 0..3);
    let usual = (string_text(), string_text(), any::<i64>(), any::<i64>(), string_text());
    (usual, odd, any::<bool>()).prop_map(|((k, t, m, c, r), odd, odd_first)| {
        let usual = format!(r#""k": {k},"t":{t} , "m":{m},"c":{c},"r":{r}"#);
        let odd: Vec<String> = odd.into_iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        let mut members = vec![usual];
        members.splice(if odd_first { 0..0 } else { 1..1 }, odd);
        format!("{{{}}}", members.join(","))
    })
}

fn group_text() -> impl Strategy<Value = String> {
    let list = prop::collection::vec(prop_oneof![9 => impression_text(), 1 => value_text()], 0..5)
        .prop_map(|items| format!("[{}]", items.join(",")));
    let flag = || string_text().prop_map(|flag| format!(r#""f":{flag}"#));
    let list = list.prop_map(|list| format!(r#""i":{list}"#));
    prop_oneof![
        6 => (flag(), list.clone()).prop_map(|(flag, list)| format!("{{{flag},{list}}}")),
        1 => (flag(), list.clone()).prop_map(|(flag, list)| format!("{{{list},{flag}}}")),
        1 => (flag(), list.clone(), flag(), list).prop_map(|(a, b, c, d)| format!("{{{a},{b},{c},\"x\":1,{d}}}")),
        1 => (value_text(), value_text()).prop_map(|(f, i)| format!(r#"{{"f":{f},"i":{i}}}"#)),
        1 => value_text(),
    ]
}

proptest! {
    #[test]
    fn what_is_stored_and_rejected_is_what_the_rules_make_of_serde_jsons_reading(groups in prop::collection::vec(group_text(), 0..5), part_bytes in 50_usize..1_000) {
        let body = format!("[{}]", groups.join(" ,"));
        let (objects, rejected) = meaning(&serde_json::from_str(&body).unwrap());
        let limits = Limits { part_bytes, ..Limits::default() };
        let parsed = parse(body.as_bytes(), Form::Bulk, &BatchMeta::default(), &limits).unwrap();
        prop_assert_eq!(stored(&parsed), objects);
        prop_assert_eq!((parsed.rejected, parsed.rejects.len() as u64), (rejected, rejected));
        // A beacon around the same groups means the same.
        let beacon = parse_form(&format!(r#"{{"sim":"DEBUG","entries":{body}}}"#), Form::Beacon);
        prop_assert_eq!(stored(&beacon), stored(&parsed));
        for reject in &parsed.rejects {
            prop_assert!(serde_json::from_slice::<Value>(&reject.raw).is_ok());
        }
    }

    #[test]
    fn what_is_rejected_is_all_there_however_many_are_kept_one_by_one(groups in prop::collection::vec(group_text(), 0..5), rejects_max in 0_usize..4) {
        let body = format!("[{}]", groups.join(","));
        let whole = parse_bulk(&body);
        let limits = Limits { rejects_max, ..Limits::default() };
        let parsed = parse(body.as_bytes(), Form::Bulk, &BatchMeta::default(), &limits).unwrap();
        prop_assert_eq!((parsed.records, parsed.rejected), (whole.records, whole.rejected));
        let (one_by_one, arrays) = parsed.rejects.split_at(rejects_max.min(parsed.rejects.len()));
        prop_assert_eq!(one_by_one, &whole.rejects[..one_by_one.len()]);
        let read = |raw: &[u8]| serde_json::from_slice::<Value>(raw).unwrap();
        let in_arrays = arrays.iter().flat_map(|array| read(&array.raw).as_array().unwrap().clone()).collect::<Vec<_>>();
        let rest = whole.rejects[one_by_one.len()..].iter().map(|reject| read(&reject.raw)).collect::<Vec<_>>();
        prop_assert_eq!(in_arrays, rest);
        prop_assert!(parsed.rejects.iter().map(|reject| reject.raw.len()).sum::<usize>() <= body.len());
    }

    #[test]
    fn a_body_with_a_changed_byte_is_refused_exactly_if_serde_json_refuses_it(groups in prop::collection::vec(group_text(), 0..4), place: prop::sample::Index, byte: u8, cut: bool) {
        let mut body = format!("[{}]", groups.join(",")).into_bytes();
        let place = place.index(body.len());
        if cut { body.truncate(place) } else { body[place] = byte }
        let taken = parse(&body, Form::Bulk, &BatchMeta::default(), &Limits::default());
        let is_json = std::str::from_utf8(&body).is_ok() && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        let wrong_shape = matches!(taken, Err(Unreadable { why: UnreadableWhy::WrongShape { .. }, .. }));
        prop_assert_eq!(taken.is_ok() || wrong_shape, is_json);
    }
}
