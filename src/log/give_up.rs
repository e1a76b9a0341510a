//! The operator's word that what a disk won't read is gone: zeros where the places were, so that they are damage like
//! any other.
//!
//! Nothing in the log does this by itself: an error may pass with the next try, and what is taken for damage is settled
//! as lost for good. So it happens to a log that nobody has open, place by place, only for errors that are a place's and
//! stay for several tries, and never on a disk that hardly reads at all.

use super::file_name::FileName;
use super::options::OpenError;
use crate::disk::{Disk, File, dir_lock, is_media_error, read_exact_at};
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a disk gives or refuses at once: pages of the file cache, sectors of today's disks.
const BLOCK_BYTES: u64 = 4096;

/// A place that can't be read this often, with a pause before each try, is taken for unreadable.
const TRIES: usize = 5;

/// Pauses in all: the first bad places get their time, and a file that is gone does not take a day.
const PAUSES_MAX: usize = 60;

/// A place that the disk won't read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The segment's file.
    pub path: PathBuf,
    /// Where in it.
    pub positions: Range<u64>,
    /// What the disk says.
    pub why: String,
}

/// Why places could not be sought or given up. Those before have been given up already, if that was asked.
#[derive(Debug, thiserror::Error)]
pub enum GiveUpError {
    /// The directory can't be had, or the disk refuses for a reason that is not a place's.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// Giving up is for places.
    #[error(
        "the disk refuses {unreadable} of {all} places: that is the disk and not a place; nothing was changed. Copy what \
         can be read to another one (ddrescue) and start there"
    )]
    WholeDisk {
        /// Blocks that can't be read.
        unreadable: u64,
        /// Blocks in all.
        all: u64,
    },
}

/// Reads all segments of the log in `dir` and names the places that the disk won't read, each tried several times with
/// `pause` in between. With `lose` they are overwritten with zeros and synced: the next start names the records there as
/// lost, as far as it can, and serves the rest. Without it nothing is changed.
///
/// # Errors
/// With `lose`, when somebody has the log open; when more places are refused than read; when the disk refuses to write.
pub fn give_up(
    disk: &dyn Disk,
    dir: &Path,
    lose: bool,
    pause: &mut dyn FnMut(),
) -> Result<Vec<Unreadable>, GiveUpError> {
    let _lock = if lose { Some(dir_lock::take(disk, dir, "log give-up").map_err(OpenError::of_lock)?) } else { None };
    let mut names = disk.list(dir).map_err(OpenError::io("list", dir))?;
    names.sort();
    let (mut found, mut all) = (Vec::new(), 0);
    let mut pauses = 0;
    let pause: &mut dyn FnMut() = &mut || {
        pauses += 1;
        if pauses <= PAUSES_MAX {
            pause();
        }
    };
    for name in
        names.iter().filter(|name| matches!(FileName::parse(name), Some(FileName::Segment(..) | FileName::Compact(..))))
    {
        let path = dir.join(name);
        let file = disk.open(&path).map_err(OpenError::io("open", &path))?;
        let len = file.len().map_err(OpenError::io("measure", &path))?;
        all += len.div_ceil(BLOCK_BYTES);
        found.extend(unreadable(&*file, len, &path, pause)?);
    }
    let refused = found.iter().map(|place| (place.positions.end - place.positions.start).div_ceil(BLOCK_BYTES)).sum();
    if lose && refused > all / 2 {
        return Err(GiveUpError::WholeDisk { unreadable: refused, all });
    }
    for place in found.iter().filter(|_| lose) {
        let file = disk.open(&place.path).map_err(OpenError::io("open", &place.path))?;
        overwrite(&*file, &place.positions).map_err(OpenError::io("give a place up in", &place.path))?;
        tracing::error!(%place, "given up: zeros stand there now");
    }
    Ok(found)
}

/// The places of one file that can't be read, neighbours with the same reason as one.
fn unreadable(file: &dyn File, len: u64, path: &Path, pause: &mut dyn FnMut()) -> Result<Vec<Unreadable>, OpenError> {
    let mut found: Vec<Unreadable> = Vec::new();
    for from in (0..len).step_by(BLOCK_BYTES as usize) {
        let positions = from..len.min(from + BLOCK_BYTES);
        let Err(error) = read_patiently(file, &positions, pause) else { continue };
        if !is_media_error(&error) {
            return Err(OpenError::io("read", path)(error));
        }
        let why = error.to_string();
        match found.last_mut() {
            Some(last) if last.positions.end == from && last.why == why => last.positions.end = positions.end,
            _ => found.push(Unreadable { path: path.to_owned(), positions, why }),
        }
    }
    Ok(found)
}

fn read_patiently(file: &dyn File, positions: &Range<u64>, pause: &mut dyn FnMut()) -> io::Result<()> {
    let mut bytes = vec![0; (positions.end - positions.start) as usize];
    let mut read = read_exact_at(file, &mut bytes, positions.start);
    for _ in 1..TRIES {
        if !read.as_ref().is_err_and(is_media_error) {
            break;
        }
        pause();
        read = read_exact_at(file, &mut bytes, positions.start);
    }
    read
}

/// Writes zeros, which is also what makes a disk put another sector in a bad one's place, and sees whether they can be
/// read.
fn overwrite(file: &dyn File, positions: &Range<u64>) -> io::Result<()> {
    let mut zeros = vec![0; (positions.end - positions.start) as usize];
    file.write_all_at(&[IoSlice::new(&zeros)], positions.start)?;
    file.sync_data()?;
    read_exact_at(file, &mut zeros, positions.start)
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.positions;
        write!(f, "{} bytes {start}..{end}: {}", self.path.display(), self.why)
    }
}

#[cfg(test)]
mod tests;
