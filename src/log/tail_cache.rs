//! What was just appended, kept in memory: one shared copy for all readers, bounded in bytes.
//!
//! A frame goes when nobody needs it any more ([`TailCache::settle`]): a destination that keeps up costs the memory of
//! what is on its way, not all that is allowed. Where the bound is met before that, the oldest frame of all goes first.

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
    by_stream: HashMap<StreamId, VecDeque<Arc<Frame>>>,
    /// All frames in their order of arrival, by stream and first offset; also some that went by `settle`.
    order: VecDeque<(StreamId, u64)>,
    frames: usize,
    bytes: usize,
    bytes_max: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { by_stream: HashMap::new(), order: VecDeque::new(), frames: 0, bytes: 0, bytes_max }
    }

    /// Adds a stream's newest frame and lets the oldest frames go until all fit.
    pub(crate) fn push(&mut self, frame: Arc<Frame>) {
        self.bytes += frame.weight();
        self.frames += 1;
        self.order.push_back((frame.stream, frame.first));
        self.by_stream.entry(frame.stream).or_default().push_back(frame);
        while self.bytes > self.bytes_max {
            self.drop_oldest();
        }
    }

    /// The frame that holds `offset`, if it is kept.
    pub(crate) fn get(&self, stream: StreamId, offset: u64) -> Option<Arc<Frame>> {
        let frames = self.by_stream.get(&stream)?;
        let frame = frames.get(frames.partition_point(|frame| frame.offsets().end <= offset))?;
        // A gap before the frame is the reader's to explain: it asks the index.
        (frame.first <= offset).then(|| Arc::clone(frame))
    }

    /// Lets the frames of `stream` go that end at or below `before`: nobody needs them. Returns them, so that whoever
    /// holds a lock gives their memory back behind it.
    #[must_use]
    pub(crate) fn settle(&mut self, stream: StreamId, before: u64) -> Vec<Arc<Frame>> {
        let Some(frames) = self.by_stream.get_mut(&stream) else { return Vec::new() };
        let settled = frames.partition_point(|frame| frame.offsets().end <= before);
        let going: Vec<_> = frames.drain(..settled).collect();
        if frames.is_empty() {
            self.by_stream.remove(&stream);
        }
        self.frames -= going.len();
        self.bytes -= going.iter().map(|frame| frame.weight()).sum::<usize>();
        self.sweep();
        going
    }

    /// Payload bytes and bookkeeping of all frames kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_oldest(&mut self) {
        loop {
            let (stream, first) = self.order.pop_front().expect("bytes are those of the frames in order");
            if !self.keeps(stream, first) {
                continue;
            }
            let frames = self.by_stream.get_mut(&stream).expect("it is kept");
            let frame = frames.pop_front().expect("it is kept");
            if frames.is_empty() {
                // A stream that went quiet costs nothing here.
                self.by_stream.remove(&stream);
            }
            self.frames -= 1;
            self.bytes -= frame.weight();
            return;
        }
    }

    /// Whether the frame that was pushed with this first offset is still here: a stream's frames go from the front.
    fn keeps(&self, stream: StreamId, first: u64) -> bool {
        self.by_stream.get(&stream).and_then(VecDeque::front).is_some_and(|front| front.first <= first)
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

    #[test]
    fn the_oldest_frames_of_all_streams_go_first() {
        let weight = frame(0, 0, 1, 100).weight();
        let mut cache = TailCache::new(weight * 3);
        cache.push(frame(0, 0, 10, 100));
        cache.push(frame(1, 0, 10, 100));
        cache.push(frame(0, 10, 10, 100));
        assert!(cache.get(StreamId(0), 9).is_some());
        cache.push(frame(1, 10, 10, 100));
        assert!(cache.get(StreamId(0), 9).is_none());
        assert_eq!(cache.get(StreamId(0), 10).map(|f| f.first), Some(10));
        assert_eq!(cache.bytes(), weight * 3);
    }

    #[test]
    fn an_offset_in_a_gap_is_not_answered() {
        let mut cache = TailCache::new(10_000);
        cache.push(frame(0, 0, 5, 10));
        cache.push(frame(0, 8, 5, 10));
        assert!(cache.get(StreamId(0), 6).is_none());
        assert!(cache.get(StreamId(0), 13).is_none());
        assert_eq!(cache.get(StreamId(0), 8).map(|f| f.first), Some(8));
    }

    #[test]
    fn a_frame_larger_than_the_cache_is_not_kept_and_leaves_nothing_behind() {
        let mut cache = TailCache::new(50);
        cache.push(frame(0, 0, 1, 100));
        assert_eq!((cache.bytes(), cache.by_stream.len(), cache.order.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_settled_goes_and_what_is_not_stays_whatever_the_order() {
        let mut cache = TailCache::new(10_000);
        for first in [0, 10, 20] {
            cache.push(frame(0, first, 10, 100));
            cache.push(frame(1, first, 10, 100));
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
        cache.push(frame(0, 0, 10, 100));
        cache.push(frame(1, 0, 10, 100));
        drop(cache.settle(StreamId(0), 10));
        for first in [10, 20, 30] {
            cache.push(frame(0, first, 10, 100));
        }
        assert_eq!(cache.bytes(), weight * 3);
        assert!(cache.get(StreamId(1), 0).is_none(), "it was the oldest");
        assert!(cache.get(StreamId(0), 10).is_some());
    }

    #[test]
    fn the_order_of_what_went_is_forgotten_though_an_old_frame_stays() {
        let mut cache = TailCache::new(1 << 20);
        cache.push(frame(1, 0, 10, 100));
        for n in 0..10_000 {
            cache.push(frame(0, n * 10, 10, 100));
            drop(cache.settle(StreamId(0), n * 10 + 10));
        }
        assert!(cache.get(StreamId(1), 0).is_some());
        assert!(cache.order.len() <= 2 * cache.frames + SWEEP_MIN + 1, "{}", cache.order.len());
        assert_eq!((cache.frames, cache.by_stream.len()), (1, 1));
    }

    #[test]
    fn what_went_is_looked_for_only_where_it_is_most_of_the_order() {
        let mut cache = TailCache::new(1 << 20);
        (0..300).for_each(|n| cache.push(frame(1, n, 1, 10)));
        for n in 0..365 {
            cache.push(frame(0, n, 1, 10));
            drop(cache.settle(StreamId(0), n + 1));
            let went = if n < 364 { n as usize + 1 } else { 0 };
            assert_eq!(cache.order.len(), 300 + went, "after frame {n}");
        }
    }
}
