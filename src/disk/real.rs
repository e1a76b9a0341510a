//! The operating system's file system: the only file of the house that touches it (a lint holds the others to that).
//!
//! It decides nothing and remembers nothing. What always holds: files are made 0600 and directories 0700, a file is
//! never reached through a symbolic link of its own name, an interrupted call is made again, and a write that fell
//! short is carried on until all is written or an error says otherwise. Errors do not name the path; whoever asked
//! knows it.
#![expect(clippy::disallowed_methods, reason = "the one place that touches files")]

use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::GetRandomFlags;

use super::{Disk, File, Lock, Space};

/// Linux takes at most this many buffers in one call (`UIO_MAXIOV`); more are written in several calls.
const BUFFERS_PER_WRITE_MAX: usize = 1024;

/// One step of the zeros that stand in for `fallocate`. Large enough to be quick, small enough to be static.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// What is read of a lock file for the message to the one who is refused. A holder's text is a short line.
const HOLDER_BYTES_MAX: usize = 512;

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        // create_new is O_EXCL, which does not follow a link either.
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = match open_regular(fs::OpenOptions::new().read(true).write(true), path) {
            // A disk that failed is mounted read-only by the kernel or by its operator: what is there is still read,
            // and a write to it fails.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                open_regular(fs::OpenOptions::new().read(true), path)?
            }
            opened => opened?,
        };
        Ok(Arc::new(RealFile { file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A link is listed although it will not open: skipping it would lose a segment in silence.
            if entry.file_type()?.is_dir() {
                continue;
            }
            // We give no such names, so a name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // From the top down, each made durable before the next is begun. So of a chain that a crash interrupted only
        // the deepest directory that exists can be one whose entry was never synced: see `sync_existing`.
        let make = || fs::DirBuilder::new().mode(0o700).create(dir);
        let above = parent(dir);
        let made = match make() {
            Err(error) if error.kind() == ErrorKind::NotFound && above != dir => {
                self.create_dir(above)?;
                make()
            }
            made => made,
        };
        match made {
            // Or it goes again: it holds nothing yet, and where it is found by the next try a sync may promise its name for nothing.
            Ok(()) => self.sync_dir(above).inspect_err(|_| drop(fs::remove_dir(dir))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => sync_existing(self, dir),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = fs::OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(dir)?;
        Ok(retry_on_intr(|| rustix::fs::fsync(&dir))?)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let file =
            open_regular(fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600), path)?;
        match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(ErrorKind::WouldBlock, format!("held by {}", holder_of(&file))));
            }
            done => done?,
        }
        // Write, then cut: whoever looks in between sees a name, not an empty file.
        file.write_all_at(holder.as_bytes(), 0)?;
        file.set_len(holder.len() as u64)?;
        Ok(Box::new(RealLock { file }))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = retry_on_intr(|| rustix::fs::statvfs(dir))?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            // Not f_bfree: that includes what is kept back for root.
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn entropy(&self) -> u128 {
        entropy()
    }
}

/// 128 bits from the kernel.
///
/// # Panics
/// When the kernel refuses `getrandom`. A process without it must not name a log.
pub(super) fn entropy() -> u128 {
    let mut bytes = [0; 16];
    // 256 bytes and fewer are never cut short and never interrupted once the pool is ready: getrandom(2).
    let read = retry_on_intr(|| rustix::rand::getrandom(&mut bytes[..], GetRandomFlags::empty()));
    assert_eq!(read, Ok(16), "getrandom is in every Linux since 3.17, and no sandbox has reason to forbid it");
    u128::from_le_bytes(bytes)
}

struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            let at = position + filled as u64;
            match retry_on_intr(|| rustix::io::pread(&self.file, &mut buf[filled..], at))? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for bufs in bufs.chunks(BUFFERS_PER_WRITE_MAX) {
            let mut bufs = bufs.to_vec();
            let mut rest = bufs.as_mut_slice();
            // Drops empty buffers at the front, so that a write of nothing ends the loop.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                let n = some(retry_on_intr(|| rustix::io::pwritev(&self.file, rest, position))?)?;
                position += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // An interrupted sync has not yet asked whether the bytes failed, so asking again hides no failure.
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&self.file))?)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let reserved = retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len));
        if can_reserve(reserved)? { Ok(()) } else { self.allocate_with_zeros(len) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl RealFile {
    /// For file systems that cannot reserve (ZFS, older NFS). Fills from the end of the file on; a hole below it stays
    /// one, because filling it could overwrite what another call is writing there.
    fn allocate_with_zeros(&self, len: u64) -> io::Result<()> {
        let mut position = self.len()?;
        while position < len {
            let step = usize::try_from(len - position).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.write_all_at(&[IoSlice::new(&ZEROS[..step])], position)?;
            position += step as u64;
        }
        Ok(())
    }
}

/// What a write took of bytes that there are. One that took none would be made again for ever.
fn some(written: usize) -> io::Result<usize> {
    if written > 0 { Ok(written) } else { Err(ErrorKind::WriteZero.into()) }
}

/// Whether the file system can reserve, by its answer to who asked for it.
fn can_reserve(answer: rustix::io::Result<()>) -> io::Result<bool> {
    match answer {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

/// Closing lets go of a flock, but not while a child that was just forked holds the same description: so unlock too.
struct RealLock {
    file: fs::File,
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Nothing to do about a failure: the close that follows lets go as well.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens a file, and only a file: a link, a pipe or a device under one of our names is somebody's mistake or trap.
fn open_regular(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    // Without NONBLOCK the open of a pipe could wait for ever. It changes nothing for a regular file.
    let file = options.custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK)).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Makes the entry of a directory that was there already durable: it may be left from a process that died between
/// making it and syncing it.
fn sync_existing(disk: &RealDisk, dir: &Path) -> io::Result<()> {
    if !fs::metadata(dir)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    unless_it_is_not_ours(disk.sync_dir(parent(dir)))
}

/// Of a sync of the directory above: where we may not even look there, it was somebody else who made what is in it.
fn unless_it_is_not_ours(synced: io::Result<()>) -> io::Result<()> {
    let is_not_ours =
        |error: &io::Error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    if synced.as_ref().is_err_and(is_not_ours) { Ok(()) } else { synced }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        None => path,
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    }
}

fn holder_of(file: &fs::File) -> String {
    let mut text = [0; HOLDER_BYTES_MAX];
    let read = file.read_at(&mut text, 0).unwrap_or(0);
    match String::from_utf8_lossy(&text[..read]).trim() {
        "" => "another process, which has not written its name".to_owned(),
        text => text.to_owned(),
    }
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("the flags of open(2) are an int")
}

#[cfg(test)]
mod tests;
