//! From segment to segment: what the writer writes to, how it gets the next one, and how it gives one up.
//!
//! What always holds: a segment's name is durable before its first frame is written, and a file that has failed is
//! never taken up again. Frames are the parent's affair.

use super::{Prepared, Writer};
use crate::disk::latched::Latched;
use crate::disk::{File, is_full};
use crate::failpoints::{self, Point};
use crate::log::catalog::{Segment, Stage};
use crate::log::file_name::{FileName, SegmentFile};
use crate::log::files::{Fresh, Purpose};
use crate::log::frame::Identity;
use crate::log::index::ActiveIndex;
use crate::log::keeper::Pressure;
use crate::log::limits::SEGMENT_HEADER_BYTES;
use crate::log::segment::{Class, Predecessor, SegmentHeader};
use crate::log::shared::Shared;
use crate::offset::Sequence;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The segments of one class.
pub(super) struct Lane {
    pub(super) class: Class,
    pub(super) active: Option<Active>,
    /// The last good segment and where it ends: what the next one names as its predecessor.
    pub(super) last: Option<Predecessor>,
    /// The last segment was given up after a failure, and no durable header says yet where it ends.
    pub(super) cut_is_due: bool,
}

/// The segment that is written to.
pub(super) struct Active {
    pub(super) sequence: Sequence,
    pub(super) identity: Identity,
    pub(super) file: Arc<Latched>,
    /// Everything below is synced; the next frame goes here.
    pub(super) position: u32,
    pub(super) capacity: u32,
    /// Made of the reserve: only our own streams may use it until there is room again.
    pub(super) restricted: bool,
}

impl Writer {
    /// Seals the active segment, if there is one, and makes the next.
    pub(super) fn roll(&mut self, shared: &Shared, lane: usize, needed: u64, purpose: Purpose) -> io::Result<()> {
        let bytes = u32::try_from(needed).map_err(io::Error::other)?.max(shared.options.segment_bytes);
        let class = self.lanes[lane].class;
        // Spent even if it comes to nothing: what a failure left under the name is in nobody's way, and may go at any time.
        let make = |purpose| {
            let sequence = shared.take_sequence();
            make_file(shared, FileName::Segment(sequence, class), bytes, purpose).map(|made| (sequence, made))
        };
        let mut restricted = false;
        let (sequence, (fresh, claims)) = match make(Purpose::Ingest) {
            Err(e) if is_full(&e) => {
                // Settled segments that are only kept for replay go before anybody is refused.
                shared.reclaim(Pressure::NeedsRoom);
                match make(Purpose::Ingest) {
                    Err(e) if is_full(&e) && purpose == Purpose::Drain => {
                        restricted = true;
                        make(Purpose::Drain)?
                    }
                    other => other?,
                }
            }
            other => other?,
        };
        failpoints::before(Point::SegmentRetire);
        self.retire_active(shared, lane, false);
        self.lanes[lane].active = Some(enter(shared, class, sequence, fresh, restricted));
        failpoints::after(Point::SegmentRetire);
        drop(claims); // it counts by itself now
        if let Err(e) = self.write_header(shared, lane).and_then(|()| self.sync_a_cut(lane)) {
            self.abandon(shared, lane);
            return Err(e);
        }
        shared.request_housekeeping();
        Ok(())
    }

    /// After a failed write or sync: the file is given up where its last good sync left it, and a fresh one is made.
    pub(super) fn start_fresh(&mut self, shared: &Shared, lane: usize, prepared: &Prepared) -> io::Result<()> {
        self.abandon(shared, lane);
        self.roll(shared, lane, prepared.needs(), prepared.purpose)
    }

    /// Tries to write again after the log turned read-only: a fresh segment, its header synced. Says whether it is one
    /// of the reserve, so that only our own streams may use it.
    pub(crate) fn revive(&mut self, shared: &Shared) -> io::Result<bool> {
        self.roll(shared, 0, u64::from(shared.options.segment_bytes), Purpose::Drain)?;
        let active = self.lanes[0].active.as_ref().expect("roll made one");
        let restricted = active.restricted;
        if let Err(e) = active.file.sync_data() {
            self.abandon(shared, 0);
            return Err(e);
        }
        Ok(restricted)
    }

    /// A header is covered by the first frames' sync: without frames it is worth nothing. Not where it cuts a failed segment off:
    /// what lies there may be of offsets that the first frames have again, and a crash must not leave them without the cut.
    fn sync_a_cut(&mut self, lane: usize) -> io::Result<()> {
        let Lane { active: Some(active), cut_is_due: true, .. } = &self.lanes[lane] else { return Ok(()) };
        active.file.sync_data()?;
        self.lanes[lane].cut_is_due = false;
        Ok(())
    }

    /// Gives the active segment up after a failure.
    pub(super) fn abandon(&mut self, shared: &Shared, lane: usize) {
        self.retire_active(shared, lane, true);
    }

    /// Ends the active segments of which nobody needs anything, so that they can go: where there is no room for another one
    /// nothing else would ever end them.
    pub(crate) fn retire_settled(&mut self, shared: &Shared) {
        assert!(self.ahead.is_none(), "who commits keeps the writer until no large append is under way");
        for lane in 0..self.lanes.len() {
            let Some(active) = &self.lanes[lane].active else { continue };
            if shared.catalog_read().is_settled(active.sequence) {
                self.retire_active(shared, lane, false);
            }
        }
    }

    /// Whether [`retire_settled`](Self::retire_settled) would end one.
    pub(super) fn has_settled(&self, shared: &Shared) -> bool {
        let catalog = shared.catalog_read();
        self.lanes.iter().filter_map(|lane| lane.active.as_ref()).any(|active| catalog.is_settled(active.sequence))
    }

    pub(super) fn retire_active(&mut self, shared: &Shared, lane: usize, failed: bool) {
        let Some(active) = self.lanes[lane].active.take() else { return };
        if active.position == SEGMENT_HEADER_BYTES {
            // Its header goes with it, and that may have been the durable one that cuts a failed segment off. What failed in it must be
            // void before its offsets are given again, also where it is the first of its class.
            self.lanes[lane].cut_is_due |= failed || self.lanes[lane].last.is_some();
            return void(shared, active.sequence);
        }
        let mut catalog = shared.catalog_write();
        let segment = catalog.segments.get_mut(&active.sequence).expect("enter added it");
        segment.failed = failed;
        let stage = std::mem::replace(&mut segment.stage, Stage::Sealed);
        let Stage::Active(index) = stage else { unreachable!("the active segment is active") };
        segment.stage = Stage::Sealing(Arc::new(index));
        self.lanes[lane].last = Some(Predecessor { sequence: active.sequence, end: active.position });
        self.lanes[lane].cut_is_due |= failed;
        drop(catalog);
        shared.request_housekeeping();
    }

    /// Writes the active segment's header, unsynced.
    pub(super) fn write_header(&self, shared: &Shared, lane: usize) -> io::Result<()> {
        let Lane { class, active, last, .. } = &self.lanes[lane];
        let active = active.as_ref().expect("a segment was made");
        let header = SegmentHeader {
            log: shared.log_id,
            sequence: active.sequence,
            class: *class,
            created_ms: shared.clock.wall_ms(),
            predecessor: *last,
        };
        failpoints::around(Point::SegmentHeader, || active.file.write_all_at(&[IoSlice::new(&header.encode())], 0))
    }

    /// Seals both lanes and cuts their files to what they hold. After this the writer starts new segments.
    pub(crate) fn finish(&mut self, shared: &Shared) -> io::Result<()> {
        assert!(self.ahead.is_none(), "who waits for appends to be committed waits for large ones, too");
        for lane in 0..self.lanes.len() {
            let Some(active) = &self.lanes[lane].active else { continue };
            let (sequence, file, end) = (active.sequence, Arc::clone(&active.file), u64::from(active.position));
            self.retire_active(shared, lane, false);
            if end > u64::from(SEGMENT_HEADER_BYTES) {
                failpoints::around(Point::LastCut, || file.set_len(end))?;
                failpoints::around(Point::LastSync, || file.sync_data())?;
                if let Some(segment) = shared.catalog_write().segments.get_mut(&sequence) {
                    segment.file_bytes = end;
                }
            }
        }
        Ok(())
    }
}

impl Lane {
    pub(super) fn room(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| u64::from(active.capacity - active.position))
    }
}

/// A file for a segment, and the room for it, which is to be held until the file counts by itself.
pub(super) fn make_file(
    shared: &Shared,
    name: FileName,
    bytes: u32,
    purpose: Purpose,
) -> io::Result<(Fresh, impl Sized + use<'_>)> {
    let room = shared.claim(u64::from(bytes)).filter(|_| purpose == Purpose::Ingest);
    let may_be_made = room.is_some();
    // A spare that is taken goes on counting until it is a segment.
    let held = shared.hold(u64::from(shared.options.segment_bytes));
    let fresh = shared.files.make_segment(name, bytes, shared.options.reserve_segments, purpose, may_be_made)?;
    Ok((fresh, (room, held)))
}

/// Makes a segment known: one that holds nothing yet.
pub(super) fn enter(shared: &Shared, class: Class, sequence: Sequence, fresh: Fresh, restricted: bool) -> Active {
    shared.files.keep_open(sequence, Arc::clone(&fresh.file) as Arc<dyn File>);
    let mut catalog = shared.catalog_write();
    let (file, stage) = (SegmentFile::plain(sequence, class), Stage::Active(ActiveIndex::default()));
    let segment = Segment::new(file, SEGMENT_HEADER_BYTES, fresh.bytes, 0, stage);
    catalog.segments.insert(sequence, segment);
    catalog.unseen = Sequence(sequence.0 + 1);
    drop(catalog);
    Active {
        sequence,
        identity: Identity::new(shared.log_id, sequence),
        file: fresh.file,
        position: SEGMENT_HEADER_BYTES,
        capacity: u32::try_from(fresh.bytes).expect("segments have 32-bit positions"),
        restricted,
    }
}

/// Takes a segment away in which nothing was ever acknowledged: the next one's header says so by skipping its number. Until it is
/// gone it is in the catalog, so that no table covers it.
pub(super) fn void(shared: &Shared, sequence: Sequence) {
    let file = shared.catalog_read().segments.get(&sequence).expect("enter added it").file;
    if let Err(e) = shared.files.cut_failed(file, SEGMENT_HEADER_BYTES) {
        // It goes all the same: where nothing is synced one void segment after the other would stay, each tried again with every round.
        tracing::warn!(segment = %sequence, error = %e, "can't empty a void segment before it goes");
    }
    let Err(e) = shared.files.retire(file, 0, false) else {
        shared.catalog_write().segments.remove(&sequence);
        return;
    };
    // The next round of housekeeping tries again. It is not asked for: this may be such a round, and would ask for itself.
    tracing::warn!(segment = %sequence, error = %e, "can't remove a void segment; later");
    // Until it is gone the next one, whose header says that it is void, must stay, too.
    let mut catalog = shared.catalog_write();
    let segment = catalog.segments.get_mut(&sequence).expect("nobody else takes away what is written to");
    (segment.failed, segment.stage) = (true, Stage::Sealing(Arc::default()));
}
