//! A file of which some bytes can't be read, for tests of who only looks.

use super::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// Refuses each read that touches these positions, with an error of the disk's.
pub(crate) struct Refusing {
    pub(crate) file: Arc<dyn File>,
    pub(crate) positions: Range<u64>,
}

impl File for Refusing {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let end = position + buf.len() as u64;
        match position < self.positions.end && self.positions.start < end {
            true => Err(rustix::io::Errno::IO.into()),
            false => self.file.read_at(buf, position),
        }
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
