//! Records arrive: who is woken, and what nobody takes from.
//!
//! Called on the log's writer thread, so nothing here waits for a disk.

use super::Set;
use crate::StreamId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

/// Streams that belong to nobody's queue but are for looking at: trimmed like an unrouted environment's, by age alone.
/// Every other `!` stream without a queue is kept until its owner trims it.
pub(super) const REJECTS_PREFIX: &str = "!rejects/";

impl Set {
    /// Has the log wake the queues of a stream when records arrive.
    pub(super) fn watch(self: &Arc<Self>) {
        let set: Weak<Self> = Arc::downgrade(self);
        self.context.log.watch(Arc::new(move |stream, _| {
            if let Some(set) = set.upgrade() {
                set.arrived(stream);
            }
        }));
    }

    fn arrived(&self, stream: StreamId) {
        let known = self.index_read().by_id.get(&stream).cloned();
        let queues = known.unwrap_or_else(|| {
            // The stream is new, or was when the last records came: from now on its queues are known by its number.
            let Some(name) = self.context.log.stream_name(stream) else { return Vec::new() };
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            let queues = index.by_stream.get(&name).cloned().unwrap_or_default();
            index.by_id.insert(stream, queues.clone());
            queues
        });
        if queues.is_empty() {
            self.unrouted.store(true, Ordering::Release);
        }
        queues.iter().for_each(|inner| inner.wake());
    }
}
