//! Which places of a file are named, and how often each is tried. The whole of it is in storage-tests/tests/faults/.

use super::*;
use rustix::io::Errno;

/// A file of which the disk refuses some blocks.
struct Spoiled {
    refused: fn(u64) -> Option<io::Error>,
}

impl File for Spoiled {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        (self.refused)(position / BLOCK_BYTES).map_or(Ok(buf.len()), Err)
    }

    fn write_all_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        unreachable!("looking writes nothing")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("looking syncs nothing")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("looking takes no room")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("looking cuts nothing")
    }

    fn len(&self) -> io::Result<u64> {
        unreachable!("it is told")
    }
}

/// What is found in a file of six blocks and a bit, and how often somebody waited for it.
fn look(refused: fn(u64) -> Option<io::Error>) -> (Result<Vec<Unreadable>, OpenError>, usize) {
    let mut pauses = 0;
    let len = 6 * BLOCK_BYTES + 100;
    (unreadable(&Spoiled { refused }, len, Path::new("a.seg"), &mut || pauses += 1), pauses)
}

#[test]
fn neighbours_that_are_refused_for_one_reason_are_one_place_and_each_block_is_tried_five_times() {
    let (found, pauses) = look(|block| match block {
        1 | 2 | 5 | 6 => Some(Errno::IO.into()),
        3 => Some(Errno::NODATA.into()),
        _ => None,
    });
    let found = found.expect("these are places");
    let places: Vec<_> = found.iter().map(|place| place.positions.clone()).collect();
    assert_eq!(places, [4_096..12_288, 12_288..16_384, 20_480..24_676]);
    assert_eq!(pauses, 5 * 4);
    let why = io::Error::from(Errno::NODATA);
    assert_eq!(found[1].to_string(), format!("a.seg bytes 12288..16384: {why}"));
}

#[test]
fn what_is_refused_for_no_places_reason_ends_the_look_at_once() {
    let (found, pauses) = look(|block| (block == 2).then(|| io::ErrorKind::TimedOut.into()));
    assert!(matches!(found, Err(OpenError::Io { what: "read", .. })));
    assert_eq!(pauses, 0);
}
