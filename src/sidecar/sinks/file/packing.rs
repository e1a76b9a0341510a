//! How lines lie in a file: as they are, or packed, one zstd frame a batch. Reads files back to where they are whole.
//!
//! What always holds: a packed file ends behind a whole frame, and a frame holds whole lines; a frame that a crash has
//! torn is told by its checksum. Any zstd tool reads the file: frames one behind the other are one text.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use forebay::disk::File;

use super::present::line_id;

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

    /// Reads a file's whole lines, one by one and without their newlines. Returns where what is whole ends.
    pub(super) fn read(self, file: &dyn File, note: impl FnMut(&[u8])) -> io::Result<u64> {
        let reader = BufReader::with_capacity(READ_BYTES, At { file, position: 0 });
        match self {
            Self::Lines => read_lines(reader, note),
            Self::Zstd => read_frames(reader, note),
        }
    }
}

/// Whole lines that are records; where the last of them ends.
fn read_lines(mut reader: impl BufRead, mut note: impl FnMut(&[u8])) -> io::Result<u64> {
    let (mut line, mut position, mut whole) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(whole);
        }
        position += n as u64;
        if line.pop_if(|last| *last == b'\n').is_some() && line_id(&line).is_some() {
            note(&line);
            whole = position;
        }
    }
}

/// The lines of all frames that are whole; where the last of these ends.
fn read_frames(mut reader: BufReader<At<'_>>, mut note: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut whole = 0;
    loop {
        if reader.fill_buf()?.is_empty() {
            return Ok(whole);
        }
        // Twice: nothing of a torn frame may be noted, and no frame is held as a whole.
        let mut frame = zstd::Decoder::with_buffer(reader)?.single_frame();
        let read = io::copy(&mut frame, &mut io::sink());
        reader = frame.finish();
        match read {
            Ok(_) => {}
            // A file that cannot be read is no torn frame: the disk's own errors have numbers.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(_) => return Ok(whole),
        }
        let end = reader.get_ref().position - reader.buffer().len() as u64;
        let again = BufReader::with_capacity(READ_BYTES, At { file: reader.get_ref().file, position: whole });
        let lines = BufReader::new(zstd::Decoder::with_buffer(again)?.single_frame());
        read_lines(lines, &mut note)?;
        whole = end;
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
        let disk = MemDisk::new();
        disk.create_dir(Path::new("out")).unwrap();
        let file = disk.create(Path::new("out/f")).unwrap();
        file.write_all_at(&[io::IoSlice::new(bytes)], 0).unwrap();
        let mut records = 0;
        let whole = Packing::Zstd.read(&*file, |_| records += 1).unwrap();
        (whole, records)
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

    #[test]
    fn frames_one_behind_the_other_are_one_text() {
        let mut file = Packing::Zstd.pack(&lines(500)).unwrap().into_owned();
        file.extend_from_slice(&Packing::Zstd.pack(&lines(40)).unwrap());
        assert_eq!(zstd::decode_all(&file[..]).unwrap(), [lines(500), lines(40)].concat());
    }
}
