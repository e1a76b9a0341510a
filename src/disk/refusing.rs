//! A file of which some bytes can't be read, for tests of who only looks.

use super::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// Asked for each read, by the positions that it touches: what the disk says, where it refuses.
type Refused = dyn Fn(Range<u64>) -> Option<io::Error> + Send + Sync;

/// See the file's header.
pub(crate) struct Refusing {
    file: Arc<dyn File>,
    refused: Box<Refused>,
}

impl Refusing {
    /// Refuses what `refused` says.
    pub(crate) fn over(
        file: Arc<dyn File>,
        refused: impl Fn(Range<u64>) -> Option<io::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { file, refused: Box::new(refused) }
    }

    /// Refuses each read that touches these positions, with an error of the disk's.
    pub(crate) fn at(file: Arc<dyn File>, bad: Range<u64>) -> Self {
        let touches = move |read: Range<u64>| read.start < bad.end && bad.start < read.end;
        Self::over(file, move |read| touches(read).then(|| rustix::io::Errno::IO.into()))
    }
}

impl File for Refusing {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let refused = (self.refused)(position..position + buf.len() as u64);
        refused.map_or_else(|| self.file.read_at(buf, position), Err)
    }

    fn write_all_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        unreachable!("looking writes nothing")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("looking syncs nothing")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("looking takes no room")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("looking cuts nothing")
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
