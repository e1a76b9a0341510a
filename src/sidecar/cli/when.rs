//! A moment as an operator writes it: a time in UTC, or how long ago. Pure.

use std::time::Duration;

use crate::config::parse_duration;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Milliseconds since 1970.
    At(u64),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Milliseconds since 1970, if it is `now_ms` now.
    #[must_use]
    pub fn unix_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(ago) => now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Reads `2026-11-26T10:00:00Z`, with or without seconds and their fractions, or `36h`.
///
/// # Errors
/// Says what can be written.
pub fn parse(text: &str) -> Result<When, String> {
    let when = parse_duration(text).map(When::Ago).or_else(|| utc(text).map(When::At));
    when.ok_or_else(|| format!("{text:?} is no moment: write 2026-11-26T10:00:00Z (UTC), or 36h for so long ago"))
}

/// `2026-11-26 10:00`, in UTC.
#[must_use]
pub fn text(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    let (day, hour, minute) = (minutes / 1440 + 719_468, minutes / 60 % 24, minutes % 60);
    // As `days_since_1970`, backwards.
    let (era, in_era) = (day / 146_097, day % 146_097);
    let of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let of_year = in_era - (365 * of_era + of_era / 4 - of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}")
}

fn utc(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix(['Z', 'z'])?.split_once(['T', 't', ' '])?;
    let numbers = |text: &str, by: char| text.split(by).map(number).collect::<Option<Vec<u64>>>();
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let ms = format!("{:0<3}", fraction.get(..3.min(fraction.len()))?);
    let ms = number(&ms)?;
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let (hour, minute, second) = match numbers(time, ':')?[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    let sound = (1970..=9999).contains(&year) && (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60;
    sound.then(|| (((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

/// After Howard Hinnant's `days_from_civil`: years begin in March, so that a leap day is a year's last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let at = |text: &str| parse(text).map(|when| when.unix_ms(10_000_000));
        assert_eq!(at("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(at("2026-01-01T00:00:00.123Z"), Ok(1_767_225_600_123));
        assert_eq!(at("2024-02-29T23:59Z"), Ok(1_709_251_140_000));
        assert_eq!(at("2000-03-01T00:00:00Z"), Ok(951_868_800_000));
        assert_eq!(at("1h"), Ok(10_000_000 - 3_600_000));
        assert_eq!(at("9999h"), Ok(0), "before all time");
    }

    #[test]
    fn a_moment_is_shown_as_it_can_be_written() {
        for ms in [0, 951_782_340_000, 951_868_800_000, 1_709_251_140_000, 1_767_225_600_000] {
            let shown = text(ms);
            assert_eq!(parse(&format!("{shown}Z")), Ok(When::At(ms)), "{shown}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_an_example() {
        for wrong in [
            "",
            "now",
            "2026-13-01T00:00Z",
            "2026-02-29T00:00Z",
            "2026-01-01T24:00Z",
            "2026-01-01T00:00:00",
            "12",
            "2026-01-01",
        ] {
            assert!(parse(wrong).is_err_and(|why| why.contains("36h")), "{wrong}");
        }
    }
}
