//! What the fuzzer of headers calls: see [`crate::fuzzing`].

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::rate_hints::{allowance, wait};
use super::retry_after::{WAIT_MAX, parse};

/// `data`: the status (1 byte: 429, 503 or another), then headers as lines of a name, a colon and a value. No header has us
/// wait for more than a day; seconds are obeyed to the second; and where nothing is refused only `Retry-After` counts.
pub fn rate_headers(data: &[u8]) {
    let Some((status, lines)) = data.split_first() else { return };
    let status = [429, 503, 200, 400][usize::from(status % 4)];
    let mut headers: HashMap<String, &[u8]> = HashMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        headers.entry(name).or_insert(line[colon + 1..].trim_ascii());
    }
    let header = |name: &str| headers.get(name).copied();
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(1_795_450_895);
    let asked = wait(status, header, now);
    assert!(asked.is_none_or(|asked| asked <= WAIT_MAX));
    let told = header("retry-after").and_then(|text| parse(text, header("date"), now));
    match told {
        Some(told) => assert_eq!(asked, Some(told)),
        None => assert!(asked.is_none() || [429, 503].contains(&status)),
    }
    if let Some(digits) = header("retry-after").filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit)) {
        let seconds =
            digits.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        assert_eq!(told, Some(seconds.map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX)));
    }
    assert!(allowance(header, now).is_none_or(|left| left.resets_in <= WAIT_MAX));
}
