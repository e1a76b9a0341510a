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
