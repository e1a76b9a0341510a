//! Milliseconds since 1970 as RFC 3339 text in UTC, such as `2026-01-01T00:00:00.123Z`. Pure.
//!
//! The date is made once a day and copied from then on: records of a batch seldom are of two days.

const DAY_MS: u64 = 86_400_000;

/// The first millisecond of the year 10000, which four digits can't say.
const END_MS: u64 = 253_402_300_800_000;

/// Writes times; remembers the last one's date.
pub(super) struct Times {
    day: u64,
    /// `2026-01-01T`.
    date: [u8; 11],
}

impl Times {
    pub(super) fn new() -> Self {
        Self { day: 0, date: *b"1970-01-01T" }
    }

    /// Appends the time. Returns whether it could be said: only those of the years 1970 to 9999 can.
    pub(super) fn write(&mut self, ms: i64, out: &mut Vec<u8>) -> bool {
        let Some(ms) = u64::try_from(ms).ok().filter(|ms| *ms < END_MS) else { return false };
        let (day, in_day) = (ms / DAY_MS, ms % DAY_MS);
        if day != self.day {
            (self.day, self.date) = (day, date(day));
        }
        let [h0, h1] = two(in_day / 3_600_000);
        let [m0, m1] = two(in_day / 60_000 % 60);
        let [s0, s1] = two(in_day / 1000 % 60);
        let [f1, f2] = two(in_day % 100);
        let f0 = digit(in_day / 100 % 10);
        out.extend_from_slice(&self.date);
        out.extend_from_slice(&[h0, h1, b':', m0, m1, b':', s0, s1, b'.', f0, f1, f2, b'Z']);
        true
    }
}

/// The date of a day, counted from 1970-01-01: years of March to February, in eras of 400, after Howard Hinnant's
/// `civil_from_days`.
fn date(day: u64) -> [u8; 11] {
    let day = day + 719_468;
    let (era, in_era) = (day / 146_097, day % 146_097);
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day_of_month = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let ([y0, y1], [y2, y3]) = (two(year / 100), two(year % 100));
    let ([m0, m1], [d0, d1]) = (two(month), two(day_of_month));
    [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T']
}

/// The last two digits of a number.
fn two(number: u64) -> [u8; 2] {
    [digit(number / 10 % 10), digit(number % 10)]
}

fn digit(number: u64) -> u8 {
    b'0' + number as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn text(ms: i64) -> Option<String> {
        let mut out = Vec::new();
        Times::new().write(ms, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn times_are_said_to_the_millisecond() {
        assert_eq!(text(0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_767_225_600_123).unwrap(), "2026-01-01T00:00:00.123Z");
        assert_eq!(text(1_709_251_199_999).unwrap(), "2024-02-29T23:59:59.999Z");
        assert_eq!(text(253_402_300_799_999).unwrap(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_four_digits_of_a_year_cannot_say_is_not_said() {
        for ms in [-1, i64::MIN, 253_402_300_800_000, i64::MAX] {
            assert_eq!(text(ms), None, "{ms}");
        }
    }

    #[test]
    fn a_new_day_is_noticed() {
        let (mut times, mut out) = (Times::new(), Vec::new());
        for ms in [86_399_999, 86_400_000, 86_399_999] {
            times.write(ms, &mut out);
        }
        assert_eq!(out, b"1970-01-01T23:59:59.999Z1970-01-02T00:00:00.000Z1970-01-01T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn any_time_is_the_one_that_another_implementation_says(ms in 0..253_402_300_800_000_i64) {
            let other = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms as u64));
            // `Sun, 06 Nov 1994 08:49:37 GMT`
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            let month = 1 + months.iter().position(|month| *month == &other[8..11]).unwrap();
            let expected = format!("{}-{month:02}-{}T{}.{:03}Z", &other[12..16], &other[5..7], &other[17..25], ms % 1000);
            prop_assert_eq!(text(ms).unwrap(), expected);
        }
    }
}
