//! How fast a destination may be sent to.

use super::*;

fn hook(lines: &str) -> String {
    with_destination(&format!("type = \"webhook\"\nurl = \"https://example.com/\"\n{lines}"))
}

#[test]
fn a_rate_is_a_number_of_requests_of_records_and_of_bytes() {
    let rate = added(&hook("rate = { requests = 10, records = 5000, bytes = \"1MiB\" }")).rate;
    assert_eq!(rate, RateConfig { requests: Some(10), records: Some(5000), bytes: Some(1 << 20) });
    assert_eq!(added(&hook("")).rate, RateConfig::default(), "there is none by itself");
    assert_eq!(added(&hook("rate = { records = 7 }")).rate.records, Some(7));
}

#[test]
fn a_rate_is_not_nothing_and_goes_by_its_names() {
    for wrong in ["requests = 0", "records = \"many\"", "bytes = \"1B\"", "events = 5"] {
        let errors = messages(&hook(&format!("rate = {{ {wrong} }}")));
        assert!(errors.len() == 1 && errors[0].contains(" E destinations[x].rate."), "{wrong}: {errors:?}");
    }
}

#[test]
fn in_order_means_one_at_a_time() {
    let ordered = added(&hook("ordered = true"));
    assert_eq!((ordered.ordered, ordered.concurrency), (true, 1));
    assert!(!added(&hook("")).ordered);
    assert_eq!(added(&hook("ordered = true\nconcurrency = 1")).concurrency, 1);
    assert_only(&hook("ordered = true\nconcurrency = 4"), "one request is in flight at a time");
}

#[test]
fn what_comes_in_goes_beside_a_backlog_if_that_is_asked_for() {
    assert_eq!(added(&hook("")).catch_up, CatchUpConfig::OldestFirst);
    assert_eq!(added(&hook("catch_up = \"oldest_first\"")).catch_up, CatchUpConfig::OldestFirst);
    let live_first = |percent| CatchUpConfig::LiveFirst { backlog_percent: percent };
    assert_eq!(added(&hook("catch_up = \"live_first\"")).catch_up, live_first(20));
    assert_eq!(added(&hook("catch_up = \"live_first\"\nbacklog_percent = 75")).catch_up, live_first(75));
    assert_only(&hook("catch_up = \"newest_first\""), "\"newest_first\" is not known here");
    assert_only(&hook("catch_up = \"live_first\"\nbacklog_percent = 100"), "too large");
    assert_only(&hook("catch_up = \"live_first\"\nbacklog_percent = 0"), "too small");
    assert_only(&hook("backlog_percent = 50"), "no part of its own");
}

#[test]
fn nothing_goes_first_where_there_is_an_order() {
    assert_only(&hook("catch_up = \"live_first\"\nordered = true"), "records go in their order");
    let file = with_destination("type = \"file\"\ndirectory = \"./elsewhere\"\ncatch_up = \"live_first\"");
    assert_only(&file, "no quota to share");
    let upstream = with_destination("type = \"upstream\"\ncatch_up = \"live_first\"");
    assert_only(&upstream, "go in their order");
    let s3 = "type = \"s3\"\nbucket = \"bucket\"\nregion = \"us-east-1\"\ncatch_up = \"live_first\"";
    assert_eq!(added(&with_destination(s3)).catch_up, CatchUpConfig::LiveFirst { backlog_percent: 20 });
}
