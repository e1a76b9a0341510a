//! The compact segment that is being written: frames behind one another, in large writes, each of which is synced before the
//! next one, so that a commit's sync waits for one of them at most.

use crate::disk::File;
use crate::disk::latched::Latched;
use crate::failpoints::{self, Point};
use crate::log::compact::CompactHeader;
use crate::log::frame::{FrameHeader, Identity};
use crate::log::index::ActiveIndex;
use crate::log::limits::{FRAME_HEADER_BYTES, UNSYNCED_BYTES_MAX};
use std::io::{self, IoSlice};

pub(super) struct Target {
    file: Latched,
    identity: Identity,
    /// What is not written yet, and where it goes.
    buffer: Vec<u8>,
    from: u64,
    end: u64,
    index: ActiveIndex,
}

impl Target {
    pub(super) fn new(file: Latched, header: &CompactHeader) -> Self {
        let (identity, end) = (Identity::new(header.log, header.sequence), u64::from(header.end));
        Self { file, identity, buffer: header.encode().to_vec(), from: 0, end, index: ActiveIndex::default() }
    }

    /// Adds a frame as it was appended.
    pub(super) fn add(&mut self, header: FrameHeader, payload: &[u8]) -> io::Result<()> {
        let at = u32::try_from(self.from + self.buffer.len() as u64).map_err(io::Error::other)?;
        // All before it will be synced when the file gets its name.
        let header = FrameHeader { synced: at, ..header };
        self.buffer.extend_from_slice(&header.encode(&self.identity, at));
        self.buffer.extend_from_slice(payload);
        let padding = (header.stored_len() - FRAME_HEADER_BYTES - header.payload_len) as usize;
        self.buffer.resize(self.buffer.len() + padding, 0);
        self.index.add(at, &header);
        if self.buffer.len() >= UNSYNCED_BYTES_MAX { self.write() } else { Ok(()) }
    }

    /// Writes the rest and syncs. What it holds is durable then, once it has a name.
    pub(super) fn finish(mut self) -> io::Result<ActiveIndex> {
        self.write_buffer()?;
        assert_eq!(self.from, self.end, "as long as it was reckoned, and as its header says");
        if self.file.len()? > self.end {
            self.file.set_len(self.end)?; // it was a spare
        }
        failpoints::around(Point::CompactSync, || self.file.sync_data())?;
        Ok(self.index)
    }

    fn write(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        self.file.sync_data()
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let write = || self.file.write_all_at(&[IoSlice::new(&self.buffer)], self.from);
        failpoints::around(Point::CompactWrite, write)?;
        self.from += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
