//! The seam between the log and the file system: what is asked of a disk, and what it promises.
//!
//! Everything above speaks to [`Disk`] and [`File`]; only `disk/real.rs` touches the file system, so every crash and
//! every fault can be played on a simulated one. The promises are few on purpose:
//!
//! - What was written survives a power cut only once [`File::sync_data`] has returned `Ok`. Before that any part of
//!   it may survive, in any order, torn at any byte.
//! - A name (created, renamed, removed) survives only once [`Disk::sync_dir`] of its directory has returned `Ok`.
//! - After a sync has failed nothing is known about the bytes it was for, and a second sync that succeeds proves
//!   nothing. Wrap files in [`Latched`](latched::Latched) so that nobody can forget.

pub mod counted;
pub(crate) mod dir_lock;
pub mod latched;
pub mod mem;
pub mod real;
#[cfg(test)]
pub(crate) mod refusing;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// A file system, as far as we need one. Paths are used as given; nothing is normalised.
pub trait Disk: Send + Sync {
    /// Makes a new, empty file for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// The names of the files in a directory (not of its directories), in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory and its parents; existing ones are fine. Durable when it returns.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory; a file that has the name already is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a directory aside, whatever is in it. For stores that are not ours (sled).
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a directory and all in it; a directory that is not there is fine.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a name. Open handles stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the one lock of a data directory, at `path` (a file made for it). Held until the guard is dropped or the
    /// process ends. `holder` is written into the file for whoever is refused.
    ///
    /// # Errors
    /// `WouldBlock`, with the holder's own text in the message, when another process has it.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>>;

    /// Room on the file system that holds `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// 128 bits that nobody else has: the one thing by which two fresh logs must differ.
    fn entropy(&self) -> u128;
}

/// An open file. All calls may run at once on one file; two writes that overlap are the caller's mistake.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bufs`, one after the other, at `position`. The file grows as needed.
    ///
    /// # Errors
    /// After an error any part may have been written.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves blocks for the bytes `0..len`, so that writing them later cannot fail for want of room, and makes the
    /// file at least that long. New bytes read as zero.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A held lock; dropping it lets go.
pub trait Lock: Send + Sync {}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// What an ordinary process may still take.
    pub free: u64,
}

/// Whether a read failed for what lies at its place, as a disk says it (EIO and its kin), and not for want of rights,
/// handles or memory: another place may be read all the same.
#[must_use]
pub fn is_media_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // The block layer's words for a bad sector and for one that fails its own check; ext4's and XFS's for metadata.
    let media = [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG, Errno::UCLEAN];
    error.raw_os_error().is_some_and(|raw| media.iter().any(|errno| errno.raw_os_error() == raw))
}

/// Whether there is no room: on the file system, or in what a quota leaves of it, which containers' volumes have.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads exactly `buf.len()` bytes at `position`.
///
/// # Errors
/// `UnexpectedEof` when the file ends before that.
pub fn read_exact_at(file: &dyn File, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = file.read_at(buf, position)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = &mut buf[n..];
        position += n as u64;
    }
    Ok(())
}

/// The whole of a file.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::disk::refusing::Refusing;

    #[test]
    fn what_comes_in_pieces_is_read_whole_and_a_file_that_ends_before_is_told() {
        let whole = MemDisk::new().create("file".as_ref()).unwrap();
        let bytes: Vec<u8> = (0..10).collect();
        whole.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        let file = Refusing::in_pieces(whole, 3);
        assert_eq!(read_all(&file).unwrap(), bytes);
        let mut bytes = [0; 5];
        read_exact_at(&file, &mut bytes, 4).unwrap();
        assert_eq!(bytes, [4, 5, 6, 7, 8]);
        assert_eq!(read_exact_at(&file, &mut bytes, 6).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
