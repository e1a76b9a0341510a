//! What a destination's loop remembers of it between batches, and while it rests. Decides nothing.

use std::ops::Range;

use super::told::Told;
use crate::delivery::notes::{Lane, Note, Notes};
use crate::delivery::poison::Poison;

/// What was learned of the destination and of batches that are not settled. Nothing until it is first sent to.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Memory(Option<Box<Learned>>);

#[derive(Debug, Default)]
struct Learned {
    poison: Poison,
    notes: Notes,
    /// The bytes of a batch that kept others waiting for long, until one like it does not.
    slow_bytes: Option<u64>,
    /// How many batches the destination took.
    taken: u64,
    told: Told,
}

impl Memory {
    /// What the log has heard of its troubles.
    pub(super) fn told(&mut self) -> &mut Told {
        &mut self.0.get_or_insert_default().told
    }

    pub(super) fn poison(&mut self) -> &mut Poison {
        &mut self.0.get_or_insert_default().poison
    }

    /// A batch of so many bytes kept others waiting for long, or was over before it could.
    pub(super) fn took_long(&mut self, bytes: u64, slow: bool) {
        if slow {
            self.0.get_or_insert_default().slow_bytes = Some(bytes);
        } else if let Some(learned) = &mut self.0 {
            // A small one says nothing of large ones.
            learned.slow_bytes = learned.slow_bytes.filter(|slow_bytes| bytes < slow_bytes / 2);
        }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.0.as_ref().is_some_and(|learned| learned.slow_bytes.is_some())
    }

    pub(super) fn note(&self, queue: Lane, offsets: &Range<u64>) -> Option<&Note> {
        self.0.as_ref()?.notes.get(queue, offsets)
    }

    pub(super) fn taken(&self) -> u64 {
        self.0.as_ref().map_or(0, |learned| learned.taken)
    }

    pub(super) fn count_taken(&mut self) {
        self.0.get_or_insert_default().taken += 1;
    }

    pub(super) fn notes(&mut self) -> &mut Notes {
        &mut self.0.get_or_insert_default().notes
    }
}
