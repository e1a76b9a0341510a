//! The files on a disk whose calls fail when told to, and what is found after a restart at any byte.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use forebay::disk::read_all;
use forebay::{Cursor, LogId, StreamId};
use proptest::prelude::*;

use super::*;
use crate::delivery::sink::Origin;
use crate::sinks::file::faulty::Faulty;

mod damage;
mod repeats;

const DIR: &str = "out";
const NOW: u64 = 1_700_000_000_000;

// --- the stage ------------------------------------------------------------------------------------------------------

fn open_with(disk: &Faulty, rotate_bytes: u64) -> Writer {
    let config = FileConfig { rotate_bytes, rotate_age: Duration::from_secs(60), ..FileConfig::new(DIR) };
    Writer::open(Arc::new(disk.clone()), "d", config, &Unsettled::default(), &mut 0).unwrap()
}

/// As a process finds it whose queue has settled all before this offset, and nothing behind.
fn open_after(disk: &Faulty, low: u64, rotate_bytes: u64) -> Writer {
    let mut unsettled = Unsettled::default();
    let records = Origin { log: LogId(77), stream: StreamId(3), offsets: 0..u64::MAX };
    unsettled.add(&records, Cursor::at(low, 0), false);
    let config = FileConfig { rotate_bytes, ..FileConfig::new(DIR) };
    Writer::open(Arc::new(disk.clone()), "d", config, &unsettled, &mut 0).unwrap()
}

fn open(disk: &Faulty) -> Writer {
    open_with(disk, 1 << 20)
}

fn line(offset: u64) -> String {
    format!("{{\"id\":\"{}-3-{offset}\",\"key\":\"user-{offset}\"}}\n", LogId(77))
}

fn batch(offsets: Range<u64>) -> Encoded {
    let body: String = offsets.clone().map(line).collect();
    Encoded {
        sent: Arc::new([offsets.clone()]),
        origin: Origin { log: LogId(77), stream: StreamId(3), offsets },
        rejected: Vec::new(),
        body: Bytes::from(body),
        subjects: Arc::default(),
    }
}

/// Every file's text, by name.
fn files(disk: &Faulty) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for name in disk.list(DIR.as_ref()).unwrap() {
        let file = disk.inner.open(&Path::new(DIR).join(&name)).unwrap();
        files.insert(name, String::from_utf8(read_all(&*file).unwrap()).unwrap());
    }
    files
}

/// All lines of all files, oldest file first.
fn text(disk: &Faulty) -> String {
    files(disk).into_values().collect()
}

fn lines(offsets: Range<u64>) -> String {
    offsets.map(line).collect()
}

// --- the claims -----------------------------------------------------------------------------------------------------

#[test]
fn lines_are_appended_to_the_open_file() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    writer.append(&batch(3..5), NOW + 1).unwrap();
    let expected = BTreeMap::from([(format!("d-{NOW}-000000.jsonl.open"), lines(0..5))]);
    assert_eq!(files(&disk), expected);
}

#[test]
fn a_full_or_old_file_is_ended_and_a_new_one_opened() {
    let disk = Faulty::default();
    let two_lines = lines(0..2).len() as u64;
    let mut writer = open_with(&disk, two_lines);
    writer.append(&batch(0..2), NOW).unwrap();
    writer.append(&batch(2..3), NOW).unwrap();
    writer.append(&batch(3..4), NOW + 61_000).unwrap();
    // The clock was ahead, and is set right.
    writer.append(&batch(4..5), NOW + 60_000).unwrap();
    let names: Vec<_> = files(&disk).into_keys().collect();
    let told = [(0, 0, ""), (0, 1, ""), (60_000, 3, ".open"), (61_000, 2, "")];
    let told = told.map(|(after, n, end)| format!("d-{}-{n:06}.jsonl{end}", NOW + after));
    assert_eq!(names, told);
    let all: BTreeSet<String> = text(&disk).lines().map(str::to_owned).collect();
    assert_eq!(all, lines(0..5).lines().map(str::to_owned).collect());
}

#[test]
fn a_batch_larger_than_a_file_gets_a_file_of_its_own() {
    let disk = Faulty::default();
    let mut writer = open_with(&disk, 10);
    writer.append(&batch(0..100), NOW).unwrap();
    writer.append(&batch(100..200), NOW).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (2, lines(0..200)));
}

#[test]
fn a_restart_goes_on_with_the_open_file() {
    let disk = Faulty::default();
    open(&disk).append(&batch(0..3), NOW).unwrap();
    open(&disk).append(&batch(3..5), NOW + 1).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (1, lines(0..5)));
}

proptest! {
    /// A crash at any byte of a write, then the same batches again with the same or other boundaries, in any order.
    #[test]
    fn after_a_crash_at_any_byte_each_record_stands_in_the_files_once(
        keep in 0usize..1000,
        cuts in proptest::collection::btree_set(1u64..20, 0..4),
        rotate_bytes in prop_oneof![Just(100u64), Just(300), Just(1 << 20)],
        backwards: bool,
    ) {
        let disk = Faulty::default();
        let mut writer = open_with(&disk, rotate_bytes);
        // 0..10 were settled; 10..20 are written, but the crash comes first, and tears the newest file.
        writer.append(&batch(0..10), NOW).unwrap();
        writer.append(&batch(10..15), NOW).unwrap();
        writer.append(&batch(15..20), NOW).unwrap();
        let newest = disk.list(DIR.as_ref()).unwrap().into_iter().find(|name| name.ends_with(".open")).unwrap();
        let file = disk.inner.open(&Path::new(DIR).join(newest)).unwrap();
        let settled = if rotate_bytes > 1000 { lines(0..10).len() as u64 } else { 0 };
        file.set_len(file.len().unwrap().min(settled + keep as u64)).unwrap();

        let mut writer = open_with(&disk, rotate_bytes);
        let mut bounds: Vec<u64> = cuts.into_iter().filter(|cut| *cut > 10).collect();
        bounds.insert(0, 10);
        bounds.push(20);
        let mut ranges: Vec<_> = bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
        if backwards {
            ranges.reverse();
        }
        for range in ranges {
            writer.append(&batch(range), NOW).unwrap();
        }
        let text = text(&disk);
        let mut found: Vec<&str> = text.lines().collect();
        let all = lines(0..20);
        let mut expected: Vec<&str> = all.lines().collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn blocks_that_never_reached_the_disk_are_cut_off() {
    let disk = Faulty::default();
    open(&disk).append(&batch(0..3), NOW).unwrap();
    let name = disk.list(DIR.as_ref()).unwrap().remove(0);
    let file = disk.inner.open(&Path::new(DIR).join(name)).unwrap();
    let torn = [line(3).as_bytes(), &[0; 4096], b"\"}\n{\"id\":"].concat();
    file.write_all_at(&[IoSlice::new(&torn[5..])], file.len().unwrap()).unwrap();
    open(&disk).append(&batch(3..5), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..5));
}

#[test]
fn a_broken_line_in_the_middle_costs_no_whole_line() {
    let disk = Faulty::default();
    open(&disk).append(&batch(0..3), NOW).unwrap();
    let name = disk.list(DIR.as_ref()).unwrap().remove(0);
    let file = disk.inner.open(&Path::new(DIR).join(name)).unwrap();
    file.write_all_at(&[IoSlice::new(b"###")], line(0).len() as u64).unwrap();
    open(&disk).append(&batch(0..4), NOW).unwrap();
    let text = text(&disk);
    for offset in 0..4 {
        assert_eq!(text.matches(&line(offset)).count(), 1, "{offset}");
    }
}

#[test]
fn what_was_recognised_once_is_written_when_asked_for_again() {
    let disk = Faulty::default();
    open(&disk).append(&batch(0..3), NOW).unwrap();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..3), "the crash's repeat");
    writer.append(&batch(0..3), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..3) + &lines(0..3), "an operator's replay");
}

#[test]
fn a_failed_write_leaves_the_file_as_it_was() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    disk.faults.write.store(2, Ordering::SeqCst);
    assert!(writer.append(&batch(3..9), NOW).is_err());
    assert!(writer.append(&batch(3..9), NOW).is_err());
    assert_eq!((files(&disk).len(), text(&disk)), (1, lines(0..3)), "a full disk does not fill with empty files");
    writer.append(&batch(3..5), NOW).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (1, lines(0..5)));
}

#[test]
fn after_a_failed_sync_the_file_ends_at_its_last_good_sync_and_the_batch_goes_to_a_new_one() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    disk.faults.sync.store(1, Ordering::SeqCst);
    assert!(writer.append(&batch(3..5), NOW).is_err());
    writer.append(&batch(3..5), NOW).unwrap();
    let expected = BTreeMap::from([
        (format!("d-{NOW}-000000.jsonl"), lines(0..3)),
        (format!("d-{NOW}-000001.jsonl.open"), lines(3..5)),
    ]);
    assert_eq!(files(&disk), expected);
}

#[test]
fn what_is_doubtful_of_a_file_that_failed_and_cannot_be_cut_does_not_count() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    disk.faults.sync.store(1, Ordering::SeqCst);
    disk.faults.set_len.store(1, Ordering::SeqCst);
    assert!(writer.append(&batch(3..5), NOW).is_err());
    // Lines 3 and 4 may be in the page cache only: a restart must not take them for written.
    open(&disk).append(&batch(3..5), NOW).unwrap();
    let (files, whole) = (files(&disk), lines(0..3).len());
    assert_eq!(files[&format!("d-{NOW}-000000.jsonl.failed-{whole}")], lines(0..5));
    assert_eq!(files[&format!("d-{NOW}-000001.jsonl.open")], lines(3..5));
}

/// Before, such a file was not searched for repeats: what had been delivered to it since the last floor stood again in a
/// later one.
#[test]
fn what_was_delivered_to_files_that_failed_is_recognised_after_a_kill() {
    for compression in [FileCompression::None, FileCompression::Zstd] {
        let disk = Faulty::default();
        let config = FileConfig { compression, ..FileConfig::new(DIR) };
        let open = || Writer::open(Arc::new(disk.clone()), "d", config.clone(), &Unsettled::default(), &mut 0).unwrap();
        let mut writer = open();
        for n in 0..4 {
            writer.append(&batch(n * 10..n * 10 + 5), NOW).unwrap();
            disk.faults.sync.store(2, Ordering::SeqCst); // that of the cut, too
            assert!(writer.append(&batch(n * 10 + 5..n * 10 + 10), NOW).is_err());
        }
        let before = disk.list(DIR.as_ref()).unwrap();
        assert!(before.len() == 4 && before.iter().all(|name| name.contains(".failed-")), "{before:?}");
        // The floor knows of none of them.
        let mut writer = open();
        (0..4).for_each(|n| writer.append(&batch(n * 10..n * 10 + 5), NOW).unwrap());
        assert_eq!(disk.list(DIR.as_ref()).unwrap().len(), 4, "{compression:?}: none is written again");
        writer.append(&batch(5..10), NOW).unwrap();
        assert_eq!(disk.list(DIR.as_ref()).unwrap().len(), 5, "{compression:?}: what nobody heard of is");
    }
}

#[test]
fn a_disk_whose_syncs_fail_for_long_does_not_fill_with_files() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    disk.faults.sync.store(50, Ordering::SeqCst);
    for _ in 0..50 {
        assert!(writer.append(&batch(0..3), NOW).is_err());
    }
    assert_eq!(files(&disk).len(), 0);
    writer.append(&batch(0..3), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..3));
}

#[test]
fn a_name_that_is_not_synced_delivers_nothing() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    disk.faults.sync_dir.store(1, Ordering::SeqCst);
    assert!(writer.append(&batch(0..3), NOW).is_err());
    writer.append(&batch(0..3), NOW).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (1, lines(0..3)));
}

#[test]
fn a_rotation_that_fails_is_done_later() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    disk.faults.rename.store(1, Ordering::SeqCst);
    assert!(writer.append(&batch(3..5), NOW + 61_000).is_err());
    writer.append(&batch(3..5), NOW + 61_000).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (2, lines(0..5)));
}

#[test]
fn what_a_crash_left_open_behind_the_newest_is_ended() {
    let disk = Faulty::default();
    disk.create_dir(DIR.as_ref()).unwrap();
    for n in 0..3 {
        let file = disk.create(&Path::new(DIR).join(format!("d-{NOW}-00000{n}.jsonl.open"))).unwrap();
        file.write_all_at(&[IoSlice::new(line(n).as_bytes())], 0).unwrap();
    }
    disk.create(&Path::new(DIR).join(format!("other-{NOW}-000007.jsonl.open"))).unwrap();
    open(&disk).append(&batch(0..4), NOW).unwrap();
    let names: Vec<_> = files(&disk).into_keys().collect();
    assert_eq!(
        names,
        [
            format!("d-{NOW}-000000.jsonl"),
            format!("d-{NOW}-000001.jsonl"),
            format!("d-{NOW}-000002.jsonl.open"),
            format!("other-{NOW}-000007.jsonl.open")
        ]
    );
    assert_eq!(text(&disk), lines(0..4));
}
