//! How a reader walks a stream from its start to its end, and what it meets.

use forebay::{Item, Log};
use std::ops::Range;

/// What a reader met, from the start of a stream to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Offset of the first record.
    pub offsets: Range<u64>,
    /// Running total before it and the bytes; nothing for a lost range.
    pub frame: Option<(u64, Vec<u8>)>,
}

/// Everything that a reader meets in a stream.
///
/// # Errors
/// When the disk can't be read.
pub fn read(log: &Log, stream: &str) -> Result<Vec<Seen>, String> {
    let Some(id) = log.stream(stream) else { return Ok(Vec::new()) };
    let mut reader = log.reader(id, 0);
    let mut seen = Vec::new();
    while let Some(item) = reader.next().map_err(|e| e.to_string())? {
        seen.push(match item {
            Item::Frame(frame) => {
                Seen { offsets: frame.offsets(), frame: Some((frame.bytes_before, frame.payload().to_vec())) }
            }
            Item::Lost { offsets, .. } => Seen { offsets, frame: None },
        });
    }
    Ok(seen)
}
