//! A large append: written in steps into the segment that comes next, while others are committed to the active one.
//!
//! Written and synced as one it would hold everybody up for as long as its bytes take. So a segment is made for it, each
//! step of it is synced by itself, and when all of it is on the disk that segment becomes the active one: its header, which
//! names where the one before ends, is the commit. What always holds until then: nobody sees it and nobody is answered; its
//! frames say that nothing before them is synced, so a crash leaves all of it or none; its offsets are given to nobody else,
//! for its stream waits; and the next header of its class is its own segment's, or passes over it.

use super::rolling::{Active, enter, make_file, void};
use super::{Outgoing, Prepared, Writer};
use crate::disk::File;
use crate::log::file_name::FileName;
use crate::log::files::Purpose;
use crate::log::frame::FrameHeader;
use crate::log::limits::{FRAME_HEADER_BYTES, LARGE_APPEND_STEPS, SEGMENT_HEADER_BYTES};
use crate::log::pending::Pending;
use crate::log::segment::Class;
use crate::log::shared::Shared;
use crate::mutants::{self, Mutant};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// A large append under way.
pub(super) struct Ahead {
    lane: usize,
    stream: Arc<str>,
    /// Its segment, which holds nothing that counts.
    segment: Active,
    prepared: Prepared,
    /// Of each frame, where it starts and its header.
    placed: Vec<(u32, [u8; FRAME_HEADER_BYTES as usize])>,
    /// Up to here it is written, and synced save for the last step.
    at: u32,
    end: u32,
}

impl Writer {
    /// The stream of the large append under way.
    pub(crate) fn under_way(&self) -> Option<Arc<str>> {
        self.ahead.as_ref().map(|ahead| Arc::clone(&ahead.stream))
    }

    /// Begins a large append, whose stream has no other on its way. Where no segment can be had for it, it is committed as
    /// others are.
    pub(crate) fn begin(&mut self, shared: &Shared, append: Pending) {
        assert!(self.ahead.is_none(), "one at a time");
        let lane = usize::from(append.class() == Class::System);
        match self.segment_ahead(shared, lane, &append) {
            Some(segment) => {
                let stream = Arc::clone(&append.stream);
                let prepared = self.prepare(shared, vec![append]);
                self.ahead = Some(Ahead::new(lane, stream, segment, prepared));
            }
            None => self.commit(shared, vec![append]),
        }
    }

    fn segment_ahead(&self, shared: &Shared, lane: usize, append: &Pending) -> Option<Active> {
        let active = self.lanes[lane].active.as_ref()?;
        // What was acknowledged in it stands behind its own header: so wherever a file failed before, its end is on the disk.
        let is_sound = active.position > SEGMENT_HEADER_BYTES && !active.restricted;
        let is_declared = {
            let catalog = shared.catalog_read();
            catalog.id(&append.stream).and_then(|id| catalog.stream(id)).is_some_and(|stream| stream.declared)
        };
        if !is_sound || !is_declared {
            return None;
        }
        let needed = append.stored_bytes() + u64::from(SEGMENT_HEADER_BYTES);
        let bytes = u32::try_from(needed).ok()?.max(shared.options.segment_bytes);
        let class = self.lanes[lane].class;
        let sequence = shared.take_sequence();
        match make_file(shared, FileName::Segment(sequence, class), bytes, Purpose::Ingest) {
            Ok((fresh, claims)) => {
                let segment = enter(shared, class, sequence, fresh, false);
                drop(claims); // it counts by itself now
                shared.request_housekeeping();
                Some(segment)
            }
            Err(e) => {
                tracing::debug!(error = %e, "no segment for a large append: it goes into the active one");
                None
            }
        }
    }

    /// One step of the large append under way. Behind the last it is durable, published and answered.
    pub(crate) fn step(&mut self, shared: &Shared) {
        let Some(mut ahead) = self.ahead.take() else { return };
        match ahead.write_some(shared.options.large_append_bytes.div_ceil(LARGE_APPEND_STEPS)) {
            Ok(()) if ahead.at < ahead.end => self.ahead = Some(ahead),
            Ok(()) => self.link(shared, ahead),
            Err(e) => {
                tracing::error!(error = %e, "a large append failed; writing it again to a fresh segment");
                void(shared, ahead.segment.sequence);
                // Never into the active one: only the next header says that what the failed file holds does not count.
                let _ = self.store_anew(shared, ahead.lane, ahead.prepared);
            }
        }
    }

    /// Takes the large append of this lane to its end at once. Says whether there was one.
    pub(super) fn finish_ahead(&mut self, shared: &Shared, lane: usize) -> bool {
        let is_ours = |ahead: &Ahead| ahead.is_of(lane);
        let was = self.ahead.as_ref().is_some_and(is_ours);
        while self.ahead.as_ref().is_some_and(is_ours) {
            self.step(shared);
        }
        was
    }

    /// Gives up the segment of this lane's large append: the next header passes over it. Returns the append.
    pub(super) fn give_up_ahead(&mut self, shared: &Shared, lane: usize) -> Option<Prepared> {
        let ahead = self.ahead.take_if(|ahead| ahead.is_of(lane))?;
        void(shared, ahead.segment.sequence);
        Some(ahead.prepared)
    }

    /// Makes the segment of a large append, all of which is written, the active one.
    fn link(&mut self, shared: &Shared, ahead: Ahead) {
        let Ahead { lane, segment, prepared, placed, end, .. } = ahead;
        self.retire_active(shared, lane, false);
        let file = Arc::clone(&segment.file);
        self.lanes[lane].active = Some(segment);
        let synced = self.write_header(shared, lane);
        let synced = synced.and_then(|()| mutants::unless(Mutant::AppendNotSynced, || file.sync_data()));
        match synced {
            Ok(()) => {
                self.lanes[lane].active.as_mut().expect("just set").position = end;
                self.publish(shared, lane, prepared, placed.into_iter().map(|(position, _)| position).collect());
            }
            Err(e) => {
                tracing::error!(error = %e, "a large append failed; writing it again to a fresh segment");
                self.abandon(shared, lane);
                let _ = self.store_anew(shared, lane, prepared);
            }
        }
    }
}

impl Ahead {
    fn new(lane: usize, stream: Arc<str>, segment: Active, prepared: Prepared) -> Self {
        let mut end = segment.position;
        let mut placed = Vec::with_capacity(prepared.frames.len());
        for frame in &prepared.frames {
            // Synced steps count for nothing: before the last of them no frame was acknowledged.
            let synced = if mutants::on(Mutant::StepsCalledSynced) { end } else { segment.position };
            let header = FrameHeader { synced, ..frame.header };
            placed.push((end, header.encode(&segment.identity, end)));
            end += header.stored_len();
        }
        assert!(end <= segment.capacity, "its segment was made for it");
        Self { lane, stream, at: segment.position, segment, prepared, placed, end }
    }

    pub(super) fn is_of(&self, lane: usize) -> bool {
        self.lane == lane
    }

    /// Writes so many bytes more, or the rest. What is not the last step is synced: the disk never has more of it to do than a
    /// step when somebody else's sync comes.
    fn write_some(&mut self, bytes: u32) -> io::Result<()> {
        let to = self.end.min(self.at.saturating_add(bytes));
        self.segment.file.write_all_at(&self.slices(to), u64::from(self.at))?;
        if to < self.end {
            self.segment.file.sync_data()?;
        }
        self.at = to;
        Ok(())
    }

    /// What lies between `at` and `to`.
    fn slices(&self, to: u32) -> Vec<IoSlice<'_>> {
        let from = self.at;
        let first = self.placed.partition_point(|(position, _)| *position <= from).saturating_sub(1);
        let frames: &[Outgoing] = &self.prepared.frames;
        let mut slices = Vec::new();
        for ((position, header), frame) in self.placed.iter().zip(frames).skip(first) {
            let mut start = *position;
            if start >= to {
                break;
            }
            for piece in frame.pieces(header) {
                let end = start + piece.len() as u32;
                if start.max(from) < end.min(to) {
                    let within = (start.max(from) - start) as usize..(end.min(to) - start) as usize;
                    slices.push(IoSlice::new(&piece[within]));
                }
                start = end;
            }
        }
        slices
    }
}
