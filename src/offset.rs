//! The numbers by which records, streams, segments and logs are named.
//!
//! An *offset* counts the records of one stream from 0 and is a plain `u64`; ranges of offsets are half-open
//! `Range<u64>`. A *position* counts bytes within one segment and is a `u32`, so that the two never mix by accident.

use std::fmt;

/// A stream's number in this log, dense from 0 in the order of first appends. Means nothing in another log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// A segment's number: one greater than any segment before it, never given twice in one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// 128 random bits made with the data directory. Two logs never share one, so ids made from it never collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u128);

/// The 64 digits that may stand in an id and in a file name: `[A-Za-z0-9_-]`.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `value` in base 64, most significant digit first, without leading zero digits; `A` for zero. At most 11 characters for a `u64`,
/// 22 for a `u128`. Ids are made of these.
#[must_use]
pub fn base64_digits(mut value: u128) -> String {
    let mut digits = Vec::with_capacity(22);
    loop {
        digits.push(DIGITS[(value & 63) as usize]);
        value >>= 6;
        if value == 0 {
            break;
        }
    }
    digits.reverse();
    String::from_utf8(digits).expect("DIGITS is ASCII")
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64_digits(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_numbers_have_different_digits() {
        let shown: Vec<String> =
            [0, 1, 63, 64, 65, 4095, 4096, u128::from(u64::MAX), u128::MAX].into_iter().map(base64_digits).collect();
        let mut unique = shown.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), shown.len());
        assert_eq!(base64_digits(0), "A");
        assert_eq!(base64_digits(64), "BA");
    }

    #[test]
    fn the_longest_numbers_have_the_documented_length() {
        assert_eq!(base64_digits(u128::MAX).len(), 22);
        assert_eq!(base64_digits(u128::from(u64::MAX)).len(), 11);
    }
}
