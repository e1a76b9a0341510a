//! Values that must not be seen, and how a configuration names them.
//!
//! A [`Secret`] has no `Display`, no `Serialize` and no `PartialEq`; its `Debug` prints `[secret]`. Whoever needs the
//! value calls [`Secret::reveal`], which is easy to search for. Where the value comes from is said in the file:
//! `env:NAME`, `file:PATH`, `secret:NAME` (an entry of `[secrets]`), or the value itself.

use std::fmt;
use std::hint::black_box;

/// A value that is never printed. Its `Hash` is for telling whether it has changed, within one process.
#[derive(Clone, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Do not log it, store it or put it into an error.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<[u8]>> Secret<T> {
    /// Whether `candidate` is the value, in a time that depends on the candidate's length only: how much of a guess
    /// was right can't be measured.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let value = self.0.as_ref();
        let mut difference = u8::from(value.len() != candidate.len());
        for (i, byte) in candidate.iter().enumerate() {
            let own = if value.is_empty() { 0 } else { value[i % value.len()] };
            // black_box: else the compiler may leave the loop at the first difference.
            difference |= black_box(own ^ byte);
        }
        black_box(difference) == 0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

/// Where a configured value is to be had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// `env:NAME`: an environment variable.
    Env(&'a str),
    /// `file:PATH`: what a file holds, without the line break at its end.
    File(&'a str),
    /// `secret:NAME`: what stands under that name in `[secrets]`.
    Named(&'a str),
    /// Anything else: the value itself.
    Literal(&'a str),
}

impl<'a> Source<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        if let Some(name) = text.strip_prefix("env:") {
            Self::Env(name.trim())
        } else if let Some(path) = text.strip_prefix("file:") {
            Self::File(path.trim())
        } else if let Some(name) = text.strip_prefix("secret:") {
            Self::Named(name.trim())
        } else {
            Self::Literal(text)
        }
    }
}

/// The longest secret taken from a file: far above any key, far below a file named by mistake.
pub(super) const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_a_word() {
        let secret = Secret::new(String::from("canary"));
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)).matches("canary").count(), 0);
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.reveal(), "canary");
    }

    #[test]
    fn only_the_whole_value_matches() {
        let secret = Secret::new(String::from("abcabc"));
        assert!(secret.matches(b"abcabc"));
        for other in ["", "abc", "abcabd", "xbcabc", "abcabca", "abcabcabcabc"] {
            assert!(!secret.matches(other.as_bytes()), "{other}");
        }
        assert!(Secret::new(String::new()).matches(b""));
        assert!(!Secret::new(String::new()).matches(b"\0"));
    }

    #[test]
    fn a_value_says_where_it_comes_from() {
        assert!(Source::of("env:KEY") == Source::Env("KEY"));
        assert!(Source::of("file:/run/key") == Source::File("/run/key"));
        assert!(Source::of("secret:acme") == Source::Named("acme"));
        assert!(Source::of("abc:def") == Source::Literal("abc:def"));
    }
}
