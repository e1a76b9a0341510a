//! Which dead letters are meant, and what is shown of one. Pure.

use bytes::Bytes;
use forebay::LogId;

use super::marked::{MarkedLetters, REASON};
use super::packed::Packed;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::record_id;
use crate::impression::escape;

/// Narrows dead letters down. What is not given narrows nothing: the default means all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only these records, by their ids (`<log>-<stream>-<offset>`). All if empty.
    pub ids: Vec<String>,
    /// Only of this environment.
    pub environment: Option<String>,
    /// Only of this flag.
    pub flag: Option<String>,
    /// Only with this in their reason, in whichever case.
    pub reason: Option<String>,
    /// Only those taken out at this moment or later, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Only those taken out before this moment, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

/// What is shown of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The record's id, by which it is asked for.
    pub id: String,
    /// Where the record comes from.
    pub origin: LetterOrigin,
    /// The environment's id.
    pub environment: String,
    /// The flag that was evaluated, as JSON text; empty if the record cannot be read.
    pub flag: String,
    /// Why it was taken out.
    pub reason: String,
    /// The start of the destination's answer; may be empty.
    pub excerpt: String,
    /// When it was taken out, in milliseconds since 1970.
    pub at_ms: u64,
    /// How often it had been sent, as far as that is known.
    pub attempts: u32,
    /// The record as stored: a `StoredBatch`, and its place in that; or a `StoredPost`.
    pub record: (Bytes, u32),
    /// The environment's name.
    pub environment_name: String,
}

impl Filter {
    /// Whether it means this letter.
    pub(super) fn matches(&self, letter: &Packed) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        (self.from_ms.is_none_or(|from| letter.at_ms >= from))
            && self.until_ms.is_none_or(|until| letter.at_ms < until)
            && same(&self.environment, &letter.environment_id)
            && self.reason.as_ref().is_none_or(|reason| contains(&letter.reason, reason))
            && (self.ids.is_empty() || self.ids.contains(&letter.record_id()))
            && self.flag.as_ref().is_none_or(|flag| letter.flag().is_some_and(|is| is == json_text(flag)))
    }

    /// Whether it means records that lie where they were given up. What would have to look into them means none.
    pub(super) fn means(&self, range: &MarkedLetters) -> bool {
        self.ids.is_empty()
            && self.flag.is_none()
            && self.environment.as_ref().is_none_or(|wanted| *wanted == range.environment)
            && self.reason.as_ref().is_none_or(|reason| contains(REASON, reason))
            && self.from_ms.is_none_or(|from| range.at_ms >= from)
            && self.until_ms.is_none_or(|until| range.at_ms < until)
    }

    /// Whether every id in it is one of this log's, or of another that was.
    #[must_use]
    pub fn bad_id(&self) -> Option<&str> {
        self.ids.iter().map(String::as_str).find(|id| record_id::parse(id).is_none())
    }
}

impl Shown {
    pub(super) fn of(letter: Packed) -> Self {
        let (id, origin) = (letter.record_id(), letter.origin());
        let flag = letter.flag().unwrap_or_default().to_owned();
        let Packed {
            environment_id: environment,
            environment_name,
            reason,
            excerpt,
            at_ms,
            attempts,
            record,
            index,
            ..
        } = letter;
        Self {
            id,
            origin,
            environment,
            flag,
            reason,
            excerpt,
            at_ms,
            attempts,
            record: (record.into(), index),
            environment_name,
        }
    }

    /// The log that its record comes from.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.origin.log
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

/// As SDKs write it in their posts.
fn json_text(text: &str) -> String {
    let mut escaped = Vec::with_capacity(text.len());
    escape(text.as_bytes(), &mut escaped);
    String::from_utf8(escaped).unwrap_or_default()
}
