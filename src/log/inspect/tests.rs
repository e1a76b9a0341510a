mod moving;

use super::*;
use crate::clock::ManualClock;
use crate::disk::mem::MemDisk;
use crate::disk::refusing::Refusing;
use crate::{Log, LogOptions, Payload};
use std::io::IoSlice;

const DIR: &str = "/log";

fn open(disk: &MemDisk) -> Log {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::at(1_000)));
    Log::open(disk, clock, Path::new(DIR), LogOptions::small()).unwrap()
}

/// Records of two streams, and the log that wrote them.
fn written(disk: &MemDisk) -> Log {
    let log = open(disk);
    for n in 0..4_u8 {
        for stream in ["a", "b"] {
            let parts = vec![Payload { bytes: vec![n; 40], records: 3 }];
            log.append_wait(stream, parts).unwrap();
        }
    }
    log
}

fn closed(disk: &MemDisk) {
    written(disk).close().unwrap();
}

fn look(disk: &MemDisk) -> Inspected {
    inspect(disk, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap()
}

/// The names of the files that end so.
fn files(disk: &MemDisk, end: &str) -> Vec<String> {
    disk.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name.ends_with(end)).collect()
}

fn flip(disk: &MemDisk, name: &str, position: u64) {
    let file = disk.open(&Path::new(DIR).join(name)).unwrap();
    let mut byte = [0];
    read_exact_at(&*file, &mut byte, position).unwrap();
    byte[0] ^= 0xff;
    file.write_all_at(&[IoSlice::new(&byte)], position).unwrap();
}

#[test]
fn a_sound_log_is_told_as_it_is_whether_it_was_closed_or_killed() {
    for close in [true, false] {
        let disk = MemDisk::new();
        let log = written(&disk);
        if close {
            log.close().unwrap();
        }
        let mut offsets = Vec::new();
        let seen = inspect(&disk, Path::new(DIR), |frame| {
            assert_eq!((frame.payload.len(), frame.ingest_ms), (40, 1_000));
            offsets.push((frame.name.to_owned(), frame.offsets.clone()));
            ControlFlow::Continue(())
        })
        .unwrap();
        let expected: Vec<_> =
            (0..4).flat_map(|n| ["a", "b"].map(|name| (name.to_owned(), 3 * n..3 * n + 3))).collect();
        assert_eq!(offsets, expected, "closed: {close}");
        let stream = |name: &str| SeenStream { name: name.to_owned(), offsets: 0..12, records: 12 };
        assert_eq!(seen.streams, [stream("a"), stream("b")], "closed: {close}");
        assert_eq!(seen.log_id, Some(log.log_id()));
        let spares = disk.list(Path::new(DIR)).unwrap().iter().filter(|name| name.starts_with("spare-")).count();
        assert!(spares > 0 && seen.spares == spares, "{} of {spares}", seen.spares);
        assert!(seen.flaws.is_empty() && seen.segments.iter().all(|segment| segment.damage.is_empty()));
    }
}

#[test]
fn every_flipped_byte_of_a_sealed_segment_is_found_and_its_records_are_named() {
    let sound = MemDisk::new();
    closed(&sound);
    let segment = files(&sound, ".seg").remove(0);
    let end = u64::from(look(&sound).segments[0].end);
    for position in 0..end {
        let disk = MemDisk::new();
        closed(&disk);
        flip(&disk, &segment, position);
        let seen = look(&disk);
        let damage = &seen.segments[0].damage;
        if position < u64::from(SEGMENT_HEADER_BYTES) {
            assert_eq!((seen.flaws.len(), damage.len()), (1, 0), "byte {position}");
            assert!(!seen.flaws[0].mended);
            continue;
        }
        let read: u64 = seen.streams.iter().map(|stream| stream.records).sum();
        let lost: u64 =
            damage.iter().filter_map(|damage| damage.offsets.clone()).map(|lost| lost.end - lost.start).sum();
        assert_eq!(read + lost, 24, "byte {position}: {damage:?}");
        assert!(
            damage.iter().all(|damage| damage.positions.contains(&(position as u32))),
            "byte {position}: {damage:?}"
        );
        // Between two frames lies nothing that could be lost.
        assert!(seen.flaws.is_empty() != damage.is_empty(), "byte {position}: {:?}, {damage:?}", seen.flaws);
    }
}

#[test]
fn what_a_torn_write_left_at_the_end_is_no_damage() {
    let disk = MemDisk::new();
    let log = written(&disk);
    drop(log);
    let segment = files(&disk, ".seg").remove(0);
    let end = u64::from(look(&disk).segments[0].end);
    flip(&disk, &segment, end - 1);
    let seen = look(&disk);
    assert!(seen.segments[0].damage.is_empty());
    assert_eq!(seen.streams[1].offsets, 0..9, "the last append was never whole");
}

#[test]
fn a_file_that_was_cut_or_is_gone_is_damage() {
    let disk = MemDisk::new();
    closed(&disk);
    let segment = files(&disk, ".seg").remove(0);
    let path = Path::new(DIR).join(&segment);
    disk.open(&path).unwrap().set_len(u64::from(SEGMENT_HEADER_BYTES)).unwrap();
    let seen = look(&disk);
    let lost: Vec<_> = seen.segments[0].damage.iter().map(|damage| damage.offsets.clone()).collect();
    assert!(lost.contains(&Some(9..12)) && lost.len() >= 8, "{lost:?}");
    disk.remove(&path).unwrap();
    let seen = look(&disk);
    assert_eq!((seen.flaws.len(), seen.flaws[0].mended), (1, false), "{:?}", seen.flaws);
}

#[test]
fn a_torn_index_or_table_is_mended_and_two_bad_tables_are_not() {
    let disk = MemDisk::new();
    closed(&disk);
    flip(&disk, &files(&disk, ".idx")[0], 20);
    flip(&disk, "streams.0", 20);
    let seen = look(&disk);
    assert_eq!(seen.flaws.iter().filter(|flaw| flaw.mended).count(), 2, "{:?}", seen.flaws);
    assert_eq!(seen.streams[0].records, 12);
    flip(&disk, "streams.1", 20);
    let seen = look(&disk);
    assert_eq!(seen.flaws.iter().filter(|flaw| !flaw.mended).count(), 2, "{:?}", seen.flaws);
    assert_eq!((seen.streams[0].name.as_str(), seen.streams[0].records), ("a", 12), "the segments know");
}

fn lose_tables(disk: &MemDisk) {
    let names = disk.list(Path::new(DIR)).unwrap();
    let tables: Vec<_> = names.iter().filter(|name| name.starts_with("streams.")).collect();
    assert!(!tables.is_empty());
    tables.into_iter().for_each(|table| disk.remove(&Path::new(DIR).join(table)).unwrap());
}

#[test]
fn without_a_table_a_segment_that_is_gone_is_lost_and_not_reclaimed() {
    let disk = MemDisk::new();
    let log = open(&disk);
    (0..8).for_each(|_| _ = log.append_wait("a", vec![Payload { bytes: vec![1; 20_000], records: 3 }]).unwrap());
    log.close().unwrap();
    drop(log);
    lose_tables(&disk);
    disk.remove(&Path::new(DIR).join(&files(&disk, ".seg")[0])).unwrap();
    let flaws = look(&disk).flaws;
    assert!(flaws.iter().any(|flaw| !flaw.mended && flaw.what.contains("its records are lost")), "{flaws:?}");
}

/// Before: at 0, where a sealed segment's index had told its end.
#[test]
fn without_a_table_a_stream_begins_where_its_first_frame_does() {
    let disk = MemDisk::new();
    let log = open(&disk);
    for _ in 0..8 {
        for stream in ["a", "b"] {
            log.append_wait(stream, vec![Payload { bytes: vec![1; 20_000], records: 3 }]).unwrap();
        }
    }
    log.streams().iter().for_each(|stream| log.trim(stream.id, 12));
    log.housekeep();
    drop(log);
    let begins = |disk: &MemDisk| look(disk).streams.iter().map(|stream| stream.offsets.start).collect::<Vec<_>>();
    let kept = begins(&disk);
    assert!(kept.iter().all(|first| *first > 0), "{kept:?}: some of it was reclaimed");
    lose_tables(&disk);
    assert_eq!(begins(&disk), kept);
}

#[test]
fn reading_stops_when_told() {
    let disk = MemDisk::new();
    closed(&disk);
    let mut frames = 0;
    let stop = |_: &SeenFrame<'_>| {
        frames += 1;
        ControlFlow::Break(())
    };
    inspect(&disk, Path::new(DIR), stop).unwrap();
    assert_eq!(frames, 1);
}

#[test]
fn where_the_disk_gives_nothing_there_are_zeros_and_the_rest_is_read() {
    let disk = MemDisk::new();
    let file = disk.create(Path::new("/file")).unwrap();
    let block = SALVAGE_BYTES as u64;
    file.write_all_at(&[IoSlice::new(&vec![7; 3 * SALVAGE_BYTES - 1])], 0).unwrap();
    let bad = Refusing::at(file, block + 5..block + 6);
    assert!(read_all(&bad).is_err());
    let bytes = salvage(&bad).unwrap();
    assert_eq!(bytes.len(), 3 * SALVAGE_BYTES - 1);
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, if at / SALVAGE_BYTES == 1 { 0 } else { 7 }, "byte {at}");
    }
}

#[test]
fn an_index_that_outlived_its_reclaimed_segment_is_no_loss() {
    let disk = MemDisk::new();
    let log = open(&disk);
    (0..8).for_each(|_| _ = log.append_wait("a", vec![Payload { bytes: vec![1; 20_000], records: 3 }]).unwrap());
    log.housekeep();
    let index = files(&disk, ".idx").remove(0);
    let path = Path::new(DIR).join(&index);
    let bytes = read_all(&*disk.open(&path).unwrap()).unwrap();
    log.trim(log.stream("a").unwrap(), 9); // three frames are a segment: all of the first, and no more
    log.housekeep();
    assert!(disk.open(&path).is_err());
    log.close().unwrap();
    disk.create(&path).unwrap().write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
    let what = "the segment of this index was reclaimed";
    assert_eq!(look(&disk).flaws, [Flaw { file: index, what, mended: true }]);
}

#[test]
fn a_segment_of_zeros_holds_nothing_and_says_nothing() {
    let disk = MemDisk::new();
    closed(&disk);
    disk.create(&Path::new(DIR).join("00000000000000ff.seg")).unwrap().set_len(4096).unwrap();
    let seen = look(&disk);
    let last = seen.segments.last().unwrap();
    assert_eq!((last.file_bytes, last.end, last.frames, last.damage.len()), (4096, SEGMENT_HEADER_BYTES, 0, 0));
    assert_eq!(seen.flaws, []);
}

#[test]
fn what_was_not_finished_is_no_loss_and_what_is_not_ours_is_named() {
    let disk = MemDisk::new();
    closed(&disk);
    for name in ["00000000000000aa.new", "notes.txt"] {
        disk.create(&Path::new(DIR).join(name)).unwrap();
    }
    let seen = look(&disk);
    let what = "a compact segment that was not finished; nobody needs it";
    assert_eq!(seen.flaws, [Flaw { file: "00000000000000aa.new".into(), what, mended: true }]);
    assert_eq!(seen.strangers, ["notes.txt"]);
}

#[test]
fn a_file_of_a_later_version_is_named_and_not_taken_for_damage() {
    for (name, crc_at, later) in [("0000000000000000.seg", 124, 2), ("streams.0", 60, 3)] {
        let disk = MemDisk::new();
        closed(&disk);
        let file = disk.open(&Path::new(DIR).join(name)).unwrap();
        let mut head = vec![0; crc_at];
        read_exact_at(&*file, &mut head, 0).unwrap();
        head[8] = later;
        head.extend(crc32fast::hash(&head).to_le_bytes());
        file.write_all_at(&[IoSlice::new(&head)], 0).unwrap();
        let refused = inspect(&disk, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap_err();
        let named = matches!(&refused, OpenError::Newer { path, version } if path.ends_with(name) && *version == u32::from(later));
        assert!(named, "{refused}");
    }
}

/// A log of two segments of the main class with one of ours between them, of which none is sealed.
fn unsealed() -> MemDisk {
    let disk = MemDisk::new();
    let log = open(&disk);
    for stream in ["a", "!ours", "a", "a", "a"] {
        log.append_wait(stream, vec![Payload { bytes: vec![1; 20_000], records: 3 }]).unwrap();
    }
    drop(log);
    files(&disk, ".idx").iter().for_each(|index| disk.remove(&Path::new(DIR).join(index)).unwrap());
    disk
}

#[test]
fn a_segment_without_an_index_ends_where_the_next_one_of_its_class_says_so_what_is_torn_there_is_damage() {
    let disk = unsealed();
    let seen = look(&disk);
    let told: Vec<_> =
        seen.segments.iter().map(|segment| (segment.sequence.0, segment.sealed, segment.frames)).collect();
    assert_eq!(told, [(0, false, 4), (1, false, 2), (2, false, 1)], "with the names of the streams");
    flip(&disk, "0000000000000000.seg", u64::from(seen.segments[0].end) - 8);
    let damage = look(&disk).segments.remove(0).damage;
    assert_eq!(damage.iter().map(|damage| damage.offsets.clone()).collect::<Vec<_>>(), [Some(6..9)]);
}

#[test]
fn a_segment_that_the_writer_passed_over_holds_nothing_whatever_lies_there() {
    let disk = unsealed();
    let bytes = read_all(&*disk.open(&Path::new(DIR).join("0000000000000001.sys")).unwrap()).unwrap();
    let passed_over = disk.create(&Path::new(DIR).join("0000000000000001.seg")).unwrap();
    passed_over.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
    let seen = look(&disk);
    let told: Vec<_> = seen.segments.iter().map(|segment| (segment.class, segment.frames)).collect();
    assert_eq!(told, [(Class::Main, 4), (Class::Main, 0), (Class::System, 2), (Class::Main, 1)]);
    assert!(seen.flaws.is_empty() && seen.segments.iter().all(|segment| segment.damage.is_empty()));
}
