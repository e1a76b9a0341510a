//! One slot of one page of the floor file, as bytes. Reads and writes nothing; which slot is used is the file's affair.
//!
//! ```text
//! offset  bytes  little-endian
//!      0      4  CRC-32 of everything behind it, to the end of the slot
//!      4      4  "FLOR"
//!      8      2  version, 4; 1 to 3 are read, and written anew with the page's next change
//!     10      2  flags: bit 0 = pinned (this floor once lost entries that nobody can name)
//!     12      4  page number
//!     16      4  pages in this file: fixed for the file's life
//!     20      4  length of the body
//!     24      8  generation: greater in every round of writes
//!     32     16  log id
//!     48  12240  body, then zeros
//! ```
//! The body of page 0: a count (u16) and as many synced marks (segment u64, position u32). The body of every other
//! page: a count (u16) and as many entries. Place and version of the checksum never change, so that a newer format is
//! told from damage.

use super::entry::FloorEntry;
use crate::queue::codec::{Decoder, Malformed};
use crate::queue::limits::{FLOOR_PAGES_MAX, FLOOR_SLOT_BYTES, SYNCED_MARKS_MAX};
use crate::{LogId, Sequence, SyncedMark};

const MAGIC: &[u8; 4] = b"FLOR";
pub(super) const VERSION: u16 = 4;
const PINNED: u16 = 1;
const HEADER_BYTES: usize = 48;

/// Room for the body of a page.
pub(super) const BODY_BYTES_MAX: usize = FLOOR_SLOT_BYTES - HEADER_BYTES;
/// Room for the entries of a page.
pub(super) const ENTRIES_BYTES_MAX: usize = BODY_BYTES_MAX - 2;

const _: () =
    assert!(FloorEntry::ENCODED_BYTES_MAX <= ENTRIES_BYTES_MAX, "an entry with every range in use fits a page");
const _: () = assert!(2 + SYNCED_MARKS_MAX * 12 <= BODY_BYTES_MAX, "the synced marks fit page 0");
const _: () = assert!(FLOOR_PAGES_MAX <= u32::MAX as usize);

/// What stands at the front of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) page: u32,
    pub(super) pages: u32,
    pub(super) generation: u64,
    pub(super) log_id: LogId,
    pub(super) pinned: bool,
}

/// What a page holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Marks(Vec<SyncedMark>),
    Entries(Vec<FloorEntry>),
}

/// What bytes that should be a slot turn out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Good(Header, Body),
    Bad,
    /// Sound, but of a version that this program does not know.
    Newer(u16),
}

/// The bytes of a slot.
///
/// # Panics
/// When the body does not fit: the file places entries by their length.
pub(super) fn encode<'a>(header: Header, entries: impl ExactSizeIterator<Item = &'a FloorEntry>) -> Vec<u8> {
    let count = u16::try_from(entries.len()).expect("at most a few dozen entries fit a page");
    let mut body = count.to_le_bytes().to_vec();
    for entry in entries {
        entry.encode(&mut body);
    }
    seal(header, &body)
}

/// The bytes of a slot of page 0.
pub(super) fn encode_marks(header: Header, marks: &[SyncedMark]) -> Vec<u8> {
    let count = u16::try_from(marks.len()).expect("at most 64 marks are kept");
    let mut body = count.to_le_bytes().to_vec();
    for mark in marks {
        body.extend_from_slice(&mark.sequence.0.to_le_bytes());
        body.extend_from_slice(&mark.position.to_le_bytes());
    }
    seal(header, &body)
}

fn seal(header: Header, body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= BODY_BYTES_MAX, "entries are placed where they fit");
    let mut slot = Vec::with_capacity(FLOOR_SLOT_BYTES);
    slot.extend_from_slice(&[0; 4]);
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    slot.extend_from_slice(&(if header.pinned { PINNED } else { 0 }).to_le_bytes());
    slot.extend_from_slice(&header.page.to_le_bytes());
    slot.extend_from_slice(&header.pages.to_le_bytes());
    slot.extend_from_slice(&u32::try_from(body.len()).expect("below 12 KiB").to_le_bytes());
    slot.extend_from_slice(&header.generation.to_le_bytes());
    slot.extend_from_slice(&header.log_id.0.to_le_bytes());
    slot.extend_from_slice(body);
    slot.resize(FLOOR_SLOT_BYTES, 0);
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Reads a slot that was found at the place of page `page`.
pub(super) fn decode(slot: &[u8], page: u32) -> Slot {
    match read(slot, page) {
        Ok(slot) => slot,
        Err(Malformed(_)) => Slot::Bad,
    }
}

fn read(slot: &[u8], page: u32) -> Result<Slot, Malformed> {
    assert_eq!(slot.len(), FLOOR_SLOT_BYTES, "whoever reads a slot reads all of it");
    let mut from = Decoder::new(slot);
    let crc = from.u32()?;
    if crc != crc32fast::hash(&slot[4..]) || from.bytes(4)? != MAGIC {
        return Err(Malformed("not a slot"));
    }
    let version = from.u16()?;
    match version {
        1..=VERSION => {}
        0 => return Err(Malformed("no such version")),
        _ => return Ok(Slot::Newer(version)),
    }
    let pinned = from.u16()? & PINNED != 0;
    let (found, pages) = (from.u32()?, from.u32()?);
    let body_len = usize::try_from(from.u32()?).map_err(|_| Malformed("a body beyond the slot"))?;
    let header = Header { page, pages, generation: from.u64()?, log_id: LogId(from.u128()?), pinned };
    // A slot in another page's place is a write that went astray: sound, and wrong.
    if found != page || page >= pages || pages as usize > FLOOR_PAGES_MAX || header.generation == 0 {
        return Err(Malformed("a header that cannot be"));
    }
    let mut body = Decoder::new(from.bytes(body_len)?);
    let count = body.u16()?;
    let body = if page == 0 {
        if usize::from(count) > SYNCED_MARKS_MAX {
            return Err(Malformed("more marks than are kept"));
        }
        let mark = |_| Ok(SyncedMark { sequence: Sequence(body.u64()?), position: body.u32()? });
        Body::Marks((0..count).map(mark).collect::<Result<_, _>>()?)
    } else {
        Body::Entries((0..count).map(|_| FloorEntry::decode(&mut body, version)).collect::<Result<_, _>>()?)
    };
    Ok(Slot::Good(header, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(page: u32) -> Header {
        Header { page, pages: 4, generation: 7, log_id: LogId(42), pinned: true }
    }

    #[test]
    fn a_slot_in_another_pages_place_is_bad() {
        let slot = encode(header(2), [].iter());
        assert_eq!(decode(&slot, 2), Slot::Good(header(2), Body::Entries(vec![])));
        assert_eq!(decode(&slot, 3), Slot::Bad);
    }

    /// It is none that a newer program wrote: the other slot holds.
    #[test]
    fn a_slot_of_version_zero_is_bad_whatever_its_checksum() {
        let mut slot = encode(header(2), [].iter());
        for (version, expected) in [(0, Slot::Bad), (VERSION + 1, Slot::Newer(VERSION + 1))] {
            slot[8..10].copy_from_slice(&version.to_le_bytes());
            let crc = crc32fast::hash(&slot[4..]);
            slot[..4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(decode(&slot, 2), expected);
        }
    }

    #[test]
    fn a_header_that_cannot_be_is_bad_whatever_its_checksum() {
        let is_bad = |header: Header| decode(&encode(header, [].iter()), header.page) == Slot::Bad;
        let most = u32::try_from(FLOOR_PAGES_MAX).expect("65,536");
        assert!(!is_bad(header(3)) && !is_bad(Header { pages: most, ..header(3) }));
        assert!(is_bad(header(4)), "a page behind the last");
        assert!(is_bad(Header { pages: most + 1, ..header(3) }));
        assert!(is_bad(Header { generation: 0, ..header(3) }), "the first is 1");
    }

    proptest! {
        /// The checksum keeps accidents out; behind it nothing is taken on trust either.
        #[test]
        fn any_body_under_a_good_checksum_is_read_or_refused(
            page in 0..4u32,
            body in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(255), any::<u8>()], 0..600),
        ) {
            if let Slot::Good(found, body) = decode(&seal(header(page), &body), page) {
                prop_assert_eq!(found, header(page));
                let again = match &body {
                    Body::Marks(marks) => encode_marks(found, marks),
                    Body::Entries(entries) => encode(found, entries.iter()),
                };
                prop_assert_eq!(decode(&again, page), Slot::Good(found, body));
            }
        }
    }
}
