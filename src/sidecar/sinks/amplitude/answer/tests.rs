use proptest::prelude::*;

use super::*;
use crate::config::AmplitudeConfig;
use crate::delivery::sink::Job;
use crate::sinks::amplitude::encode::Events;
use crate::sinks::sample::{job, job_of};

const USER: AmplitudeIdentity = AmplitudeIdentity::UserId;

fn encoded(job: &Job) -> Encoded {
    Events::new(&AmplitudeConfig::new("key")).encode(job).unwrap()
}

/// What an answer means for ten records at the offsets 40 to 49, of which 42 is not to be sent.
fn meaning(status: u16, body: &str) -> Outcome {
    let encoded = encoded(&Job { except: [42].into(), ..job(40..50) });
    let reply = Reply { status, retry_after: None, body: body.as_bytes(), cut: false, why: Failure::status(status) };
    judge(reply, &encoded, AmplitudeApi::Batch, USER)
}

fn partial(status: u16, body: &str) -> Partial {
    match meaning(status, body) {
        Outcome::Partial(partial) => partial,
        other => panic!("{other:?}"),
    }
}

type Reasons<'a> = Vec<(u64, &'a str)>;
type Seconds = Vec<(u64, u64)>;

/// By offset: why records are rejected, how long others are held.
fn apart(partial: &Partial) -> (Reasons<'_>, Seconds) {
    let rejected = partial.rejected.iter().map(|record| (record.offset, record.reason.as_str())).collect();
    (rejected, partial.held.iter().map(|record| (record.offset, record.wait.as_secs())).collect())
}

/// The name of an outcome's class.
fn class(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Throttled { .. } => "throttled",
        Outcome::Retry { .. } => "retry",
        Outcome::TooLarge { .. } => "too large",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Partial(_) => "partial",
        Outcome::Refused { .. } => "refused",
        Outcome::QueueRefused { .. } => "queue refused",
    }
}

#[test]
fn only_a_200_delivers_whatever_its_body_says() {
    for body in [r#"{"code":200,"events_ingested":50}"#, "", "<html>"] {
        assert_eq!(meaning(200, body), Outcome::Delivered);
    }
    for status in [201, 202, 204, 299] {
        assert_eq!(class(&meaning(status, "")), "retry", "{status}");
    }
}

/// What Amplitude documents, letter by letter, for requests of ten events.
const DOCUMENTED: [(u16, &str, &str); 13] = [
    (
        200,
        r#"{"code":200,"events_ingested":50,"payload_size_bytes":50,"server_upload_time":1396381378123}"#,
        "delivered",
    ),
    // Both name the key that is missing and lists: no list is believed before the key is right.
    (
        400,
        r#"{"code":400,"error":"Request missing required field","missing_field":"api_key","events_with_invalid_fields":{"time":[3,4,7]},"events_with_missing_fields":{"event_type":[3,4,7]}}"#,
        "refused",
    ),
    (
        400,
        r#"{"code":400,"error":"Events silenced for device_id","eps_threshold":100,"silenced_devices":["d1"],"silenced_events":[5,6],"throttled_devices":{"d2":100},"throttled_events":[3,4],"exceeded_daily_quota_devices":{}}"#,
        "partial",
    ),
    (400, r#"{"code":400,"error":"Invalid request path"}"#, "refused"),
    (400, r#"{"code":400,"error":"Missing request body"}"#, "rejected"),
    (400, r#"{"code":400,"error":"Invalid JSON request body"}"#, "rejected"),
    (400, r#"{"code":400,"error":"Request missing required field","missing_field":"events"}"#, "rejected"),
    (400, r#"{"code":400,"error":"Invalid event JSON"}"#, "rejected"),
    (400, r#"{"code":400,"error":"Invalid API key"}"#, "refused"),
    (
        400,
        r#"{"code":400,"error":"Invalid field values on some events","events_with_invalid_fields":{"time":[3,4,7]},"events_with_missing_fields":{"event_type":[3,4,7]}}"#,
        "partial",
    ),
    (403, r#"{"code":403,"error":"Forbidden"}"#, "refused"),
    (413, r#"{"code":413,"error":"Payload too large"}"#, "too large"),
    (
        429,
        r#"{"code":429,"error":"Too many requests for some devices and users","eps_threshold":1000,"throttled_devices":{"D":4000},"throttled_users":{"U":4000},"exceeded_daily_quota_users":{"U2":500200},"exceeded_daily_quota_devices":{"D2":500900},"throttled_events":[3,4,7]}"#,
        "partial",
    ),
];

#[test]
fn the_documented_answers_mean_what_is_documented() {
    let encoded = encoded(&job(40..50));
    for (api, wait) in [(AmplitudeApi::Batch, 15), (AmplitudeApi::HttpV2, 30)] {
        for (status, body, wanted) in DOCUMENTED {
            let reply =
                Reply { status, retry_after: None, body: body.as_bytes(), cut: false, why: Failure::status(status) };
            let outcome = judge(reply, &encoded, api, USER);
            assert_eq!(class(&outcome), wanted, "{api:?} {status} {body}");
            let Outcome::Partial(partial) = outcome else { continue };
            let expected: (Reasons<'_>, Seconds) = match (status, body.contains("silenced")) {
                (400, true) => (vec![], vec![(43, wait), (44, wait), (45, 6 * 3600), (46, 6 * 3600)]),
                (400, false) => {
                    let why = "invalid time, missing event_type";
                    (vec![(43, why), (44, why), (47, why)], vec![])
                }
                // The users of the example are not among ours; its events are.
                _ => (vec![], vec![(43, wait), (44, wait), (47, wait)]),
            };
            assert_eq!(apart(&partial), expected, "{api:?} {body}");
        }
    }
}

#[test]
fn wrong_events_are_rejected_with_what_is_wrong_and_the_rest_is_sent_again() {
    let body = r#"{"code":400,"error":"Invalid field values on some events",
        "events_with_invalid_fields":{"time":[0,2]},"events_with_missing_fields":{"event_type":[2]},
        "events_with_invalid_id_lengths":{"user_id":[8]}}"#;
    let partial = partial(400, body);
    let rejected =
        vec![(40, "invalid time"), (43, "invalid time, missing event_type"), (49, "wrong length of user_id")];
    assert_eq!(apart(&partial), (rejected, vec![]), "42 is not in the request, so index 2 is 43");
    assert_eq!(partial.why.to_string(), "answered 400: Invalid field values on some events");
}

#[test]
fn silenced_events_wait_long_and_throttled_ones_beside_them_do_not() {
    let body = r#"{"code":400,"error":"Events silenced for device_id","eps_threshold":100,"silenced_devices":["d1"],
        "silenced_events":[5,6],"throttled_devices":{"d2":100},"throttled_events":[3,4],"exceeded_daily_quota_devices":{}}"#;
    let partial = partial(400, body);
    assert_eq!(apart(&partial), (vec![], vec![(44, 15), (45, 15), (46, 6 * 3600), (47, 6 * 3600)]));
}

#[test]
fn throttled_events_wait_as_long_as_each_api_asks() {
    let encoded = encoded(&job(0..10));
    let waits = |api, retry_after| {
        let body = br#"{"error":"Too many requests for some devices and users","throttled_events":[1]}"#;
        let reply = Reply { status: 429, retry_after, body, cut: false, why: Failure::status(429) };
        let Outcome::Partial(partial) = judge(reply, &encoded, api, USER) else { panic!("not apart") };
        partial.held[0].wait.as_secs()
    };
    assert_eq!((waits(AmplitudeApi::Batch, None), waits(AmplitudeApi::HttpV2, None)), (15, 30));
    let minute = Some(Duration::from_secs(60));
    assert_eq!(waits(AmplitudeApi::Batch, minute), 60, "Retry-After is a floor");
    assert_eq!(waits(AmplitudeApi::HttpV2, Some(Duration::ZERO)), 30);
}

#[test]
fn users_over_their_daily_quota_wait_an_hour_and_are_never_dropped() {
    let body = r#"{"code":429,"error":"Too many requests for some devices and users","eps_threshold":1000,
        "throttled_devices":{"D":4000},"throttled_users":{"user-44":4000},
        "exceeded_daily_quota_users":{"user-41":500200},"exceeded_daily_quota_devices":{"user-49":500900},
        "throttled_events":[0,1]}"#;
    let partial = partial(429, body);
    // 49 is over as a device, and this destination sends users.
    assert_eq!(apart(&partial), (vec![], vec![(40, 15), (41, 3600), (44, 15)]));
}

#[test]
fn devices_are_known_by_their_names_too() {
    let mut config = AmplitudeConfig::new("key");
    config.identity = AmplitudeIdentity::DeviceId;
    let encoded = Events::new(&config).encode(&job(0..10)).unwrap();
    let body =
        br#"{"error":"Events silenced for device_id","silenced_devices":["user-3"],"throttled_users":{"user-1":9}}"#;
    let reply = Reply { status: 400, retry_after: None, body, cut: false, why: Failure::status(400) };
    let Outcome::Partial(partial) = judge(reply, &encoded, AmplitudeApi::Batch, AmplitudeIdentity::DeviceId) else {
        panic!("not apart")
    };
    assert_eq!(apart(&partial), (vec![], vec![(3, 6 * 3600)]));
}

#[test]
fn what_is_wrong_and_throttled_at_once_is_rejected_once() {
    let body = r#"{"events_with_invalid_fields":{"time":[1]},"throttled_events":[1,2]}"#;
    assert_eq!(apart(&partial(429, body)), (vec![(41, "invalid time")], vec![(43, 15)]));
}

#[test]
fn a_400_that_names_no_event_is_of_the_whole_batch() {
    for body in [
        r#"{"code":400,"error":"Invalid JSON request body"}"#,
        r#"{"code":400,"error":"Missing request body"}"#,
        r#"{"code":400,"error":"Request missing required field","missing_field":"events"}"#,
        r#"{"code":400,"events_with_invalid_fields":{},"events_with_missing_fields":{"time":[]}}"#,
        r#"{"code":400,"events_with_invalid_fields":{"time":[9]}}"#,
        r#"{"code":400,"events_with_invalid_fields":{"time":[0,18446744073709551615]}}"#,
        r#"{"code":400,"events_with_invalid_fields":{"time":[-1]}}"#,
        r#"{"code":400,"events_with_invalid_fields":["time"]}"#,
        "<html>Bad Request</html>",
        "null",
        "",
        " ",
    ] {
        assert_eq!(class(&meaning(400, body)), "rejected", "{body}");
    }
}

#[test]
fn records_are_never_rejected_for_a_limit_that_cannot_be_made_out() {
    for body in [
        r#"{"error":"Events silenced for device_id","silenced_devices":["d1"]}"#,
        r#"{"error":"Events silenced for device_id","silenced_events":[99]}"#,
        r#"{"error":"Events silenced for device_id","silenced_events":"all"}"#,
        r#"{"throttled_devices":{"d2":100}}"#,
    ] {
        assert_eq!(class(&meaning(400, body)), "throttled", "{body}");
    }
}

#[test]
fn a_wrong_key_or_address_is_refused_and_no_record_pays_for_it() {
    for (status, body) in [
        (400, r#"{"code":400,"error":"Invalid API key: abc"}"#),
        (400, r#"{"code":400,"error":"Invalid API key","events_with_invalid_fields":{"api_key":"x"}}"#),
        (400, r#"{"code":400,"error":"Request missing required field","missing_field":"api_key"}"#),
        (400, r#"{"code":400,"error":"Invalid request path"}"#),
        (401, ""),
        (403, r#"{"code":403,"error":"Forbidden"}"#),
        (404, "<html>"),
    ] {
        assert_eq!(class(&meaning(status, body)), "refused", "{status} {body}");
    }
}

#[test]
fn an_answer_that_broke_off_decides_nothing_unless_it_is_as_long_as_we_read() {
    let body = r#"{"code":400,"error":"Invalid field values on some events","events_with_in"#;
    assert_eq!(class(&meaning(400, body)), "retry");
    let reply = Reply { status: 400, retry_after: None, body: body.as_bytes(), cut: true, why: Failure::status(400) };
    assert_eq!(class(&judge(reply, &encoded(&job(0..3)), AmplitudeApi::Batch, USER)), "rejected");
}

#[test]
fn a_429_without_lists_is_of_the_whole_destination() {
    for body in
        ["", "{}", r#"{"code":429,"throttled_devices":{},"throttled_events":[]}"#, r#"{"throttled_events":[77]}"#]
    {
        let Outcome::Throttled { retry_after, .. } = meaning(429, body) else { panic!("{body}") };
        assert_eq!(retry_after, Some(Duration::from_secs(15)), "{body}");
    }
}

#[test]
fn all_other_answers_wait_and_come_again() {
    assert_eq!(class(&meaning(413, r#"{"code":413,"error":"Payload too large"}"#)), "too large");
    assert_eq!(class(&meaning(503, "")), "throttled");
    for status in [301, 302, 405, 408, 410, 418, 500, 502, 504, 599] {
        assert_eq!(class(&meaning(status, "{}")), "retry", "{status}");
    }
}

#[test]
fn a_user_whose_name_cannot_be_read_back_keeps_no_other_from_being_found_by_name() {
    let encoded = encoded(&job_of(r#"[{"f":"x","i":[{"k":"half \ud83d"},{"k":"whole"}]}]"#));
    let body = br#"{"throttled_events":[1],"exceeded_daily_quota_users":{"whole":1}}"#;
    let reply = Reply { status: 429, retry_after: None, body, cut: false, why: Failure::status(429) };
    let Outcome::Partial(partial) = judge(reply, &encoded, AmplitudeApi::Batch, USER) else { panic!("not apart") };
    assert_eq!(apart(&partial), (vec![], vec![(101, 3600)]));
}

/// Bodies that look like Amplitude's, with anything in them.
fn bodies() -> impl Strategy<Value = String> {
    let indexes = proptest::collection::vec(prop_oneof![0u64..12, any::<u64>()], 0..6);
    const FIELDS: [&str; 10] = [
        "events_with_invalid_fields",
        "events_with_missing_fields",
        "events_with_invalid_id_lengths",
        "silenced_events",
        "throttled_events",
        "silenced_devices",
        "throttled_users",
        "exceeded_daily_quota_users",
        "error",
        "missing_field",
    ];
    let member = (proptest::sample::select(&FIELDS), indexes, 0..6u8).prop_map(|(name, indexes, shape)| {
        let list = format!("{indexes:?}");
        match shape {
            0 => format!("{name:?}:{list}"),
            1 => format!("{name:?}:{{\"user-44\":{list}}}"),
            2 => format!("{name:?}:{{\"time\":{list},\"user_id\":{list}}}"),
            3 => format!("{name:?}:null"),
            4 => format!("{name:?}:[\"user-44\",\"user-45\"]"),
            _ => format!("{name:?}:\"Events silenced\""),
        }
    });
    let object = proptest::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",")));
    prop_oneof![4 => object.clone(), 1 => (object, 0..40usize).prop_map(|(text, at)| text.chars().take(at).collect()), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn whatever_is_answered_only_records_of_the_request_are_set_apart(
        body in bodies(),
        status in prop_oneof![Just(400u16), Just(429), 100u16..600],
    ) {
        let outcome = meaning(status, &body);
        prop_assert_eq!(outcome == Outcome::Delivered, status == 200);
        let Outcome::Partial(partial) = outcome else { return Ok(()) };
        let rejected: Vec<u64> = partial.rejected.iter().map(|record| record.offset).collect();
        let held: Vec<u64> = partial.held.iter().map(|record| record.offset).collect();
        prop_assert!(!rejected.is_empty() || !held.is_empty());
        prop_assert!(rejected.is_sorted() && held.is_sorted());
        prop_assert!(rejected.iter().all(|offset| !held.contains(offset)));
        prop_assert!(rejected.iter().chain(&held).all(|offset| (40..50).contains(offset) && *offset != 42));
        prop_assert!(partial.rejected.iter().all(|record| record.reason.len() <= REASON_BYTES_MAX));
    }
}
