//! Which places of a file are named, and how often each is tried. The whole of it is in storage-tests/tests/faults/.

use super::*;
use crate::disk::mem::MemDisk;
use crate::disk::refusing::Refusing;
use rustix::io::Errno;

/// What is found in a file of six blocks and a bit, and how often somebody waited for it.
fn look(refused: fn(u64) -> Option<io::Error>) -> (Result<Vec<Unreadable>, OpenError>, usize) {
    let (mut pauses, len, path) = (0, 6 * BLOCK_BYTES + 100, Path::new("a.seg"));
    let file = MemDisk::new().create(path).expect("memory");
    file.set_len(len).expect("memory");
    let file = Refusing::over(file, move |read| refused(read.start / BLOCK_BYTES));
    (unreadable(&file, len, path, &mut || pauses += 1), pauses)
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
