//! Records arrive: who is woken, and what nobody takes from.
//!
//! Called on the log's writer thread, so nothing here waits for a disk.

use super::Set;
use crate::queue::lock;
use crate::sync::{Arc, PoisonError, Weak};
use crate::{Log, StreamId, Tail};
use std::collections::BTreeSet;

/// Streams that belong to nobody's queue but are for looking at: trimmed like an unrouted environment's, by age alone.
/// Every other `!` stream without a queue is kept until its owner trims it.
const REJECTS_PREFIX: &str = "!rejects/";

/// Whether a stream that nobody takes from is let go by its age alone.
pub(super) fn goes_by_age(name: &str) -> bool {
    !name.starts_with('!') || name.starts_with(REJECTS_PREFIX)
}

/// Streams that may have records that nobody is to take, since the last tick.
pub(super) struct Unrouted {
    /// It may be any.
    any: bool,
    those: BTreeSet<StreamId>,
}

impl Unrouted {
    /// Nobody knows which.
    pub(super) fn any() -> Self {
        Self { any: true, those: BTreeSet::new() }
    }

    pub(super) fn any_may_be(&mut self) {
        self.any = true;
    }

    /// What was noted; from now on nothing is.
    pub(super) fn take(&mut self) -> Self {
        Self { any: std::mem::take(&mut self.any), those: std::mem::take(&mut self.those) }
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> (bool, usize) {
        (self.any, self.those.len())
    }

    /// Calls `act` with each of them, its name and the end of its durable records.
    pub(super) fn each(self, log: &Log, act: impl Fn(StreamId, &str, Tail)) {
        if self.any {
            return log.streams().iter().for_each(|stream| act(stream.id, &stream.name, stream.tail));
        }
        for stream in self.those {
            if let Some(name) = log.stream_name(stream) {
                act(stream, &name, log.durable(stream));
            }
        }
    }
}

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
        // Plans and letters come all the time: a look at every stream for each tick of them would be dear.
        if queues.is_empty() && self.context.log.stream_name(stream).is_some_and(|name| goes_by_age(&name)) {
            lock(&self.unrouted).those.insert(stream);
        }
        queues.iter().for_each(|inner| inner.wake());
    }
}
