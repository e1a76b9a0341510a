//! What the writer is handed: an append with its checksums, and whom to tell what became of it.
//!
//! Each is answered once, on the thread that commits; a panic in whoever is told ends there.

use super::PLANS_STREAM;
use super::frame::stored_len;
use super::limits::FRAME_HEADER_BYTES;
use super::options::{AppendError, Appended, Done, Payload};
use super::segment::Class;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// An append that waits.
pub(super) struct Pending {
    pub(super) stream: Arc<str>,
    /// Each part with its checksum.
    pub(super) parts: Vec<(Payload, u32)>,
    pub(super) done: Done,
}

// === impl Pending ===

impl Pending {
    /// Sums the parts up here, on the caller's thread: the writer is one for all, and what it does everybody waits for.
    pub(super) fn new(stream: &str, parts: Vec<Payload>, done: Done) -> Self {
        let summed = |part: Payload| {
            let crc = crc32fast::hash(&part.bytes);
            (part, crc)
        };
        Self { stream: stream.into(), parts: parts.into_iter().map(summed).collect(), done }
    }

    /// Bytes that it will take in a segment, at most.
    pub(super) fn stored_bytes(&self) -> u64 {
        let frames: u64 = self.parts.iter().map(|(part, _)| u64::from(stored_len(part.bytes.len() as u32))).sum();
        frames + u64::from(stored_len(self.stream.len() as u32))
    }

    /// Bytes that it counts for while it waits: with the headers of its frames, for a record may have no payload.
    pub(super) fn queued_bytes(&self) -> usize {
        self.parts.iter().map(|(part, _)| part.bytes.len() + FRAME_HEADER_BYTES as usize).sum()
    }

    pub(super) fn class(&self) -> Class {
        // Plans go with the records they are about and end with them; all else of ours is kept apart.
        if is_ours(&self.stream) && &*self.stream != PLANS_STREAM { Class::System } else { Class::Main }
    }
}

pub(super) fn is_ours(stream: &str) -> bool {
    stream.starts_with('!')
}

/// Answers all of them with the same error.
pub(super) fn refuse(appends: Vec<Pending>, error: &AppendError) {
    for append in appends {
        answer(append.done, Err(error.clone()));
    }
}

/// Calls back. A panic in the callback is its owner's bug and must not stop the log.
pub(super) fn answer(done: Done, result: Result<Appended, AppendError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a completion callback panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_counts_with_a_header_for_each_part_and_is_stored_with_its_streams_name_at_most() {
        let parts = [8, 9].map(|len| Payload { bytes: vec![0; len], records: 1 });
        let append = Pending::new("acme", parts.into(), Box::new(|_| ()));
        assert_eq!(append.queued_bytes(), 2 * 56 + 8 + 9);
        assert_eq!(append.stored_bytes(), 64 + 72 + 64, "frames start at multiples of eight");
    }

    #[test]
    fn only_what_is_ours_and_no_plan_is_kept_apart() {
        let class = |stream: &str| Pending::new(stream, Vec::new(), Box::new(|_| ())).class();
        let classes = ["acme", "!dead/acme", PLANS_STREAM].map(class);
        assert_eq!(classes, [Class::Main, Class::System, Class::Main]);
    }
}
