//! What comes again after kills: each record stands in the files once, however little the floor knew.

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::{PowerCut, SimDisk};

use super::*;

/// Before, the newest two files were searched, and files can end faster than the floor ticks.
#[test]
fn what_is_not_settled_is_recognised_however_many_files_ago_it_was_written() {
    let disk = Faulty::default();
    let mut writer = open_after(&disk, 0, 1);
    (0..20).for_each(|n| writer.append(&batch(n * 10..n * 10 + 10), NOW).unwrap());
    assert_eq!(files(&disk).len(), 20);
    let mut writer = open_after(&disk, 35, 1);
    writer.append(&batch(35..200), NOW).unwrap();
    assert_eq!((files(&disk).len(), text(&disk)), (20, lines(0..200)), "all of it stands there");
    writer.append(&batch(10..20), NOW).unwrap();
    assert!(text(&disk).ends_with(&lines(10..20)), "what was settled comes for a replay only");
}

/// Before, what had been settled in the newest two files passed for there however long ago that was, and a replay of a
/// file that was gone since wrote nothing.
#[test]
fn a_replay_writes_what_was_settled_before_it() {
    let disk = Faulty::default();
    let config = || FileConfig::new(DIR);
    let open = |unsettled: &Unsettled| Writer::open(Arc::new(disk.clone()), "d", config(), unsettled, &mut 0).unwrap();
    open(&Unsettled::nothing()).append(&batch(0..10), NOW).unwrap();
    let mut replaying = Unsettled::nothing();
    let records = Origin { log: LogId(77), stream: StreamId(3), offsets: 0..10 };
    replaying.add(&records, Cursor::at(6, 0), true);
    open(&replaying).append(&batch(6..10), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..10), "a crash in its middle");
    open(&Unsettled::nothing()).append(&batch(0..5), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..10) + &lines(0..5));
}

/// A batch of the stream beside the one of all others here.
fn other_batch(offsets: Range<u64>) -> Encoded {
    let mut other = batch(offsets);
    other.origin.stream = StreamId(4);
    other.body = String::from_utf8(other.body.to_vec()).unwrap().replace("-3-", "-4-").into();
    other
}

/// The floor is damaged where it had one of two queues: nothing of the other one comes again, and files of it alone are no
/// sign that older ones hold nothing.
#[test]
fn where_cursors_were_lost_files_of_another_stream_do_not_end_the_search() {
    let disk = Faulty::default();
    let mut writer = open_with(&disk, 1);
    writer.append(&batch(0..10), NOW).unwrap();
    (0..5).for_each(|n| writer.append(&other_batch(n..n + 1), NOW + 1_000 * (n + 1)).unwrap());
    let again = |oldest_ms: Option<u64>| {
        let mut unsettled = Unsettled::nothing();
        let records = Origin { log: LogId(77), stream: StreamId(3), offsets: 0..u64::MAX };
        unsettled.add(&records, Cursor::at(0, 0), false);
        oldest_ms.into_iter().for_each(|ms| unsettled.reaches_back_to(ms));
        let config = FileConfig { rotate_bytes: 1, ..FileConfig::new(DIR) };
        let mut writer = Writer::open(Arc::new(disk.clone()), "d", config, &unsettled, &mut 0).unwrap();
        writer.append(&batch(0..10), NOW + 10_000).unwrap();
        text(&disk).matches(&line(5)).count()
    };
    assert_eq!(again(Some(NOW - 10)), 1);
    assert_eq!(again(Some(NOW + 2_500)), 2, "older files are not read: none that comes again is as old");
}

/// A process was killed between the write and its sync, and the sync that takes the file up fails: those pages are clean
/// then, and the next sync promises nothing of them. Before, they passed for delivered.
#[test]
fn lines_whose_sync_failed_are_written_again_before_they_count() {
    for (seed, compression) in (0..20).zip([FileCompression::None, FileCompression::Zstd].into_iter().cycle()) {
        let disk = SimDisk::new(seed);
        let mut unsettled = Unsettled::nothing();
        let records = Origin { log: LogId(77), stream: StreamId(3), offsets: 0..u64::MAX };
        unsettled.add(&records, Cursor::at(3, 0), false);
        let config = FileConfig { compression, ..FileConfig::new(DIR) };
        let open = || Writer::open(Arc::new(disk.clone()), "d", config.clone(), &unsettled, &mut 0);
        let mut writer = open().unwrap();
        writer.append(&batch(0..3), NOW).unwrap();
        let packing = writer.packing();
        drop(writer);
        let name = disk.list(DIR.as_ref()).unwrap().remove(0);
        let file = disk.open(&Path::new(DIR).join(&name)).unwrap();
        let torn = lines(3..50);
        let torn = packing.pack(torn.as_bytes()).unwrap();
        file.write_all_at(&[IoSlice::new(&torn)], file.len().unwrap()).unwrap();
        disk.inject(Fault::nth(OpKind::Sync, 0, Failure::Eio));
        assert!(open().is_err());
        open().unwrap().append(&batch(3..50), NOW).unwrap();
        disk.power_cut(PowerCut::NothingUnsynced);
        let file = disk.open(&Path::new(DIR).join(&name)).unwrap();
        let mut ids = 0;
        let extent = packing.read(&*file, u64::MAX, |_, _| ids += 1).unwrap();
        assert_eq!((ids, extent.holes.len(), extent.damaged_at), (50, 0, None), "seed {seed}");
    }
}

/// A process that is killed at once leaves a file without a line.
#[test]
fn files_without_lines_hide_none_that_have_some() {
    let disk = Faulty::default();
    let mut writer = open_with(&disk, 1);
    writer.append(&batch(0..10), NOW).unwrap();
    writer.append(&batch(10..20), NOW).unwrap();
    for n in 2..6 {
        disk.create(&Path::new(DIR).join(format!("d-{NOW}-00000{n}.jsonl.open"))).unwrap();
    }
    open_with(&disk, 1).append(&batch(0..20), NOW).unwrap();
    assert_eq!(text(&disk), lines(0..20));
}

/// Before, each batch waited until somebody moved the file.
#[test]
fn a_file_that_was_set_aside_and_cannot_be_read_holds_nothing_up() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    writer.append(&batch(0..3), NOW).unwrap();
    disk.faults.sync.store(2, Ordering::SeqCst); // that of the cut, too
    assert!(writer.append(&batch(3..5), NOW).is_err());
    disk.faults.read.store(1, Ordering::SeqCst);
    open(&disk).append(&batch(3..5), NOW).unwrap();
    assert_eq!(disk.faults.read.load(Ordering::SeqCst), 0, "it was tried");
    let (files, whole) = (files(&disk), lines(0..3).len());
    assert!(files.contains_key(&format!("d-{NOW}-000000.jsonl.failed-{whole}")));
    assert_eq!(files[&format!("d-{NOW}-000001.jsonl.open")], lines(3..5));
}

proptest! {
    /// Lives that end anywhere: between batches, or when the next file is there and has no line. Of what each has delivered
    /// the floor knows some.
    #[test]
    fn after_any_lives_each_record_stands_in_the_files_once(
        lives in proptest::collection::vec((1u64..6, 1u64..25, 0u64..100, any::<bool>()), 1..8),
        rotate_bytes in prop_oneof![Just(1u64), Just(300), Just(2000)],
    ) {
        let disk = Faulty::default();
        let (mut low, mut sent) = (0, 0);
        for (batches, records, known, leaves_a_file) in lives {
            let mut writer = open_after(&disk, low, rotate_bytes);
            let mut next = low;
            for _ in 0..batches {
                writer.append(&batch(next..next + records), NOW).unwrap();
                next += records;
            }
            sent = sent.max(next);
            low += (next - low) * known / 100;
            if leaves_a_file {
                let n = writer.n;
                disk.create(&Path::new(DIR).join(format!("d-{NOW}-{n:06}.jsonl.open"))).unwrap();
            }
        }
        open_after(&disk, low, rotate_bytes).append(&batch(low..sent + 1), NOW).unwrap();
        let text = text(&disk);
        let (mut found, all) = (text.lines().collect::<Vec<_>>(), lines(0..sent + 1));
        let mut expected: Vec<_> = all.lines().collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
