//! Numbers as people read them: counts, bytes, durations, rates.
//!
//! Pure, and lossy on purpose. For programs there is `--json`.

use std::time::Duration;

/// What stands where a number is not known.
pub(crate) const UNKNOWN: &str = "-";

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `812 B`, `1.2 KiB`, `3.4 GiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut scaled = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be shown as 1024.0 is shown as 1.0 of the next.
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

/// `0s`, `1.5s`, `42s`, `3m 12s`, `5h 03m`, `3d 04h`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if time.is_zero() {
        "0s".to_owned()
    } else if seconds < 10 {
        // Cut, not rounded, as all the others are.
        format!("{}.{}s", seconds, time.subsec_millis() / 100)
    } else if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else {
        format!("{}d {:02}h", count(days), hours % 24)
    }
}

/// The same of so many hours; a century or more is `long`, and so is what is no time.
pub(crate) fn hours(hours: f64) -> String {
    const LONG: f64 = 100.0 * 365.0 * 24.0;
    if (0.0..LONG).contains(&hours) {
        duration(Duration::from_secs((hours * 3_600.0) as u64))
    } else {
        "long".to_owned()
    }
}

/// `0/s`, `3.5/s`, `12,300/s`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        // The cast saturates, which a rate of records does not reach.
        format!("{}/s", count(per_second.round() as u64))
    } else if per_second >= 0.05 {
        format!("{per_second:.1}/s")
    } else {
        "0/s".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_never_show_more_than_four_digits() {
        for (number, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn durations_show_two_units_at_most() {
        for (ms, text) in [
            (0, "0s"),
            (99, "0.0s"),
            (1_590, "1.5s"),
            (9_999, "9.9s"),
            (59_999, "59s"),
            (192_000, "3m 12s"),
            (18_180_000, "5h 03m"),
            (273_600_000, "3d 04h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn slow_rates_keep_a_decimal() {
        for (per_second, text) in [(0.0, "0/s"), (0.04, "0/s"), (3.46, "3.5/s"), (9.96, "10/s"), (12_300.2, "12,300/s")]
        {
            assert_eq!(rate(per_second), text);
        }
    }
}
