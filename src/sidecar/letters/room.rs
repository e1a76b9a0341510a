//! How much room letters may take, of a destination whose records lie in another log.
//!
//! An upstream's posts have a log of their own, so that they never fill that of impressions; their letters lie there
//! nevertheless, and anybody who has an SDK key can post what becomes one. So there is a bound: what finds no room is no
//! letter and waits where it is, as everything else that is not delivered. Nothing goes for want of room.

use std::sync::atomic::Ordering;

use super::desk::Desk;

impl Desk {
    /// Letters hold at most so many bytes, as stored; `None`: as many as come.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.room_bytes.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// See [`set_room`](Self::set_room).
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        Some(self.room_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes < u64::MAX)
    }

    /// Whether there is room for so many bytes more. One letter always finds some, however large.
    pub(super) fn has_room(&self, more: u64) -> bool {
        let held = self.bytes();
        self.room().is_none_or(|room| held == 0 || held.saturating_add(more) <= room)
    }
}
