//! What of a post cannot be an impression: its raw text and the reason, bounded in number.
//!
//! Nothing is left out: if there are too many to keep one by one, the whole body is kept beside them.

use std::fmt;

use crate::impression::text::JsonText;

/// An element of a body that cannot be an impression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The element as it stood in the body.
    pub raw: Vec<u8>,
    /// Why, where in the body, and of which flag; for people.
    pub reason: String,
}

/// Why an element was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RejectWhy {
    #[error("a group must be an object")]
    GroupNotObject,
    #[error("the group has no \"{name}\"")]
    GroupLacks { name: &'static str },
    #[error("the group's \"{name}\" must be {must_be}")]
    GroupWrong { name: &'static str, must_be: &'static str },
    #[error("the flag's name is longer than {limit} bytes")]
    FlagTooLong { limit: usize },
    #[error("an impression must be an object")]
    NotObject,
    #[error("the impression has no \"{name}\"")]
    Lacks { name: &'static str },
    #[error("the impression's \"{name}\" must be {must_be}")]
    Wrong { name: &'static str, must_be: &'static str },
}

/// The rejects of one body.
#[derive(Debug)]
pub(super) struct Rejects {
    kept: Vec<Reject>,
    count: u64,
    kept_max: usize,
}

impl Rejects {
    /// None yet; at most `kept_max` will be kept one by one.
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), count: 0, kept_max }
    }

    /// Adds the element `raw`, which begins at byte `at` of the body, in a group of `flag` if that is known.
    #[cold]
    pub(super) fn add(&mut self, raw: &[u8], at: usize, why: RejectWhy, flag: Option<JsonText<'_>>) {
        self.count += 1;
        if self.kept.len() < self.kept_max {
            let of_flag = flag.map_or(String::new(), |flag| format!(", flag {flag:?}"));
            self.kept.push(Reject { raw: raw.to_vec(), reason: format!("{why} (byte {at} of the body{of_flag})") });
        }
    }

    /// How many elements were rejected.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The rejects, and `body` as the last of them if it holds more than were kept.
    pub(super) fn into_vec(mut self, body: &[u8]) -> Vec<Reject> {
        let more = self.count - self.kept.len() as u64;
        if more > 0 {
            let reason = TooMany { more }.to_string();
            self.kept.push(Reject { raw: body.to_vec(), reason });
        }
        self.kept
    }
}

struct TooMany {
    more: u64,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} more elements cannot be impressions, so the whole body is kept: its other impressions were stored",
            self.more
        )
    }
}
