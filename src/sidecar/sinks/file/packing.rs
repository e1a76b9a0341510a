//! How lines lie in a file: as they are, or packed, one zstd frame a batch. Reads files back to where they are whole.
//!
//! What always holds: a packed file ends behind a whole frame, and a frame holds whole lines; a frame that a crash has
//! torn is told by its checksum. Any zstd tool reads the file: frames one behind the other are one text.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::ops::Range;

use forebay::disk::File;

use super::present::line_id;
use crate::delivery::record_id;

/// Files are read back in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// Lines of one kind over and over: higher levels win little.
const ZSTD_LEVEL: i32 = 1;

/// How lines lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Packing {
    Lines,
    Zstd,
}

impl Packing {
    /// The lines as they are written. They are whole, and at least one.
    pub(super) fn pack(self, lines: &[u8]) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Lines => Ok(Cow::Borrowed(lines)),
            Self::Zstd => {
                let mut frame = zstd::Encoder::new(Vec::with_capacity(lines.len() / 8), ZSTD_LEVEL)?;
                frame.include_checksum(true)?;
                frame.set_pledged_src_size(Some(lines.len() as u64))?;
                frame.write_all(lines)?;
                Ok(Cow::Owned(frame.finish()?))
            }
        }
    }

    /// Reads a file's whole lines before the byte `end`, also those behind damage, and gives the id of each, with where it, or
    /// the frame that it lies in, begins.
    pub(super) fn read(self, file: &dyn File, end: u64, note: impl FnMut(&str, u64)) -> io::Result<Extent> {
        match self {
            Self::Lines => {
                let reader = BufReader::with_capacity(READ_BYTES, At { file, position: 0 }.take(end));
                let (whole, holes) = read_lines(reader, note)?;
                Ok(Extent { whole, damaged_at: None, holes })
            }
            Self::Zstd => read_frames(file, end, note),
        }
    }
}

/// What of a file is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where the last line or frame that is whole ends.
    pub(super) whole: u64,
    /// Where the first frame lies that is not whole though one behind it is. A crash tears only what was written last,
    /// so this is damage to lines that were delivered.
    pub(super) damaged_at: Option<u64>,
    /// Where there are no whole lines though there are some behind; of packed files none is known.
    pub(super) holes: Vec<Hole>,
}

/// Bytes that are no whole lines, before others that are. Nothing in the file says whether these lines were delivered: a
/// crash may tear the last batch in its middle, and a disk may lose any of its sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) bytes: Range<u64>,
    /// The id of the line before it, if there is one.
    pub(super) behind: Option<String>,
    /// The id of the line behind it.
    pub(super) before: String,
}

impl Extent {
    /// How many lines at least can't be read though some behind them can.
    pub(super) fn damaged_lines(&self) -> u64 {
        let in_holes: u64 = self.holes.iter().map(|hole| hole.records().unwrap_or(1)).sum();
        in_holes + u64::from(self.damaged_at.is_some())
    }
}

impl Hole {
    /// How many records it took, where the ids around it tell: those of one batch ascend.
    pub(super) fn records(&self) -> Option<u64> {
        let (prefix, after) = record_id::parse(&self.before)?;
        let (of, last) = record_id::parse(self.behind.as_deref()?)?;
        (prefix == of).then_some(())?;
        after.checked_sub(last)?.checked_sub(1).filter(|records| *records > 0)
    }
}

/// Whole lines that are records; where the last of them ends, and what lies between them that is none. Bytes that never
/// reached the disk read as zeros, and no line of ours holds one.
fn read_lines(mut reader: impl BufRead, mut note: impl FnMut(&str, u64)) -> io::Result<(u64, Vec<Hole>)> {
    let (mut line, mut last, mut holes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut position, mut whole) = (0, 0);
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok((whole, holes));
        }
        let start = position;
        position += n as u64;
        if line.pop_if(|last| *last == b'\n').is_some()
            && let Some(id) = line_id(&line)
        {
            if whole < start {
                let behind = line_id(&last).map(str::to_owned);
                holes.push(Hole { bytes: whole..start, behind, before: id.to_owned() });
            }
            note(id, start);
            whole = position;
            std::mem::swap(&mut line, &mut last);
        }
    }
}

/// The lines of all frames that are whole, also of those behind damage.
fn read_frames(file: &dyn File, end: u64, mut note: impl FnMut(&str, u64)) -> io::Result<Extent> {
    let (mut at, mut whole, mut broken, mut damaged_at) = (0, 0, None, None);
    let end = end.min(file.len()?);
    while at < end {
        // Twice: nothing of a torn frame may be noted, and no frame is held as a whole.
        if let Some(behind) = frame_end(file, at)? {
            let again = BufReader::with_capacity(READ_BYTES, At { file, position: at });
            let lines = BufReader::new(zstd::Decoder::with_buffer(again)?.single_frame());
            read_lines(lines, |id, _| note(id, at))?;
            damaged_at = damaged_at.or(broken);
            (at, whole) = (behind, behind);
        } else {
            broken = broken.or(Some(at));
            let Some(next) = next_magic(file, at + 1)? else { break };
            at = next;
        }
    }
    Ok(Extent { whole, damaged_at, holes: Vec::new() })
}

/// Where the frame that begins at `at` ends; `None` if there is none, or it is not whole.
fn frame_end(file: &dyn File, at: u64) -> io::Result<Option<u64>> {
    let reader = BufReader::with_capacity(READ_BYTES, At { file, position: at });
    let mut frame = zstd::Decoder::with_buffer(reader)?.single_frame();
    match io::copy(&mut frame, &mut io::sink()) {
        Ok(_) => {
            let reader = frame.finish();
            Ok(Some(reader.get_ref().position - reader.buffer().len() as u64))
        }
        // A file that cannot be read is no torn frame: the disk's own errors have numbers.
        Err(error) if error.raw_os_error().is_some() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Where a frame may begin, from `at` on.
fn next_magic(file: &dyn File, at: u64) -> io::Result<Option<u64>> {
    let magic = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();
    let (mut piece, mut position) = (vec![0; READ_BYTES], at);
    loop {
        let n = At { file, position }.read(&mut piece)?;
        if let Some(found) = memchr::memmem::find(&piece[..n], &magic) {
            return Ok(Some(position + found as u64));
        }
        if n < magic.len() {
            return Ok(None);
        }
        position += (n + 1 - magic.len()) as u64; // it may lie across two pieces
    }
}

/// A file, read from a position on.
struct At<'a> {
    file: &'a dyn File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(piece, self.position) {
                Ok(n) => {
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay::disk::Disk;
    use forebay::disk::mem::MemDisk;
    use std::path::Path;

    fn lines(n: u64) -> Vec<u8> {
        (0..n).flat_map(|offset| format!("{{\"id\":\"log-1-{offset}\",\"key\":\"user\"}}\n").into_bytes()).collect()
    }

    fn found(bytes: &[u8]) -> (u64, usize) {
        let (extent, records) = extent(bytes);
        assert_eq!(extent.damaged_at, None);
        (extent.whole, records)
    }

    fn packed(whole: usize, damaged_at: Option<u64>) -> Extent {
        Extent { whole: whole as u64, damaged_at, holes: Vec::new() }
    }

    fn extent(bytes: &[u8]) -> (Extent, usize) {
        let disk = MemDisk::new();
        disk.create_dir(Path::new("out")).unwrap();
        let file = disk.create(Path::new("out/f")).unwrap();
        file.write_all_at(&[io::IoSlice::new(bytes)], 0).unwrap();
        let mut records = 0;
        let extent = Packing::Zstd.read(&*file, u64::MAX, |_, _| records += 1).unwrap();
        (extent, records)
    }

    #[test]
    fn a_frame_that_is_torn_anywhere_is_not_there_and_those_before_it_are() {
        let first = Packing::Zstd.pack(&lines(500)).unwrap().into_owned();
        let second = Packing::Zstd.pack(&lines(40)).unwrap().into_owned();
        let whole = [&first[..], &second].concat();
        for end in 0..whole.len() {
            let expected = if end < first.len() { (0, 0) } else { (first.len() as u64, 500) };
            assert_eq!(found(&whole[..end]), expected, "torn at {end}");
        }
        assert_eq!(found(&whole), (whole.len() as u64, 540));
    }

    #[test]
    fn blocks_that_never_reached_the_disk_are_no_frame() {
        let first = Packing::Zstd.pack(&lines(500)).unwrap().into_owned();
        let second = Packing::Zstd.pack(&lines(300)).unwrap().into_owned();
        for from in [0, 5, second.len() / 2, second.len() - 1] {
            let mut torn = second.clone();
            torn[from..].fill(0);
            assert_eq!(found(&[&first[..], &torn].concat()), (first.len() as u64, 500), "zeros from {from}");
        }
    }

    /// Before: what lay behind a rotten frame passed for torn and was cut off, though it had been delivered.
    #[test]
    fn whole_frames_behind_a_rotten_one_are_found_and_it_is_named() {
        let [first, second, third] = [500, 300, 40].map(|n| Packing::Zstd.pack(&lines(n)).unwrap().into_owned());
        for at in [0, 5, second.len() / 2, second.len() - 1] {
            let mut rotten = second.clone();
            rotten[at] ^= 0x55;
            let bytes = [&first[..], &rotten, &third].concat();
            let damaged_at = Some(first.len() as u64);
            assert_eq!(extent(&bytes), (packed(bytes.len(), damaged_at), 540), "byte {at}");
            let torn = &bytes[..bytes.len() - 1];
            assert_eq!(extent(torn), (packed(first.len(), None), 500), "and a torn end");
        }
    }

    #[test]
    fn frames_one_behind_the_other_are_one_text() {
        let mut file = Packing::Zstd.pack(&lines(500)).unwrap().into_owned();
        file.extend_from_slice(&Packing::Zstd.pack(&lines(40)).unwrap());
        assert_eq!(zstd::decode_all(&file[..]).unwrap(), [lines(500), lines(40)].concat());
    }
}
