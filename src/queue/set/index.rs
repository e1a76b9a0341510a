//! The queues of a set by what they are asked by: name, stream, and the stream's number.

use super::names::Names;
use crate::StreamId;
use crate::queue::Inner;
use std::collections::HashMap;
use std::sync::Arc;

/// The queues by what they are asked by.
#[derive(Default)]
pub(super) struct Index {
    pub(super) by_name: Names,
    pub(super) by_stream: HashMap<Arc<str>, Vec<Arc<Inner>>>,
    pub(super) by_id: HashMap<StreamId, Vec<Arc<Inner>>>,
}

impl Index {
    pub(super) fn add(&mut self, inner: Arc<Inner>) {
        self.by_stream.entry(Arc::clone(&inner.stream)).or_default().push(Arc::clone(&inner));
        // Under its number it is entered when records next come: there may be an entry without this queue by now.
        if let Some(id) = inner.context.log.stream(&inner.stream) {
            self.by_id.remove(&id);
        }
        self.by_name.insert(inner);
    }

    /// Forgets a queue.
    pub(super) fn remove(&mut self, inner: &Arc<Inner>) {
        self.by_name.remove(&inner.destination, &inner.stream);
        for queues in self.by_id.values_mut() {
            queues.retain(|other| !Arc::ptr_eq(other, inner));
        }
        let Some(queues) = self.by_stream.get_mut(&inner.stream) else { return };
        queues.retain(|other| !Arc::ptr_eq(other, inner));
        if queues.is_empty() {
            self.by_stream.remove(&inner.stream);
        }
    }

    /// The name as other queues have it, so that a thousand destinations of an environment share its letters.
    pub(super) fn name(&self, name: &str, of: impl Fn(&Inner) -> &Arc<str>) -> Arc<str> {
        let stream = self.by_stream.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let neighbour = || self.by_name.from(name).next().map(|inner| Arc::clone(of(inner)));
        stream.or_else(neighbour).filter(|found| **found == *name).unwrap_or_else(|| Arc::from(name))
    }
}
