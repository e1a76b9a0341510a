//! What becomes of files that an opening finds where none should be.

use super::*;
use crate::disk::{read_all, read_exact_at};
use crate::log::frame::{FrameHeader, Identity, Kind};
use crate::offset::{LogId, Sequence};
use std::path::PathBuf;

const FIRST: &str = "0000000000000000.seg";

fn copy(disk: &dyn Disk, from: &str, to: &str) {
    let bytes = crate::disk::read_all(&*disk.open(&Path::new(DIR).join(from)).expect("it is there")).expect("memory");
    let file = disk.create(&Path::new(DIR).join(to)).expect("it is not there");
    file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory");
}

fn names(disk: &dyn Disk, with: &str) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).expect("memory lists");
    names.retain(|name| name.contains(with));
    names.sort();
    names
}

/// A rename whose sync failed can leave a file's old name; a stranger's file may have any.
#[test]
fn of_two_segments_with_one_number_the_one_holds_whose_header_says_so_and_the_other_one_goes_if_it_is_empty() {
    const SYSTEM: &str = "0000000000000001.sys";
    const MAIN: &str = "0000000000000001.seg";
    for (what, aside) in [("zeros", false), ("another segment's", false), (SYSTEM, true)] {
        let bench = Bench::new();
        let log = bench.open();
        append(&log, "a", 1, 100, 1);
        append(&log, "!ours", 2, 100, 1);
        drop(log);
        match what {
            SYSTEM => copy(&*bench.disk, SYSTEM, MAIN),
            "zeros" => bench.disk.create(&Path::new(DIR).join(MAIN)).expect("new").set_len(4_096).expect("memory"),
            _ => copy(&*bench.disk, "0000000000000000.seg", MAIN),
        }
        let log = bench.open();
        assert_eq!((read(&log, "a", 0), read(&log, "!ours", 0)), (vec![(0..1, Some(1))], vec![(0..1, Some(2))]));
        let bad = format!("{MAIN}.bad");
        let left = if aside { vec![bad.as_str(), SYSTEM] } else { vec![SYSTEM] };
        assert_eq!(names(&*bench.disk, "0000000000000001.s"), left, "{what}");
    }
}

#[test]
fn spares_that_somebody_took_away_are_missed_once_each() {
    let bench = Bench::new();
    let log = bench.open();
    log.housekeep();
    let spares = names(&*bench.disk, "spare-");
    assert_eq!(spares.len(), 2);
    spares.iter().for_each(|name| bench.disk.remove(&Path::new(DIR).join(name)).expect("it is there"));
    let refused = log.append_wait("a", vec![part(1, 100, 1)]).expect_err("its segment can't be made");
    assert!(matches!(refused, AppendError::ReadOnly { .. }), "{refused}");
    (0..3).for_each(|_| log.housekeep());
    assert_eq!(log.state(), LogState::Serving);
    assert_eq!(append(&log, "a", 1, 100, 1), 0..1);
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A log that was killed when it had two records, and up to where its only segment is synced.
fn killed() -> (Bench, LogId, u32) {
    let bench = Bench::new();
    let log = bench.open();
    (1..=2).for_each(|byte| _ = append(&log, "a", byte, 100, 1));
    let end = log.synced()[0].position;
    (bench, log.log_id(), end)
}

/// A whole frame of a program that is not this one, whatever it says, behind what is there.
fn forged(bench: &Bench, log: LogId, at: u32, header: FrameHeader, payload: &[u8], version: u8) -> u32 {
    let payload_crc = crc32fast::hash(payload);
    let header = FrameHeader { payload_len: payload.len() as u32, payload_crc, ..header };
    let mut bytes = header.encode(&Identity::new(log, Sequence(0)), at);
    bytes[12] = version;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log.0.to_le_bytes());
    crc.update(&0_u64.to_le_bytes());
    crc.update(&at.to_le_bytes());
    crc.update(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.finalize().to_le_bytes());
    let file = bench.disk.open(&path(FIRST)).expect("it is there");
    file.write_all_at(&[IoSlice::new(&bytes), IoSlice::new(payload)], u64::from(at)).expect("memory writes");
    at + header.stored_len()
}

fn header(kind: Kind, stream: u32, first: u64) -> FrameHeader {
    let (records, bytes_before) = (u32::from(kind == Kind::Records), 100 * first);
    FrameHeader { kind, records, bytes_before, ingest_ms: 1_000, ..FrameHeader::sample(stream, first) }
}

/// Before: of a whole frame that names a stream beyond all that a log may have the start believed everything but the stream, and
/// the first round of housekeeping, which looks for its name, ended the process.
#[test]
fn a_frame_of_a_stream_that_no_log_can_have_is_no_frame() {
    let (bench, log, end) = killed();
    forged(&bench, log, end, header(Kind::Records, limits::STREAMS_MAX as u32, 0), &[7; 100], 1);
    let log = bench.open();
    log.housekeep();
    assert_eq!((log.stats().streams, log.damages(), log.synced()), (1, vec![], vec![]));
    assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..2, Some(2))]);
    assert_eq!(append(&log, "a", 3, 100, 1), 2..3);
}

/// It would not fit the table of streams.
#[test]
fn a_name_that_no_stream_may_have_is_none_and_its_records_are_served() {
    let (bench, log, end) = killed();
    let end = forged(&bench, log, end, header(Kind::Declaration, 1, 0), &[b'x'; limits::STREAM_NAME_BYTES_MAX + 1], 1);
    forged(&bench, log, end, header(Kind::Records, 1, 0), &[7; 100], 1);
    for _ in 0..2 {
        let log = bench.open();
        log.housekeep();
        let names: Vec<_> = log.streams().iter().map(|stream| stream.name.to_string()).collect();
        assert_eq!(names, ["a", "!nameless/1"]);
        assert_eq!((read(&log, "!nameless/1", 0), log.stats().housekeeping_errors), (vec![(0..1, Some(7))], 0));
    }
}

#[test]
fn a_frame_of_a_later_version_stops_the_start_and_the_look_of_an_operator_and_changes_nothing() {
    let (bench, log, end) = killed();
    forged(&bench, log, end, header(Kind::Records, 0, 2), &[7; 100], 2);
    let bytes = || read_all(&*bench.disk.open(&path(FIRST)).expect("it is there")).expect("memory reads");
    let before = bytes();
    let opened = bench.try_open().map(drop);
    let seen = inspect(&*bench.disk, Path::new(DIR), |_| std::ops::ControlFlow::Continue(())).map(drop);
    for refused in [opened, seen] {
        assert!(
            matches!(&refused, Err(OpenError::Newer { path: at, version: 2 }) if *at == path(FIRST)),
            "{refused:?}"
        );
    }
    assert!(bytes() == before);
}

/// As whoever mixes up two directories leaves it.
#[test]
fn an_index_of_another_log_says_nothing_of_a_segment_and_that_is_read_instead() {
    let [bench, other] = [Bench::new(), Bench::new()];
    // What it says of the end would cost a record.
    for (bench, stream, records) in [(&bench, "a", 3), (&other, "theirs", 2)] {
        let log = bench.open();
        (1..=records).for_each(|byte| _ = append(&log, stream, byte, 100, 1));
        log.close().expect("closed");
    }
    let index = "0000000000000000.idx";
    bench.disk.remove(&path(index)).expect("it is there");
    let theirs = read_all(&*other.disk.open(&path(index)).expect("it is there")).expect("memory reads");
    let file = bench.disk.create(&path(index)).expect("its name is free");
    file.write_all_at(&[IoSlice::new(&theirs)], 0).expect("memory writes");
    let log = bench.open();
    assert_eq!((log.damages(), log.stream("theirs")), (vec![], None));
    assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..2, Some(2)), (2..3, Some(3))]);
}

/// Nothing that may be somebody's is deleted, and nothing of it is believed.
#[test]
fn an_index_without_a_segment_that_is_not_what_its_name_says_is_kept_aside() {
    for theirs in [true, false] {
        let [bench, other] = [Bench::new(), Bench::new()];
        for (bench, stream) in [(&bench, "a"), (&other, "theirs")] {
            let log = bench.open();
            append(&log, stream, 1, 100, 1);
            log.close().expect("closed");
        }
        let [from, of] = if theirs { [&other, &bench] } else { [&bench, &bench] };
        // Another log's of this number, or ours of another one.
        let name = if theirs { "0000000000000000.idx" } else { "0000000000000007.idx" };
        let bytes =
            read_all(&*from.disk.open(&path("0000000000000000.idx")).expect("it is there")).expect("memory reads");
        if theirs {
            of.disk.remove(&path(FIRST)).expect("it is there");
        }
        files::write_whole(&*of.disk, &path(name), &bytes).expect("memory writes");
        let log = of.open();
        let told = log.damages();
        assert!(
            matches!(&told[..], [damage] if damage.what.ends_with("set aside") && damage.offsets.is_none()),
            "{told:?}"
        );
        assert_eq!(log.stream("theirs"), None);
        let aside = of.disk.open(&path(&format!("{name}.bad"))).expect("it was set aside");
        assert!(read_all(&*aside).expect("memory reads") == bytes);
        assert!(of.disk.open(&path(name)).is_err());
        if !theirs {
            assert_eq!(read(&log, "a", 0), [(0..1, Some(1))]);
        }
    }
}

/// Frames prove themselves: whose the file is does not matter to them.
#[test]
fn a_header_of_another_log_over_that_of_a_segment_is_damage_and_its_records_are_served() {
    let (bench, _, _) = killed();
    let (other, _, _) = killed();
    let mut theirs = [0; limits::SEGMENT_HEADER_BYTES as usize];
    read_exact_at(&*other.disk.open(&path(FIRST)).expect("it is there"), &mut theirs, 0).expect("memory reads");
    let file = bench.disk.open(&path(FIRST)).expect("it is there");
    file.write_all_at(&[IoSlice::new(&theirs)], 0).expect("memory writes");
    let log = bench.open();
    let told = log.damages();
    assert!(matches!(&told[..], [damage] if damage.positions == (0..limits::SEGMENT_HEADER_BYTES)), "{told:?}");
    assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..2, Some(2))]);
}

/// A sync of the directory that failed brings a segment's name back, to a file that is another segment's by now.
#[test]
fn a_name_that_came_back_to_a_recycled_file_is_nothing_and_what_is_left_of_its_frames_is_no_damage() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 4 << 10;
    let log = bench.open();
    (0..3).for_each(|byte| _ = append(&log, "a", byte, 1_000, 1));
    append(&log, "a", 3, 3_000, 1); // in the next one
    let mut bytes = read_all(&*bench.disk.open(&path(FIRST)).expect("it is there")).expect("memory reads");
    log.trim(log.stream("a").expect("known"), 3);
    log.housekeep();
    assert!(bench.disk.open(&path(FIRST)).is_err(), "it was reclaimed");
    drop(log);
    // The other one has its header and half of the first frame there.
    let next = read_all(&*bench.disk.open(&path("0000000000000001.seg")).expect("it is there")).expect("memory reads");
    bytes[..600].copy_from_slice(&next[..600]);
    let file = bench.disk.create(&path(FIRST)).expect("its name is free");
    file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory writes");
    let log = bench.open();
    assert_eq!((log.damages(), log.stats().segments), (vec![], 1));
    assert!(bench.disk.open(&path(FIRST)).is_err(), "it goes");
    assert_eq!(read(&log, "a", 3), [(3..4, Some(3))]);
}

/// What names its file is gone with its name, and that may come back: it must be empty by then.
#[test]
fn what_never_was_acknowledged_is_emptied_before_its_name_goes_also_where_it_landed_in_part() {
    // The last one takes the header and that of the first frame with it, and leaves the second one whole.
    for torn in [0..u64::from(limits::SEGMENT_HEADER_BYTES), 0..1, 200..201, 127..201, 127..130] {
        let bench = Bench::new();
        let log = bench.open();
        append(&log, "a", 1, 100, 1);
        drop(log);
        let file = bench.disk.open(&path(FIRST)).expect("it is there");
        let payload = u64::from(limits::SEGMENT_HEADER_BYTES + limits::FRAME_HEADER_BYTES);
        for at in [torn.start, torn.end - 1, payload] {
            file.write_all_at(&[IoSlice::new(&[0xff])], at).expect("memory writes");
        }
        let log = bench.open();
        assert_eq!((log.damages(), log.stats().segments), (vec![], 0), "{torn:?}");
        assert!(bench.disk.open(&path(FIRST)).is_err(), "{torn:?}: it goes");
        let left = read_all(&*file).expect("memory reads");
        let identity = frame::Identity::new(log.log_id(), Sequence(0));
        assert_eq!(recovery::headers(&identity, &left), [], "{torn:?}: what has lost its name");
    }
}
