//! Compact segments at open: one that has its name is whole, sealed or not.

use super::Opening;
use crate::log::compact::CompactHeader;
use crate::log::file_name::SegmentFile;
use crate::log::limits::SEGMENT_HEADER_BYTES;
use crate::log::options::OpenError;
use crate::log::segment::BadHeader;

impl Opening<'_> {
    /// One without an index: the crash came before it, or it is damaged. The header says where the frames end; without it
    /// each of them says that all before it was synced.
    pub(super) fn recover_compact(&mut self, file: SegmentFile) -> Result<(), OpenError> {
        let path = self.files.path(file.name());
        let opened = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let n = opened.read_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
        match CompactHeader::decode(&bytes[..n]) {
            Ok(header) if (header.log, header.sequence) == (self.log_id, file.sequence) => {
                self.recover_to(file, Some(header.end), false)
            }
            Err(BadHeader::Version(version)) => Err(OpenError::Newer { path, version }),
            Ok(_) | Err(BadHeader::Damaged) => self.recover_to(file, None, false),
        }
    }
}
