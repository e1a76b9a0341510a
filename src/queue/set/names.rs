//! The queues of a set in the order of their names, which each queue has itself: a map would hold them a second time, 48
//! bytes for each of thousands.

use crate::queue::Inner;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// Queues by destination and stream.
#[derive(Default)]
pub(super) struct Names(BTreeSet<Named>);

/// One of them.
struct Named(Arc<Inner>);

/// Destination and stream of a queue, or of one that is looked for.
trait HasName {
    fn name(&self) -> (&str, &str);
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, destination: &str, stream: &str) -> Option<&Arc<Inner>> {
        self.0.get(&(destination, stream) as &dyn HasName).map(|Named(inner)| inner)
    }

    /// All from this destination on.
    pub(super) fn from<'a>(&'a self, destination: &str) -> impl Iterator<Item = &'a Arc<Inner>> {
        let from: &dyn HasName = &(destination, "");
        self.0.range::<dyn HasName, _>((Bound::Included(from), Bound::Unbounded)).map(|Named(inner)| inner)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Inner>> {
        self.0.iter().map(|Named(inner)| inner)
    }

    /// In the place of another of that name, if there is one.
    pub(super) fn insert(&mut self, inner: Arc<Inner>) {
        self.0.replace(Named(inner));
    }

    pub(super) fn remove(&mut self, destination: &str, stream: &str) {
        self.0.remove(&(destination, stream) as &dyn HasName);
    }
}

impl HasName for Named {
    fn name(&self) -> (&str, &str) {
        (&self.0.destination, &self.0.stream)
    }
}

impl HasName for (&str, &str) {
    fn name(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn HasName + 'a> for Named {
    fn borrow(&self) -> &(dyn HasName + 'a) {
        self
    }
}

impl Ord for dyn HasName + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl PartialOrd for dyn HasName + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn HasName + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn HasName + '_ {}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Named {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::mem::MemDisk;
    use crate::{LogOptions, QueueOptions, Queues, Start};
    use std::path::Path;

    #[test]
    fn what_is_equal_in_order_is_equal() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(SystemClock::new()));
        let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline());
        let queues = queues.expect("it opens");
        let named = |destination: &str| {
            queues.queue(destination, "acme", Start::Earliest).expect("it is made");
            Named(queues.set.find(destination, "acme").expect("just made"))
        };
        let (a, b) = (named("a"), named("b"));
        assert!(a == named("a") && a != b);
        assert_eq!((a.partial_cmp(&b), b.partial_cmp(&a)), (Some(Ordering::Less), Some(Ordering::Greater)));
        let [x, y]: [&dyn HasName; 2] = [&("a", "acme"), &("b", "acme")];
        assert!(*x == *(&a as &dyn HasName) && *x != *y);
        assert_eq!(x.partial_cmp(y), Some(Ordering::Less));
    }
}
