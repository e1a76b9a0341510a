use super::*;
use crate::clock::ManualClock;
use crate::disk::mem::MemDisk;
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
        // Padding between two frames has no checksum and holds nothing.
        let read: u64 = seen.streams.iter().map(|stream| stream.records).sum();
        let lost: u64 =
            damage.iter().filter_map(|damage| damage.offsets.clone()).map(|lost| lost.end - lost.start).sum();
        assert_eq!(read + lost, 24, "byte {position}: {damage:?}");
        assert!(
            damage.iter().all(|damage| damage.positions.contains(&(position as u32))),
            "byte {position}: {damage:?}"
        );
        assert!(seen.flaws.is_empty(), "byte {position}");
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

/// A file with a byte that can't be read.
struct BadFile {
    file: Arc<dyn File>,
    bad: u64,
}

impl File for BadFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let touched = position..position + buf.len() as u64;
        if touched.contains(&self.bad) { Err(io::ErrorKind::Other.into()) } else { self.file.read_at(buf, position) }
    }

    fn write_all_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        unreachable!("inspecting writes nothing")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("inspecting syncs nothing")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("inspecting takes no room")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("inspecting cuts nothing")
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[test]
fn where_the_disk_gives_nothing_there_are_zeros_and_the_rest_is_read() {
    let disk = MemDisk::new();
    let file = disk.create(Path::new("/file")).unwrap();
    let block = SALVAGE_BYTES as u64;
    file.write_all_at(&[IoSlice::new(&vec![7; 3 * SALVAGE_BYTES - 1])], 0).unwrap();
    let bad = BadFile { file, bad: block + 5 };
    assert!(read_all(&bad).is_err());
    let bytes = salvage(&bad).unwrap();
    assert_eq!(bytes.len(), 3 * SALVAGE_BYTES - 1);
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, if at / SALVAGE_BYTES == 1 { 0 } else { 7 }, "byte {at}");
    }
}
