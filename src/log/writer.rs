//! The one writer: takes all appends that wait, writes them, syncs once, and only then tells anybody.
//!
//! What holds between any two lines: a frame is published (readers see it) and answered only after the sync that made
//! it durable, in a file whose name is durable. After a failed write or sync the file is never written again; the same
//! frames go to a fresh segment whose header names the byte at which the failed one ends. If that fails too nothing is
//! published, every append of the commit hears why, and the log is read-only until [`Writer::revive`] succeeds.

use super::Shared;
use super::catalog::{Segment, Stage};
use super::file_name::FileName;
use super::files::{Fresh, Purpose};
use super::frame::{FrameHeader, Identity, Kind, stored_len};
use super::index::ActiveIndex;
use super::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, STREAMS_MAX};
use super::options::{AppendError, Appended, Done, Payload};
use super::reader::Frame;
use super::segment::{Class, Predecessor, SegmentHeader};
use crate::disk::File;
use crate::disk::latched::Latched;
use crate::offset::{Sequence, StreamId};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// An append that waits.
pub(crate) struct Pending {
    pub(crate) stream: Arc<str>,
    /// Each part with its checksum.
    parts: Vec<(Payload, u32)>,
    done: Done,
}

/// See the file's header. Owned by one thread at a time.
pub(crate) struct Writer {
    lanes: [Lane; 2],
    next_sequence: Sequence,
    /// Ingest times never go back.
    last_ms: u64,
}

/// The segments of one class.
struct Lane {
    class: Class,
    active: Option<Active>,
    /// The last good segment and where it ends: what the next one names as its predecessor.
    last: Option<Predecessor>,
}

/// The segment that is written to.
struct Active {
    sequence: Sequence,
    identity: Identity,
    file: Arc<Latched>,
    /// Everything below is synced; the next frame goes here.
    position: u32,
    capacity: u32,
    /// Made of the reserve: only our own streams may use it until there is room again.
    restricted: bool,
}

/// A frame on its way, wherever it will lie.
struct Outgoing {
    header: FrameHeader,
    payload: Vec<u8>,
}

/// Appends made ready: offsets given, streams named. Valid only until something else is published.
struct Prepared {
    frames: Vec<Outgoing>,
    /// Streams to be made known with the commit, in the order of their numbers.
    declared: Vec<Arc<str>>,
    answers: Vec<(Done, Appended)>,
}

// === impl Pending ===

impl Pending {
    /// Sums the parts up here, on the caller's thread: the writer is one for all, and what it does everybody waits for.
    pub(crate) fn new(stream: &str, parts: Vec<Payload>, done: Done) -> Self {
        let summed = |part: Payload| {
            let crc = crc32fast::hash(&part.bytes);
            (part, crc)
        };
        Self { stream: stream.into(), parts: parts.into_iter().map(summed).collect(), done }
    }

    /// Bytes that it will take in a segment, at most.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let frames: u64 = self.parts.iter().map(|(part, _)| u64::from(stored_len(part.bytes.len() as u32))).sum();
        frames + u64::from(stored_len(self.stream.len() as u32))
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.parts.iter().map(|(part, _)| part.bytes.len()).sum()
    }

    fn class(&self) -> Class {
        // Plans go with the records they are about and end with them; all else of ours is kept apart.
        if is_ours(&self.stream) && &*self.stream != super::PLANS_STREAM { Class::System } else { Class::Main }
    }
}

fn is_ours(stream: &str) -> bool {
    stream.starts_with('!')
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(next_sequence: Sequence, last: [Option<Predecessor>; 2], last_ms: u64) -> Self {
        let [main, system] = last;
        let lanes = [
            Lane { class: Class::Main, active: None, last: main },
            Lane { class: Class::System, active: None, last: system },
        ];
        Self { lanes, next_sequence, last_ms }
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
        let purpose = if now.iter().all(|append| is_ours(&append.stream)) { Purpose::Drain } else { Purpose::Ingest };
        let prepared = self.prepare(shared, now);
        if prepared.frames.is_empty() {
            return later;
        }
        let mut written = self.write(lane, &prepared.frames);
        if let Err(first) = &written {
            tracing::error!(error = %first, "an append failed; writing it again to a fresh segment");
            written = self
                .start_fresh(shared, lane, &prepared.frames, purpose)
                .and_then(|()| self.write(lane, &prepared.frames));
        }
        match written {
            Ok(positions) => {
                self.publish(shared, lane, prepared, positions);
                later
            }
            Err(e) => {
                self.abandon(shared, lane);
                // The numbers of these streams may have reached the disk with their names: nobody else gets them.
                let mut catalog = shared.catalog_write();
                for name in prepared.declared {
                    catalog.add_stream(name);
                }
                drop(catalog);
                let error = shared.disk_error(&e);
                let refused = prepared.answers.into_iter().map(|(done, _)| done);
                for done in refused.chain(later.into_iter().map(|append| append.done)) {
                    answer(done, Err(error.clone()));
                }
                Vec::new()
            }
        }
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
            let ours = is_ours(&appends[0].stream);
            let needed = appends[0].stored_bytes() + u64::from(SEGMENT_HEADER_BYTES);
            let purpose = if ours { Purpose::Drain } else { Purpose::Ingest };
            if let Err(e) = self.roll(shared, lane, needed, purpose) {
                let error = shared.disk_error(&e);
                // Our own appends behind a refused one may use the reserve: they are what frees the disk.
                let spares_ours = e.kind() == io::ErrorKind::StorageFull && !ours;
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
        let now_ms = shared.clock.wall_ms().max(self.last_ms);
        self.last_ms = now_ms;
        let mut prepared = Prepared { frames: Vec::new(), declared: Vec::new(), answers: Vec::new() };
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
        const PADDING: [u8; 8] = [0; 8];
        let mut slices = Vec::with_capacity(frames.len() * 3);
        for (frame, header) in frames.iter().zip(&headers) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&frame.payload));
            let padding = (frame.header.stored_len() - FRAME_HEADER_BYTES - frame.header.payload_len) as usize;
            slices.push(IoSlice::new(&PADDING[..padding]));
        }
        active.file.write_all_at(&slices, u64::from(active.position))?;
        active.file.sync_data()?;
        active.position = at;
        Ok(positions)
    }

    /// What was written is durable: lets readers see it, then answers, then wakes.
    fn publish(&mut self, shared: &Shared, lane: usize, prepared: Prepared, positions: Vec<u32>) {
        let active = self.lanes[lane].active.as_ref().expect("just written to");
        let mut tails: Vec<(StreamId, u64)> = Vec::new();
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
                    catalog.publish(active.sequence, position, &frame.header, readable);
                }
            }
            let segment = catalog.segments.get_mut(&active.sequence).expect("roll added it");
            segment.end = active.position;
        }
        shared.set_synced(self.lanes[lane].class, active.sequence, active.position);
        for (done, appended) in prepared.answers {
            answer(done, Ok(appended));
        }
        shared.wake(&tails);
    }

    /// Seals the active segment, if there is one, and makes the next.
    fn roll(&mut self, shared: &Shared, lane: usize, needed: u64, purpose: Purpose) -> io::Result<()> {
        let bytes = u32::try_from(needed).map_err(io::Error::other)?.max(shared.options.segment_bytes);
        let class = self.lanes[lane].class;
        // Spent even if it comes to nothing: what a failure left under the name is in nobody's way.
        let sequence = self.next_sequence;
        self.next_sequence = Sequence(sequence.0 + 1);
        shared.set_next_sequence(self.next_sequence);
        let name = FileName::Segment(sequence, class);
        let make = |room: bool, purpose| {
            shared.files.make_segment(name, bytes, shared.options.reserve_segments, purpose, room)
        };
        let mut restricted = false;
        let fresh = match make(shared.has_room(u64::from(bytes)), Purpose::Ingest) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                // Settled segments that are only kept for replay go before anybody is refused.
                shared.reclaim(super::keeper::Pressure::NeedsRoom);
                match make(shared.has_room(u64::from(bytes)), Purpose::Ingest) {
                    Err(e) if e.kind() == io::ErrorKind::StorageFull && purpose == Purpose::Drain => {
                        restricted = true;
                        make(false, Purpose::Drain)?
                    }
                    other => other?,
                }
            }
            other => other?,
        };
        self.retire_active(shared, lane, false);
        self.adopt(shared, lane, sequence, fresh, restricted);
        // The header goes out by itself and is covered by the first frames' sync: without frames it is worth nothing.
        let active = self.lanes[lane].active.as_ref().expect("just adopted");
        let header = self.header_of(shared, lane, active.sequence);
        let written = active.file.write_all_at(&[IoSlice::new(&header.encode())], 0);
        if let Err(e) = written {
            self.abandon(shared, lane);
            return Err(e);
        }
        shared.request_housekeeping();
        Ok(())
    }

    /// After a failed write or sync: the file is given up where its last good sync left it, and a fresh one is made.
    fn start_fresh(&mut self, shared: &Shared, lane: usize, frames: &[Outgoing], purpose: Purpose) -> io::Result<()> {
        let needed: u64 = frames.iter().map(|frame| u64::from(frame.header.stored_len())).sum();
        self.abandon(shared, lane);
        self.roll(shared, lane, needed + u64::from(SEGMENT_HEADER_BYTES), purpose)
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

    /// Gives the active segment up after a failure.
    fn abandon(&mut self, shared: &Shared, lane: usize) {
        self.retire_active(shared, lane, true);
    }

    fn retire_active(&mut self, shared: &Shared, lane: usize, failed: bool) {
        let Some(active) = self.lanes[lane].active.take() else { return };
        let mut catalog = shared.catalog_write();
        let segment = catalog.segments.get_mut(&active.sequence).expect("adopt added it");
        if active.position == SEGMENT_HEADER_BYTES {
            // Nothing was ever acknowledged in it: void, and the next segment's header says so by skipping its number.
            let mut segment = catalog.segments.remove(&active.sequence).expect("just seen");
            drop(catalog);
            if let Err(e) = shared.files.retire(active.sequence, self.lanes[lane].class, 0, false) {
                tracing::warn!(segment = %active.sequence, error = %e, "can't remove a void segment; later");
                // Until it is gone the next one, whose header says that it is void, must stay.
                (segment.failed, segment.stage) = (true, Stage::Sealing(Arc::default()));
                shared.catalog_write().segments.insert(active.sequence, segment);
                shared.request_housekeeping();
            }
            return;
        }
        segment.failed = failed;
        let Stage::Active(index) = std::mem::replace(&mut segment.stage, Stage::Sealed) else {
            unreachable!("the active segment is active")
        };
        segment.stage = Stage::Sealing(Arc::new(index));
        self.lanes[lane].last = Some(Predecessor { sequence: active.sequence, end: active.position });
        drop(catalog);
        shared.request_housekeeping();
    }

    fn adopt(&mut self, shared: &Shared, lane: usize, sequence: Sequence, fresh: Fresh, restricted: bool) {
        let class = self.lanes[lane].class;
        shared.files.keep_open(sequence, Arc::clone(&fresh.file) as Arc<dyn File>);
        let mut catalog = shared.catalog_write();
        let segment = Segment {
            class,
            end: SEGMENT_HEADER_BYTES,
            file_bytes: fresh.bytes,
            newest_ms: 0,
            stage: Stage::Active(ActiveIndex::default()),
            failed: false,
            blocker: None,
        };
        catalog.segments.insert(sequence, segment);
        catalog.unseen = Sequence(sequence.0 + 1);
        drop(catalog);
        self.lanes[lane].active = Some(Active {
            sequence,
            identity: Identity::new(shared.log_id, sequence),
            file: fresh.file,
            position: SEGMENT_HEADER_BYTES,
            capacity: u32::try_from(fresh.bytes).expect("segments have 32-bit positions"),
            restricted,
        });
    }

    fn header_of(&self, shared: &Shared, lane: usize, sequence: Sequence) -> SegmentHeader {
        SegmentHeader {
            log: shared.log_id,
            sequence,
            class: self.lanes[lane].class,
            created_ms: shared.clock.wall_ms(),
            predecessor: self.lanes[lane].last,
        }
    }

    /// Seals both lanes and cuts their files to what they hold. After this the writer starts new segments.
    pub(crate) fn finish(&mut self, shared: &Shared) -> io::Result<()> {
        for lane in 0..self.lanes.len() {
            let Some(active) = &self.lanes[lane].active else { continue };
            let (sequence, file, end) = (active.sequence, Arc::clone(&active.file), u64::from(active.position));
            self.retire_active(shared, lane, false);
            if end > u64::from(SEGMENT_HEADER_BYTES) {
                file.set_len(end)?;
                file.sync_data()?;
                if let Some(segment) = shared.catalog_write().segments.get_mut(&sequence) {
                    segment.file_bytes = end;
                }
            }
        }
        Ok(())
    }
}

// === impl Lane, Outgoing ===

impl Lane {
    fn room(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| u64::from(active.capacity - active.position))
    }
}

impl Outgoing {
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

/// Answers all of them with the same error.
pub(crate) fn refuse(appends: Vec<Pending>, error: &AppendError) {
    for append in appends {
        answer(append.done, Err(error.clone()));
    }
}

/// Calls back. A panic in the callback is its owner's bug and must not stop the log.
pub(crate) fn answer(done: Done, result: Result<Appended, AppendError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a completion callback panicked");
    }
}
