//! Reads `Retry-After` (RFC 9110, section 10.2.3). Pure; the present comes in as an argument.
//!
//! Both forms are taken: seconds, and a date. A date is the receiver's, so it is measured against the `Date` of the
//! same answer; only without one our own clock is used. What cannot be read is no hint at all, never an error.

use std::time::{Duration, SystemTime};

/// The longest wait that is believed. A receiver that says more is asked once a day.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the answer asks us to wait, counted from its receipt; `None` when it does not say.
///
/// A date in the past means zero. Longer than [`WAIT_MAX`] means `WAIT_MAX`.
#[must_use]
pub fn parse(retry_after: &[u8], date: Option<&[u8]>, now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(retry_after).ok()?.trim_ascii();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow a u64 still say "very long".
        return Some(text.parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX));
    }
    let until = http_date(text.as_bytes())?;
    let sent = date.and_then(http_date).unwrap_or(now);
    Some(until.duration_since(sent).unwrap_or(Duration::ZERO).min(WAIT_MAX))
}

/// A date as HTTP writes it, in any of its three forms.
pub(super) fn http_date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    fn example() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
        parse(retry_after.as_bytes(), date.map(str::as_bytes), example())
    }

    #[test]
    fn seconds_are_taken_as_they_are_up_to_a_day() {
        assert_eq!(wait("120", None), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 ", None), Some(Duration::ZERO));
        assert_eq!(wait("86401", None), Some(WAIT_MAX));
        assert_eq!(wait("99999999999999999999999999", None), Some(WAIT_MAX));
    }

    #[test]
    fn all_three_forms_of_a_date_are_read() {
        for date in ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"] {
            assert_eq!(wait(date, None), Some(Duration::from_secs(60)), "{date}");
        }
    }

    #[test]
    fn a_date_is_measured_against_the_receivers_own_clock() {
        let wait = wait("Sun, 06 Nov 1994 10:00:30 GMT", Some("Sun, 06 Nov 1994 10:00:00 GMT"));
        assert_eq!(wait, Some(Duration::from_secs(30)), "the receiver's clock is 70 minutes ahead of ours");
    }

    #[test]
    fn a_date_in_the_past_is_now_and_one_far_ahead_is_a_day() {
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT", None), Some(Duration::ZERO));
        assert_eq!(wait("Sun, 06 Nov 2033 08:00:00 GMT", None), Some(WAIT_MAX));
    }

    #[test]
    fn what_cannot_be_read_is_no_hint() {
        for text in ["", " ", "-1", "1.5", "+3", "soon", "Sun, 99 Nov 1994 08:49:37 GMT", "12s"] {
            assert_eq!(wait(text, None), None, "{text:?}");
        }
        assert_eq!(parse(&[0xff, 0xfe], None, example()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_the_wait_is_bounded(text: Vec<u8>, date: Option<Vec<u8>>) {
            if let Some(wait) = parse(&text, date.as_deref(), example()) {
                prop_assert!(wait <= WAIT_MAX);
            }
        }
    }
}
