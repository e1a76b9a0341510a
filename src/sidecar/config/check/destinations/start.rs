//! Reads where a destination starts that was never seen before: a word, or a time.

use super::super::super::Start;
use super::super::super::raw::Section;
use super::super::Through;

/// The default is the file's or the API's: what is written into a file was meant to be there from the beginning, what is
/// made at run time begins when it is made.
pub(super) fn read(section: &Section<'_>, through: Through) -> Start {
    let default = match through {
        Through::File => Start::Earliest,
        Through::Api => Start::Now,
    };
    let Some(field) = section.get("start") else { return default };
    let Some(text) = field.text() else { return default };
    match text {
        "earliest" => Start::Earliest,
        "now" => Start::Now,
        _ => unix_ms(text).map(Start::Time).unwrap_or_else(|| {
            let remedy = "write \"earliest\", \"now\" or a time such as \"2026-11-26T10:00:00Z\"";
            field.place.error("this is no place to start at", remedy);
            default
        }),
    }
}

/// Milliseconds since 1970 of a time with its offset from UTC (RFC 3339).
fn unix_ms(text: &str) -> Option<u64> {
    let toml::value::Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = text.parse().ok()? else {
        return None;
    };
    let offset_minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let (hour, minute) = (i64::from(time.hour), i64::from(time.minute) - offset_minutes);
    let seconds = days(date.year.into(), date.month.into(), date.day.into()) * 86_400
        + hour * 3_600
        + minute * 60
        + i64::from(time.second.unwrap_or(0));
    u64::try_from(seconds * 1_000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000)).ok()
}

/// Days from 1970-01-01 to a date: years begin in March here, so that a leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100 + of_year;
    // 719,468 days from 0000-03-01 to 1970-01-01.
    year.div_euclid(400) * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_milliseconds_since_1970() {
        let times = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:15.250Z", 951_827_415_250),
            ("2026-11-26T10:00:00Z", 1_795_687_200_000),
            ("2026-11-26T12:00:00+02:00", 1_795_687_200_000),
        ];
        for (text, ms) in times {
            assert_eq!(unix_ms(text), Some(ms), "{text}");
        }
        for wrong in ["yesterday", "2026-11-26", "2026-11-26T10:00:00", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"]
        {
            assert_eq!(unix_ms(wrong), None, "{wrong}");
        }
    }
}
