use super::*;
use crate::disk::mem::MemDisk;

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
