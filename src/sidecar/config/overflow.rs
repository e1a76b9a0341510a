//! `overflow` of a destination: what is given up when it falls behind too far. Nothing, unless an operator says so.

use std::time::Duration;

/// Off by default: then a destination that is behind is late, however far, and nothing is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OverflowConfig {
    /// What becomes of the oldest records.
    pub policy: OverflowPolicy,
    /// Those that were received longer ago.
    pub max_age: Option<Duration>,
    /// While more bytes wait, as stored, over all environments of the destination.
    pub max_bytes: Option<u64>,
}

/// What becomes of records that are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverflowPolicy {
    /// They are gone, and counted as expired.
    DropOldest,
    /// They are dead letters, and stay where they lie until somebody decides.
    DeadLetter,
}

impl OverflowPolicy {
    /// The words of the file.
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("drop_oldest", Self::DropOldest), ("dead_letter", Self::DeadLetter)];

    /// Its word in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, policy)| *policy == self).map_or("", |(word, _)| word)
    }
}
