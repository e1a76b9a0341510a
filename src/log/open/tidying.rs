//! What goes at open, what is set aside, and in which order: nothing goes before what it said is durable elsewhere.

use super::Opening;
use crate::disk::{is_full, is_media_error, read_all};
use crate::failpoints::{self, Point};
use crate::log::compact;
use crate::log::file_name::{FileName, SegmentFile};
use crate::log::files::{remove_if_there, write_whole};
use crate::log::frame::Identity;
use crate::log::limits::FRAME_HEADER_BYTES;
use crate::log::listing::{Listing, Superseded};
use crate::log::options::OpenError;
use crate::log::recovery;
use crate::log::stream_table::StreamTable;
use crate::offset::Sequence;
use std::io::{self, IoSlice};

impl Opening<'_> {
    pub(super) fn remove(&self, name: FileName) -> Result<(), OpenError> {
        let path = self.files.path(name);
        remove_if_there(&**self.files.disk(), &path).map_err(OpenError::io("remove", &path))
    }

    pub(super) fn keep_aside(&mut self, name: FileName, sequence: Sequence) {
        self.note(sequence, 0..0, None, "a file of another log has this segment's name: set aside");
        self.strange.push(name);
    }

    /// Gives a file that is not ours a name that is not ours either.
    pub(super) fn set_aside(&self, name: FileName) -> Result<(), OpenError> {
        let (path, dir) = (self.files.path(name), self.files.dir());
        // One that was set aside before stays, readable or not: it may be somebody's, too.
        let taken = self.files.disk().list(dir).map_err(OpenError::io("list", dir))?;
        let mut names = std::iter::once(format!("{name}.bad")).chain((2..).map(|n| format!("{name}.bad-{n}")));
        let aside = dir.join(names.find(|name| !taken.contains(name)).expect("there are more names than files"));
        tracing::error!(path = %path.display(), aside = %aside.display(), "this file is not of this log: set aside");
        self.files.disk().rename(&path, &aside).map_err(OpenError::io("rename", &path))
    }

    /// Makes durable what was found out, then takes away what said so. Returns whether the table is written: on a full disk, and
    /// where nothing was found out, housekeeping does it later, and what is needed until then stays.
    pub(super) fn save(
        &mut self,
        listing: &mut Listing,
        next_sequence: Sequence,
        generation: u64,
    ) -> Result<bool, OpenError> {
        for name in std::mem::take(&mut self.strange) {
            self.set_aside(name)?;
        }
        let void = std::mem::take(&mut self.void);
        for name in &void {
            if let FileName::Segment(sequence, class) = *name {
                self.empty_void(SegmentFile::plain(sequence, class))?;
            }
            self.remove(*name)?;
        }
        if !void.is_empty() {
            // The table covers their numbers: one that came back would pass for a segment that was sealed.
            self.sync_all_names()?;
        }
        self.remove_replaced(listing)?;
        if !self.changed && !self.files.has_found_tables() {
            return Ok(true);
        }
        // Also where nothing was found out: what was read of a table may be in the cache alone, and go with the next power cut.
        let needed = std::mem::replace(&mut self.changed, true);
        let table = StreamTable {
            log: self.log_id,
            generation: generation + 1,
            next_sequence,
            covers: next_sequence,
            compacted: self.segments.values().any(|segment| segment.file.replaced.is_some()),
            rows: self.rows.clone(),
        };
        let name = FileName::Streams((table.generation % 2) as u8);
        let path = self.files.path(name);
        loop {
            let write = || self.files.write_or_replace(name, &table.encode(), || next_sequence);
            match failpoints::around(Point::OpenTable, write) {
                Ok(()) => break,
                Err(error) if !needed => {
                    tracing::warn!(path = %path.display(), %error, "the stream table can't be written; later");
                    return Ok(false);
                }
                // This is what spares are for: without the table nothing can be reclaimed.
                Err(e) if is_full(&e) => match listing.spares.pop() {
                    Some(spare) => self.remove(FileName::Spare(spare))?,
                    None => return Ok(false),
                },
                // The other copy is the one that was read; housekeeping tries this one again.
                Err(e) if is_media_error(&e) => {
                    tracing::warn!(path = %path.display(), error = %e, "the stream table can't be written; later");
                    return Ok(false);
                }
                Err(e) => return Err(OpenError::io("write", &path)(e)),
            }
        }
        for name in std::mem::take(&mut self.spent) {
            self.remove(name)?;
        }
        Ok(true)
    }

    /// Empties a void segment before its name goes: that may come back, when what calls it void is gone. Not one whose name leads to
    /// another segment's file.
    fn empty_void(&self, segment: SegmentFile) -> Result<(), OpenError> {
        let path = self.files.path(segment.name());
        let bytes = match self.files.disk().open(&path).and_then(|file| read_all(&*file)) {
            Err(e) if is_media_error(&e) => return Ok(()), // whose it is nobody can know
            read => read.map_err(OpenError::io("read", &path))?,
        };
        let emptied = match compact::owner_of_either(&bytes) {
            Some(owner) if owner == (self.log_id, segment.sequence) => self.files.cut_failed(segment, 0),
            Some(_) => Ok(()),
            None => self.erase_frames(segment, &bytes),
        };
        emptied.map_err(OpenError::io("empty", &path))
    }

    /// Erases what proves itself this segment's in a file without a header: frames may have come without it, and in part. They are nobody
    /// else's, whatever file the name leads to.
    fn erase_frames(&self, segment: SegmentFile, bytes: &[u8]) -> io::Result<()> {
        let headers = recovery::headers(&Identity::new(self.log_id, segment.sequence), bytes);
        if headers.is_empty() {
            return Ok(());
        }
        let file = self.files.disk().open(&self.files.path(segment.name()))?;
        let zeros = [0; FRAME_HEADER_BYTES as usize];
        for at in headers {
            // Not beyond the end: there may be no room.
            let len = zeros.len().min(bytes.len() - at as usize);
            file.write_all_at(&[IoSlice::new(&zeros[..len])], u64::from(at))?;
        }
        file.sync_data()
    }

    /// Removes segments that are in compact ones. The name of what they are in must not be lost after them; nor a segment before
    /// its index, which would miss it.
    fn remove_replaced(&mut self, listing: &mut Listing) -> Result<(), OpenError> {
        let Superseded { gone, by } = std::mem::take(&mut self.replaced);
        if !self.name_anew(&by, listing)? {
            let bytes = |name: &FileName| self.files.disk().open(&self.files.path(*name)).and_then(|file| file.len());
            let segments = gone.iter().filter(|name| !matches!(name, FileName::Index(_)));
            self.left_bytes = segments.map(|name| bytes(name).unwrap_or_default()).sum();
            return Ok(());
        }
        let (indexes, segments): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|name| matches!(name, FileName::Index(_)));
        for names in [indexes, segments] {
            if !names.is_empty() {
                self.sync_all_names()?;
            }
            names.into_iter().try_for_each(|name| self.remove(name))?;
        }
        Ok(())
    }

    /// Takes away compact segments that turned out to hold nothing. True if others were believed to be in them: these are to be
    /// looked at after all.
    pub(super) fn takes_back_what_is_in_none(&mut self) -> Result<bool, OpenError> {
        let of = |names: &[FileName]| -> Vec<FileName> {
            self.replaced.by.iter().map(|file| file.name()).filter(|name| names.contains(name)).collect()
        };
        let (void, strange) = (of(&self.void), of(&self.strange));
        void.iter().try_for_each(|name| self.remove(*name))?;
        strange.iter().try_for_each(|name| self.set_aside(*name))?;
        Ok(!void.is_empty() || !strange.is_empty())
    }

    /// Gives compact segments their names once more. After a sync of the directory that failed the next one promises a name for
    /// nothing, and whether one has failed no start can know: the name it finds may be gone after a power cut. So a copy takes
    /// the segment's place, whose name is new. False where the disk has no room for it, or can't read it or write it: then what
    /// it holds stays beside it until the next start.
    fn name_anew(&self, compact: &[SegmentFile], listing: &mut Listing) -> Result<bool, OpenError> {
        let disk = &**self.files.disk();
        for file in compact {
            let (path, copy) = (self.files.path(file.name()), self.files.path(FileName::Unfinished(file.sequence)));
            let (mut bytes, mut gave) = (0, false);
            let mut write = || {
                let whole = read_all(&*disk.open(&path)?)?;
                bytes = whole.len() as u64;
                write_whole(disk, &copy, &whole)?;
                disk.rename(&copy, &path)
            };
            while let Err(error) = write() {
                let spare = if is_full(&error) && !gave { listing.spares.pop() } else { None };
                if let Some(spare) = spare {
                    self.remove(FileName::Spare(spare))?; // what is replaced gives back more
                    gave = true;
                } else if is_full(&error) || is_media_error(&error) {
                    tracing::warn!(path = %path.display(), %error, "can't make a compact segment's name sure; later");
                    self.files.strays().give_up(copy, bytes);
                    return Ok(false);
                } else {
                    return Err(OpenError::io("write anew", &path)(error));
                }
            }
        }
        Ok(true)
    }

    pub(super) fn take_spares(&self, listing: &Listing) -> Result<(), OpenError> {
        for n in &listing.spares {
            let path = self.files.path(FileName::Spare(*n));
            self.files.adopt_spare(*n).map_err(OpenError::io("look at", &path))?;
        }
        self.sync_all_names()
    }

    /// Nobody else changes any yet, and an opening ends with the first sync that fails.
    fn sync_all_names(&self) -> Result<(), OpenError> {
        self.files.sync_names(self.files.mark_names()).map_err(OpenError::io("sync", self.files.dir()))
    }
}
