//! What comes again after kills: each record stands in the files once, however little the floor knew.

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
