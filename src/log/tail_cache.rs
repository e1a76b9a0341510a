//! What was just appended, kept in memory: one shared copy for all readers, bounded in bytes.
//!
//! A frame goes when nobody needs it any more ([`TailCache::settle`]): a destination that keeps up costs the memory of
//! what is on its way, not all that is allowed. Where the bound is met before that, the oldest frame of all goes first; but
//! of a stream that has more than half of the cache its own, so that a flood of one sends no other's readers to the disk.

use crate::log::reader::Frame;
use crate::offset::StreamId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Below this many entries of frames that went it is not worth looking for them.
const SWEEP_MIN: usize = 64;

/// The newest frames of all streams.
#[derive(Debug)]
pub(crate) struct TailCache {
    /// Of each stream the newest frames, without a gap in their order of arrival.
    by_stream: HashMap<StreamId, Tail>,
    /// All frames in their order of arrival, by stream and first offset; also some that went by `settle`.
    order: VecDeque<(StreamId, u64)>,
    frames: usize,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Tail {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { by_stream: HashMap::new(), order: VecDeque::new(), frames: 0, bytes: 0, bytes_max }
    }

    /// Adds a stream's newest frame and lets old ones go until all fit. Returns them as [`settle`](Self::settle) does.
    #[must_use]
    pub(crate) fn push(&mut self, frame: Arc<Frame>) -> Vec<Arc<Frame>> {
        let (stream, weight) = (frame.stream, frame.weight());
        self.bytes += weight;
        self.frames += 1;
        self.order.push_back((stream, frame.first));
        let tail = self.by_stream.entry(stream).or_default();
        tail.bytes += weight;
        tail.frames.push_back(frame);
        let mut going = Vec::new();
        while self.bytes > self.bytes_max {
            let floods = self.by_stream.get(&stream).is_some_and(|tail| tail.bytes > self.bytes_max / 2);
            let from = if floods { stream } else { self.oldest() };
            going.push(self.take_first(from));
        }
        self.sweep();
        going
    }

    /// The frame that holds `offset`, if it is kept.
    pub(crate) fn get(&self, stream: StreamId, offset: u64) -> Option<Arc<Frame>> {
        let Tail { frames, .. } = self.by_stream.get(&stream)?;
        let frame = frames.get(frames.partition_point(|frame| frame.offsets().end <= offset))?;
        // A gap before the frame is the reader's to explain: it asks the index.
        (frame.first <= offset).then(|| Arc::clone(frame))
    }

    /// Lets the frames of `stream` go that end at or below `before`: nobody needs them. Returns them, so that whoever
    /// holds a lock gives their memory back behind it.
    #[must_use]
    pub(crate) fn settle(&mut self, stream: StreamId, before: u64) -> Vec<Arc<Frame>> {
        let Some(tail) = self.by_stream.get(&stream) else { return Vec::new() };
        let settled = tail.frames.partition_point(|frame| frame.offsets().end <= before);
        let going = (0..settled).map(|_| self.take_first(stream)).collect();
        self.sweep();
        going
    }

    /// Payload bytes and bookkeeping of all frames kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stream of the oldest frame of all.
    fn oldest(&mut self) -> StreamId {
        loop {
            let (stream, first) = *self.order.front().expect("bytes are those of the frames in order");
            if self.keeps(stream, first) {
                return stream;
            }
            self.order.pop_front();
        }
    }

    /// Takes the oldest frame of a stream that has one.
    fn take_first(&mut self, stream: StreamId) -> Arc<Frame> {
        let tail = self.by_stream.get_mut(&stream).expect("it is kept");
        let frame = tail.frames.pop_front().expect("it is kept");
        tail.bytes -= frame.weight();
        self.bytes -= frame.weight();
        self.frames -= 1;
        if tail.frames.is_empty() {
            // A stream that went quiet costs nothing here.
            self.by_stream.remove(&stream);
        }
        frame
    }

    /// Whether the frame that was pushed with this first offset is still here: a stream's frames go from the front.
    fn keeps(&self, stream: StreamId, first: u64) -> bool {
        self.by_stream.get(&stream).and_then(|tail| tail.frames.front()).is_some_and(|front| front.first <= first)
    }

    /// Forgets the order of frames that went, when they are most of it: so each is looked at about twice.
    fn sweep(&mut self) {
        if self.order.len() > 2 * self.frames + SWEEP_MIN {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(stream, first)| self.keeps(*stream, *first));
            self.order = order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u32, first: u64, records: u32, len: usize) -> Arc<Frame> {
        Arc::new(Frame {
            stream: StreamId(stream),
            first,
            records,
            bytes_before: 0,
            ingest_ms: 0,
            payload: vec![1; len],
        })
    }

    /// What goes is dropped.
    fn push(cache: &mut TailCache, frame: Arc<Frame>) {
        drop(cache.push(frame));
    }

    #[test]
    fn the_oldest_frames_of_all_streams_go_first() {
        let weight = frame(0, 0, 1, 100).weight();
        let mut cache = TailCache::new(weight * 4);
        push(&mut cache, frame(0, 0, 10, 100));
        push(&mut cache, frame(1, 0, 10, 100));
        push(&mut cache, frame(0, 10, 10, 100));
        push(&mut cache, frame(1, 10, 10, 100));
        assert!(cache.get(StreamId(0), 9).is_some());
        push(&mut cache, frame(2, 0, 10, 100));
        assert!(cache.get(StreamId(0), 9).is_none());
        assert_eq!(cache.get(StreamId(0), 10).map(|f| f.first), Some(10));
        assert_eq!(cache.bytes(), weight * 4);
    }

    /// Before: a large append sent the readers of all other streams to the disk.
    #[test]
    fn a_stream_that_has_more_than_half_loses_its_own_and_what_goes_is_given_to_the_caller() {
        let weight = frame(0, 0, 1, 100).weight();
        let mut cache = TailCache::new(weight * 8);
        (0..4).for_each(|n| push(&mut cache, frame(1 + n, 0, 1, 100)));
        let going: Vec<_> = (0..20).flat_map(|n| cache.push(frame(0, n, 1, 100))).collect();
        assert_eq!(
            going.iter().map(|frame| (frame.stream.0, frame.first)).collect::<Vec<_>>(),
            (0..16).map(|n| (0, n)).collect::<Vec<_>>()
        );
        assert!((1..5).all(|stream| cache.get(StreamId(stream), 0).is_some()));
        // Of the others the oldest goes for another's, while nobody has more than half.
        let going = cache.push(frame(4, 1, 1, 100));
        assert_eq!(going.iter().map(|frame| frame.stream.0).collect::<Vec<_>>(), [1]);
        assert_eq!((cache.bytes(), cache.frames), (weight * 8, 8));
    }

    #[test]
    fn an_offset_in_a_gap_is_not_answered() {
        let mut cache = TailCache::new(10_000);
        push(&mut cache, frame(0, 0, 5, 10));
        push(&mut cache, frame(0, 8, 5, 10));
        assert!(cache.get(StreamId(0), 6).is_none());
        assert!(cache.get(StreamId(0), 13).is_none());
        assert_eq!(cache.get(StreamId(0), 8).map(|f| f.first), Some(8));
    }

    #[test]
    fn a_frame_larger_than_the_cache_is_not_kept_and_leaves_nothing_behind() {
        let mut cache = TailCache::new(50);
        push(&mut cache, frame(0, 0, 1, 100));
        assert_eq!((cache.bytes(), cache.frames, cache.by_stream.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_settled_goes_and_what_is_not_stays_whatever_the_order() {
        let mut cache = TailCache::new(10_000);
        for first in [0, 10, 20] {
            push(&mut cache, frame(0, first, 10, 100));
            push(&mut cache, frame(1, first, 10, 100));
        }
        let going = cache.settle(StreamId(0), 25);
        assert_eq!(going.iter().map(|frame| frame.first).collect::<Vec<_>>(), [0, 10], "the one it lies in stays");
        assert!(cache.get(StreamId(0), 19).is_none());
        assert_eq!(cache.get(StreamId(0), 20).map(|f| f.first), Some(20));
        assert_eq!(cache.get(StreamId(1), 0).map(|f| f.first), Some(0));
        assert_eq!(cache.bytes(), 4 * frame(0, 0, 1, 100).weight());
    }

    #[test]
    fn the_bound_holds_among_frames_that_went_before_their_turn() {
        let weight = frame(0, 0, 1, 100).weight();
        let mut cache = TailCache::new(weight * 3);
        push(&mut cache, frame(0, 0, 10, 100));
        push(&mut cache, frame(1, 0, 10, 100));
        drop(cache.settle(StreamId(0), 10));
        for stream in [0, 2, 3] {
            push(&mut cache, frame(stream, 10, 10, 100));
        }
        assert_eq!(cache.bytes(), weight * 3);
        assert!(cache.get(StreamId(1), 0).is_none(), "it was the oldest");
        assert!(cache.get(StreamId(0), 10).is_some());
    }

    #[test]
    fn the_order_of_what_went_is_forgotten_though_an_old_frame_stays() {
        let mut cache = TailCache::new(1 << 20);
        push(&mut cache, frame(1, 0, 10, 100));
        for n in 0..10_000 {
            push(&mut cache, frame(0, n * 10, 10, 100));
            drop(cache.settle(StreamId(0), n * 10 + 10));
        }
        assert!(cache.get(StreamId(1), 0).is_some());
        assert!(cache.order.len() <= 2 * cache.frames + SWEEP_MIN + 1, "{}", cache.order.len());
        assert_eq!((cache.frames, cache.by_stream.len()), (1, 1));
    }

    #[test]
    fn what_went_is_looked_for_only_where_it_is_most_of_the_order() {
        let mut cache = TailCache::new(1 << 20);
        (0..300).for_each(|n| push(&mut cache, frame(1, n, 1, 10)));
        for n in 0..365 {
            push(&mut cache, frame(0, n, 1, 10));
            drop(cache.settle(StreamId(0), n + 1));
            let went = if n < 364 { n as usize + 1 } else { 0 };
            assert_eq!(cache.order.len(), 300 + went, "after frame {n}");
        }
    }
}
