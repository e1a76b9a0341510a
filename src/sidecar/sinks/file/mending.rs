//! A file whose middle is broken: what is whole of it, before and behind, in its place. And one whose end may lie in the page
//! cache only: that once more.
//!
//! What always holds: the whole lines are durable under a name of their own before that takes the place of the broken
//! file's, at one stroke; a crash in between leaves the one or the other.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use forebay::disk::{Disk, File, read_exact_at};

use super::packing::Extent;

/// So much is copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Puts the whole lines of `file`, which lies at `path`, in its place, durably. `aside` is a name in the same directory that
/// nobody else uses. Returns the new file and its length.
pub(super) fn mend(
    disk: &dyn Disk,
    file: &dyn File,
    extent: &Extent,
    path: &Path,
    aside: &Path,
) -> io::Result<(Arc<dyn File>, u64)> {
    match disk.remove(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // an earlier try came so far
    }
    let mended = disk.create(aside)?;
    let (mut from, mut len) = (0, 0);
    let end = extent.whole..extent.whole;
    for hole in extent.holes.iter().map(|hole| &hole.bytes).chain([&end]) {
        copy(file, from..hole.start, &*mended, len)?;
        (from, len) = (hole.end, len + (hole.start - from));
    }
    mended.sync_data()?;
    disk.rename(aside, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok((mended, len))
}

/// Writes what stands there in `bytes` once more: after a sync that failed, in this life or the one before, the next one has
/// nothing to write, and promises nothing of it.
pub(super) fn write_again(file: &dyn File, bytes: Range<u64>) -> io::Result<()> {
    let at = bytes.start;
    copy(file, bytes, file, at)
}

/// Writes these bytes of a file to `to`, at `at`.
fn copy(file: &dyn File, mut bytes: Range<u64>, to: &dyn File, mut at: u64) -> io::Result<()> {
    let mut piece = Vec::new();
    while bytes.start < bytes.end {
        let n = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX).min(COPY_BYTES);
        piece.resize(n, 0);
        read_exact_at(file, &mut piece, bytes.start)?;
        to.write_all_at(&[IoSlice::new(&piece)], at)?;
        (bytes.start, at) = (bytes.start + n as u64, at + n as u64);
    }
    Ok(())
}
