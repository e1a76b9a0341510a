//! What was just appended, kept in memory: one shared copy for all readers, oldest out first, bounded in bytes.

use crate::log::reader::Frame;
use crate::offset::StreamId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The newest frames of all streams.
#[derive(Debug)]
pub(crate) struct TailCache {
    by_stream: HashMap<StreamId, VecDeque<Arc<Frame>>>,
    /// Whose frame is the oldest, second oldest, …
    order: VecDeque<StreamId>,
    bytes: usize,
    bytes_max: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { by_stream: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a stream's newest frame and lets the oldest frames go until all fit.
    pub(crate) fn push(&mut self, frame: Arc<Frame>) {
        self.bytes += frame.weight();
        self.order.push_back(frame.stream);
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

    /// Payload bytes and bookkeeping of all frames kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_oldest(&mut self) {
        let stream = self.order.pop_front().expect("bytes are those of the frames in order");
        let frames = self.by_stream.get_mut(&stream).expect("a stream in order has frames");
        let frame = frames.pop_front().expect("a stream in order has frames");
        if frames.is_empty() {
            // A stream that went quiet costs nothing here.
            self.by_stream.remove(&stream);
        }
        self.bytes -= frame.weight();
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
}
