//! Housekeeping behind the writer: seals full segments, keeps the stream table, takes away what nobody needs, and takes
//! room ahead.
//!
//! The order is what makes it safe. An index is written when its segment's frames have long been synced. The table is
//! durable before a segment goes, with what the going takes from each stream; so a crash in between leaves a segment
//! that is ignored and goes again. A segment whose file had failed and is not cut yet, or that has no index yet, goes before its
//! successor, which names its end. What can't be done for one segment keeps no other from its turn.

use super::catalog::{Segment, Stage};
use super::compaction::Leftover;
use super::file_name::{FileName, SegmentFile};
use super::index::{ActiveIndex, SegmentIndex, StreamEnd};
use super::room::Claim;
use super::short_disk::Pins;
use super::stream_table::StreamTable;
use super::{LogState, Shared};
use crate::disk::is_full;
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::offset::{Sequence, StreamId};
use crate::sync::{Arc, PoisonError};
use std::io;
use std::time::Duration;

/// How badly room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Settled segments stay for the replay window.
    None,
    /// Settled segments go now.
    NeedsRoom,
}

/// State of housekeeping. Its lock keeps two rounds from running at once.
pub(crate) struct Keeper {
    /// Generation of the newest table on disk.
    pub(crate) table_generation: u64,
    /// Something was sealed since the last table.
    pub(crate) table_stale: bool,
    /// A compact segment was made, or is about to be.
    pub(crate) compacted: bool,
    /// No segment is compacted before this moment of the monotonic clock.
    pub(crate) compact_from: Duration,
    /// Up to this place segments are weighed since the look at them began anew.
    pub(crate) weighed: Sequence,
    /// Files of compacted segments that did not go at once.
    pub(crate) leftovers: Vec<Leftover>,
    /// Spares whose names a failed sync left to chance, and their bytes, which are claimed until they are gone.
    pub(crate) doubtful: Vec<(u64, u64)>,
    /// What streams keep on the disk beside their own records.
    pub(crate) pins: Pins,
    /// Bytes of files that are nobody's and stay until the next start. They are claimed.
    pub(crate) left_bytes: u64,
}

/// A segment that has no index yet: its file, where it ends, whether it failed, and what is in it. Nothing of that changes any
/// more.
type Full = (SegmentFile, u32, bool, std::sync::Arc<ActiveIndex>);

impl Keeper {
    pub(crate) fn new(table_generation: u64, table_stale: bool, left_bytes: u64) -> Self {
        let (compacted, compact_from, weighed) = (false, Duration::ZERO, Sequence(0));
        let (leftovers, doubtful, pins) = (Vec::new(), Vec::new(), Pins::default());
        Self { table_generation, table_stale, compacted, compact_from, weighed, leftovers, doubtful, pins, left_bytes }
    }
}

impl Shared {
    /// One round. Errors are logged and counted; the next round tries again.
    pub(crate) fn housekeep(&self) {
        if matches!(self.state(), LogState::Full { .. }) {
            self.writer.lock().unwrap_or_else(PoisonError::into_inner).retire_settled(self);
        }
        {
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            self.attempt("seal a segment", self.seal(&mut keeper));
            if keeper.table_stale {
                self.attempt("write the stream table", self.write_table(&mut keeper));
            }
            self.attempt("remove spares whose names are in doubt", self.remove_doubtful(&mut keeper));
            self.attempt("remove files that were given up", self.files.strays().remove());
            self.attempt("reclaim segments", self.reclaim_with(&mut keeper, Pressure::None));
            self.attempt("compact segments", self.compact(&mut keeper));
            self.attempt("reclaim segments of a short disk", self.share_out(&mut keeper));
            self.attempt("take room ahead", self.refill(&mut keeper));
        }
        self.come_back();
    }

    /// What appends may expect, known before the first one comes: whether there is room for another segment. Takes that
    /// room, so that it stays true for the first.
    pub(crate) fn learn_state(&self) {
        if self.files.spare_count() > self.options.reserve_segments {
            return;
        }
        let room = self.claim(u64::from(self.options.segment_bytes));
        // Not prewritten: a start does not wait for zeros.
        let made = if room.is_some() { self.files.make_spare(false) } else { Err(io::ErrorKind::StorageFull.into()) };
        drop(room);
        if let Err(e) = made {
            self.disk_error(&e);
        }
    }

    /// Takes away what nobody needs. Called by the writer when it finds no room.
    pub(crate) fn reclaim(&self, pressure: Pressure) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        self.attempt("seal a segment", self.seal(&mut keeper));
        self.attempt("reclaim segments", self.reclaim_with(&mut keeper, pressure));
    }

    fn attempt(&self, what: &str, result: io::Result<()>) {
        if let Err(e) = result {
            self.counters.housekeeping_errors.add(1);
            tracing::warn!(error = %e, "can't {what}; trying again later");
        }
    }

    /// Writes the indexes of full segments, and cuts those that have failed. What can't be done for one keeps no other from being
    /// sealed: it has its turn again with the next round. Returns the first error; the others are told here.
    pub(crate) fn seal(&self, keeper: &mut Keeper) -> io::Result<()> {
        let is_full = |(place, segment): (&Sequence, &Segment)| match &segment.stage {
            Stage::Sealing(index) => Some((*place, (segment.file, segment.end, segment.failed, Arc::clone(index)))),
            _ => None,
        };
        let full: Vec<(Sequence, Full)> = self.catalog_read().segments.iter().filter_map(is_full).collect();
        let mut first = Ok(());
        let mut told = |done: io::Result<()>| {
            if first.is_ok() {
                first = done;
            } else {
                self.attempt("seal a segment", done);
            }
        };
        full.into_iter().for_each(|(place, segment)| told(self.seal_one(keeper, place, segment)));
        let is_uncut = |(place, segment): (&Sequence, &Segment)| {
            (segment.failed && matches!(segment.stage, Stage::Sealed)).then_some((*place, segment.file, segment.end))
        };
        let uncut: Vec<_> = self.catalog_read().segments.iter().filter_map(is_uncut).collect();
        uncut.into_iter().for_each(|(place, file, end)| told(self.cut(place, file, end)));
        first
    }

    /// Cuts what a failed sync may have let out, now that an index says where the segment ends: from then on it is one like others, and
    /// whatever names its end may go. Not another segment's file that has its name.
    fn cut(&self, place: Sequence, file: SegmentFile, end: u32) -> io::Result<()> {
        if !self.files.holds(file, self.log_id) {
            return Ok(());
        }
        self.files.cut_failed(file, end)?;
        let mut catalog = self.catalog_write();
        let segment = catalog.at_rest_mut(place);
        (segment.failed, segment.file_bytes) = (false, segment.file_bytes.min(u64::from(end)));
        Ok(())
    }

    fn seal_one(&self, keeper: &mut Keeper, place: Sequence, (file, end, failed, active): Full) -> io::Result<()> {
        let index = {
            let catalog = self.catalog_read();
            let name_of =
                |stream: StreamId| Arc::clone(&catalog.stream(stream).expect("published streams are known").row.name);
            active.seal(self.log_id, (file.sequence, file.class), end, failed, name_of)
        };
        let write = || self.write_index(&index);
        // On a full disk where it can go at once: until it has an index it can't.
        let settled = self.catalog_read().is_settled(place);
        if settled {
            self.with_a_spare(write)?
        } else {
            write()?
        }
        keeper.table_stale = true;
        self.catalog_write().at_rest_mut(place).stage = Stage::Sealed;
        Ok(())
    }

    /// Writes what lets segments go. Where the disk has not a block for it, a spare gives its own: that is what they are for,
    /// and the first segment that goes makes it good.
    fn with_a_spare(&self, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        match write() {
            Err(e) if is_full(&e) && self.files.remove_spare(0)? => write(),
            written => written,
        }
    }

    /// Makes a segment's index durable.
    fn write_index(&self, index: &SegmentIndex) -> io::Result<()> {
        let sequence = index.header.sequence;
        self.files.write_or_replace(FileName::Index(sequence), &index.encode(), || sequence)
    }

    /// Writes the stream table into the older of its two files.
    pub(crate) fn write_table(&self, keeper: &mut Keeper) -> io::Result<()> {
        let table = {
            let catalog = self.catalog_read();
            let open = catalog.segments.iter().find(|(_, segment)| !matches!(segment.stage, Stage::Sealed));
            StreamTable {
                log: self.log_id,
                generation: keeper.table_generation + 1,
                next_sequence: self.next_sequence(),
                // Not the next number: the writer may be making a segment of it right now.
                covers: open.map_or(catalog.unseen, |(sequence, _)| *sequence),
                compacted: keeper.compacted || catalog.segments.values().any(|segment| segment.file.replaced.is_some()),
                rows: catalog.streams.iter().map(|stream| stream.row.clone()).collect(),
            }
        };
        let slot = FileName::Streams((table.generation % 2) as u8);
        // The other slot holds the table before this one, whatever becomes of it.
        self.files.write_or_replace(slot, &table.encode(), || self.take_sequence())?;
        keeper.table_generation = table.generation;
        keeper.table_stale = false;
        Ok(())
    }

    pub(super) fn reclaim_with(&self, keeper: &mut Keeper, pressure: Pressure) -> io::Result<()> {
        let mut going = self.removable(pressure);
        if going.is_empty() {
            return Ok(());
        }
        // Both copies are to know what goes, since one may rot: the other one is the table that was written before.
        if keeper.table_stale {
            self.with_a_spare(|| self.write_table(keeper))?;
        }
        {
            let mut catalog = self.catalog_write();
            // Somebody may need it again since it was looked at; from here on nobody can.
            let trimmed = |end: StreamEnd<'_>| catalog.stream(end.stream).is_some_and(|s| s.trimmed >= end.next);
            going.retain(|(_, index)| index.streams().all(trimmed));
            if going.is_empty() {
                return Ok(());
            }
            for (_, index) in &going {
                for end in index.streams() {
                    let stream = catalog.stream_mut(end.stream).expect("streams of a segment are known");
                    stream.row.first_kept = stream.row.first_kept.max(end.next);
                }
            }
        }
        // Durable before the first file goes: a stream whose frames are all gone must not start again at 0.
        let save =
            || mutants::unless(Mutant::TableNotSavedBeforeReclaim, || self.with_a_spare(|| self.write_table(keeper)));
        failpoints::around(Point::ReclaimTable, save)?;
        let since = self.files.mark_names();
        let mut spares = Vec::new();
        let mut retired = Ok(());
        for (place, index) in &going {
            self.assert_nobody_needs(index);
            retired = retired.and(self.retire(keeper, *place, &mut spares));
        }
        let synced = failpoints::around(Point::ReclaimSync, || self.files.sync_names(since));
        self.take_spares(keeper, spares, synced).and(retired)
    }

    /// Once more before a segment goes for good, whatever led here.
    fn assert_nobody_needs(&self, index: &SegmentIndex) {
        let catalog = self.catalog_read();
        let trimmed = |end: StreamEnd<'_>| catalog.stream(end.stream).is_some_and(|stream| stream.trimmed >= end.next);
        assert!(index.streams().all(trimmed), "a segment is needed that was to go");
    }

    /// What has got a spare's name is one now, if that is durable. Else a crash could bring its old name back, and with it a
    /// segment that is reclaimed under a new one's feet: it goes, and counts until it is gone.
    pub(super) fn take_spares(
        &self,
        keeper: &mut Keeper,
        spares: Vec<(u64, Claim<'_>)>,
        synced: io::Result<()>,
    ) -> io::Result<()> {
        for (spare, held) in spares {
            if synced.is_ok() {
                self.files.add_spare(spare);
            } else {
                keeper.doubtful.push((spare, held.keep()));
            }
        }
        synced.and(self.remove_doubtful(keeper))
    }

    fn remove_doubtful(&self, keeper: &mut Keeper) -> io::Result<()> {
        let mut removed = Ok(());
        for (spare, bytes) in std::mem::take(&mut keeper.doubtful) {
            match self.files.remove_doubtful_spare(spare) {
                Ok(()) => self.let_go(bytes),
                Err(error) => {
                    keeper.doubtful.push((spare, bytes));
                    removed = removed.and(Err(error));
                }
            }
        }
        removed
    }

    /// Takes a segment away. What becomes a spare is added to `spares`, and goes on counting.
    fn retire<'a>(&'a self, keeper: &Keeper, place: Sequence, spares: &mut Vec<(u64, Claim<'a>)>) -> io::Result<()> {
        let bytes = self.catalog_read().at_rest(place).file_bytes;
        let held = self.hold(bytes);
        let segment = self.catalog_write().segments.remove(&place).expect("it was just there");
        self.indexes.remove(segment.file.sequence);
        let (ahead, reserve) = (self.files.spare_count() + spares.len(), self.options.reserve_segments);
        // The reserve in any case: it is what a disk that holds more than its budget is drained with.
        let becoming = (spares.len() as u64 + 1) * u64::from(self.options.segment_bytes);
        let wanted = ahead < reserve || (ahead < reserve + 2 && self.is_room_for(keeper, becoming));
        let failed = segment.failed.then_some(segment.end);
        match self.files.reclaim(segment.file, segment.file_bytes, self.log_id, failed, wanted) {
            Ok(spare) => spares.extend(spare.map(|spare| (spare, held))),
            Err(e) => {
                // It is still there, so it counts and keeps the one that names its end; it goes another time.
                self.catalog_write().segments.insert(place, segment);
                return Err(e);
            }
        }
        self.counters.segments_reclaimed.add(1);
        Ok(())
    }

    /// The segments that may go, with their indexes.
    fn removable(&self, pressure: Pressure) -> Vec<(Sequence, Arc<SegmentIndex>)> {
        let now_ms = self.clock.wall_ms();
        let mut kept_for_replay = 0;
        let mut going = Vec::new();
        let is_sealed =
            |(place, segment): (&Sequence, &Segment)| matches!(segment.stage, Stage::Sealed).then_some(*place);
        let sealed: Vec<Sequence> = self.catalog_read().segments.iter().rev().filter_map(is_sealed).collect();
        // From the newest back, so that what is kept for replay is the newest.
        for sequence in sealed {
            let index = match self.settled(sequence) {
                Ok(Some(index)) => index,
                Ok(None) => continue,
                Err(e) => {
                    // It stays; the others need not.
                    self.attempt("look into a segment", Err(e));
                    continue;
                }
            };
            let catalog = self.catalog_read();
            let segment = catalog.at_rest(sequence);
            kept_for_replay += segment.file_bytes;
            let over_share = kept_for_replay > self.budget() / 10;
            let expired = self.options.is_expired(segment.newest_ms, now_ms);
            let names_an_end = catalog
                .segments
                .range(..sequence)
                .rev()
                .find(|(_, before)| before.file.class == segment.file.class)
                .is_some_and(|(_, before)| before.end_is_named_behind());
            if (expired || over_share || pressure == Pressure::NeedsRoom) && !names_an_end {
                going.push((sequence, index));
            }
        }
        going
    }

    /// The index of a sealed segment all of whose streams are trimmed past it.
    fn settled(&self, sequence: Sequence) -> io::Result<Option<Arc<SegmentIndex>>> {
        {
            let catalog = self.catalog_read();
            let blocker = catalog.at_rest(sequence).blocker;
            let blocked = |(stream, next)| catalog.stream(stream).is_some_and(|stream| stream.trimmed < next);
            if blocker.is_some_and(blocked) {
                return Ok(None);
            }
        }
        let Some(index) = self.index(sequence)? else { return Ok(None) };
        let mut catalog = self.catalog_write();
        let blocker = index
            .streams()
            .find(|end| catalog.stream(end.stream).is_none_or(|stream| stream.trimmed < end.next))
            .map(|end| (end.stream, end.next));
        catalog.at_rest_mut(sequence).blocker = blocker;
        Ok(blocker.is_none().then_some(index))
    }

    /// Keeps the reserve and one spare more, as far as there is room.
    fn refill(&self, keeper: &mut Keeper) -> io::Result<()> {
        self.give_back(keeper)?;
        let wanted = self.options.reserve_segments + 1;
        let segment_bytes = u64::from(self.options.segment_bytes);
        while self.files.spare_count() < wanted {
            let Some(room) = self.claim(segment_bytes) else {
                return self.reclaim_with(keeper, Pressure::NeedsRoom);
            };
            let made = self.files.make_spare(self.options.prewrite);
            drop(room);
            match made {
                Err(e) if is_full(&e) => {
                    let before = self.files.spare_count();
                    self.reclaim_with(keeper, Pressure::NeedsRoom)?;
                    if self.files.spare_count() == before {
                        return Ok(()); // told by the state: a full disk is no fault of housekeeping
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// After a failure: is the disk back, is there room again?
    fn come_back(&self) {
        match self.state() {
            LogState::Serving => {}
            LogState::Full { .. } => {
                // One beyond the reserve: a budget that has room is no proof that the disk has.
                if self.files.spare_count() > self.options.reserve_segments {
                    tracing::info!("there is room again: appends are taken");
                    self.set_state(LogState::Serving);
                }
            }
            LogState::ReadOnly { .. } => {
                let revived = self.writer.lock().unwrap_or_else(PoisonError::into_inner).revive(self);
                match revived {
                    Ok(false) => {
                        tracing::info!("the disk takes writes again: appends are taken");
                        self.set_state(LogState::Serving);
                    }
                    Ok(true) => {
                        tracing::warn!("the disk takes writes again, and is full");
                        let (used, limit) = (self.bytes_used(), self.budget());
                        self.set_state(LogState::Full { used, limit });
                    }
                    Err(e) => tracing::debug!(error = %e, "the disk still refuses writes"),
                }
            }
        }
    }

    /// The index of a sealed segment: from memory, from its file, or made again from the segment.
    pub(crate) fn index(&self, place: Sequence) -> io::Result<Option<Arc<SegmentIndex>>> {
        let (file, end) = match self.catalog_read().segments.get(&place) {
            Some(Segment { file, end, stage: Stage::Sealed, .. }) => (*file, *end),
            _ => return Ok(None),
        };
        let sequence = file.sequence;
        if let Some(index) = self.indexes.get(sequence) {
            return Ok(Some(index));
        }
        let fits = |index: &SegmentIndex| {
            (index.header.log, index.header.sequence, index.header.end) == (self.log_id, sequence, end)
        };
        let stored = self.read_index(sequence)?.filter(fits);
        let index = match stored {
            Some(index) => index,
            None => match self.rebuild_index(file, end)? {
                Some(index) => index,
                None => return Ok(None),
            },
        };
        let index = Arc::new(index);
        self.indexes.put(&index);
        Ok(Some(index))
    }
}
