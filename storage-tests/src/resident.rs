//! The memory that this process has.
#![expect(clippy::disallowed_methods, reason = "measures this process")]

/// What is in memory of it now.
///
/// # Panics
/// Where the system does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}
