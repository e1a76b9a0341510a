//! Every bit of a log of 64 KiB turned, one at a time, and every page of it another one: a frame that is hit is told and costs
//! its own records, whatever else is hit is noticed and costs none. `FOREBAY_STRIDE=n` takes every nth bit only; 1 is all.

use forebay::{Damage, LogOptions, inspect};
use std::collections::{BTreeMap, BTreeSet};
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

/// The files of a log, and what is in them.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// A log of several segments, sealed and not, of applications and our own, that holds 64 KiB. Not closed. And its files as they
/// were when it was half as large, and somewhat larger than that.
fn victim() -> (Session, Vec<Files>) {
    let mut before = Vec::new();
    let mut session = Session::new(1, LogOptions { segment_bytes: 16 << 10, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    for i in 0..28 {
        if i == 14 || i == 20 {
            session.log().housekeep();
            before.push(files(&session));
        }
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
    (session, before)
}

fn files(session: &Session) -> Files {
    let mut paths = session.disk.paths();
    paths.retain(|path| !path.ends_with("LOCK") && !path.to_string_lossy().contains("spare"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), session.disk.read_live(&path).expect("there"))).collect()
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

/// Whether anybody says that something is damaged: the log when it was opened, or who looks at what it leaves.
fn is_noticed(session: &mut Session, damages: &[Damage]) -> bool {
    session.end(End::Kill);
    let seen = inspect(&session.disk, Path::new(DIR), |_| ControlFlow::Continue(())).expect("it can be looked at");
    let damaged = seen.segments.iter().any(|segment| !segment.damage.is_empty());
    damaged || !seen.flaws.is_empty() || !damages.is_empty()
}

#[test]
fn every_bit_of_a_log_that_turns_is_noticed_and_costs_its_own_frame_at_most() {
    let stride = number("FOREBAY_STRIDE", 61);
    let (victim, _) = victim();
    let segments = segments(&victim);
    // Behind the last frame of a file there is nothing to damage.
    let end = |frames: &[Place]| frames.last().map_or(0, |last| last.bytes.end);
    let bits: Vec<(usize, u64)> = (segments.iter().enumerate())
        .flat_map(|(nth, (_, frames))| (0..end(frames) as u64 * 8).map(move |bit| (nth, bit)))
        .step_by(stride as usize)
        .collect();
    let (in_frames, told_by_verify) = (AtomicU64::new(0), AtomicU64::new(0));
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
                    assert!(is_noticed(&mut session, &damages), "{named}: nobody noticed");
                    told_by_verify.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        count.max(1)
    };
    let repeat = |hundred| format!("cargo test -p storage-tests --test bits, bits {hundred}00 and up");
    let done = crew::each(0, Until::all(bits.len() as u64), case, repeat);
    let counted = [in_frames, told_by_verify].map(AtomicU64::into_inner);
    println!("{done} bits turned, every {stride}. of the log: in frames, elsewhere: {counted:?}");
    let bytes: usize = segments.iter().map(|(_, frames)| end(frames)).sum();
    assert!(bytes >= 64 << 10, "{bytes} bytes");
    // Where time ended it, they are those of headers and of the first files.
    assert!(done.count < bits.len() as u64 || counted[0] * 100 > counted.iter().sum::<u64>() * 95, "{counted:?}");
}

/// What a disk may give in the place of a page of a file: another page of it, that of another file of the kind, what stood there
/// before.
fn misdirected(files: &Files, before: &[Files], (path, bytes): &(PathBuf, Vec<u8>), page: &Range<usize>) -> Files {
    let at = |bytes: &[u8], at: usize| {
        let mut there: Vec<u8> = bytes.iter().skip(at).take(page.len()).copied().collect();
        there.resize(page.len(), 0);
        there
    };
    let mut others = files.iter().filter(|(other, _)| other != path && other.extension() == path.extension());
    let other = others.next_back().map(|(other, bytes)| (other.clone(), at(bytes, page.start)));
    let old =
        before.iter().flatten().filter(|(old, _)| old == path).map(|(old, bytes)| (old.clone(), at(bytes, page.start)));
    let own = [page.end, 0].map(|start| (path.clone(), at(bytes, start)));
    own.into_iter().chain(other).chain(old).collect()
}

#[test]
fn a_page_of_another_place_or_another_time_is_noticed_and_costs_its_own_frames_at_most() {
    let (victim, before) = victim();
    let (files, segments) = (files(&victim), segments(&victim));
    let (mut pages, mut cost) = (0, 0);
    for file @ (path, bytes) in &files {
        let frames = segments.iter().find(|(segment, _)| segment == path).map(|(_, frames)| &frames[..]);
        // Behind the last frame of a file there is nothing to damage.
        let end = frames.map_or(bytes.len(), |frames| frames.last().map_or(0, |last| last.bytes.end));
        for page_bytes in [4096, 512] {
            for start in (0..end).step_by(page_bytes) {
                let page = start..bytes.len().min(start + page_bytes);
                for (from, there) in misdirected(&files, &before, file, &page) {
                    let case = format!("{page:?} of {} from {}", path.display(), from.display());
                    let mut broken = bytes.clone();
                    broken[page.clone()].copy_from_slice(&there);
                    if broken[..end] == bytes[..end] {
                        continue;
                    }
                    let mut session = victim.fork(1);
                    session.disk.overwrite(path, &broken);
                    let (missing, damages) = look(&mut session);
                    let hit = frames.unwrap_or_default().iter().filter(|frame| {
                        let place = frame.bytes.clone();
                        broken[place.clone()] != bytes[place]
                    });
                    let records = |(stream, offsets): (&String, &Range<u64>)| {
                        offsets.clone().map(|offset| (stream.clone(), offset)).collect::<Vec<_>>()
                    };
                    let lost = missing.told.iter().chain(&missing.untold).map(|(stream, offsets)| (stream, offsets));
                    let lost: BTreeSet<_> = lost.flat_map(records).collect();
                    let hit: BTreeSet<_> = hit.map(|hit| (&hit.stream, &hit.offsets)).flat_map(records).collect();
                    assert_eq!(lost, hit, "{case}");
                    assert!(lost.is_empty() || !damages.is_empty(), "{case}: without a word");
                    // An older table is a table; what it does not know the segments do.
                    let is_table = path.file_stem().is_some_and(|stem| stem == "streams");
                    assert!(is_table || is_noticed(&mut session, &damages), "{case}: nobody noticed");
                    pages += 1;
                    cost += u64::from(!lost.is_empty());
                }
            }
        }
    }
    println!("{pages} pages, {cost} cost records");
    assert!(pages > 500 && cost > 300, "{pages} pages, {cost} cost records");
}
