//! What the fuzzer of floor pages calls: see [`crate::fuzzing`].

use super::FloorEntry;
use super::layout::{self, Placement};
use super::page::{self, BODY_BYTES_MAX, Body, Header, Slot, VERSION};
use crate::queue::codec::Decoder;
use crate::queue::limits::{FLOOR_PAGES_MAX, FLOOR_SLOT_BYTES};

/// Bytes in front of a slot's body.
const HEADER_BYTES: usize = FLOOR_SLOT_BYTES - BODY_BYTES_MAX;

/// `data`: the page at whose place the slot was found (1 byte, its low two bits) and whether to put header and checksum
/// right (its highest bit), then the slot, as far as it is not zeros. A slot that is accepted is written back with the
/// bytes that were read, if it is of the version that is written; one of an earlier version with room for what has grown.
pub fn floor_page(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let at = u32::from(how & 3);
    let mut slot = bytes[..bytes.len().min(FLOOR_SLOT_BYTES)].to_vec();
    slot.resize(FLOOR_SLOT_BYTES, 0);
    if how & 0x80 != 0 {
        repair(&mut slot, at);
    }
    let Slot::Good(header, body) = page::decode(&slot, at) else { return };
    assert!(header.page == at && header.page < header.pages && header.generation > 0, "{header:?}");
    let again = match &body {
        Body::Marks(marks) => page::encode_marks(header, marks),
        Body::Entries(entries) => {
            entries.iter().for_each(check_entry);
            let pages = written_pages(entries);
            if pages.len() > 1 {
                assert!(u16::from(slot[8]) < VERSION, "what was one page of this version is one page again");
                return pages.into_iter().for_each(|entries| check_written(header, entries));
            }
            page::encode(header, entries.iter())
        }
    };
    let end = HEADER_BYTES + body_len(&again);
    assert!(end <= FLOOR_SLOT_BYTES);
    if slot[8..10] == again[8..10] {
        assert!(body_len(&slot) >= body_len(&again));
        assert_eq!(slot[HEADER_BYTES..end], again[HEADER_BYTES..end], "what was read is what is written");
    }
    assert_eq!(page::decode(&again, at), Slot::Good(header, body), "and is read again");
    for other in (0..4).filter(|other| *other != at) {
        assert_eq!(page::decode(&again, other), Slot::Bad, "a write that went astray is told");
    }
    again.iter().enumerate().skip(4).step_by(997).for_each(|(place, byte)| {
        let mut damaged = again.clone();
        damaged[place] = !byte;
        assert_eq!(page::decode(&damaged, at), Slot::Bad, "damage at byte {place} is told");
    });
}

/// The entries of a page as the floor writes them with the page's next change. Entries of earlier versions have grown since:
/// what does not fit any more moves to other pages, and none is lost.
fn written_pages(entries: &[FloorEntry]) -> Vec<Vec<FloorEntry>> {
    let ids = 0..u32::try_from(entries.len()).expect("a count of 16 bits");
    // Page 0 takes none. Never more pages than entries.
    let mut pages: Placement = vec![Vec::new(), ids.collect()];
    pages.resize(entries.len() + 2, Vec::new());
    let len_of = |id: u32| entries[id as usize].encoded_len();
    layout::rearrange(&mut pages, std::iter::once(1), Vec::new(), len_of).expect("a page each would do");
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), entries.len(), "each has a page");
    let page = |ids: &Vec<u32>| ids.iter().map(|id| entries[*id as usize].clone()).collect();
    let used = pages[2..].iter().filter(|ids| !ids.is_empty());
    std::iter::once(&pages[1]).chain(used).map(page).collect()
}

/// A page of these entries can be written and is read again.
fn check_written(header: Header, entries: Vec<FloorEntry>) {
    let slot = page::encode(header, entries.iter());
    assert_eq!(page::decode(&slot, header.page), Slot::Good(header, Body::Entries(entries)), "and is read again");
}

/// An entry takes the room that its page was chosen by, and holds what a cursor promises.
fn check_entry(entry: &FloorEntry) {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    assert_eq!(bytes.len(), entry.encoded_len());
    assert!(bytes.len() <= FloorEntry::ENCODED_BYTES_MAX);
    assert_eq!(FloorEntry::decode(&mut Decoder::new(&bytes), VERSION).as_ref(), Ok(entry));
    let cursor = &entry.cursor;
    assert!(cursor.covers(cursor) && cursor.end() >= cursor.low);
    for range in &cursor.settled {
        assert!(cursor.unsettled(range.start..range.end).is_empty(), "what is settled is not open");
        assert_eq!(
            cursor.unsettled(range.start - 1..range.end),
            vec![range.start - 1..range.start],
            "ranges lie apart"
        );
    }
}

fn body_len(slot: &[u8]) -> usize {
    u32::from_le_bytes(slot[20..24].try_into().expect("four bytes")) as usize
}

/// Makes a header that can be, of the fields that are there, and a checksum that fits.
fn repair(slot: &mut [u8], at: u32) {
    slot[4..8].copy_from_slice(b"FLOR");
    let version = u16::from(slot[8]).clamp(1, VERSION);
    slot[8..10].copy_from_slice(&version.to_le_bytes());
    slot[12..16].copy_from_slice(&at.to_le_bytes());
    let pages = u32::from_le_bytes(slot[16..20].try_into().expect("four bytes"));
    slot[16..20].copy_from_slice(&pages.clamp(at + 1, FLOOR_PAGES_MAX as u32).to_le_bytes());
    let len = body_len(slot).min(BODY_BYTES_MAX) as u32;
    slot[20..24].copy_from_slice(&len.to_le_bytes());
    slot[24] |= 1; // no slot is of generation 0
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_le_bytes());
}
