//! A file of which some bytes can't be read, or few at a time, for tests of who only looks. It refuses every change.

use super::File;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// Asked for each read, by the positions that it touches: what the disk says, where it refuses.
type Refused = dyn Fn(Range<u64>) -> Option<io::Error> + Send + Sync;

/// See the file's header.
pub(crate) struct Refusing {
    file: Arc<dyn File>,
    refused: Box<Refused>,
    /// What one read gives at most, as a disk may give less than is asked for.
    piece: usize,
}

impl Refusing {
    /// Refuses what `refused` says.
    pub(crate) fn over(
        file: Arc<dyn File>,
        refused: impl Fn(Range<u64>) -> Option<io::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { file, refused: Box::new(refused), piece: usize::MAX }
    }

    /// Refuses each read that touches these positions, with an error of the disk's.
    pub(crate) fn at(file: Arc<dyn File>, bad: Range<u64>) -> Self {
        let touches = move |read: Range<u64>| read.start < bad.end && bad.start < read.end;
        Self::over(file, move |read| touches(read).then(|| rustix::io::Errno::IO.into()))
    }

    /// Refuses no read, and gives `piece` bytes at a time.
    pub(crate) fn in_pieces(file: Arc<dyn File>, piece: usize) -> Self {
        Self { piece, ..Self::over(file, |_| None) }
    }
}

impl File for Refusing {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let refused = (self.refused)(position..position + buf.len() as u64);
        let piece = buf.len().min(self.piece);
        refused.map_or_else(|| self.file.read_at(&mut buf[..piece], position), Err)
    }

    fn write_all_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[test]
fn who_only_looks_changes_nothing() {
    use super::{Disk, mem::MemDisk};
    let inner = MemDisk::new().create("file".as_ref()).unwrap();
    inner.set_len(3).unwrap();
    let file = Refusing::at(Arc::clone(&inner), 1..2);
    let changes = [file.write_all_at(&[IoSlice::new(b"more")], 0), file.sync_data(), file.allocate(9), file.set_len(0)];
    assert_eq!(changes.map(|change| change.unwrap_err().kind()), [ErrorKind::ReadOnlyFilesystem; 4]);
    assert_eq!(super::read_all(&*inner).unwrap(), [0; 3]);
}
