//! Makes durable what is kept of a recovered segment, and cuts the rest: for good, whatever a sync before this start has lost.

use super::Opening;
use crate::disk::File;
use crate::failpoints::{self, Point};
use crate::log::catalog::Segment;
use crate::log::file_name::SegmentFile;
use crate::log::files;
use crate::log::limits::SEGMENT_HEADER_BYTES;
use crate::log::recovery::Scan;
use crate::log::segment::{Class, HeaderBytes, Predecessor, SegmentHeader};
use crate::mutants::{self, Mutant};
use crate::offset::Sequence;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;

impl Opening<'_> {
    /// The header that a segment lacks: behind the last one of its class that is kept, which is cut by now.
    pub(super) fn header_of(&self, segment: SegmentFile) -> SegmentHeader {
        let SegmentFile { sequence, class, .. } = segment;
        SegmentHeader {
            log: self.log_id,
            sequence,
            class,
            created_ms: self.now_ms,
            predecessor: last_of(class, &self.segments),
        }
    }

    /// Makes durable what is kept, and cuts the rest for good. `header`: the segment has none, and gets this one where all of it is
    /// written anew.
    pub(super) fn settle(
        &self,
        file: &dyn File,
        bytes: &[u8],
        scan: &Scan,
        header: Option<HeaderBytes>,
    ) -> io::Result<()> {
        if scan.end > scan.synced && !mutants::on(Mutant::KeptBytesNotWrittenAnew) {
            // Written anew: after a failed sync the kernel shows bytes that are not on the disk and takes them for
            // clean, and a sync alone would promise them for nothing.
            let from = if scan.synced > SEGMENT_HEADER_BYTES { scan.synced } else { 0 };
            let mut kept = bytes[from as usize..scan.end as usize].to_vec();
            // A torn write may have ended in a frame's last bytes: what stands there in their place would pass for damage.
            for found in scan.frames.iter().filter(|found| found.position >= from) {
                let Range { start, end } = found.padding();
                kept[(start - from) as usize..(end.min(scan.end) - from) as usize].fill(0);
            }
            if let Some(header) = header.filter(|_| from == 0) {
                kept[..header.len()].copy_from_slice(&header);
            }
            failpoints::around(Point::OpenRewrite, || file.write_all_at(&[IoSlice::new(&kept)], u64::from(from)))?;
        }
        self.cut(file, scan.end)
    }

    /// Cuts a file there, for good.
    pub(super) fn cut(&self, file: &dyn File, end: u32) -> io::Result<()> {
        if file.len()? >= u64::from(end) {
            failpoints::around(Point::OpenCut, || files::cut(file, u64::from(end)))?;
        }
        failpoints::around(Point::OpenCutSync, || mutants::unless(Mutant::CutNotSynced, || file.sync_data()))
    }
}

/// The last segment of a class that holds something, and where it ends.
pub(super) fn last_of(class: Class, segments: &BTreeMap<Sequence, Segment>) -> Option<Predecessor> {
    let holds = |segment: &&Segment| segment.file.class == class && segment.end > SEGMENT_HEADER_BYTES;
    // By its number, of a compact one too: who has its place has another end.
    let last = segments.values().rfind(holds)?;
    Some(Predecessor { sequence: last.file.sequence, end: last.end })
}
