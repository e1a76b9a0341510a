//! Posts go out as they came, and what is kept of them holds no key.

use hyper::header::{CONTENT_TYPE, ORIGIN, USER_AGENT};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const KEY: &str = "sdk-key-of-a-customer-0001";

const CAPTURES: [&str; 6] = [
    include_str!("../../../storage-tests/captures/python-debug.json"),
    include_str!("../../../storage-tests/captures/node-debug.json"),
    include_str!("../../../storage-tests/captures/java-debug.json"),
    include_str!("../../../storage-tests/captures/browser-debug-navigate.json"),
    include_str!("../../../storage-tests/captures/browser-optimized-navigate.json"),
    include_str!("../../../storage-tests/captures/python-fail-503x3.json"),
];

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    list.iter().map(header).collect()
}

fn arrival(kind: Kind, key: &str) -> Arrival<'_> {
    Arrival { kind, received_ms: 5, environment: "prod", key: key.as_bytes(), sdk_key_index: 2 }
}

fn kept(kind: Kind, key: &str, list: &[(&str, &str)], body: &[u8]) -> Bytes {
    keep(&arrival(kind, key), &headers(list), &Bytes::copy_from_slice(body)).unwrap().into()
}

fn holds(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

#[test]
fn what_real_sdks_sent_goes_out_as_it_came_and_no_key_is_kept() {
    let mut posts = 0;
    let mut beacons = 0;
    for capture in CAPTURES {
        let capture: Value = serde_json::from_str(capture).unwrap();
        for request in capture["requests"].as_array().unwrap() {
            let path = request["path"].as_str().unwrap().trim_start_matches("/api/");
            let kind = Kind::ALL.into_iter().find(|kind| kind.path() == path).expect("a known path");
            let body = request["body_text"].as_str().unwrap().as_bytes();
            let list: Vec<(&str, &str)> = request["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
                .collect();
            let sent = headers(&list);
            let bearer = sent.get(AUTHORIZATION).map(|value| value.to_str().unwrap().trim_start_matches("Bearer "));
            let key = bearer.map_or_else(|| token(body).expect("a beacon's token"), str::to_owned);
            let payload = kept(kind, &key, &list, body);
            assert!(!holds(&payload, &key), "{path}: the key is kept");
            let post = Post::read(&payload).unwrap();
            assert_eq!((post.path(), post.environment(), post.sdk_key_index()), (path, "prod", 2));
            assert_eq!(post.received_ms(), 5);
            assert_eq!(post.key_check(), Check::of(key.as_bytes()));
            let out = post.request(&key).unwrap();
            assert!(out.body == body, "{path}: the bytes are those of the sdk");
            for name in sent.keys() {
                let of_ours = name == AUTHORIZATION || name.as_str().starts_with("splitsdk");
                if of_ours || [CONTENT_TYPE, USER_AGENT, ORIGIN].contains(name) {
                    assert_eq!(out.headers.get(name), sent.get(name), "{path} {name}");
                } else {
                    assert_eq!(out.headers.get(name), None, "{path} {name}");
                }
            }
            posts += 1;
            beacons += usize::from(kind.is_beacon());
        }
    }
    assert!(posts >= 25 && beacons == 8, "{posts} {beacons}");
}

#[test]
fn the_end_of_the_key_that_java_shows_is_not_kept_either() {
    let list = [("Authorization", "Bearer x"), ("SplitSDKClientKey", "0001")];
    let payload = kept(Kind::Counts, KEY, &list, b"{}");
    assert!(!holds(&payload, "0001"));
    let out = Post::read(&payload).unwrap().request(KEY).unwrap();
    assert_eq!(out.headers[CLIENT_KEY], "0001");
    assert!(out.headers[CLIENT_KEY].is_sensitive() && out.headers[AUTHORIZATION].is_sensitive());
    let of_another = kept(Kind::Counts, KEY, &[("SplitSDKClientKey", "9999")], b"{}");
    assert!(!holds(&of_another, "9999"), "it may be the end of another key");
}

#[test]
fn a_token_spelt_with_escapes_is_cut_out_and_comes_back_equal_as_json() {
    let escaped = r#"{"entries":[],"token":"sdk\u002dkey-of-a-customer-0001","sdk":"b"}"#;
    assert_eq!(token(escaped.as_bytes()).as_deref(), Some(KEY));
    let payload = kept(Kind::EventsBeacon, KEY, &[], escaped.as_bytes());
    assert!(!holds(&payload, "customer"));
    let out = Post::read(&payload).unwrap().request(KEY).unwrap();
    let equal = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(equal(&out.body), equal(escaped.as_bytes()));
}

#[test]
fn a_key_of_odd_characters_and_a_short_one_come_back_too() {
    for key in [r#"odd"key\with-escapes"#, "k", "\"", "key-8-by"] {
        let body = format!(r#"{{"token":{},"entries":{{"pf":[]}}}}"#, serde_json::to_string(key).unwrap());
        assert_eq!(token(body.as_bytes()).as_deref(), Some(key));
        let payload = kept(Kind::CountsBeacon, key, &[], body.as_bytes());
        assert!(!holds(&payload, &serde_json::to_string(key).unwrap()), "{key}");
        assert_eq!(Post::read(&payload).unwrap().request(key).unwrap().body, body, "{key}");
    }
}

#[test]
fn a_header_that_holds_the_key_and_those_of_the_hop_are_left_out() {
    let long = "x".repeat(9 * 1024);
    let list = [
        ("SplitSDKMachineName", "host-sdk-key-of-a-customer-0001"),
        ("Cookie", "session=1"),
        ("Connection", "close"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("SplitSDKVersion", "go-6.8.1"),
        ("User-Agent", &long),
    ];
    let out = Post::read(&kept(Kind::Events, KEY, &list, b"[]")).unwrap().request(KEY).unwrap();
    assert_eq!(out.headers, headers(&[("SplitSDKVersion", "go-6.8.1")]));
}

#[test]
fn a_proxys_name_for_the_mode_is_kept_as_it_is() {
    let list = [("SDKImpressionsMode", "optimized"), ("SplitSDKMachineIp", "NA")];
    let out = Post::read(&kept(Kind::Impressions, KEY, &list, b"[]")).unwrap().request(KEY).unwrap();
    assert_eq!(out.headers, headers(&list));
}

#[test]
fn a_token_is_found_in_envelopes_and_in_nothing_else() {
    for body in
        ["", "[]", "{}", r#"{"token":7}"#, r#"{"token":null}"#, r#"{"token":"a"#, r#"{"token":"a","token":"b"}"#]
    {
        assert_eq!(token(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_post_is_never_taken_for_impressions() {
    let payload = kept(Kind::Counts, KEY, &[("splitsdkversion", "go-6.8.1")], b"\x0a\x01x\x12\x03\x0a\x01k");
    assert!(crate::impression::cut_out(&payload, 0).is_err(), "a dead letter is kept as the whole post");
    let records = crate::impression::StoredBatch::decode(&payload).map_or(0, |batch| batch.records().count());
    assert_eq!(records, 0);
}

#[test]
fn a_stream_is_named_by_environment_and_key_and_read_back() {
    assert_eq!(stream("acme-prod", 3), "posts/acme-prod/3");
    assert_eq!(stream_owner("posts/acme-prod/3"), Some(("acme-prod", 3)));
    for other in ["acme-prod", "posts/", "posts/acme-prod", "posts/a/b", "posts/a/1/2"] {
        assert_eq!(stream_owner(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn any_body_around_any_key_comes_back_and_the_key_is_not_in_what_is_kept(
        key in "[!-~]{8,40}",
        texts in vec("[a-z0-9\"\\\\{}:,]{0,12}", 1..6),
        beacon: bool,
    ) {
        let as_json = serde_json::to_string(&key).unwrap();
        let body = texts.join(&as_json[1..as_json.len() - 1]);
        let kind = if beacon { Kind::EventsBeacon } else { Kind::Events };
        let payload = kept(kind, &key, &[("authorization", "Bearer x")], body.as_bytes());
        prop_assert!(!holds(&payload, &as_json[1..as_json.len() - 1]));
        let out = Post::read(&payload).unwrap().request(&key).unwrap();
        prop_assert_eq!(out.body, body);
        prop_assert_eq!(out.headers[AUTHORIZATION].to_str().unwrap(), format!("Bearer {key}"));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_what_is_read_can_be_sent(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(post) = Post::read(&Bytes::from(bytes)) {
            prop_assert!(post.request(KEY).is_ok());
            prop_assert!(!post.path().is_empty());
        }
    }

    #[test]
    fn a_damaged_post_is_read_or_refused(at: prop::sample::Index, bit in 0..8u8) {
        let list = [("authorization", "x"), ("splitsdkversion", "go-6.8.1"), ("splitsdkclientkey", "0001")];
        let mut bytes = kept(Kind::Counts, KEY, &list, b"{\"pf\":[]}").to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(post) = Post::read(&Bytes::from(bytes)) {
            prop_assert!(post.request(KEY).is_ok());
        }
    }
}

#[test]
fn what_people_are_shown_of_a_body_is_its_beginning_without_the_key() {
    let excerpt = |body: &[u8], chars| Post::read(&kept(Kind::EventsBeacon, KEY, &[], body)).unwrap().excerpt(chars);
    let body = format!("{{\"token\":\"{KEY}\",\"é\":1}}");
    assert_eq!(excerpt(body.as_bytes(), 100), "{\"token\":\"[sdk key]\",\"é\":1}");
    assert_eq!(excerpt(body.as_bytes(), 13), "{\"token\":\"[sd");
    assert_eq!(excerpt(&[b'a', 0xff, b'b'], 2), "a\u{fffd}");
    assert_eq!(excerpt(b"", 5), "");
}

/// A body of nothing but the key was cut into as many pieces as it had keys: 150 MB of pieces for 64 MiB, nowhere counted.
#[test]
fn a_body_that_names_its_key_more_often_than_any_sdk_does_is_refused_and_takes_no_memory() {
    let key = "an-sdk-key-of-36-characters-as-usual";
    let of = |times: usize| {
        let body = Bytes::from(key.repeat(times));
        let mut kept = Ok(Vec::new());
        let counted = allocation_counter::measure(|| {
            kept = keep(&arrival(Kind::Events, key), &headers(&[]), &body);
        });
        (kept.map(Bytes::from), counted.bytes_max)
    };
    let kept = Post::read(&of(key::KEY_PLACES_MAX).0.unwrap()).unwrap();
    assert_eq!(kept.request(key).unwrap().body, key.repeat(key::KEY_PLACES_MAX));
    for times in [key::KEY_PLACES_MAX + 1, 100_000] {
        let (kept, bytes) = of(times);
        assert_eq!(kept, Err(TooManyKeys));
        assert!(bytes < 16 << 10, "{bytes} bytes of memory");
    }
}
