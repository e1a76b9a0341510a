//! Every bit of a log of 64 KiB turned, one at a time: a frame that is hit is told and costs its own records, whatever
//! else is hit costs none. `FOREBAY_STRIDE=n` takes every nth bit only; 1 is all.

use forebay::{Damage, LogOptions, inspect};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::model::log::Missing;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{DIR, End, Session, tiny};

/// Of a frame's header; see docs/format.md.
const FRAME_HEADER_BYTES: usize = 56;

/// A frame of records: its bytes in the file, and whose records they are.
struct Place {
    bytes: Range<usize>,
    stream: String,
    offsets: Range<u64>,
}

/// A log of several segments, sealed and not, of applications and our own, that holds 64 KiB. Not closed.
fn victim() -> Session {
    let mut session = Session::new(1, LogOptions { segment_bytes: 16 << 10, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    for i in 0..28 {
        for (stream, parts) in [
            ("a", vec![(900 + i, 3)]),
            ("b", vec![(300, 1), (500 + i, 2)]),
            ("!plans", vec![(40, 1)]),
            ("!dead/x", vec![(400, 2)]),
        ] {
            session.append(stream, &parts).expect("right offsets").expect("taken");
        }
    }
    session.options.synced = session.log().synced();
    session.end(End::Cut(PowerCut::NothingUnsynced));
    session
}

/// The segments, with their records' frames.
fn segments(victim: &Session) -> Vec<(PathBuf, Vec<Place>)> {
    let mut frames = BTreeMap::<u64, Vec<Place>>::new();
    inspect(&victim.disk, Path::new(DIR), |frame| {
        let start = frame.position as usize;
        let bytes = start..start + FRAME_HEADER_BYTES + frame.payload.len();
        let place = Place { bytes, stream: frame.name.to_owned(), offsets: frame.offsets.clone() };
        frames.entry(frame.segment.0).or_default().push(place);
        ControlFlow::Continue(())
    })
    .expect("it can be looked at");
    let mut paths = victim.disk.paths();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "seg" || kind == "sys"));
    paths.sort();
    let number = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        u64::from_str_radix(stem, 16).or_else(|_| stem.parse()).expect("segments are numbered")
    };
    paths
        .into_iter()
        .map(|path| {
            let frames = frames.remove(&number(&path)).unwrap_or_default();
            (path, frames)
        })
        .collect()
}

/// What is missing, and what is said of it.
fn look(session: &mut Session) -> (Missing, Vec<Damage>) {
    session.try_open().expect("no bit keeps it from opening");
    let missing = session.model.missing(session.log()).expect("nothing altered is served");
    (missing, session.log().damages())
}

/// Whether the byte is one of the zeros that fill a frame up to the next multiple of eight, which nobody reads.
fn is_padding(session: &Session, path: &Path, byte: usize) -> bool {
    let bytes = session.disk.read_live(path).expect("there");
    let others = bytes[byte + 1..].iter().take(7 - byte % 8);
    !byte.is_multiple_of(8) && others.into_iter().all(|byte| *byte == 0)
}

#[test]
fn every_bit_of_a_log_that_turns_is_noticed_and_costs_its_own_frame_at_most() {
    let stride = number("FOREBAY_STRIDE", 61);
    let victim = victim();
    let segments = segments(&victim);
    // Behind the last frame of a file there is nothing to damage.
    let end = |frames: &[Place]| frames.last().map_or(0, |last| last.bytes.end);
    let bits: Vec<(usize, u64)> = (segments.iter().enumerate())
        .flat_map(|(nth, (_, frames))| (0..end(frames) as u64 * 8).map(move |bit| (nth, bit)))
        .step_by(stride as usize)
        .collect();
    let (in_frames, told_by_verify, padding) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let session = || victim.fork(1);
    // A hundred bits are one case: a thread should not come back for every one.
    let case = |hundred: u64| {
        let bits = bits.iter().skip(hundred as usize * 100).take(100);
        let count = bits.len() as u64;
        for (nth, bit) in bits {
            let (path, frames) = &segments[*nth];
            let named = format!("bit {bit} of {}", path.display());
            let mut session = session();
            session.disk.flip_bit(path, *bit);
            let (missing, damages) = look(&mut session);
            let byte = (bit / 8) as usize;
            match frames.iter().find(|frame| frame.bytes.contains(&byte)) {
                Some(hit) => {
                    let all: Vec<_> = missing.told.iter().chain(&missing.untold).cloned().collect();
                    assert_eq!(all, [(hit.stream.clone(), hit.offsets.clone())], "{named}");
                    assert!(!damages.is_empty(), "{named}: without a word");
                    in_frames.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    assert_eq!(missing, Missing::default(), "{named}");
                    session.end(End::Kill);
                    let seen = inspect(&session.disk, Path::new(DIR), |_| ControlFlow::Continue(()));
                    let seen = seen.unwrap_or_else(|e| panic!("{named}: {e}"));
                    let damaged = seen.segments.iter().any(|segment| !segment.damage.is_empty());
                    let noticed = damaged || !seen.flaws.is_empty() || !damages.is_empty();
                    assert!(noticed || is_padding(&session, path, byte), "{named}: nobody noticed");
                    if noticed { &told_by_verify } else { &padding }.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        count.max(1)
    };
    let repeat = |hundred| format!("cargo test -p storage-tests --test bits, bits {hundred}00 and up");
    let done = crew::each(0, Until::all(bits.len() as u64), case, repeat);
    let counted = [in_frames, told_by_verify, padding].map(AtomicU64::into_inner);
    println!("{done} bits turned, every {stride}. of the log: in frames, elsewhere, in padding: {counted:?}");
    let bytes: usize = segments.iter().map(|(_, frames)| end(frames)).sum();
    assert!(bytes >= 64 << 10, "{bytes} bytes");
    // Where time ended it, they are those of headers and of the first files.
    assert!(done.count < bits.len() as u64 || counted[0] * 100 > counted.iter().sum::<u64>() * 95, "{counted:?}");
}
