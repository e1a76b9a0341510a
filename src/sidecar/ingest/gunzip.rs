//! Gzip, undone in steps of bounded output. Pure: bytes in, bytes out; the caller decides how much it can bear.
//!
//! A step fills at most the spare capacity of its output, however small the input (a bomb grows a thousandfold).
//! Several members one after the other are one body, as gzip has it. Every member's checksum is checked. What a step cost
//! is counted, also where nothing came out of it.

use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

/// The window that every gzip encoder may use.
const WINDOW_BITS: u8 = 15;

/// Each member takes a window of its own to be undone, which is as much work as so many bytes.
const MEMBER_WORK: u64 = 16 * 1024;

/// So many members may come, however small. Encoders make one, or one for each of a few dozen KiB; a member of twenty bytes
/// without any content is a way to have us make windows.
const MEMBERS_FREE: u64 = 256;

/// Beyond them there is one for so much input and output.
const MEMBER_BYTES: u64 = 4 * 1024;

/// A gzip body on its way.
pub(crate) struct Gunzip {
    inflate: Decompress,
    /// Input taken by the members that are over.
    taken_before: u64,
    made: u64,
    members: u64,
    inside_member: bool,
}

/// Why it cannot be undone; `at` counts compressed bytes.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum GunzipError {
    #[error("gzip is damaged near its byte {at}")]
    Corrupt { at: u64 },
    #[error("gzip ends too early, at its byte {at}")]
    Truncated { at: u64 },
    #[error("gzip has more members than content, up to its byte {at}: pack the body as one")]
    Members { at: u64 },
}

impl GunzipError {
    /// The compressed byte that it is about.
    pub(crate) fn at(&self) -> u64 {
        match self {
            Self::Corrupt { at } | Self::Truncated { at } | Self::Members { at } => *at,
        }
    }
}

impl Gunzip {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new_gzip(WINDOW_BITS), taken_before: 0, made: 0, members: 0, inside_member: false }
    }

    /// Appends to `out` what fits into its spare capacity, and says how many bytes of `input` that took. Output may be
    /// held back until called again as long as `out` comes back full.
    pub(crate) fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, GunzipError> {
        let (in_before, out_before) = (self.taken(), out.len());
        self.inside_member |= !input.is_empty();
        let status = self.inflate.decompress_vec(input, out, FlushDecompress::None);
        let Ok(status) = status else { return Err(GunzipError::Corrupt { at: self.taken() }) };
        let taken = self.taken() - in_before;
        self.made += (out.len() - out_before) as u64;
        if status == Status::StreamEnd {
            self.taken_before = self.taken();
            self.members += 1;
            if self.members > MEMBERS_FREE + (self.taken_before + self.made) / MEMBER_BYTES {
                return Err(GunzipError::Members { at: self.taken_before });
            }
            // A reset would forget that this is gzip.
            self.inflate = Decompress::new_gzip(WINDOW_BITS);
            self.inside_member = false;
        } else if taken == 0 && out.len() == out_before && out.len() < out.capacity() && !input.is_empty() {
            // Inflate always gets on when it has input and room; were it not so the caller would turn for ever.
            return Err(GunzipError::Corrupt { at: self.taken() });
        }
        Ok(usize::try_from(taken).expect("no more was taken than a slice holds"))
    }

    /// The input is over: was it whole?
    pub(crate) fn finish(&self) -> Result<(), GunzipError> {
        if self.inside_member || self.taken_before == 0 {
            return Err(GunzipError::Truncated { at: self.taken() });
        }
        Ok(())
    }

    /// How much was done so far, in bytes: what came in, what came out, and what each member is worth.
    pub(crate) fn work(&self) -> u64 {
        self.taken() + self.made + self.members * MEMBER_WORK
    }

    /// Input that was taken, in bytes.
    pub(crate) fn taken(&self) -> u64 {
        self.taken_before + self.inflate.total_in()
    }
}

#[cfg(test)]
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(input: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, GunzipError> {
        super::super::fuzzing::undo(input, piece, room, usize::MAX)
    }

    #[test]
    fn any_cut_of_input_and_output_gives_the_same_bytes() {
        let plain: Vec<u8> = (0..5_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let packed = gzip(&plain);
        for piece in [1, 7, 1000, packed.len()] {
            for room in [1, 13, 4096, 1 << 20] {
                assert!(undo(&packed, piece, room).unwrap() == plain, "pieces of {piece}, room {room}");
            }
        }
    }

    #[test]
    fn members_in_a_row_are_one_body() {
        let two = [gzip(b"hello "), gzip(b"world")].concat();
        assert_eq!(undo(&two, 5, 3).unwrap(), b"hello world");
        assert_eq!(undo(&gzip(b""), 5, 3).unwrap(), b"");
    }

    /// Before: each was undone with a window of its own, of tens of KB, as many as came.
    #[test]
    fn members_with_content_may_be_many_and_those_without_may_not() {
        let words = gzip(b"word ".repeat(1_000).as_slice());
        assert_eq!(undo(&words.repeat(2_000), 1024, 1 << 16).unwrap().len(), 10_000_000);
        let none = gzip(b"");
        let few = [none.repeat(200), gzip(b"[]"), none.clone()].concat();
        assert_eq!(undo(&few, 1024, 64).unwrap(), b"[]");
        let many = undo(&none.repeat(2_000), 1024, 64).unwrap_err();
        let some = 258 * none.len() as u64;
        assert!(matches!(many, GunzipError::Members { at } if at <= some), "{many}");
    }

    #[test]
    fn work_is_what_comes_in_and_what_comes_out_and_members_beside() {
        let (packed, mut gunzip) = (gzip(b"some words"), Gunzip::new());
        let mut out = Vec::with_capacity(100);
        assert_eq!(gunzip.step(&packed, &mut out).unwrap(), packed.len());
        assert_eq!(gunzip.work(), packed.len() as u64 + 10 + MEMBER_WORK);
        assert_eq!(gunzip.taken(), packed.len() as u64);
    }

    #[test]
    fn every_truncation_is_told_as_one() {
        let packed = gzip(b"some words, some words, some words");
        for len in 0..packed.len() {
            assert_eq!(undo(&packed[..len], 4, 64), Err(GunzipError::Truncated { at: len as u64 }));
        }
    }

    #[test]
    fn damage_is_found_by_the_checksum_at_the_latest() {
        let packed = gzip(&[7; 1000]);
        assert!(matches!(undo(b"[{\"f\":\"plain\"}]", 100, 64), Err(GunzipError::Corrupt { .. })));
        // Bytes 4..10 are time, flags and system: nothing depends on them.
        for at in (0..4).chain(10..packed.len()) {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x20;
            // The last bits of the last byte before the checksum may mean nothing.
            let harmless = undo(&damaged, 100, 64).is_ok_and(|plain| plain == [7; 1000]);
            assert!(harmless || undo(&damaged, 100, 64).is_err(), "byte {at} of {}", packed.len());
        }
    }

    #[test]
    fn a_step_of_a_bomb_yields_no_more_than_its_room() {
        let bomb = gzip(&vec![0; 5_000_000]);
        let mut out = Vec::with_capacity(1000);
        let taken = Gunzip::new().step(&bomb, &mut out).unwrap();
        assert_eq!(out.len(), 1000);
        assert!(taken < bomb.len());
    }
}
