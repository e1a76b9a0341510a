//! The log over damaged files: it opens, serves all else unaltered, and says what is lost.

use forebay::{Damage, LogOptions, OpenError, SyncedMark};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use storage_tests::crash_points::number;
use storage_tests::model::log::Missing;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, tiny, tiny_steps};

/// Two sealed segments of records, one of ours, and an unsealed one with several commits, not closed: about 16 KiB.
fn victim(options: LogOptions) -> Session {
    let mut session = Session::new(1, options);
    assert_eq!(session.open(), Ok(true));
    for i in 0..4 {
        put(&mut session, "a", &[(900 + i, 3)]);
        put(&mut session, "b", &[(300, 1), (500 + i, 2)]);
    }
    put(&mut session, "!dead/x", &[(200, 1)]);
    put(&mut session, "!dead/x", &[(200, 1)]);
    for _ in 0..3 {
        put(&mut session, "a", &[(100, 2)]);
        put(&mut session, "!plans", &[(40, 1)]);
    }
    session.options.synced = session.log().synced();
    session.end(End::Cut(PowerCut::NothingUnsynced));
    session
}

fn put(session: &mut Session, stream: &str, parts: &[(usize, u32)]) {
    session.append(stream, parts).expect("right offsets").expect("taken");
}

fn files(session: &Session, part: &str) -> Vec<PathBuf> {
    let mut paths = session.disk.paths();
    paths.retain(|path| path.to_string_lossy().contains(part));
    paths.sort();
    paths
}

fn live(session: &Session, path: &Path) -> Vec<u8> {
    session.disk.read_live(path).expect("there")
}

/// Opens the damaged log. What it serves is unaltered; what is missing, and what it says of it.
fn look(session: &mut Session, case: &str) -> (Missing, Vec<Damage>) {
    let seen = catch_unwind(AssertUnwindSafe(|| {
        session.try_open().map(|_| ()).map_err(|e| e.to_string())?;
        let missing = session.model.missing(session.log())?;
        Ok::<_, String>((missing, session.log().damages()))
    }));
    match seen {
        Ok(Ok(seen)) => seen,
        Ok(Err(e)) => panic!("{case}: {e}"),
        Err(_) => panic!("{case}: a panic, see above"),
    }
}

/// The log goes on over its damage: new appends get offsets of their own, and the next start says the same.
fn goes_on(session: &mut Session, before: &Missing, case: &str) {
    for stream in ["a", "b", "!plans", "!dead/x"] {
        let log = session.log();
        log.raise_next(stream, session.model.next(stream)); // as the queues do with their cursors
        let appended = log.append_wait(stream, vec![forebay::Payload { bytes: vec![7; 30], records: 2 }]);
        let appended = appended.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(appended.offsets.start, session.model.next(stream), "{case}: an offset given twice");
    }
    session.log().housekeep();
    session.end(End::Cut(PowerCut::NothingUnsynced));
    session.try_open().unwrap_or_else(|e| panic!("{case}, once more: {e}"));
    for (stream, offsets) in &before.told {
        let seen = storage_tests::reading::read(session.log(), stream).unwrap_or_else(|e| panic!("{case}: {e}"));
        let still =
            seen.iter().any(|s| s.frame.is_none() && s.offsets.start <= offsets.start && s.offsets.end >= offsets.end);
        assert!(still, "{case}: {stream} {offsets:?} are not called lost any more: {seen:?}");
    }
}

fn records(missing: &Missing) -> u64 {
    missing.told.iter().chain(&missing.untold).map(|(_, offsets)| offsets.end - offsets.start).sum()
}

/// By default every fifth bit of the segments, all with `FOREBAY_CUTS` above 2; of the other files always all.
#[test]
fn every_bit_of_every_file_may_flip_and_nothing_altered_is_served() {
    let victim = victim(tiny());
    let (mut bits, mut lost) = (0, 0);
    for path in files(&victim, "/log/").iter().filter(|path| !path.ends_with("LOCK")) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let bytes = live(&victim, path);
        // Behind the last frame there is nothing to damage: a sample of it.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let segment = name.ends_with(".seg") || name.ends_with(".sys");
        let step = if segment && number("FOREBAY_CUTS", 2) <= 2 { 5 } else { 1 };
        for bit in (0..used as u64 * 8).step_by(step).chain((used as u64 * 8..bytes.len() as u64 * 8).step_by(509)) {
            let case = format!("bit {bit} of {name}");
            let mut session = victim.fork(bit);
            session.disk.flip_bit(path, bit);
            let (missing, damages) = look(&mut session, &case);
            bits += 1;
            if !segment {
                assert_eq!(missing, Missing::default(), "{case}: everything can be made again");
                continue;
            }
            // With the mark from the floor even the last frame's damage is told from a torn tail.
            assert!(records(&missing) <= 5, "{case}: one frame's damage costs one append at most: {missing:?}");
            if missing != Missing::default() {
                lost += 1;
                assert!(!damages.is_empty(), "{case}: {missing:?} without a word");
            }
            if bit % 97 == 0 {
                goes_on(&mut session, &missing, &case);
            }
        }
    }
    println!("{bits} bits, {lost} cost records");
    assert!(bits > 20_000 && lost > 10_000, "{bits} bits, {lost} cost records");
}

#[test]
fn the_last_frames_damage_is_told_from_a_torn_tail_by_the_floors_mark() {
    for marked in [false, true] {
        let victim = victim(tiny());
        let last = files(&victim, ".seg").pop().expect("segments");
        let mark: Vec<SyncedMark> = victim.options.synced.clone();
        let end = mark.iter().map(|mark| mark.position).min().expect("marks");
        let end = if live(&victim, &last).len() > end as usize { mark[0].position } else { end };
        let mut session = victim.fork(1);
        session.disk.flip_bit(&last, u64::from(end - 20) * 8);
        if !marked {
            session.options.synced.clear();
        }
        let (missing, damages) = look(&mut session, "last frame");
        assert_eq!(records(&missing), 1, "{missing:?}");
        assert_eq!(damages.is_empty(), !marked, "{damages:?}");
        goes_on(&mut session, &missing, "last frame");
    }
}

#[test]
fn a_zeroed_page_or_one_of_other_bytes_costs_what_lay_there() {
    let victim = victim(LogOptions { segment_bytes: 16 << 10, ..tiny() });
    for path in files(&victim, "0.s") {
        let bytes = live(&victim, &path);
        for at in (0..bytes.len()).step_by(512) {
            for fill in [0x00, 0xff, 0xa5] {
                let case = format!("{} {at} {fill:x}", path.display());
                let mut session = victim.fork(at as u64);
                let mut broken = bytes.clone();
                let end = broken.len().min(at + 4096);
                broken[at..end].fill(fill);
                session.disk.overwrite(&path, &broken);
                let (missing, damages) = look(&mut session, &case);
                assert!(missing == Missing::default() || !damages.is_empty(), "{case}: {missing:?} without a word");
                goes_on(&mut session, &missing, &case);
            }
        }
    }
}

#[test]
fn a_truncated_segment_is_noticed_and_the_rest_is_served() {
    let victim = victim(tiny());
    for path in files(&victim, ".seg").into_iter().chain(files(&victim, ".sys")) {
        let bytes = live(&victim, &path);
        for len in (0..bytes.len()).step_by(61) {
            let case = format!("{} cut to {len}", path.display());
            let mut session = victim.fork(len as u64);
            session.disk.overwrite(&path, &bytes[..len]);
            let (missing, damages) = look(&mut session, &case);
            assert!(missing == Missing::default() || !damages.is_empty(), "{case}: {missing:?} without a word");
            goes_on(&mut session, &missing, &case);
        }
    }
}

#[test]
fn a_missing_file_of_any_kind_costs_its_own_records_at_most() {
    let victim = victim(tiny());
    for path in files(&victim, "/log/").iter().filter(|path| !path.ends_with("LOCK")) {
        let case = format!("without {}", path.display());
        let mut session = victim.fork(1);
        session.disk.erase(path);
        let (missing, _) = look(&mut session, &case);
        let name = path.to_string_lossy();
        let segment = name.ends_with(".seg") || name.ends_with(".sys");
        assert!(segment || missing == Missing::default(), "{case}: {missing:?}");
        goes_on(&mut session, &missing, &case);
    }
    let mut session = victim.fork(1);
    files(&victim, "streams").iter().for_each(|path| session.disk.erase(path));
    assert_eq!(look(&mut session, "without tables").0, Missing::default());
}

#[test]
fn files_of_nothing_of_ones_and_of_strangers_are_no_reason_not_to_start() {
    let victim = victim(tiny());
    let foreign = {
        let mut other = Session::new(99, tiny());
        assert_eq!(other.open(), Ok(true));
        (0..6).for_each(|_| put(&mut other, "theirs", &[(1500, 4)]));
        other.end(End::Kill);
        other
    };
    let copies = [("0000000000000009.seg", "0000000000000000.seg"), ("0000000000000000.sys", "0000000000000000.seg")];
    for (copy, of) in copies {
        let mut session = victim.fork(1);
        session.disk.overwrite(&Path::new("/log").join(copy), &live(&victim, &Path::new("/log").join(of)));
        assert_eq!(look(&mut session, copy).0, Missing::default(), "a copy of {of} as {copy}");
        goes_on(&mut session, &Missing::default(), copy);
    }
    for name in
        ["0000000000000009.seg", "0000000000000009.sys", "0000000000000009.idx", "spare-77", "x", "a.b", "1.seg"]
    {
        for bytes in [vec![], vec![0; 4096], vec![0xff; 4096], vec![0xff; 300]] {
            let mut session = victim.fork(1);
            session.disk.overwrite(&Path::new("/log").join(name), &bytes);
            let (missing, damages) = look(&mut session, name);
            assert_eq!((missing, damages), (Missing::default(), vec![]), "{name}");
            goes_on(&mut session, &Missing::default(), name);
        }
    }
    for path in files(&foreign, "00") {
        let name = path.file_name().expect("a file");
        for target in [name.to_string_lossy().into_owned(), name.to_string_lossy().replacen('0', "f", 1)] {
            let target = Path::new("/log").join(target);
            if victim.disk.read_live(&target).is_some() {
                continue;
            }
            let mut session = victim.fork(1);
            session.disk.overwrite(&target, &live(&foreign, &path));
            let (missing, _) = look(&mut session, "foreign");
            assert_eq!(missing, Missing::default(), "{}", target.display());
            assert!(session.log().stream("theirs").is_none());
            let kept = session
                .disk
                .paths()
                .iter()
                .any(|kept| session.disk.read_live(kept).as_deref() == Some(&live(&foreign, &path)[..]));
            assert!(kept, "{}: what is not ours is not deleted", target.display());
        }
    }
}

#[test]
fn damage_to_all_that_names_the_log_deletes_nothing() {
    let victim = victim(tiny());
    let mut session = victim.fork(2); // another seed: the log that is made must not get the same id
    let mut whole = Vec::new();
    for path in files(&victim, "/log/").iter().filter(|path| !path.ends_with("LOCK")) {
        let mut bytes = live(&victim, path);
        if bytes.len() > 200 && path.to_string_lossy().contains("00.s") {
            whole.push(bytes[200..].to_vec());
        }
        bytes.iter_mut().take(100).for_each(|byte| *byte ^= 0xff);
        session.disk.overwrite(path, &bytes);
    }
    session.try_open().expect("opens over any damage");
    for bytes in whole {
        let kept =
            session.disk.paths().iter().any(|path| {
                session.disk.read_live(path).is_some_and(|live| live.len() > 200 && live[200..] == bytes[..])
            });
        assert!(kept, "records that nobody can read now may be read by somebody later");
    }
}

#[test]
fn a_version_from_the_future_is_refused_as_such_and_touched_by_nobody() {
    let victim = victim(tiny());
    let unsealed = files(&victim, ".seg").pop().expect("segments");
    for (path, at, covered) in [(unsealed, 8, 124), ("/log/streams.0".into(), 8, 60), ("/log/streams.1".into(), 8, 60)]
    {
        let mut bytes = live(&victim, &path);
        bytes[at] = 99;
        let crc = crc(&bytes[..covered]);
        bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
        let mut session = victim.fork(1);
        session.disk.overwrite(&path, &bytes);
        let before = session.disk.ops();
        let refused = session.try_open().map(|_| ());
        assert!(matches!(refused, Err(OpenError::Newer { version: 99, .. })), "{}: {refused:?}", path.display());
        assert_eq!(live(&session, &path), bytes);
        assert!(session.disk.ops() <= before + 1, "nothing but the directory was asked for");
    }
}

/// CRC-32, bit by bit: a second opinion on what the log writes.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_quiet_stream_goes_on_where_it_was_after_its_frames_are_gone_and_the_power_too() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    put(&mut session, "quiet", &[(100, 7)]);
    (0..12).for_each(|_| put(&mut session, "a", &[(1500, 2)]));
    session.trim("quiet", 0);
    session.trim("a", 0);
    (0..3).for_each(|_| session.log().housekeep());
    assert_eq!(session.log().first_kept(session.log().stream("quiet").expect("known")), 7);
    session.end(End::Cut(PowerCut::NothingUnsynced));
    assert_eq!(session.open(), Ok(true));
    put(&mut session, "quiet", &[(50, 1)]); // the model knows that its offset is 7
    session.goes_on().expect("as promised");
    // And with either copy of the table gone: the other one, or the one made since, knows it too.
    for path in files(&session, "streams") {
        let mut fork = session.fork(1);
        fork.end(End::Kill);
        fork.disk.overwrite(&path, &[0; 64]);
        assert_eq!(fork.open(), Ok(true), "without {}", path.display());
    }
}

#[test]
fn last_frames_damaged_with_the_cursor_at_the_tail_give_no_offset_twice() {
    for trashed in 1..4 {
        let mut session = Session::new(trashed, tiny());
        assert_eq!(session.open(), Ok(true));
        (0..4).for_each(|_| put(&mut session, "a", &[(200, 5)]));
        session.end(End::Cut(PowerCut::NothingUnsynced));
        // No mark, no table that knows: the frames are cut like a torn tail. Only the cursor has seen them.
        let path = files(&session, ".seg").pop().expect("a segment");
        let mut bytes = live(&session, &path);
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("frames");
        let from = used - 250 * trashed as usize;
        bytes[from..].fill(0xee);
        session.disk.overwrite(&path, &bytes);
        session.try_open().expect("opens");
        let log = session.log();
        let a = log.stream("a").expect("known");
        assert!(log.durable(a).offset < 20);
        log.raise_next("a", 20);
        assert_eq!(log.durable(a).offset, 20);
        let appended = log.append_wait("a", vec![forebay::Payload { bytes: vec![1; 10], records: 1 }]).expect("taken");
        assert_eq!(appended.offsets, 20..21);
        session.end(End::Cut(PowerCut::NothingUnsynced));
        session.try_open().expect("opens");
        let seen = storage_tests::reading::read(session.log(), "a").expect("readable");
        assert_eq!(seen.last().map(|last| last.offsets.clone()), Some(20..21));
        let gap = &seen[seen.len() - 2];
        assert!(gap.frame.is_none() && gap.offsets.end == 20, "the gap is told: {gap:?}");
    }
}

/// Where each record frame of the unsealed segments lies: its file, its position, its stream's number and offsets.
fn frames(session: &Session) -> Vec<(PathBuf, u32, u32, u64)> {
    let mut found = Vec::new();
    forebay::inspect(&session.disk, Path::new("/log"), |seen| {
        let path = Path::new("/log").join(format!("{:016x}.seg", seen.segment.0));
        found.push((path, seen.position, seen.stream.0, seen.offsets.end));
        std::ops::ControlFlow::Continue(())
    })
    .expect("readable");
    found
}

#[test]
fn damage_before_the_last_commit_is_told_by_the_frames_alone() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    (0..6).for_each(|_| put(&mut session, "a", &[(200, 2)]));
    session.end(End::Cut(PowerCut::NothingUnsynced));
    for (path, at, _, end) in frames(&session).into_iter().take(5) {
        for byte in [20, 100] {
            let mut fork = session.fork(1);
            fork.disk.flip_bit(&path, u64::from(at + byte) * 8);
            let (missing, damages) = look(&mut fork, "no mark, no successor");
            assert_eq!(missing, Missing { told: vec![("a".into(), end - 2..end)], untold: vec![] });
            assert_eq!(damages.len(), 1, "{damages:?}");
        }
    }
}

#[test]
fn the_offsets_of_a_streams_damaged_last_frame_are_not_given_again() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    put(&mut session, "a", &[(200, 2)]);
    put(&mut session, "b", &[(200, 3)]);
    put(&mut session, "b", &[(200, 4)]);
    (0..2).for_each(|_| put(&mut session, "a", &[(200, 2)]));
    session.end(End::Cut(PowerCut::NothingUnsynced));
    let last = frames(&session).into_iter().find(|(_, _, _, end)| *end == 7).expect("the last of b");
    session.disk.flip_bit(&last.0, u64::from(last.1 + 100) * 8);
    // Twice: what the first start found out must not be forgotten when the power fails before it does anything else.
    for _ in 0..2 {
        session.try_open().expect("opens");
        let b = session.log().stream("b").expect("known");
        assert_eq!(session.log().durable(b).offset, 7);
        session.end(End::Cut(PowerCut::NothingUnsynced));
    }
    session.try_open().expect("opens");
    session.log().housekeep();
    session.end(End::Cut(PowerCut::NothingUnsynced));
    session.try_open().expect("opens");
    let (missing, _) = look(&mut session, "b's last frame");
    assert_eq!(missing.told, [("b".into(), 3..7)]);
}

/// A sealed segment with four records of "a" of 880 bytes each, all of one large append or each of its own, whose index is damaged and
/// whose successor is gone: nobody says any more where it ends. `quiet`: a segment of ours is written to since before it, which no table
/// covers, nor any behind it.
fn alone(large: bool, quiet: bool) -> Session {
    let mut session = Session::new(1, if large { tiny_steps() } else { tiny() });
    assert_eq!(session.open(), Ok(true));
    if quiet {
        put(&mut session, "!dead/x", &[(10, 1)]);
    }
    put(&mut session, "a", &[(3_700, 1)]);
    [(880, 1); 4].chunks(if large { 4 } else { 1 }).for_each(|parts| put(&mut session, "a", parts));
    (0..4).for_each(|_| put(&mut session, "b", &[(3_700, 1)]));
    session.trim("b", 0);
    (0..3).for_each(|_| session.log().housekeep());
    session.end(End::Kill);
    session.disk.overwrite(format!("/log/{:016x}.idx", 1 + u8::from(quiet)).as_ref(), b"damaged");
    session
}

/// Before: the frames of a large append say that nothing before them was synced, so one broken byte among them voided all of it, and
/// its file went; of other segments the last commit was cut. Nobody was told.
#[test]
fn a_rotten_frame_of_a_sealed_segment_costs_that_frame_where_nobody_says_where_it_ends() {
    for (large, quiet) in [(true, false), (false, false), (true, true), (false, true)] {
        let victim = alone(large, quiet);
        let segment = format!("/log/{:016x}.seg", 1 + u8::from(quiet));
        let segment = Path::new(&segment);
        for (n, byte) in [(0, 60), (1, 60), (2, 60), (3, 60), (0, 8), (1, 8), (2, 8)] {
            let case = format!("large {large}, quiet {quiet}, frame {n}, byte {byte}");
            let mut session = victim.fork(n);
            session.disk.flip_bit(segment, (128 + n * 936 + byte) * 8);
            let (missing, damages) = look(&mut session, &case);
            assert_eq!((records(&missing), damages.len()), (1, 1), "{case}: {missing:?}, told {damages:?}");
            goes_on(&mut session, &missing, &case);
        }
        let (missing, damages) = look(&mut victim.fork(9), "as it was");
        assert_eq!((missing, damages), (Missing::default(), Vec::new()));
    }
}

/// Before: of one that was compacted and not sealed yet the last frame went with a bit of the header, where it was in the midst of
/// its append.
#[test]
fn a_bit_of_a_compact_segments_header_costs_no_frame() {
    let mut victim = Session::new(1, tiny());
    assert_eq!(victim.open(), Ok(true));
    for _ in 0..8 {
        put(&mut victim, "slow", &[(120, 1), (130, 1), (140, 1)]);
        put(&mut victim, "fast", &[(3_000, 1)]);
    }
    (0..2).for_each(|_| victim.log().housekeep());
    victim.trim("fast", 0);
    victim.log().housekeep();
    assert!(victim.log().stats().segments_compacted > 0);
    victim.end(End::Kill);
    let compact = files(&victim, "-0").pop().expect("it is compact");
    for bit in 0..128 * 8 {
        let mut session = victim.fork(bit);
        session.disk.flip_bit(&compact, bit);
        let (missing, damages) = look(&mut session, &format!("bit {bit}"));
        assert_eq!((missing, damages.len()), (Missing::default(), 1), "bit {bit}: {damages:?}");
        assert_eq!(damages[0].what, "the segment's header is damaged");
    }
}
