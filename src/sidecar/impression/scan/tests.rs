use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

/// Whether the scanner takes the whole of `body` as one JSON text.
fn check(body: &[u8]) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(body)?;
    scanner.skip(0)?;
    scanner.end()
}

/// The oracle. Ignoring what it reads, serde_json neither limits depth nor refuses lone surrogates or huge numbers,
/// and does not look at UTF-8: just the grammar.
fn serde_json_takes(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn refused(body: &str) -> (usize, UnreadableWhy) {
    let error = check(body.as_bytes()).unwrap_err();
    (error.at, error.why)
}

#[test]
fn an_error_names_the_very_byte() {
    let not_json = |expected| UnreadableWhy::NotJson { expected };
    assert_eq!(refused("[1,]"), (3, not_json("a value")));
    assert_eq!(refused("[1 2]"), (3, not_json("',' or ']'")));
    assert_eq!(refused(r#"{"a" 1}"#), (5, not_json("':'")));
    assert_eq!(refused(r#"{"a":1,}"#), (7, not_json("a name in quotes")));
    assert_eq!(refused("[01]"), (2, not_json("no digit behind a leading zero")));
    assert_eq!(refused("[1.]"), (3, not_json("a digit")));
    assert_eq!(refused("[1e+]"), (4, not_json("a digit")));
    assert_eq!(refused("[-]"), (2, not_json("a digit")));
    assert_eq!(refused("[trux]"), (4, not_json("true")));
    assert_eq!(refused("\"0123456789\u{1}\""), (11, not_json("no bare control character in a string")));
    assert_eq!(refused(r#""01234567\x""#), (10, not_json("one of \"\\/bfnrtu behind a backslash")));
    assert_eq!(refused(r#""\u12g4""#), (5, not_json("a hexadecimal digit")));
    assert_eq!(refused("1 1"), (2, not_json("nothing behind the end")));
    assert_eq!(check(b"[\"a\xffb\"]").unwrap_err(), Unreadable { at: 3, why: UnreadableWhy::NotUtf8 });
}

#[test]
fn a_text_cut_anywhere_is_called_truncated_at_its_end() {
    let whole = r#"[{"key":"a\u00e9é","n":[-1.5e+3,true,false,null,{}]} ]"#;
    check(whole.as_bytes()).unwrap();
    for end in 0..whole.len() {
        let error = check(&whole.as_bytes()[..end]).unwrap_err();
        assert_eq!(error.why, UnreadableWhy::Truncated, "cut at {end}");
        // Inside a character, the place is where the character begins.
        assert!(end - error.at <= 1, "cut at {end}, named {}", error.at);
    }
}

#[test]
fn the_deepest_nesting_is_taken_and_one_more_is_refused() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let limit = DEPTH_MAX as usize;
    check(nested(limit).as_bytes()).unwrap();
    assert_eq!(refused(&nested(limit + 1)), (limit, UnreadableWhy::TooDeep { limit: DEPTH_MAX }));
    // A mixed pile of the greatest depth is closed in the right order.
    let mixed = format!("{}1{}", r#"[{"a":"#.repeat(limit / 2), "}]".repeat(limit / 2));
    check(mixed.as_bytes()).unwrap();
    let crossed = format!("{}1{}", r#"[{"a":"#.repeat(limit / 2), "]}".repeat(limit / 2));
    assert!(check(crossed.as_bytes()).is_err());
    // A million opening brackets cost neither stack nor time.
    assert!(check("[".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn a_lone_surrogate_is_taken_as_text() {
    check(br#"["\ud800", "\udc00x", "\ud83d\ude00"]"#).unwrap();
}

#[test]
fn whole_numbers_of_64_bits_are_read_and_all_others_only_checked() {
    let number = |text: &str| Scanner::new(text.as_bytes()).unwrap().number().unwrap();
    assert_eq!(number("0"), Some(0));
    assert_eq!(number("-0"), Some(0));
    assert_eq!(number("1795450894053"), Some(1_795_450_894_053));
    assert_eq!(number("999999999999999999"), Some(999_999_999_999_999_999));
    assert_eq!(number("9223372036854775807"), Some(i64::MAX));
    assert_eq!(number("-9223372036854775808"), Some(i64::MIN));
    for other in ["9223372036854775808", "-9223372036854775809", "18446744073709551617", "1.0", "1e3", "-0.5E-10"] {
        assert_eq!(number(other), None, "{other}");
    }
}

#[test]
fn every_byte_at_every_place_of_a_word_is_judged_as_serde_json_judges_it() {
    for byte in 0..=u8::MAX {
        for place in 0..18 {
            let mut body = b"\"aaaaaaaaaaaaaaaaaa\"".to_vec();
            body[1 + place] = byte;
            assert_eq!(check(&body).is_ok(), serde_json_takes(&body), "byte {byte:#x} at {place}");
        }
    }
}

/// Texts that are JSON, or nearly: fragments thrown together fall on either side.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let fragments = prop_oneof![
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just(" "),
        Just("\n"),
        Just("true"),
        Just("false"),
        Just("null"),
        Just("0"),
        Just("-1"),
        Just("1.5"),
        Just("1e9"),
        Just("12345678901234567890"),
        Just("\"a\""),
        Just("\"k\":"),
        Just("\"\\ud800\""),
        Just("\\u00e9"),
        Just("é"),
        Just("🙂"),
        Just("\u{1f}"),
        Just("x"),
    ];
    prop::collection::vec(fragments, 0..12).prop_map(|parts| parts.concat().into_bytes())
}

/// Any JSON value as text, spaced and escaped in odd ways.
fn json_text() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop_oneof![
            Just(r"\u0041"),
            Just(r"\ud83d\ude00"),
            Just(r#"\""#),
            Just(r"\\"),
            Just(r"\/"),
            Just("é"),
            Just("abcdefgh"),
            Just("")
        ],
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}"))
    ];
    let leaf =
        prop_oneof![string.clone(), number, Just("true".to_owned()), Just("false".to_owned()), Just("null".to_owned())];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" ,\t"))),
            prop::collection::vec((string.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name} :{value}")).collect();
                format!("{{{} }}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_scanner_takes_what_serde_json_takes_and_nothing_else(body in nearly_json()) {
        prop_assert_eq!(check(&body).is_ok(), serde_json_takes(&body), "{:?}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn every_json_text_is_taken_and_every_changed_byte_judged_alike(text in json_text(), place: prop::sample::Index, byte: u8) {
        prop_assert!(check(text.as_bytes()).is_ok(), "{}", text);
        let mut changed = text.into_bytes();
        let place = place.index(changed.len());
        changed[place] = byte;
        prop_assert_eq!(check(&changed).is_ok(), serde_json_takes(&changed), "{:?}", String::from_utf8_lossy(&changed));
    }
}
