//! Small caches for reading what is no longer in memory: frames that a neighbour may want too, and segment indexes.
//!
//! Both are bounded, oldest out first; the newest stays however large it is, for whoever reads on would read it again. Catch-up
//! reads go here and never push anything out of the tail cache.

use super::index::SegmentIndex;
use super::reader::Frame;
use crate::offset::{Sequence, StreamId};
use crate::sync::{Arc, Mutex, PoisonError};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A bounded map: the oldest entries go first.
#[derive(Debug)]
struct Fifo<K, V> {
    map: HashMap<K, (Arc<V>, usize)>,
    order: VecDeque<K>,
    weight: usize,
    weight_max: usize,
}

/// Frames read from disk.
#[derive(Debug)]
pub(crate) struct ReadCache(Mutex<Fifo<(StreamId, u64), Frame>>);

/// Indexes of sealed segments.
#[derive(Debug)]
pub(crate) struct IndexCache(Mutex<Fifo<Sequence, SegmentIndex>>);

impl<K: Copy + Eq + Hash, V> Fifo<K, V> {
    fn new(weight_max: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), weight: 0, weight_max }
    }

    fn put(&mut self, key: K, value: Arc<V>, weight: usize) {
        if self.map.contains_key(&key) {
            return;
        }
        self.map.insert(key, (value, weight));
        self.order.push_back(key);
        self.weight += weight;
        while self.weight > self.weight_max && self.order.len() > 1 {
            let oldest = self.order.pop_front().expect("weight is that of the entries in order");
            let (_, weight) = self.map.remove(&oldest).expect("what is in order is there");
            self.weight -= weight;
        }
    }

    fn remove(&mut self, key: K) {
        if let Some((_, weight)) = self.map.remove(&key) {
            self.weight -= weight;
            self.order.retain(|kept| *kept != key);
        }
    }
}

impl ReadCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(Fifo::new(bytes_max)))
    }

    pub(crate) fn get(&self, stream: StreamId, first: u64) -> Option<Arc<Frame>> {
        let fifo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fifo.map.get(&(stream, first)).map(|(frame, _)| Arc::clone(frame))
    }

    pub(crate) fn put(&self, frame: &Arc<Frame>) {
        let mut fifo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fifo.put((frame.stream, frame.first), Arc::clone(frame), frame.weight());
    }
}

impl IndexCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(Fifo::new(bytes_max)))
    }

    pub(crate) fn get(&self, sequence: Sequence) -> Option<Arc<SegmentIndex>> {
        let fifo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fifo.map.get(&sequence).map(|(index, _)| Arc::clone(index))
    }

    pub(crate) fn put(&self, index: &Arc<SegmentIndex>) {
        let mut fifo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fifo.put(index.header.sequence, Arc::clone(index), index.weight());
    }

    pub(crate) fn remove(&self, sequence: Sequence) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_make_room_and_the_newest_stays_however_large() {
        let mut fifo = Fifo::new(10);
        fifo.put(1, Arc::new("a"), 4);
        fifo.put(2, Arc::new("b"), 4);
        fifo.put(3, Arc::new("c"), 4);
        let kept = |fifo: &Fifo<i32, &str>| {
            let mut kept: Vec<i32> = fifo.map.keys().copied().collect();
            kept.sort_unstable();
            (kept, fifo.weight)
        };
        assert_eq!(kept(&fifo), (vec![2, 3], 8));
        fifo.put(4, Arc::new("large"), 11);
        assert_eq!(kept(&fifo), (vec![4], 11));
        fifo.put(5, Arc::new("d"), 4);
        assert_eq!(kept(&fifo), (vec![5], 4));
    }

    /// Two readers that came for the same at once.
    #[test]
    fn an_entry_that_is_there_already_stays_and_weighs_once() {
        let mut fifo = Fifo::new(10);
        fifo.put(1, Arc::new("a"), 4);
        fifo.put(1, Arc::new("again"), 4);
        assert_eq!((fifo.weight, fifo.order.len(), *fifo.map[&1].0), (4, 1, "a"));
        fifo.put(2, Arc::new("b"), 6);
        fifo.put(3, Arc::new("c"), 4);
        assert_eq!((fifo.weight, fifo.map.len()), (10, 2), "its room is free again with it");
    }

    #[test]
    fn a_removed_entry_gives_its_weight_back_once() {
        let mut fifo = Fifo::new(10);
        fifo.put(1, Arc::new("a"), 4);
        fifo.remove(1);
        fifo.remove(1);
        fifo.put(1, Arc::new("b"), 10);
        assert_eq!((fifo.weight, fifo.order.len()), (10, 1));
    }
}
