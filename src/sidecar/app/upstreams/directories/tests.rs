//! Directories on the simulated disk: a power cut at every change of a removal.

use std::io::IoSlice;
use std::path::Path;

use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::SimDisk;

use super::*;

fn directories(disk: &SimDisk) -> Directories {
    Directories::new(PathBuf::from("/data/upstream"), Arc::new(disk.clone()))
}

/// A log with two files, one of which counts for nothing without the other.
fn make(disk: &SimDisk, id: &str) {
    let directories = directories(disk);
    directories.note(id).unwrap();
    let dir = directories.of(id);
    disk.create_dir(&dir).unwrap();
    for name in ["a", "b"] {
        let file = disk.create(&dir.join(name)).unwrap();
        file.write_all_at(&[IoSlice::new(b"bytes")], 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir(&dir).unwrap();
}

fn files(disk: &SimDisk, dir: &Path) -> usize {
    disk.list(dir).map_or(0, |names| names.len())
}

#[test]
fn a_power_cut_at_any_change_leaves_a_whole_log_or_none_and_the_next_removal_ends_it() {
    let start = SimDisk::new(11);
    start.create_dir(Path::new("/data")).unwrap();
    make(&start, "split");
    make(&start, "other");
    let snapshot = start.snapshot();
    let changes = power_cut_at_any_change(
        &snapshot,
        |disk, (): &mut ()| directories(disk).remove("split"),
        |disk, (), case| {
            let directories = directories(disk);
            let listed = directories.listed().unwrap();
            let there = listed.contains(&"split".to_owned());
            let left = files(disk, &directories.of("split"));
            assert_eq!(left, if there { 2 } else { 0 }, "{case}: {listed:?}");
            assert!(listed.contains(&"other".to_owned()), "{case}");
            directories.remove("split").unwrap();
            assert_eq!(directories.listed().unwrap(), ["other"]);
            assert_eq!(files(disk, Path::new("/data/upstream")), 1, "the other's note alone");
        },
    );
    assert!(changes >= 5, "{changes}");
}
