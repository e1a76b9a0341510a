//! Reads how long a receiver wants to be left alone, and how much it still takes, out of the headers of its answer. Pure.
//!
//! `Retry-After` is obeyed on any answer ([`retry_after`]). Where it is missing, an answer that refuses for a limit may
//! say when there is room again: `RateLimit` (draft-ietf-httpapi-ratelimit-headers), or the older `RateLimit-Reset` and
//! `X-RateLimit-Reset`, which hold seconds at some services and a moment at others. What can't be read is no hint.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::retry_after::{self, WAIT_MAX};

/// A reset of so many seconds is no delay, which would be 30 years, but a moment, counted from 1970.
const MOMENT_MIN: u64 = 1_000_000_000;

/// And one of so many counts milliseconds.
const MOMENT_MS_MIN: u64 = 1_000_000_000_000;

/// The headers with a moment or a delay, the usual first.
const RESETS: [&str; 3] = ["ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset"];

/// The headers with what is left, the usual first.
const REMAINS: [&str; 3] = ["ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining"];

/// How long the answer of `status` asks us to wait, counted from its receipt. `header` gives the value of a header by
/// its name in small letters. Never above [`WAIT_MAX`].
///
/// Hints other than `Retry-After` count with 429 and 503 only: elsewhere they tell of requests that are still allowed, and
/// are no failure; see [`allowance`].
#[must_use]
pub fn wait<'h>(status: u16, header: impl Fn(&str) -> Option<&'h [u8]>, now: SystemTime) -> Option<Duration> {
    let date = header("date");
    if let Some(wait) = header("retry-after").and_then(|text| retry_after::parse(text, date, now)) {
        return Some(wait);
    }
    if !matches!(status, 429 | 503) {
        return None;
    }
    let text = |name| header(name).and_then(|value| std::str::from_utf8(value).ok());
    let drafted = text("ratelimit").and_then(exhausted);
    let reset = || {
        let sent = date.and_then(retry_after::http_date).unwrap_or(now);
        RESETS.into_iter().find_map(|name| reset(text(name)?, sent))
    };
    drafted.or_else(reset).map(|wait| wait.min(WAIT_MAX))
}

/// What a receiver says that it still takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// So many requests.
    pub requests: u64,
    /// Until so much time has passed since the answer's receipt.
    pub resets_in: Duration,
}

/// What of a limit is left, on any answer; `None` where it does not say, or not for how long. Of several limits the one
/// of which least is left. Never for longer than [`WAIT_MAX`].
#[must_use]
pub fn allowance<'h>(header: impl Fn(&str) -> Option<&'h [u8]>, now: SystemTime) -> Option<Allowance> {
    let text = |name| header(name).and_then(|value| std::str::from_utf8(value).ok());
    let drafted = || {
        let limits = pieces(text("ratelimit")?, ',').filter_map(|limit| {
            Some(Allowance { requests: parameter(limit, "r")?, resets_in: Duration::from_secs(parameter(limit, "t")?) })
        });
        limits.min_by_key(|limit| (limit.requests, std::cmp::Reverse(limit.resets_in)))
    };
    let headers = || {
        let requests = REMAINS.into_iter().find_map(|name| text(name)?.trim().parse().ok())?;
        let sent = header("date").and_then(retry_after::http_date).unwrap_or(now);
        let resets_in = RESETS.into_iter().find_map(|name| reset(text(name)?, sent))?;
        Some(Allowance { requests, resets_in })
    };
    let found = drafted().or_else(headers)?;
    Some(Allowance { resets_in: found.resets_in.min(WAIT_MAX), ..found })
}

/// The longest wait among the limits of a `RateLimit` header of which nothing remains: `"daily";r=0;t=3600`.
fn exhausted(header: &str) -> Option<Duration> {
    let waits = pieces(header, ',')
        .filter_map(|limit| (parameter(limit, "r")? == 0).then(|| parameter(limit, "t").map(Duration::from_secs))?);
    waits.max()
}

/// A whole number among the parameters of a structured field's item: `"daily";r=0;t=3600`.
fn parameter(item: &str, wanted: &str) -> Option<u64> {
    let mut parameters = pieces(item, ';').skip(1).filter_map(|parameter| parameter.split_once('='));
    parameters.find_map(|(name, value)| (name.trim() == wanted).then(|| value.trim().parse().ok())?)
}

/// The pieces of a structured field, whose strings may hold anything.
fn pieces(text: &str, between: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == between && !quoted
    })
}

/// A delay in seconds, or what is left until a moment that the receiver named when its clock was at `sent`.
fn reset(text: &str, sent: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits that overflow still say "very long".
    let number: u64 = text.parse().unwrap_or(u64::MAX);
    let moment = match number {
        0..MOMENT_MIN => return Some(Duration::from_secs(number)),
        MOMENT_MIN..MOMENT_MS_MIN => UNIX_EPOCH.checked_add(Duration::from_secs(number)),
        _ => UNIX_EPOCH.checked_add(Duration::from_millis(number)),
    };
    let Some(moment) = moment else { return Some(WAIT_MAX) };
    Some(moment.duration_since(sent).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: u64 = 1_767_225_600;

    fn asked(status: u16, headers: &[(&str, &str)]) -> Option<u64> {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_bytes())
        };
        wait(status, header, UNIX_EPOCH + Duration::from_secs(NOW)).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_wins_on_any_answer() {
        let headers = [("retry-after", "7"), ("ratelimit", "\"a\";r=0;t=90"), ("x-ratelimit-reset", "80")];
        assert_eq!((asked(429, &headers), asked(500, &headers)), (Some(7), Some(7)));
        assert_eq!(asked(429, &[("retry-after", "soon"), ("x-ratelimit-reset", "80")]), Some(80));
    }

    #[test]
    fn a_reset_is_a_delay_or_a_moment() {
        let at = |text: &str| asked(429, &[("x-ratelimit-reset", text)]);
        assert_eq!((at("0"), at("30"), at(" 30 ")), (Some(0), Some(30), Some(30)));
        assert_eq!(at(&(NOW + 60).to_string()), Some(60));
        assert_eq!(at(&format!("{}000", NOW + 60)), Some(60), "milliseconds");
        assert_eq!(at(&(NOW - 60).to_string()), Some(0));
        assert_eq!(at("99999999999999999999999"), Some(86_400));
        assert_eq!((at("-5"), at("1.5"), at(""), at("soon")), (None, None, None, None));
        // The receiver's clock is an hour ahead.
        let skewed = [("ratelimit-reset", "1767229260"), ("date", "Thu, 01 Jan 2026 01:00:00 GMT")];
        assert_eq!(asked(503, &skewed), Some(60));
    }

    #[test]
    fn of_several_limits_the_longest_that_is_used_up_counts() {
        let at = |text: &str| asked(429, &[("ratelimit", text)]);
        assert_eq!(at("\"default\";r=0;t=30"), Some(30));
        assert_eq!(at("\"burst\";r=0;t=3, \"daily\";r=0;t=3600"), Some(3600));
        assert_eq!(at("\"burst\";r=0;t=3, \"daily\";r=900;t=3600"), Some(3));
        assert_eq!(at("\"a,b;r=5;t=9\\\"\" ; r=0 ; t=4"), Some(4));
        assert_eq!((at("\"default\";r=50;t=30"), at("\"x\";r=0"), at("r=0;t=30x"), at("")), (None, None, None, None));
    }

    #[test]
    fn other_answers_say_nothing_by_their_limits() {
        for status in [200, 400, 500, 502] {
            assert_eq!(asked(status, &[("x-ratelimit-reset", "30"), ("ratelimit", "\"a\";r=0;t=9")]), None);
        }
    }

    fn left(headers: &[(&str, &str)]) -> Option<(u64, u64)> {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_bytes())
        };
        let allowance = allowance(header, UNIX_EPOCH + Duration::from_secs(NOW))?;
        Some((allowance.requests, allowance.resets_in.as_secs()))
    }

    #[test]
    fn what_is_left_is_read_in_every_spelling_and_of_several_limits_the_tightest_counts() {
        assert_eq!(left(&[("ratelimit", "\"default\";r=50;t=30")]), Some((50, 30)));
        assert_eq!(
            left(&[("ratelimit", "\"burst\";r=3;t=1, \"daily\";r=0;t=3600, \"hour\";r=0;t=60")]),
            Some((0, 3600))
        );
        let moment = (NOW + 60).to_string();
        assert_eq!(left(&[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", &moment)]), Some((7, 60)));
        assert_eq!(left(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "99999999")]), Some((0, 86_400)));
        for silent in [("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "30"), ("ratelimit", "\"a\";r=1")] {
            assert_eq!(left(&[silent]), None, "{silent:?}");
        }
        assert_eq!(left(&[("x-ratelimit-remaining", "-1"), ("x-ratelimit-reset", "30")]), None);
    }

    proptest! {
        #[test]
        fn no_header_panics_or_asks_for_more_than_a_day(
            drafted in "(\"[a-z,;\\\\\"]{0,4}\"|;|,|r=|t=|[0-9]{1,20}| ){0,9}",
            reset in "[0-9]{0,21}|\\PC{0,6}",
        ) {
            for headers in [[("ratelimit", drafted.as_str())], [("ratelimit-reset", reset.as_str())]] {
                prop_assert!(asked(429, &headers).is_none_or(|wait| wait <= 86_400));
                prop_assert!(left(&headers).is_none_or(|(_, resets_in)| resets_in <= 86_400));
            }
        }
    }
}
