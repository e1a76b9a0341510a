//! Sizes and durations as operators write them, and back.
//!
//! A size is a whole number with a unit: `64MiB` (powers of 1,024), `1GB` (powers of 1,000), `512B`. A duration is one
//! or more such pairs: `300ms`, `5m`, `1h30m`. What is not exactly that is `None`, never a guess: `64mb` may have been
//! meant as bits, and `1.5GiB` is `1536MiB`. What is shown parses back to the same value.

use std::time::Duration;

/// Largest first, so that the first unit that divides a size is the one to show it in.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Largest first; in milliseconds.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The bytes that `text` stands for.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (count, unit, rest) = leading_pair(text.trim())?;
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == unit)?;
    if !rest.is_empty() {
        return None;
    }
    count.checked_mul(*scale)
}

/// The duration that `text` stands for.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total_ms: u64 = 0;
    let mut left = text.trim();
    let mut larger_than = u64::MAX;
    while !left.is_empty() {
        let (count, unit, rest) = leading_pair(left)?;
        let (_, scale) = TIMES.iter().find(|(name, _)| *name == unit)?;
        // "5s1h" and "1h1h" are more likely slips than meant.
        if *scale >= larger_than {
            return None;
        }
        larger_than = *scale;
        total_ms = total_ms.checked_add(count.checked_mul(*scale)?)?;
        left = rest;
    }
    (larger_than < u64::MAX).then(|| Duration::from_millis(total_ms))
}

/// A size in the largest unit that shows it exactly.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let (unit, scale) =
        SIZES.iter().find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// A duration in the largest unit that shows it exactly; below a millisecond it is cut.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, scale) = TIMES.iter().find(|(_, scale)| ms >= *scale && ms.is_multiple_of(*scale)).unwrap_or(&("s", 1));
    format!("{}{unit}", ms / scale)
}

/// Digits, then letters; what follows is handed back.
fn leading_pair(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, after) = text.split_at(digits);
    let after = after.trim_start();
    let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
    let (unit, rest) = after.split_at(letters);
    Some((count.parse().ok()?, unit, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_whole_numbers_with_an_exact_unit() {
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1GB"), Some(1_000_000_000));
        assert_eq!(parse_bytes(" 10 KiB "), Some(10_240));
        assert_eq!(parse_bytes("0B"), Some(0));
        for slip in ["", "64", "MiB", "64mb", "64Mib", "1.5GiB", "-1KB", "1KB1B", "64 MiB x", "99999999999TiB", "６MiB"]
        {
            assert_eq!(parse_bytes(slip), None, "{slip:?}");
        }
    }

    #[test]
    fn durations_are_pairs_from_the_largest_unit_down() {
        assert_eq!(parse_duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for slip in ["", "5", "m", "5min", "5M", "30m1h", "1h1h", "1.5h", "-5s", "99999999999999999d"] {
            assert_eq!(parse_duration(slip), None, "{slip:?}");
        }
    }

    #[test]
    fn values_are_shown_in_the_largest_exact_unit() {
        assert_eq!(show_bytes(64 << 20), "64MiB");
        assert_eq!(show_bytes(1_500), "1500B");
        assert_eq!(show_bytes(0), "0B");
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_back(bytes: u64, ms: u64) {
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,12}|[0-9]{0,22}[a-zA-Z ]{0,4}[0-9]{0,3}[smh]{0,2}") {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
