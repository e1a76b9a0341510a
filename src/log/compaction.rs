//! Compaction: what somebody still needs of a run of segments is written to a compact one, and the run goes.
//!
//! Without it a destination that is hours behind would pin every segment that has one of its frames, and with it the records
//! of all others: disk use would follow the oldest cursor, not what is undelivered.
//!
//! The order is what makes it safe. The frames are written under a name that no opening reads, and synced. What the going
//! takes from each stream is in a durable table. Then the rename: before it the run holds, after it the compact segment,
//! and an opening that finds both removes the run. Only when the name is durable the run goes. Nothing is compacted that can't
//! be read: the place of damage stays what it is.

mod choice;
mod placing;
mod target;

pub(super) use choice::Thrift;
pub(crate) use placing::Leftover;

use super::catalog::{Segment, Stage};
use super::compact::{CompactHeader, Replaced};
use super::file_name::{FileName, SegmentFile};
use super::frame::{FrameHeader, Identity};
use super::index::{ActiveIndex, FrameRef, SegmentIndex};
use super::keeper::Keeper;
use super::limits::{
    COMPACTION_BYTES_PER_SECOND, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, WEIGHED_BYTES_MAX, WEIGHED_MAX,
};
use super::segment::Class;
use super::short_disk::Needed;
use super::{Shared, frame};
use crate::disk::read_exact_at;
use crate::failpoints::{self, Point};
use crate::offset::{Sequence, StreamId};
use crate::sync::Arc;
use choice::Candidate;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use target::Target;

/// A run of segments, and what of it somebody needs.
struct Run {
    class: Class,
    replaced: Replaced,
    /// In order: each segment, and its frames that are needed, by position.
    sources: Vec<(SegmentFile, Vec<FrameRef>)>,
    /// Per stream, where the last frame ends that goes.
    dropped: BTreeMap<StreamId, u64>,
    end: u64,
}

impl Shared {
    /// One step: a look at some segments, and one run if it is worth it and time for it.
    pub(super) fn compact(&self, keeper: &mut Keeper) -> io::Result<()> {
        // One file that does not go stops nothing.
        let removed = self.remove_leftovers(keeper);
        self.compact_a_run(keeper).and(removed)
    }

    fn compact_a_run(&self, keeper: &mut Keeper) -> io::Result<()> {
        let thrift = if self.is_short(keeper) { Thrift::SHORT } else { Thrift::USUAL };
        if !self.holds_much_that_nobody_needs(thrift) {
            if !keeper.pins.is_empty() {
                keeper.pins.forget(&mut self.catalog_write());
            }
            return Ok(());
        }
        let now = self.clock.monotonic();
        if now < keeper.compact_from {
            return Ok(());
        }
        self.weigh(keeper)?;
        let room = u64::from(self.options.segment_bytes - SEGMENT_HEADER_BYTES);
        for class in [Class::Main, Class::System] {
            let candidates = self.candidates(keeper, class);
            let Some((first, last)) = choice::best(&candidates, room, thrift) else { continue };
            let Some(run) = self.look_into(class, Replaced { first, last })? else { continue };
            let written = self.write_compact(keeper, &run);
            keeper.compact_from = now + Duration::from_micros(run.end * 1_000_000 / COMPACTION_BYTES_PER_SECOND);
            return written;
        }
        Ok(())
    }

    /// Finds out how much of some segments is needed and by whom: from where the last look ended up to the newest, and then
    /// from the oldest anew.
    fn weigh(&self, keeper: &mut Keeper) -> io::Result<()> {
        let sealed = |(place, segment): (&Sequence, &Segment)| matches!(segment.stage, Stage::Sealed).then_some(*place);
        let mut ahead: Vec<Sequence> = {
            let catalog = self.catalog_read();
            catalog.segments.range(keeper.weighed..).filter_map(sealed).take(WEIGHED_MAX + 1).collect()
        };
        let mut to_the_end = ahead.len() <= WEIGHED_MAX;
        ahead.truncate(WEIGHED_MAX);
        let (mut weight, mut weighed) = (0, Ok(()));
        for place in ahead {
            if weight > WEIGHED_BYTES_MAX || weighed.is_err() {
                to_the_end = false;
                break;
            }
            keeper.weighed = Sequence(place.0 + 1);
            match self.index_to_weigh(place) {
                Ok(Some(index)) => {
                    weight += index.weight();
                    let mut catalog = self.catalog_write();
                    let needed = Needed::of(&catalog, &index);
                    let segment = catalog.at_rest_mut(place);
                    segment.live = Some(needed.live);
                    keeper.pins.add(segment.file_bytes, &needed);
                }
                Ok(None) => {}
                Err(error) => {
                    self.leave_alone(place, &error);
                    weighed = Err(error); // told once; the others have their turn
                }
            }
        }
        if to_the_end {
            keeper.pins.tell(&mut self.catalog_write());
            keeper.weighed = Sequence(0);
        }
        weighed
    }

    /// The index of a segment. Of one of which something could not be read only as it is stored: it is not read whole for it
    /// with each look.
    fn index_to_weigh(&self, place: Sequence) -> io::Result<Option<Arc<SegmentIndex>>> {
        let (left_alone, sequence) = {
            let catalog = self.catalog_read();
            let segment = catalog.at_rest(place);
            (segment.left_alone, segment.file.sequence)
        };
        if !left_alone {
            return self.index(place);
        }
        let kept = self.indexes.get(sequence);
        Ok(kept.or_else(|| self.read_index(sequence).ok().flatten().map(Arc::new)))
    }

    /// The segments of a class, in order, with what is needed of each. Nothing is known of those that must stay.
    fn candidates(&self, keeper: &Keeper, class: Class) -> Vec<Candidate> {
        let kept = self.kept_for_replay(keeper);
        let catalog = self.catalog_read();
        let mut names_an_end = false;
        let of_class = catalog.segments.iter().filter(|(_, segment)| segment.file.class == class);
        of_class
            .map(|(place, segment)| {
                let sealed = matches!(segment.stage, Stage::Sealed) && *place < kept;
                // One that failed and can't be cut keeps what names its end; in a compact one nothing would know of it.
                let may_go = sealed && !segment.left_alone && !segment.failed && !names_an_end;
                names_an_end = segment.end_is_named_behind();
                // Its header the next compact one would have again: no more can be given back than what lies behind it.
                let header = segment.file.replaced.map_or(0, |_| u64::from(SEGMENT_HEADER_BYTES));
                let file_bytes = segment.file_bytes.saturating_sub(header);
                Candidate { place: *place, file_bytes, live: segment.live.filter(|_| may_go) }
            })
            .collect()
    }

    /// What is needed of a run now. `None` when it has changed since it was weighed, or nothing of it is needed.
    fn look_into(&self, class: Class, replaced: Replaced) -> io::Result<Option<Run>> {
        let places: Vec<(Sequence, SegmentFile)> = {
            let catalog = self.catalog_read();
            let run = catalog.segments.range(replaced.first..=replaced.last);
            run.filter(|(_, segment)| segment.file.class == class)
                .map(|(place, segment)| (*place, segment.file))
                .collect()
        };
        // A compact one among them stands for more than its place.
        let first = places.first().map_or(replaced.first, |(place, file)| file.replaced.map_or(*place, |it| it.first));
        let replaced = Replaced { first, ..replaced };
        let (sources, dropped, end) = (Vec::new(), BTreeMap::new(), u64::from(SEGMENT_HEADER_BYTES));
        let mut run = Run { class, replaced, sources, dropped, end };
        for (place, file) in places {
            let Some(index) = self.index(place)? else { return Ok(None) };
            let catalog = self.catalog_read();
            let mut needed = Vec::new();
            for (stream, frame) in index.frames() {
                if catalog.needs(stream, &frame) {
                    run.end += u64::from(frame::stored_len(frame.payload_len));
                    needed.push(frame);
                } else {
                    let end = run.dropped.entry(stream).or_default();
                    *end = frame.next().max(*end);
                }
            }
            needed.sort_unstable_by_key(|frame| frame.position);
            run.sources.push((file, needed));
        }
        let fits = run.end > u64::from(SEGMENT_HEADER_BYTES) && run.end <= u64::from(self.options.segment_bytes);
        Ok(fits.then_some(run))
    }

    /// Writes the compact segment and puts it in the place of its run.
    fn write_compact(&self, keeper: &mut Keeper, run: &Run) -> io::Result<()> {
        let sequence = self.take_sequence();
        let unfinished = self.files.path(FileName::Unfinished(sequence));
        let file = SegmentFile { sequence, class: run.class, replaced: Some(run.replaced) };
        let path = self.files.path(file.name());
        let (room, most) = (self.claim(run.end), run.end.max(u64::from(self.options.segment_bytes)));
        // Without room it is a spare, which goes on counting.
        let _spare = room.is_none().then(|| self.hold(u64::from(self.options.segment_bytes)));
        let written = self.write_frames(sequence, run, room.is_some()).and_then(|index| {
            // From here on nobody can need what goes; somebody may again since it was looked at.
            if !self.give_up_what_goes(run) {
                return Ok(None);
            }
            keeper.compacted = true;
            // Durable before anything goes, as when segments are reclaimed; and a program that knows no compact segments
            // stops at its version.
            failpoints::around(Point::CompactTable, || self.write_table(keeper))?;
            let since = self.files.mark_names();
            failpoints::around(Point::CompactName, || self.files.disk().rename(&unfinished, &path))?;
            Ok(Some((index, since)))
        });
        let (index, since) = match written {
            Ok(Some(named)) => named,
            other => {
                self.files.strays().give_up(unfinished, most);
                return other.map(drop);
            }
        };
        if let Err(error) = failpoints::around(Point::CompactNameSync, || self.files.sync_names(since)) {
            // Whether it has its name nobody knows: the run holds. Should both be found, they hold the same.
            self.files.strays().give_up(path, most);
            return Err(error);
        }
        self.put_in_place(keeper, run, file, index)
    }

    /// Writes what is needed to a file that no opening reads, and syncs it. `room`: the budget has some for it; else it
    /// takes a spare, of the reserve if need be.
    fn write_frames(&self, sequence: Sequence, run: &Run, room: bool) -> io::Result<ActiveIndex> {
        let header = CompactHeader {
            log: self.log_id,
            sequence,
            class: run.class,
            created_ms: self.clock.wall_ms(),
            replaced: run.replaced,
            end: u32::try_from(run.end).map_err(io::Error::other)?,
        };
        let mut target = Target::new(self.files.make_compact(sequence, run.end, room)?, &header);
        for (source, frames) in &run.sources {
            for frame in frames {
                let read = self.read_frame(*source, frame);
                let (header, payload) = read.inspect_err(|error| self.leave_alone(source.place(), error))?;
                target.add(header, &payload)?;
            }
        }
        target.finish()
    }

    fn read_frame(&self, source: SegmentFile, frame: &FrameRef) -> io::Result<(FrameHeader, Vec<u8>)> {
        let file = self.files.segment(source)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut bytes = vec![0; (FRAME_HEADER_BYTES + frame.payload_len) as usize];
        read_exact_at(&*file, &mut bytes, u64::from(frame.position))?;
        let identity = Identity::new(self.log_id, source.sequence);
        let header = FrameHeader::decode_whole(&identity, frame.position, &bytes).map(|(header, _)| header);
        let header = header.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a frame is damaged"))?;
        bytes.drain(..FRAME_HEADER_BYTES as usize);
        Ok((header, bytes))
    }
}
