//! What the fuzzer of packed bodies calls: see [`crate::fuzzing`].

use super::gunzip::{Gunzip, GunzipError};

/// No more of a bomb is undone than this.
const MOST: usize = 1 << 20;

/// `data`: how it comes in pieces (1 byte), how much room there is at a time (1 byte), then what is packed. No step makes
/// more than there is room for, and however it comes the same comes out of it, or the same is wrong with it.
pub fn gunzip(data: &[u8]) {
    let [piece, room, packed @ ..] = data else { return };
    let (piece, room) = (usize::from(*piece) + 1, usize::from(*room) + 1);
    let in_pieces = undo(packed, piece, room, MOST);
    let at_once = undo(packed, packed.len().max(1), 64 << 10, MOST);
    match (&in_pieces, &at_once) {
        (Ok(one), Ok(other)) => {
            let both = one.len().min(other.len());
            assert!(one[..both] == other[..both], "the same bytes");
            assert!(one.len() == other.len() || both >= MOST, "as many");
        }
        (Err(one), Err(other)) => {
            assert!(std::mem::discriminant(one) == std::mem::discriminant(other), "{one} and {other}");
            assert!(one.at() <= packed.len() as u64 && other.at() <= packed.len() as u64);
        }
        // One was left before it came to what is wrong.
        (Ok(bytes), Err(_)) | (Err(_), Ok(bytes)) => assert!(bytes.len() >= MOST, "{in_pieces:?} and {at_once:?}"),
    }
}

/// Undoes what is packed, given in pieces of `piece` bytes, with `room` bytes of output a step, up to `most` bytes or a step
/// more.
pub(super) fn undo(packed: &[u8], piece: usize, room: usize, most: usize) -> Result<Vec<u8>, GunzipError> {
    let (mut gunzip, mut all) = (Gunzip::new(), Vec::new());
    for mut rest in packed.chunks(piece) {
        loop {
            let mut out = Vec::with_capacity(room);
            let (fits, before) = (out.capacity(), gunzip.work());
            let taken = gunzip.step(rest, &mut out)?;
            assert!(taken <= rest.len() && out.len() <= fits && out.capacity() == fits);
            assert!(gunzip.work() >= before + (taken + out.len()) as u64, "what it cost is counted");
            rest = &rest[taken..];
            all.extend_from_slice(&out);
            if all.len() >= most {
                return Ok(all);
            }
            if rest.is_empty() && out.len() < fits {
                break;
            }
        }
    }
    gunzip.finish().map(|()| all)
}
