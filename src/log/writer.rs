//! The one writer: takes all appends that wait, writes them, syncs once, and only then tells anybody.
//!
//! What holds between any two lines: a frame is published (readers see it) and answered only after the sync that made
//! it durable, in a file whose name is durable. After a failed write or sync the file is never written again; the same
//! frames go to a fresh segment whose header names the byte at which the failed one ends. If that fails too nothing is
//! published, every append of the commit hears why, and the log is read-only until [`Writer::revive`] succeeds.

mod ahead;
mod rolling;

use super::files::Purpose;
use super::frame::{FrameHeader, Kind};
use super::limits::{CLOCK_BACK_MS_MAX, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, STREAMS_MAX};
use super::options::{AppendError, Appended, Done};
use super::pending::{Pending, answer, is_ours, refuse};
use super::reader::Frame;
use super::segment::{Class, Predecessor};
use super::shared::Shared;
use crate::disk::{File, is_full};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::offset::StreamId;
use ahead::Ahead;
use rolling::Lane;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// See the file's header. Owned by one thread at a time.
pub(crate) struct Writer {
    lanes: [Lane; 2],
    /// The large append under way.
    ahead: Option<Ahead>,
    /// The ingest time that was given last; see [`Writer::ingest_ms`].
    last_ms: u64,
}

/// A frame on its way, wherever it will lie.
struct Outgoing {
    header: FrameHeader,
    payload: Vec<u8>,
}

/// Appends made ready: offsets given, streams named. Valid only until something else is published.
struct Prepared {
    purpose: Purpose,
    frames: Vec<Outgoing>,
    /// Streams to be made known with the commit, in the order of their numbers.
    declared: Vec<Arc<str>>,
    answers: Vec<(Done, Appended)>,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(last: [Option<Predecessor>; 2], last_ms: u64) -> Self {
        let [main, system] = last;
        let lanes = [
            Lane { class: Class::Main, active: None, last: main, cut_is_due: false },
            Lane { class: Class::System, active: None, last: system, cut_is_due: false },
        ];
        Self { lanes, ahead: None, last_ms }
    }

    /// Writes and answers these appends: one sync for all of a class that fit into its segment.
    pub(crate) fn commit(&mut self, shared: &Shared, batch: Vec<Pending>) {
        let (main, system): (Vec<_>, Vec<_>) = batch.into_iter().partition(|append| append.class() == Class::Main);
        for (lane, appends) in [(0, main), (1, system)] {
            let mut rest = appends;
            while !rest.is_empty() {
                rest = self.commit_some(shared, lane, rest);
            }
        }
    }

    /// Commits the first of `appends` that fit together and returns the others.
    fn commit_some(&mut self, shared: &Shared, lane: usize, appends: Vec<Pending>) -> Vec<Pending> {
        let Some((now, later)) = self.make_room(shared, lane, appends) else { return Vec::new() };
        let prepared = self.prepare(shared, now);
        if prepared.frames.is_empty() {
            return later;
        }
        match self.store(shared, lane, prepared) {
            Ok(()) => later,
            Err(error) => {
                refuse(later, &error);
                Vec::new()
            }
        }
    }

    /// Writes, once more to a fresh segment where the disk fails, and answers.
    fn store(&mut self, shared: &Shared, lane: usize, prepared: Prepared) -> Result<(), AppendError> {
        let mut written = self.write(lane, &prepared.frames);
        let mut interrupted = None;
        if let Err(first) = &written {
            tracing::error!(error = %first, "an append failed; writing it again to a fresh segment");
            interrupted = self.give_up_ahead(shared, lane);
            written = self.start_fresh(shared, lane, &prepared).and_then(|()| self.write(lane, &prepared.frames));
        }
        match written {
            Ok(positions) => {
                self.publish(shared, lane, prepared, positions);
                if let Some(interrupted) = interrupted {
                    // What comes of it is told to whom it is about.
                    let _ = self.store_anew(shared, lane, interrupted);
                }
                Ok(())
            }
            Err(e) => {
                let error = self.fail(shared, lane, prepared, &e);
                if let Some(interrupted) = interrupted {
                    interrupted.refuse(&error);
                }
                Err(error)
            }
        }
    }

    /// Stores in a segment that is made for it, so that its header passes over whatever failed before.
    fn store_anew(&mut self, shared: &Shared, lane: usize, prepared: Prepared) -> Result<(), AppendError> {
        match self.roll(shared, lane, prepared.needs(), prepared.purpose) {
            Ok(()) => self.store(shared, lane, prepared),
            Err(e) => Err(self.fail(shared, lane, prepared, &e)),
        }
    }

    /// Nothing of this was stored: gives the segment up and says so.
    fn fail(&mut self, shared: &Shared, lane: usize, prepared: Prepared, e: &io::Error) -> AppendError {
        self.abandon(shared, lane);
        // The numbers of these streams may have reached the disk with their names: nobody else gets them.
        let mut catalog = shared.catalog_write();
        for name in &prepared.declared {
            catalog.add_stream(Arc::clone(name));
        }
        drop(catalog);
        let error = shared.disk_error(e);
        prepared.refuse(&error);
        error
    }

    /// Splits off the appends that fit into the active segment, making a new one where needed. `None` when there is
    /// nothing left to commit: the others have been answered.
    fn make_room(
        &mut self,
        shared: &Shared,
        lane: usize,
        appends: Vec<Pending>,
    ) -> Option<(Vec<Pending>, Vec<Pending>)> {
        let mut appends = self.refuse_what_is_over_budget(shared, lane, appends);
        while self.lanes[lane].room() < appends.first()?.stored_bytes() {
            // The next segment is that of the large append under way: one that is made now would pass over it.
            if self.finish_ahead(shared, lane) {
                continue;
            }
            let ours = is_ours(&appends[0].stream);
            let needed = appends[0].stored_bytes() + u64::from(SEGMENT_HEADER_BYTES);
            let purpose = if ours { Purpose::Drain } else { Purpose::Ingest };
            if let Err(e) = self.roll(shared, lane, needed, purpose) {
                let is_large = needed > u64::from(shared.options.segment_bytes.min(shared.options.large_append_bytes));
                if is_full(&e) && is_large && !ours && !self.has_settled(shared) {
                    // Smaller ones go into what there is still: that is no news to them, and they find out by themselves. Not
                    // where a segment that is written to could go: only a log that is full ends that.
                    tracing::warn!(bytes = needed, "no room for a large append: it is refused, and nothing else");
                    shared.request_housekeeping();
                    refuse(vec![appends.remove(0)], &shared.full());
                    continue;
                }
                let error = shared.disk_error(&e);
                // Our own appends behind a refused one may use the reserve: they are what frees the disk.
                let spares_ours = is_full(&e) && !ours;
                let (refused, kept) = appends.into_iter().partition(|append| !spares_ours || !is_ours(&append.stream));
                refuse(refused, &error);
                appends = kept;
            }
        }
        let mut room = self.lanes[lane].room();
        let fitting = appends.iter().take_while(|append| {
            let fits = append.stored_bytes() <= room;
            room = room.saturating_sub(append.stored_bytes());
            fits
        });
        let later = appends.split_off(fitting.count());
        assert!(!appends.is_empty(), "a segment was made for the first append");
        Some((appends, later))
    }

    /// While the segment is made of the reserve, only our own streams may use it.
    fn refuse_what_is_over_budget(&mut self, shared: &Shared, lane: usize, appends: Vec<Pending>) -> Vec<Pending> {
        let Some(active) = &mut self.lanes[lane].active else { return appends };
        if active.restricted && shared.files.spare_count() >= shared.options.reserve_segments {
            active.restricted = false;
        }
        if !active.restricted {
            return appends;
        }
        let (ours, refused): (Vec<_>, Vec<_>) = appends.into_iter().partition(|append| is_ours(&append.stream));
        refuse(refused, &shared.full());
        ours
    }

    /// Gives offsets and numbers, on the strength of what is durable now.
    fn prepare(&mut self, shared: &Shared, appends: Vec<Pending>) -> Prepared {
        let now_ms = self.ingest_ms(shared.clock.wall_ms());
        let purpose =
            if appends.iter().all(|append| is_ours(&append.stream)) { Purpose::Drain } else { Purpose::Ingest };
        let mut prepared = Prepared { purpose, frames: Vec::new(), declared: Vec::new(), answers: Vec::new() };
        let mut ends: HashMap<StreamId, (u64, u64)> = HashMap::new();
        let mut new_ids: HashMap<Arc<str>, StreamId> = HashMap::new();
        let mut refused = Vec::new();
        let catalog = shared.catalog_read();
        for append in appends {
            let known = catalog.id(&append.stream);
            let declared = known.filter(|id| catalog.stream(*id).is_some_and(|stream| stream.declared));
            let stream = match declared.or_else(|| new_ids.get(&append.stream).copied()) {
                Some(stream) => stream,
                None if known.is_none() && catalog.streams.len() + prepared.declared.len() >= STREAMS_MAX => {
                    refused.push(append);
                    continue;
                }
                None => {
                    let next_id = || StreamId((catalog.streams.len() + prepared.declared.len()) as u32);
                    let stream = known.unwrap_or_else(next_id);
                    new_ids.insert(Arc::clone(&append.stream), stream);
                    prepared.frames.push(Outgoing::declaration(stream, &append.stream, now_ms));
                    if known.is_none() {
                        prepared.declared.push(Arc::clone(&append.stream));
                    }
                    stream
                }
            };
            let durable = || catalog.stream(stream).map_or((0, 0), |known| (known.row.next, known.row.bytes));
            let (next, bytes) = ends.entry(stream).or_insert_with(durable);
            let first = *next;
            let parts = append.parts.len();
            for (i, (part, payload_crc)) in append.parts.into_iter().enumerate() {
                let payload_len = u32::try_from(part.bytes.len()).expect("append checks the size");
                let header = FrameHeader {
                    kind: Kind::Records,
                    stream,
                    first: *next,
                    records: part.records,
                    bytes_before: *bytes,
                    ingest_ms: now_ms,
                    synced: 0,
                    group_first: i == 0,
                    group_last: i + 1 == parts,
                    payload_len,
                    payload_crc,
                };
                *next += u64::from(part.records);
                *bytes += u64::from(payload_len);
                prepared.frames.push(Outgoing { header, payload: part.bytes });
            }
            prepared.answers.push((append.done, Appended { stream, offsets: first..*next }));
        }
        drop(catalog); // callbacks may ask the log
        refuse(refused, &AppendError::TooManyStreams { limit: STREAMS_MAX });
        prepared
    }

    /// The ingest time of what comes at this moment: never before that of what came before, unless a clock was so wrong that ages
    /// would be. Nothing goes by the order of these times.
    fn ingest_ms(&mut self, wall_ms: u64) -> u64 {
        if self.last_ms > wall_ms.saturating_add(CLOCK_BACK_MS_MAX) {
            tracing::warn!(
                newest_ms = self.last_ms,
                wall_ms,
                "the clock is far behind the newest record's time: followed"
            );
            self.last_ms = wall_ms;
        }
        self.last_ms = self.last_ms.max(wall_ms);
        self.last_ms
    }

    /// Writes the frames behind one another and syncs. Returns their positions and where they end.
    fn write(&mut self, lane: usize, frames: &[Outgoing]) -> io::Result<Vec<u32>> {
        let active = self.lanes[lane].active.as_mut().expect("make_room made one");
        let mut positions = Vec::with_capacity(frames.len());
        let mut headers = Vec::with_capacity(frames.len());
        let mut at = active.position;
        for frame in frames {
            let header = FrameHeader { synced: active.position, ..frame.header };
            positions.push(at);
            headers.push(header.encode(&active.identity, at));
            at += header.stored_len();
        }
        assert!(at <= active.capacity, "make_room left room");
        let pieces = frames.iter().zip(&headers).flat_map(|(frame, header)| frame.pieces(header).map(IoSlice::new));
        let slices: Vec<IoSlice<'_>> = pieces.collect();
        let (file, from) = (&active.file, u64::from(active.position));
        failpoints::around(Point::FramesWrite, || file.write_all_at(&slices, from))?;
        let sync = || mutants::unless(Mutant::AppendNotSynced, || file.sync_data());
        failpoints::around(Point::FramesSync, sync)?;
        active.position = at;
        Ok(positions)
    }

    /// What was written is durable: lets readers see it, then answers, then wakes.
    fn publish(&mut self, shared: &Shared, lane: usize, prepared: Prepared, positions: Vec<u32>) {
        let active = self.lanes[lane].active.as_ref().expect("just written to");
        let mut tails: Vec<(StreamId, u64)> = Vec::new();
        // Of the tail cache: they are given back when nobody waits for the lock, nor for an answer.
        let mut going = Vec::new();
        failpoints::before(Point::FramesPublish);
        {
            let mut catalog = shared.catalog_write();
            for name in prepared.declared {
                catalog.add_stream(name);
            }
            for (frame, position) in prepared.frames.into_iter().zip(positions) {
                if frame.header.kind == Kind::Records {
                    let end = frame.header.offsets().end;
                    match tails.last_mut() {
                        Some((stream, tail)) if *stream == frame.header.stream => *tail = end,
                        _ => tails.push((frame.header.stream, end)),
                    }
                    let readable = Arc::new(Frame::of(&frame.header, frame.payload));
                    going.extend(catalog.publish(active.sequence, position, &frame.header, readable));
                }
            }
            let segment = catalog.segments.get_mut(&active.sequence).expect("roll added it");
            segment.end = active.position;
        }
        shared.set_synced(self.lanes[lane].class, active.sequence, active.position);
        failpoints::after(Point::FramesPublish);
        for (done, appended) in prepared.answers {
            failpoints::around(Point::AppendsAnswer, || answer(done, Ok(appended)));
        }
        failpoints::around(Point::ReadersWake, || shared.wake(&tails));
        drop(going);
    }
}

// === impl Prepared ===

impl Prepared {
    /// Bytes of a segment that holds this alone.
    fn needs(&self) -> u64 {
        let frames: u64 = self.frames.iter().map(|frame| u64::from(frame.header.stored_len())).sum();
        frames + u64::from(SEGMENT_HEADER_BYTES)
    }

    fn refuse(self, error: &AppendError) {
        for (done, _) in self.answers {
            answer(done, Err(error.clone()));
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Its bytes in a segment, behind this header.
    fn pieces<'a>(&'a self, header: &'a [u8]) -> [&'a [u8]; 3] {
        const PADDING: [u8; 8] = [0; 8];
        let padding = (self.header.stored_len() - FRAME_HEADER_BYTES - self.header.payload_len) as usize;
        [header, &self.payload, &PADDING[..padding]]
    }

    fn declaration(stream: StreamId, name: &str, now_ms: u64) -> Self {
        let payload = name.as_bytes().to_vec();
        let header = FrameHeader {
            kind: Kind::Declaration,
            stream,
            first: 0,
            records: 0,
            bytes_before: 0,
            ingest_ms: now_ms,
            synced: 0,
            group_first: true,
            group_last: true,
            payload_len: payload.len() as u32,
            payload_crc: crc32fast::hash(&payload),
        };
        Self { header, payload }
    }
}
