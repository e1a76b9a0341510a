//! What of an environment's impressions a destination gets: patterns for flags, treatments and labels. Data and its
//! spelling; what it does to impressions is delivery's part.
//!
//! A pattern is a text that is met exactly; `*` at its end makes it a beginning, `!` before it makes it one that is not
//! wanted. `\` takes the meaning from the character behind it. What always holds: a spelling that was written reads back
//! as the same pattern.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a destination gets. Of each list: a record passes if no pattern with `!` meets it, and one of the others does or
/// there are none. It is sent if it passes all three. Empty lists let everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterSpec {
    /// Of the flag's name.
    pub flags: Vec<Pattern>,
    /// Of the treatment; one that was not given is the empty text.
    pub treatments: Vec<Pattern>,
    /// Of the label of the rule that decided; one that was not given is the empty text.
    pub labels: Vec<Pattern>,
}

impl FilterSpec {
    /// Whether everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.treatments.is_empty() && self.labels.is_empty()
    }
}

/// One text or beginning that is wanted, or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    /// The text, without `!`, `*` and `\`.
    pub text: String,
    /// Whatever begins with the text is met, not only the text itself.
    pub prefix: bool,
    /// What is met is not wanted.
    pub exclude: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star in the middle.
    #[error("`*` stands at the end of a pattern only")]
    Star,
    /// Nothing behind the last `\`.
    #[error("nothing stands behind the `\\`")]
    Backslash,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(spelled: &str) -> Result<Self, PatternError> {
        let (exclude, spelled) = match spelled.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, spelled),
        };
        let mut pattern = Self { text: String::with_capacity(spelled.len()), prefix: false, exclude };
        let mut chars = spelled.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.as_str().is_empty() => pattern.prefix = true,
                '*' => return Err(PatternError::Star),
                '\\' => pattern.text.push(chars.next().ok_or(PatternError::Backslash)?),
                c => pattern.text.push(c),
            }
        }
        Ok(pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exclude {
            f.write_char('!')?;
        }
        for (at, c) in self.text.char_indices() {
            if matches!(c, '*' | '\\') || (c == '!' && at == 0) {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        if self.prefix { f.write_char('*') } else { Ok(()) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(spelled: String) -> Result<Self, PatternError> {
        spelled.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str, prefix: bool, exclude: bool) -> Result<Pattern, PatternError> {
        Ok(Pattern { text: text.to_owned(), prefix, exclude })
    }

    #[test]
    fn a_pattern_is_exact_a_beginning_or_not_wanted() {
        let read = |text: &str| text.parse::<Pattern>();
        assert_eq!(read("exp_new"), pattern("exp_new", false, false));
        assert_eq!(read("exp_*"), pattern("exp_", true, false));
        assert_eq!(read("!exp_internal"), pattern("exp_internal", false, true));
        assert_eq!(read("!tmp_*"), pattern("tmp_", true, true));
        assert_eq!(read("*"), pattern("", true, false));
        assert_eq!(read(""), pattern("", false, false));
        assert_eq!(read(r"\!a\*"), pattern("!a*", false, false));
        assert_eq!(read("a!b"), pattern("a!b", false, false));
        assert_eq!(read("a*b"), Err(PatternError::Star));
        assert_eq!(read("**"), Err(PatternError::Star));
        assert_eq!(read(r"a\"), Err(PatternError::Backslash));
    }

    #[test]
    fn a_filter_is_kept_as_it_is_spelled_and_knows_no_other_lists() {
        let spec = FilterSpec { flags: vec!["exp_*".parse().unwrap()], ..FilterSpec::default() };
        let kept = serde_json::to_string(&spec).unwrap();
        assert_eq!(kept, r#"{"flags":["exp_*"],"treatments":[],"labels":[]}"#);
        assert_eq!(serde_json::from_str::<FilterSpec>(&kept).unwrap(), spec);
        assert_eq!(serde_json::from_str::<FilterSpec>("{}").unwrap(), FilterSpec::default());
        assert!(serde_json::from_str::<FilterSpec>(r#"{"keys":[]}"#).is_err(), "a filter of a later version");
        assert!(serde_json::from_str::<FilterSpec>(r#"{"flags":["a*b"]}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in r"[a!*\\é]{0,5}", prefix: bool, exclude: bool) {
            let pattern = Pattern { text, prefix, exclude };
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
        }
    }
}
