//! Appends batches of lines to one destination's files: the one that is open, and the next when it is full or old.
//!
//! Blocking; the caller keeps it off the async workers. What always holds:
//! - [`Writer::append`] returns `Ok` only when the lines and the name of their file are synced.
//! - A line is written once: what a crash left in files though the floor does not know it is recognised by record id and not
//!   repeated, however many files there were between two ticks of the floor.
//! - A whole line stays, whatever was damaged before or behind it; what is no line goes out of a file that is open.
//! - After a failed sync nothing more is written to that file. It is cut back to its last good sync and closed, and
//!   the batch goes to a new one; where it can't be cut its name says where that sync was.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use forebay::disk::{Disk, File, is_media_error};
use forebay::failpoints::{self, Point};

use super::mending::{mend, write_again};
use super::names::{Name, Stage};
use super::packing::{Extent, Hole, Packing};
use super::present::Present;
use super::search::Search;
use crate::config::{FileCompression, FileConfig};
use crate::delivery::record_id;
use crate::delivery::sink::Encoded;
use crate::delivery::unsettled::Unsettled;

/// Behind the name of a file that is made in the place of a broken one. Nobody reads it.
const MENDING: &str = ".mending";

/// The files of one destination.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    destination: String,
    config: FileConfig,
    present: Present,
    open: Option<Open>,
    /// The number of the next file.
    n: u64,
}

/// The file that is written to.
struct Open {
    file: Arc<dyn File>,
    name: Name,
    /// All bytes below are whole lines (packed: whole frames of them) and synced.
    len: u64,
}

impl Writer {
    /// Takes up the directory as it is found: ends files that a crash left open, goes on with the newest of them, and looks
    /// for records that are `unsettled` and lie in files all the same. Adds to `damaged` how many lines at least can't be read
    /// though some behind them can. Of a try that fails only what it has mended: the rest is found again.
    ///
    /// # Errors
    /// The disk's. Nothing is lost by trying again.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        destination: &str,
        config: FileConfig,
        unsettled: &Unsettled,
        damaged: &mut u64,
    ) -> io::Result<Self> {
        disk.create_dir(&config.directory)?;
        let listed = disk.list(&config.directory)?;
        let mut found: Vec<_> = listed.iter().filter_map(|file| Name::parse(file, destination)).collect();
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        let n = found.first().map_or(0, |(name, _)| name.n.saturating_add(1));
        let mut writer =
            Self { disk, destination: destination.to_owned(), config, present: Present::default(), open: None, n };
        let (mut left, mut search) = (0, Search::of(unsettled));
        for (name, stage) in found {
            left += writer.take_up(name, stage, &mut search, damaged)?;
        }
        match writer.present.left_out() {
            0 => {}
            records => tracing::error!(
                destination,
                records,
                "more records come again than there is room to remember: so many of them may be written a second time, under their ids"
            ),
        }
        // Its name may be as new as the process that made it was short-lived.
        writer.open.as_ref().map_or(Ok(()), |_| writer.disk.sync_dir(&writer.config.directory))?;
        *damaged += left;
        Ok(writer)
    }

    /// Appends the batch's lines, save those that lie in a file already.
    ///
    /// # Errors
    /// The disk's. The batch may lie in a file in parts; it can be appended again.
    pub(super) fn append(&mut self, batch: &Encoded, now_ms: u64) -> io::Result<()> {
        let prefix = record_id::prefix(&batch.origin);
        if batch.sent.iter().any(|offsets| self.present.has_any(&prefix, offsets)) {
            let missing = self.missing(batch, &prefix);
            self.write(&missing, now_ms)?;
            batch.sent.iter().for_each(|offsets| self.present.forget(&prefix, offsets));
            Ok(())
        } else {
            self.write(&batch.body, now_ms)
        }
    }

    /// Notes what stands in a file, and closes one that was open or goes on with it. Returns how many lines of it can't be read
    /// still; adds those that it took out to `mended`.
    fn take_up(&mut self, name: Name, stage: Stage, search: &mut Search<'_>, mended: &mut u64) -> io::Result<u64> {
        // Of one that was set aside nothing counts behind its last good sync.
        let end = if let Stage::Failed { whole } = stage { whole } else { u64::MAX };
        if end == 0 || (stage != Stage::Open && search.is_over()) {
            return Ok(0);
        }
        let is_newest = search.is_first(stage);
        let path = self.path(&name, stage);
        let present = &mut self.present;
        let mut lines = search.through(&name, stage, |id| present.note(id));
        let read = self.disk.open(&path).and_then(|file| {
            let extent = name.packing.read(&*file, end, |id, at| lines.line(id, at))?;
            Ok((extent, file))
        });
        let mut doubtful_from = lines.end();
        let (extent, mut file) = match read {
            // The very disk that broke the file: it must not hold up what comes now.
            Err(error) if matches!(stage, Stage::Failed { .. }) && is_media_error(&error) => {
                tracing::error!(file = %path.display(), %error, "a file that was set aside can't be read: what of it was not settled is written again");
                return Ok(0);
            }
            read => read?,
        };
        tell_of_holes(&name, &extent.holes);
        if stage != Stage::Open {
            return Ok(extent.damaged_lines());
        }
        let mut damaged = extent.damaged_lines();
        let Extent { mut whole, damaged_at, .. } = extent;
        if let Some(at) = damaged_at {
            // Not cut: what lies behind was delivered, and nobody has it a second time.
            tracing::error!(file = %name, at, "a file is damaged in its middle: it is closed as it is, lines from there on are lost, those of later frames are whole");
        } else if !extent.holes.is_empty() {
            // Not cut either, for the same reason; and who reads the file must find lines only.
            let aside = self.config.directory.join(format!("{}{MENDING}", name.at(stage)));
            (file, whole) = mend(&*self.disk, &*file, &extent, &path, &aside)?;
            (*mended, doubtful_from) = (*mended + std::mem::take(&mut damaged), None);
        } else if file.len()? > whole {
            tracing::info!(file = %name, from = whole, "cutting off what a crash has torn");
            file.set_len(whole)?;
        }
        // What was found may only stand in the page cache; it must not be trusted before it is safe.
        failpoints::around(Point::FileTakeUp, || {
            doubtful_from.map_or(Ok(()), |from| write_again(&*file, from..whole))?;
            file.sync_data()
        })?;
        if is_newest && name.packing == self.packing() && damaged_at.is_none() {
            self.open = Some(Open { file, name, len: whole });
        } else {
            self.rename(&name, Stage::Done)?;
        }
        Ok(damaged)
    }

    /// The lines of the batch whose records lie in no file.
    fn missing(&self, batch: &Encoded, prefix: &str) -> Vec<u8> {
        let mut lines = Vec::new();
        for (offset, line) in batch.offsets().zip(batch.body.split_inclusive(|byte| *byte == b'\n')) {
            if !self.present.has(prefix, offset) {
                lines.extend_from_slice(line);
            }
        }
        lines
    }

    fn write(&mut self, lines: &[u8], now_ms: u64) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let lines = &*self.packing().pack(lines)?;
        let mut open = self.file_for(lines.len() as u64, now_ms)?;
        let write = || open.file.write_all_at(&[IoSlice::new(lines)], open.len);
        if let Err(error) = failpoints::around(Point::FileWrite, write) {
            // A write that failed has promised nothing yet: take back what it left, and the file is as before.
            match open.file.set_len(open.len) {
                Ok(()) => self.open = Some(open),
                Err(_) => self.abandon(open),
            }
            return Err(error);
        }
        if let Err(error) = failpoints::around(Point::FileSync, || open.file.sync_data()) {
            self.abandon(open);
            return Err(error);
        }
        open.len += lines.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// The open file, or a new one if it is full, old, or not there.
    fn file_for(&mut self, bytes: u64, now_ms: u64) -> io::Result<Open> {
        if let Some(open) = self.open.take() {
            let full = open.len > 0 && open.len.saturating_add(bytes) > self.config.rotate_bytes;
            // One that was opened while the clock was ahead is of no known age, and would have waited for that.
            let age_ms = now_ms.checked_sub(open.name.opened_ms).map_or(u128::MAX, u128::from);
            if !full && age_ms < self.config.rotate_age.as_millis() {
                return Ok(open);
            }
            if let Err(error) = failpoints::around(Point::FileEnd, || self.rename(&open.name, Stage::Done)) {
                self.open = Some(open);
                return Err(error);
            }
        }
        let name =
            Name { n: self.n, opened_ms: now_ms, destination: self.destination.clone(), packing: self.packing() };
        // Even if this one fails: a name that is taken must not be tried for ever.
        self.n += 1;
        let path = self.path(&name, Stage::Open);
        let file = failpoints::around(Point::FileMake, || self.disk.create(&path))?;
        // The name of the file, and those of the files that were ended, before the first line counts as delivered.
        let sync = || self.disk.sync_dir(&self.config.directory);
        if let Err(error) = failpoints::around(Point::FileNameSync, sync) {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Open { file, name, len: 0 })
    }

    /// Closes a file that failed: nothing behind its last good sync can be known. Best effort on a failing disk; the
    /// caller hears of the first error.
    fn abandon(&mut self, open: Open) {
        let result = match open.file.set_len(open.len) {
            Ok(()) if open.len == 0 => self.disk.remove(&self.path(&open.name, Stage::Open)),
            // The cut itself has to last: else a power cut brings back lines that stand in a later file, too.
            Ok(()) if open.file.sync_data().is_ok() => self.rename(&open.name, Stage::Done),
            Ok(()) | Err(_) => self.rename(&open.name, Stage::Failed { whole: open.len }),
        };
        tracing::warn!(file = %open.name, whole_bytes = open.len, ?result, "gave up a file after a failed write");
    }

    /// How new files are written. Older ones are read as they are.
    fn packing(&self) -> Packing {
        match self.config.compression {
            FileCompression::None => Packing::Lines,
            FileCompression::Zstd => Packing::Zstd,
        }
    }

    fn rename(&self, name: &Name, to: Stage) -> io::Result<()> {
        self.disk.rename(&self.path(name, Stage::Open), &self.path(name, to))
    }

    fn path(&self, name: &Name, stage: Stage) -> PathBuf {
        self.config.directory.join(name.at(stage))
    }
}

/// Says what a file has lost in its middle. Whether it was delivered nobody here knows: what was not comes again, and is
/// written behind the rest.
fn tell_of_holes(name: &Name, holes: &[Hole]) {
    for hole in holes {
        tracing::error!(
            file = %name,
            bytes = ?hole.bytes,
            records_at_least = hole.records().unwrap_or(1),
            behind = hole.behind.as_deref().unwrap_or("the file's beginning"),
            before = hole.before,
            "lines in the middle of a file can't be read: those that were delivered are lost, those that were not are written \
             again; all others are kept"
        );
    }
}

#[cfg(test)]
mod tests;
