//! What is given up of a destination that falls behind too far.

use super::*;

fn hook(lines: &str) -> String {
    with_destination(&format!("type = \"webhook\"\nurl = \"https://example.com/\"\n{lines}"))
}

#[test]
fn nothing_is_given_up_unless_an_operator_says_what_and_from_when_on() {
    assert_eq!(added(&hook("")).overflow, None);
    let overflow = added(&hook("overflow = { policy = \"drop_oldest\", max_age = \"36h\", max_bytes = \"10GiB\" }"));
    let overflow = *overflow.overflow.expect("it is set");
    assert_eq!((overflow.policy, overflow.policy.word()), (OverflowPolicy::DropOldest, "drop_oldest"));
    assert_eq!(overflow.max_age, Some(std::time::Duration::from_secs(36 * 3_600)));
    assert_eq!(overflow.max_bytes, Some(10 << 30));
    let dead = added(&hook("overflow = { policy = \"dead_letter\", max_age = \"36h\" }")).overflow.expect("it is set");
    assert_eq!((dead.policy, dead.policy.word()), (OverflowPolicy::DeadLetter, "dead_letter"));
    let only = added(&hook("overflow = { policy = \"drop_oldest\", max_bytes = \"1GiB\" }")).overflow;
    assert_eq!(only.expect("it is set").max_age, None);
}

#[test]
fn half_a_policy_is_refused_with_what_is_missing() {
    assert_only(&hook("overflow = { policy = \"drop_oldest\" }"), "max_age");
    assert_only(&hook("overflow = { max_age = \"36h\" }"), "`policy` is missing");
    assert_only(&hook("overflow = { policy = \"newest\", max_age = \"36h\" }"), "\"newest\" is not known here");
    assert_only(&hook("overflow = { policy = \"drop_oldest\", max_age = \"5m\" }"), "too small");
    assert_only(&hook("overflow = { policy = \"drop_oldest\", max_bytes = \"1KiB\" }"), "too small");
    assert_only(&hook("overflow = { policy = \"drop_oldest\", max_age = \"36h\", newest = 1 }"), "unknown key");
    assert_only(&hook("overflow = \"drop_oldest\""), "a table");
}

#[test]
fn an_upstream_has_a_share_and_no_policy() {
    let upstream = "type = \"upstream\"\noverflow = { policy = \"drop_oldest\", max_age = \"36h\" }";
    assert_only(&with_destination(upstream), "an upstream's posts have a share");
}
