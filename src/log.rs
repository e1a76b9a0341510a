//! The durable log.

use crate::Sequence;

/// All bytes of segment `sequence` below `position` were synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncedMark {
    /// The segment.
    pub sequence: Sequence,
    /// Its first byte that may not be synced.
    pub position: u32,
}
