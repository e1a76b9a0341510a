//! Putting a compact segment in the place of its run, and taking the run's files away.
//!
//! What always holds: a reader finds each frame that is needed in the run or in the compact segment, and never neither.

use super::Run;
use crate::failpoints::{self, Point};
use crate::log::Shared;
use crate::log::catalog::{Segment, Stage};
use crate::log::file_name::SegmentFile;
use crate::log::index::ActiveIndex;
use crate::log::keeper::Keeper;
use crate::offset::Sequence;
use std::io;
use std::sync::Arc;

/// A file of a run that did not go at once. Nobody reads it, and an opening removes it.
pub(crate) struct Leftover {
    file: SegmentFile,
    pub(crate) bytes: u64,
    failed: bool,
}

impl Shared {
    /// Says of each stream that what goes is no longer kept: from then on nobody can need it again. `false` when somebody
    /// does already; then nothing was changed.
    pub(super) fn give_up_what_goes(&self, run: &Run) -> bool {
        let mut catalog = self.catalog_write();
        let still = |(stream, end)| catalog.stream(stream).is_some_and(|stream| stream.trimmed >= end);
        if !run.dropped.iter().map(|(stream, end)| (*stream, *end)).all(still) {
            return false;
        }
        for (stream, end) in &run.dropped {
            let stream = catalog.stream_mut(*stream).expect("just seen");
            stream.row.first_kept = stream.row.first_kept.max(*end);
        }
        true
    }

    /// The compact segment has its name for good: readers find it from now on, and the run's files go.
    pub(super) fn put_in_place(
        &self,
        keeper: &mut Keeper,
        run: &Run,
        file: SegmentFile,
        index: ActiveIndex,
    ) -> io::Result<()> {
        let end = u32::try_from(run.end).expect("it is written");
        let mut gone: Vec<Segment> = Vec::new();
        failpoints::before(Point::CompactPlace);
        {
            let mut catalog = self.catalog_write();
            let places: Vec<Sequence> = catalog
                .segments
                .range(run.replaced.first..=run.replaced.last)
                .filter(|(_, segment)| segment.file.class == run.class)
                .map(|(place, _)| *place)
                .collect();
            gone.extend(places.iter().filter_map(|place| catalog.segments.remove(place)));
            // Housekeeping writes its index; until then an opening reads it whole.
            let newest_ms = index.newest_ms();
            let stage = Stage::Sealing(Arc::new(index));
            let compact = Segment::new(file, end, run.end, newest_ms, stage);
            catalog.segments.insert(run.replaced.last, compact);
            catalog.moves += 1;
        }
        failpoints::after(Point::CompactPlace);
        self.counters.segments_compacted.add(gone.len() as u64);
        self.counters.compacted_bytes.add(run.end);
        for segment in &gone {
            self.indexes.remove(segment.file.sequence);
        }
        // It counts until it is gone, by what is held for it.
        let leftovers = gone.into_iter().map(|Segment { file, file_bytes: bytes, failed, .. }| {
            std::mem::forget(self.hold(bytes));
            Leftover { file, bytes, failed }
        });
        keeper.leftovers.extend(leftovers);
        self.remove_leftovers(keeper)
    }

    /// Takes away the files of runs that were compacted; what does not go now goes another time.
    pub(super) fn remove_leftovers(&self, keeper: &mut Keeper) -> io::Result<()> {
        if keeper.leftovers.is_empty() {
            return Ok(());
        }
        // The indexes first, for good: one without its segment says that records are lost.
        for Leftover { file, .. } in &keeper.leftovers {
            if let Err(error) = self.files.empty_index(*file) {
                tracing::warn!(segment = %file.sequence, %error, "can't empty an index that goes");
            }
            self.files.remove_index(*file)?;
        }
        failpoints::around(Point::CompactLeftovers, || self.files.sync_dir())?;
        let (mut spares, mut stay, mut removed) = (Vec::new(), Vec::new(), Ok(()));
        for leftover in std::mem::take(&mut keeper.leftovers) {
            let wanted = self.files.spare_count() + spares.len() < self.options.reserve_segments + 2;
            let recycle = wanted && !leftover.failed && self.files.holds(leftover.file, self.log_id);
            match self.files.retire(leftover.file, leftover.bytes, recycle) {
                Ok(Some(spare)) => spares.push((spare, leftover.bytes)),
                Ok(None) => self.let_go(leftover.bytes),
                Err(error) => {
                    stay.push(leftover);
                    removed = Err(error);
                }
            }
        }
        keeper.leftovers = stay;
        // As when segments are reclaimed: no file is written again while a crash could bring its old name back.
        let synced = self.files.sync_dir();
        for (spare, bytes) in spares {
            if synced.is_ok() {
                self.files.add_spares(vec![spare]);
            }
            self.let_go(bytes);
        }
        synced.and(removed)
    }

    /// Something of it can't be read: it is not compacted, and nobody tries again until the next start.
    pub(super) fn leave_alone(&self, place: Sequence) {
        if let Some(segment) = self.catalog_write().segments.get_mut(&place) {
            segment.left_alone = true;
        }
    }
}
