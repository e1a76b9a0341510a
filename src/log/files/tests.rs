use super::*;
use crate::disk::mem::MemDisk;
use crate::log::segment::{Class, SegmentHeader};

#[test]
fn the_newest_files_are_kept_open_and_no_more_than_the_limit() {
    let disk = Arc::new(MemDisk::new());
    disk.create_dir(Path::new("/log")).expect("memory");
    let file = disk.create(Path::new("/log/file")).expect("memory");
    let options = LogOptions { open_segments_max: 2, ..LogOptions::small() };
    let files = Files::new(disk, PathBuf::from("/log"), &options);
    let kept = || {
        let open = files.open();
        let order: Vec<u64> = open.order.iter().map(|sequence| sequence.0).collect();
        (order, open.by_sequence.len())
    };
    for n in [1, 2, 2, 3] {
        files.keep_open(Sequence(n), Arc::clone(&file));
    }
    assert_eq!(kept(), (vec![2, 3], 2));
    files.forget(Sequence(2));
    assert_eq!(kept(), (vec![3], 1));
}

#[test]
fn there_are_as_many_zeros_as_were_asked_for() {
    for len in [0, 1, ZEROS.len(), ZEROS.len() + 1, 40_000] {
        let slices = zeros(len);
        assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), len);
        assert!(slices.iter().all(|slice| !slice.is_empty()));
    }
}

/// Its name may come back, and by then nobody says any more where it ended: what was never acknowledged must be gone from it.
#[test]
fn a_failed_segment_is_cut_where_it_ends_before_it_goes_and_becomes_no_spare() {
    let (log, file) = (LogId(7), SegmentFile::plain(Sequence(3), Class::Main));
    for (whose, failed, left, spare) in [
        (3, Some(300), 300, None),
        (3, Some(SEGMENT_HEADER_BYTES), 0, None),
        (3, None, 4_096, Some(0)),
        // It has the name of the one that failed, and is in use.
        (4, Some(300), 4_096, None),
        (4, None, 4_096, None),
    ] {
        let disk = Arc::new(MemDisk::new());
        disk.create_dir(Path::new("/log")).expect("memory");
        let options = LogOptions { segment_bytes: 4_096, ..LogOptions::small() };
        let files = Files::new(Arc::clone(&disk) as Arc<dyn Disk>, PathBuf::from("/log"), &options);
        let path = files.path(file.name());
        let header =
            SegmentHeader { log, sequence: Sequence(whose), class: Class::Main, created_ms: 1, predecessor: None };
        write_whole(&*disk, &path, &header.encode()).expect("memory");
        let handle = disk.open(&path).expect("just made");
        handle.set_len(4_096).expect("memory");
        let became = files.reclaim(file, 4_096, log, failed, true).expect("memory");
        let case = format!("the file of {whose}, failed {failed:?}");
        assert_eq!((became, handle.len().expect("memory")), (spare, left), "{case}");
        assert!(disk.open(&path).is_err(), "{case}: the name goes");
    }
}
