//! A short disk: what goes first, and whose records are then refused.
//!
//! A stream is charged for its backlog, and for its part of what it keeps on the disk beside it: what nobody needs of a segment
//! is charged in equal parts to the streams that need something of it. That is looked into only while there is much of it, by the
//! same look at a few segments a round that compaction takes; compaction makes it little again wherever it can. Who is above its
//! share is decided in `shares.rs`, which is pure.

use super::catalog::{Catalog, Segment, Stage, Stream};
use super::compaction::Thrift;
use super::index::SegmentIndex;
use super::keeper::{Keeper, Pressure};
use super::limits::SHARES_UNTOLD;
use super::pending::is_ours;
use super::shared::NO_SHARE;
use super::{Shared, frame, shares};
use crate::offset::{Sequence, StreamId};
use crate::sync::atomic::Ordering;
use std::collections::HashMap;
use std::io;

/// What streams keep on the disk beside their own records, as it is found segment by segment.
#[derive(Default)]
pub(crate) struct Pins {
    /// Of the segments that were looked into since the look began anew.
    so_far: HashMap<StreamId, u64>,
    /// The catalog says so of some stream.
    told: bool,
}

/// What is needed of a segment.
pub(super) struct Needed {
    /// Bytes of the frames that somebody needs, as they lie there.
    pub(super) live: u64,
    /// The streams of applications that need some.
    by: Vec<StreamId>,
}

impl Needed {
    pub(super) fn of(catalog: &Catalog, index: &SegmentIndex) -> Self {
        let mut needed = Self { live: 0, by: Vec::new() };
        for (stream, frame) in index.frames() {
            if !catalog.needs(stream, &frame) {
                continue;
            }
            needed.live += u64::from(frame::stored_len(frame.payload_len));
            // Frames come by stream. Our own streams are refused nothing, so nothing is charged to them.
            if needed.by.last() != Some(&stream)
                && catalog.stream(stream).is_some_and(|stream| !is_ours(&stream.row.name))
            {
                needed.by.push(stream);
            }
        }
        needed
    }
}

impl Pins {
    /// A segment of so many bytes was looked into.
    pub(super) fn add(&mut self, file_bytes: u64, needed: &Needed) {
        let Some(part) = file_bytes.saturating_sub(needed.live).checked_div(needed.by.len() as u64) else { return };
        for stream in &needed.by {
            *self.so_far.entry(*stream).or_default() += part;
        }
    }

    /// All segments were looked into: that is what counts from now on.
    pub(super) fn tell(&mut self, catalog: &mut Catalog) {
        let found = std::mem::take(&mut self.so_far);
        if !self.told && found.is_empty() {
            return;
        }
        self.told = !found.is_empty();
        for (id, stream) in (0..).map(StreamId).zip(&mut catalog.streams) {
            stream.pinned = found.get(&id).copied().unwrap_or_default();
        }
    }

    /// There is not much of it.
    pub(super) fn forget(&mut self, catalog: &mut Catalog) {
        self.so_far.clear();
        self.tell(catalog);
    }

    /// Whether there is something to forget.
    pub(super) fn is_empty(&self) -> bool {
        !self.told && self.so_far.is_empty()
    }
}

impl Shared {
    /// Bytes on the disk, by whoever keeps house. Without room that is claimed: a spare on its way to be a segment counts twice
    /// there, and that must refuse nobody.
    pub(super) fn bytes_held(&self, keeper: &Keeper) -> u64 {
        let leftovers: u64 = keeper.leftovers.iter().map(|leftover| leftover.bytes).sum();
        let doubtful: u64 = keeper.doubtful.iter().map(|(_, bytes)| bytes).sum();
        self.catalog_read().segment_bytes()
            + self.files.spare_bytes()
            + self.files.strays().bytes()
            + leftovers
            + doubtful
            + keeper.left_bytes
    }

    /// Whether so much is in use that somebody has to wait.
    pub(super) fn is_short(&self, keeper: &Keeper) -> bool {
        self.short_at(self.budget()).is_some_and(|short_at| self.bytes_held(keeper) > short_at)
    }

    /// Bytes of all sealed segments, and those that are needed.
    pub(super) fn sealed_and_needed(&self) -> (u64, u64) {
        let catalog = self.catalog_read();
        let sealed = catalog.segments.values().filter(|segment| matches!(segment.stage, Stage::Sealed));
        let sealed = sealed.map(|segment| segment.file_bytes).sum();
        (sealed, catalog.streams.iter().map(Stream::backlog).sum())
    }

    /// Whether more lies in sealed segments than is needed, by so much that some are worth looking into: by a part of what is needed
    /// and a segment, or a part of the last tenth of a short disk.
    pub(super) fn holds_much_that_nobody_needs(&self, thrift: Thrift) -> bool {
        let (sealed, needed) = self.sealed_and_needed();
        let by_needed = needed / 100 * (thrift.worth - 100) + u64::from(self.options.segment_bytes);
        let budget = self.budget();
        let by_last = thrift.last_tenth.zip(self.short_at(budget)).map(|(part, short_at)| (budget - short_at) / part);
        sealed > needed + by_last.map_or(by_needed, |by_last| by_needed.min(by_last))
    }

    /// From which place on segments are kept for replay, though nobody needs them: the oldest of those in the window that
    /// the newest bytes hold. Ages are not in the order of places: a segment of ours may be older than one before it.
    pub(super) fn kept_for_replay(&self, keeper: &Keeper) -> Sequence {
        if self.is_short(keeper) {
            return Sequence(u64::MAX);
        }
        let now_ms = self.clock.wall_ms();
        let mut kept_bytes = 0;
        let catalog = self.catalog_read();
        let fits = |(_, segment): &(&Sequence, &Segment)| {
            kept_bytes += segment.file_bytes;
            kept_bytes <= self.budget() / 10
        };
        let newest_first = catalog.segments.iter().rev().take_while(fits);
        let in_window = newest_first.filter(|(_, segment)| !self.options.is_expired(segment.newest_ms, now_ms));
        in_window.last().map_or(Sequence(u64::MAX), |(place, _)| *place)
    }

    /// When the disk is short: lets go what is only kept for replay, and then finds out who holds more than its share.
    pub(super) fn share_out(&self, keeper: &mut Keeper) -> io::Result<()> {
        let budget = self.budget();
        let Some(short_at) = self.short_at(budget) else { return Ok(()) };
        let mut reclaimed = Ok(());
        if self.is_short(keeper) {
            reclaimed = self.reclaim_with(keeper, Pressure::NeedsRoom);
        }
        // All of it gone means that there is no room for another segment but the one that is taken ahead.
        let all = budget - short_at - u64::from(self.options.segment_bytes);
        let left = all.saturating_sub(self.bytes_held(keeper).saturating_sub(short_at));
        let charges = (left < all && self.knows_backlogs()).then(|| {
            let catalog = self.catalog_read();
            let theirs = catalog.streams.iter().filter(|stream| !is_ours(&stream.row.name));
            theirs.map(Stream::held).collect()
        });
        let level = charges.and_then(|charges| shares::level(charges, left, all)).unwrap_or(NO_SHARE);
        match (self.share.swap(level, Ordering::Relaxed), level) {
            (NO_SHARE, NO_SHARE) => {}
            (NO_SHARE, share) => {
                tracing::warn!(
                    short_at,
                    share,
                    "the disk is short: streams that hold more than their share of it are refused"
                );
            }
            (_, NO_SHARE) => tracing::info!("the disk is no longer short: all streams are taken"),
            _ => {}
        }
        reclaimed
    }

    /// Whether the log was told what is needed. A log that was just opened takes all that it has for needed, so that everybody
    /// would be above its share.
    fn knows_backlogs(&self) -> bool {
        self.told.load(Ordering::Acquire) || self.clock.monotonic().saturating_sub(self.opened) >= SHARES_UNTOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::FrameHeader;
    use crate::log::index::ActiveIndex;
    use crate::log::segment::Class;
    use crate::log::stream_table::StreamRow;
    use crate::offset::LogId;

    #[test]
    fn what_nobody_needs_of_a_segment_is_charged_in_equal_parts_to_those_who_need_some_of_it() {
        let mut pins = Pins::default();
        let needed = |live, by: &[u32]| Needed { live, by: by.iter().copied().map(StreamId).collect() };
        pins.add(1000, &needed(400, &[1, 2, 3]));
        pins.add(1000, &needed(0, &[2]));
        pins.add(1000, &needed(0, &[])); // it can go as it is
        let charged = [1, 2, 3].map(|stream| pins.so_far.get(&StreamId(stream)).copied());
        assert_eq!(charged, [Some(200), Some(1200), Some(200)]);
        assert_eq!(pins.so_far.len(), 3);
    }
    #[test]
    fn who_needs_some_of_a_segment_is_named_once_and_none_of_ours() {
        let row = |name: &str| StreamRow { name: name.into(), next: 10, bytes: 1_000, first_kept: 0 };
        let mut catalog = Catalog::new(["a", "b", "!ours", "none"].map(row).into(), 4, Sequence(0), 0);
        catalog.streams[3].trim(10);
        let mut active = ActiveIndex::default();
        for (position, (stream, first)) in (128..).step_by(64).zip([(0, 0), (1, 0), (0, 1), (2, 0), (3, 0), (1, 1)]) {
            active.add(position, &FrameHeader { payload_len: 3, ..FrameHeader::sample(stream, first) });
        }
        let index = active.seal(LogId(1), (Sequence(0), Class::Main), 512, false, |_| "".into());
        let needed = Needed::of(&catalog, &index);
        assert_eq!((needed.by, needed.live), (vec![StreamId(0), StreamId(1)], 5 * 64), "live are ours, too");
    }

    #[test]
    fn what_streams_keep_counts_once_all_is_known_and_as_long_as_they_need_something() {
        let row = |name: &str| StreamRow { name: name.into(), next: 10, bytes: 1_000, first_kept: 0 };
        let mut catalog = Catalog::new(vec![row("a"), row("b")], 2, Sequence(0), 0);
        let held = |catalog: &Catalog| catalog.streams.iter().map(Stream::held).collect::<Vec<_>>();
        let needed = |live, stream| Needed { live, by: vec![StreamId(stream)] };
        let mut pins = Pins::default();
        assert!(pins.is_empty());
        pins.add(1_000, &needed(400, 1));
        assert!(!pins.is_empty(), "something was found");
        assert_eq!(held(&catalog), [1_000, 1_000], "not all were looked into yet");
        pins.tell(&mut catalog);
        assert!(!pins.is_empty(), "the catalog says so");
        assert_eq!(held(&catalog), [1_000, 1_600]);
        catalog.streams[1].trim(10);
        assert_eq!(held(&catalog), [1_000, 0], "who needs nothing keeps nothing");
        pins.add(1_000, &needed(300, 0));
        pins.forget(&mut catalog);
        assert!(pins.is_empty());
        assert_eq!((held(&catalog), catalog.streams[1].pinned), (vec![1_000, 0], 0));
        pins.tell(&mut catalog);
        assert!(pins.is_empty(), "there was nothing to tell");
    }
}
