//! Putting a compact segment in the place of its run, and taking the run's files away.
//!
//! What always holds: a reader finds each frame that is needed in the run or in the compact segment, and never neither.

use super::Run;
use crate::disk::is_media_error;
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
            assert!(!failed, "what failed is compacted when it is cut");
            Leftover { file, bytes: self.hold(bytes).keep() }
        });
        keeper.leftovers.extend(leftovers);
        self.remove_leftovers(keeper)
    }

    /// Takes away the files of runs that were compacted; what does not go now goes another time.
    pub(super) fn remove_leftovers(&self, keeper: &mut Keeper) -> io::Result<()> {
        if keeper.leftovers.is_empty() {
            return Ok(());
        }
        let since = self.files.mark_names();
        // The indexes first, for good: one without its segment says that records are lost.
        let (mut spares, mut stay, mut removed) = (Vec::new(), Vec::new(), Ok(()));
        let mut going = Vec::new();
        for leftover in std::mem::take(&mut keeper.leftovers) {
            let file = leftover.file;
            if let Err(error) = self.files.empty_index(file) {
                tracing::warn!(segment = %file.sequence, %error, "can't empty an index that goes");
            }
            match self.files.remove_index(file) {
                Ok(()) => going.push(leftover),
                // The others go all the same.
                Err(error) => {
                    stay.push(leftover);
                    removed = Err(error);
                }
            }
        }
        if let Err(error) = failpoints::around(Point::CompactLeftovers, || self.files.sync_names(since)) {
            stay.extend(going);
            keeper.leftovers = stay;
            return Err(error);
        }
        let since = self.files.mark_names();
        for leftover in going {
            let wanted = self.files.spare_count() + spares.len() < self.options.reserve_segments + 2;
            match self.files.reclaim(leftover.file, leftover.bytes, self.log_id, None, wanted) {
                Ok(spare) => {
                    spares.extend(spare.map(|spare| (spare, self.hold(leftover.bytes))));
                    self.let_go(leftover.bytes);
                }
                Err(error) => {
                    stay.push(leftover);
                    removed = Err(error);
                }
            }
        }
        keeper.leftovers = stay;
        let synced = self.files.sync_names(since);
        self.take_spares(keeper, spares, synced).and(removed)
    }

    /// Something of it can't be read: it is not compacted, and nobody tries again until the next start. An error that is no
    /// place's passes.
    pub(super) fn leave_alone(&self, place: Sequence, error: &io::Error) {
        let is_damage = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        if !is_damage && !is_media_error(error) {
            return;
        }
        self.catalog_write().at_rest_mut(place).left_alone = true;
    }
}
