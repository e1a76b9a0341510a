//! What every [`Disk`] must do, whoever made it: one suite, run against all of them.
//!
//! It checks what a process that does not crash can see. What survives a crash is the simulated disk's own affair and
//! tested beside it.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use forebay::disk::{Disk, File, read_all, read_exact_at};

/// Runs the suite in `dir`, which must not exist yet but whose parent does.
///
/// # Panics
/// At the first thing that the disk does differently.
pub fn check(disk: &dyn Disk, dir: &Path) {
    check_dirs(disk, dir);
    for (name, check) in [
        ("names", check_names as fn(&dyn Disk, &Path)),
        ("rename", check_rename),
        ("dir", check_rename_and_remove_dir),
        ("bytes", check_bytes),
        ("len", check_len),
        ("handles", check_handles),
        ("lock", check_lock),
    ] {
        let own = dir.join(name);
        disk.create_dir(&own).unwrap();
        check(disk, &own);
    }
    check_space(disk, dir);
    assert_ne!(disk.entropy(), disk.entropy(), "two draws are never alike");
}

fn check_dirs(disk: &dyn Disk, dir: &Path) {
    assert_eq!(kind(disk.list(dir)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(dir)), ErrorKind::NotFound);
    assert_eq!(kind(disk.create(&dir.join("file"))), ErrorKind::NotFound, "a file needs its directory");
    disk.create_dir(&dir.join("deep/er")).unwrap();
    disk.create_dir(&dir.join("deep/er")).unwrap();
    disk.create_dir(dir).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(names(disk, dir), [""; 0], "directories are not listed");

    put(disk, &dir.join("deep/file"), b"");
    assert_eq!(kind(disk.create_dir(&dir.join("deep/file"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir(&dir.join("deep/file/er"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create(&dir.join("deep/er"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open(&dir.join("deep/er"))), ErrorKind::IsADirectory);
}

fn check_names(disk: &dyn Disk, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    assert_eq!(kind(disk.open(&a)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(&a)), ErrorKind::NotFound);
    put(disk, &a, b"1");
    put(disk, &b, b"2");
    assert_eq!(kind(disk.create(&a)), ErrorKind::AlreadyExists);
    assert_eq!(get(disk, &a), b"1", "a refused create changes nothing");
    assert_eq!(names(disk, dir), ["a", "b"]);
    disk.remove(&a).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(names(disk, dir), ["b"]);
    put(disk, &a, b"");
    assert_eq!(get(disk, &a), b"", "a name used again is a new file");
}

fn check_rename(disk: &dyn Disk, dir: &Path) {
    let (old, new) = (dir.join("old"), dir.join("new"));
    assert_eq!(kind(disk.rename(&old, &new)), ErrorKind::NotFound);
    let file = put(disk, &old, b"first");
    disk.rename(&old, &new).unwrap();
    assert_eq!(names(disk, dir), ["new"]);
    assert_eq!(get(disk, &new), b"first");
    file.write_all_at(&[IoSlice::new(b"F")], 0).unwrap();
    assert_eq!(get(disk, &new), b"First", "a handle follows its file");

    put(disk, &old, b"second");
    disk.rename(&old, &new).unwrap();
    assert_eq!(names(disk, dir), ["new"]);
    assert_eq!(get(disk, &new), b"second", "the file that had the name is replaced");
    assert_eq!(read_all(&*file).unwrap(), b"First", "and its handles still read it");

    let below = dir.join("below");
    disk.create_dir(&below).unwrap();
    assert_eq!(kind(disk.rename(&new, &below)), ErrorKind::IsADirectory, "a file takes no directory's place");
    assert_eq!(kind(disk.remove(&below)), ErrorKind::IsADirectory);
    assert_eq!((names(disk, dir), names(disk, &below)), (vec!["new".to_owned()], vec![]), "both are left alone");
}

fn check_rename_and_remove_dir(disk: &dyn Disk, dir: &Path) {
    let (store, aside) = (dir.join("store"), dir.join("aside"));
    disk.create_dir(&store.join("blobs")).unwrap();
    put(disk, &store.join("db"), b"db");
    put(disk, &store.join("blobs/1"), b"blob");
    assert_eq!(kind(disk.rename_dir(&dir.join("none"), &aside)), ErrorKind::NotFound);
    disk.rename_dir(&store, &aside).unwrap();
    assert_eq!(kind(disk.list(&store)), ErrorKind::NotFound);
    assert_eq!(names(disk, &aside), ["db"]);
    assert_eq!(get(disk, &aside.join("blobs/1")), b"blob");

    disk.create_dir(&store).unwrap();
    assert_eq!(kind(disk.rename_dir(&store, &aside)), ErrorKind::DirectoryNotEmpty);
    disk.remove_dir(&aside).unwrap();
    disk.remove_dir(&aside).unwrap();
    assert_eq!(kind(disk.open(&aside.join("blobs/1"))), ErrorKind::NotFound);
    assert_eq!(names(disk, &store), [""; 0], "the neighbour is left alone");

    put(disk, &store.join("db"), b"db");
    let file = dir.join("file");
    put(disk, &file, b"1");
    assert_eq!(kind(disk.rename_dir(&store, &file)), ErrorKind::NotADirectory, "nor a directory a file's");
    assert_eq!(kind(disk.rename_dir(&store, &store.join("itself"))), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.remove_dir(&file)), ErrorKind::NotADirectory);
    assert_eq!((get(disk, &store.join("db")), get(disk, &file)), (b"db".to_vec(), b"1".to_vec()), "all are there");
}

fn check_bytes(disk: &dyn Disk, dir: &Path) {
    let file = disk.create(&dir.join("file")).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")], 2).unwrap();
    assert_eq!(read_all(&*file).unwrap(), b"\0\0abcde", "a gap reads as zeros");
    file.write_all_at(&[IoSlice::new(b"XY")], 3).unwrap();
    assert_eq!(read_all(&*file).unwrap(), b"\0\0aXYde");
    file.write_all_at(&[], 100).unwrap();
    file.write_all_at(&[IoSlice::new(b"")], 100).unwrap();
    assert_eq!(file.len().unwrap(), 7, "writing nothing changes nothing");

    let mut buf = [9; 4];
    assert_eq!(file.read_at(&mut buf, 5).unwrap(), 2, "fewer at the end of the file");
    assert_eq!(buf, *b"de\x09\x09", "and the rest of the buffer is untouched");
    assert_eq!(file.read_at(&mut buf, 7).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
    assert_eq!(kind(read_exact_at(&*file, &mut buf, 5)), ErrorKind::UnexpectedEof);

    let long: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let bufs: Vec<IoSlice<'_>> = long.chunks(37).map(IoSlice::new).collect();
    file.write_all_at(&bufs, 1_000).unwrap();
    file.sync_data().unwrap();
    assert_eq!(get(disk, &dir.join("file"))[1_000..], long, "more buffers than one call of the system takes");
}

fn check_len(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), b"abc");
    file.allocate(10).unwrap();
    assert_eq!(read_all(&*file).unwrap(), b"abc\0\0\0\0\0\0\0");
    file.allocate(4).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(file.len().unwrap(), 10, "an allocation never makes a file shorter");
    file.set_len(2).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(read_all(&*file).unwrap(), b"ab\0\0\0", "what was cut does not come back");
    file.set_len(0).unwrap();
    file.sync_data().unwrap();
    assert!(file.is_empty().unwrap());
}

fn check_handles(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    let one = put(disk, &path, b"shared");
    let two = disk.open(&path).unwrap();
    two.write_all_at(&[IoSlice::new(b"S")], 0).unwrap();
    assert_eq!(read_all(&*one).unwrap(), b"Shared", "two handles are one file");
    disk.remove(&path).unwrap();
    one.write_all_at(&[IoSlice::new(b"!")], 6).unwrap();
    one.sync_data().unwrap();
    assert_eq!(read_all(&*two).unwrap(), b"Shared!", "an open file outlives its name");
}

fn check_lock(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("LOCK");
    let held = disk.lock(&path, "pid 7").unwrap();
    let refused = disk.lock(&path, "pid 8").err().expect("only one may hold it");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert_eq!(refused.to_string(), "held by pid 7");
    assert_eq!(get(disk, &path), b"pid 7", "who was refused leaves no trace");
    assert_eq!(names(disk, dir), ["LOCK"]);
    drop(disk.lock(&dir.join("OTHER"), "pid 8").unwrap());
    drop(held);
    let _held = disk.lock(&path, "pid 9").unwrap();
    assert_eq!(get(disk, &path), b"pid 9");
}

fn check_space(disk: &dyn Disk, dir: &Path) {
    let space = disk.space(dir).unwrap();
    assert!(0 < space.free && space.free <= space.total, "{space:?}");
    assert_eq!(kind(disk.space(&dir.join("none"))), ErrorKind::NotFound);
}

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> std::sync::Arc<dyn File> {
    let file = disk.create(path).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    file
}

fn get(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    read_all(&*disk.open(path).unwrap()).unwrap()
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    let mut names = disk.list(dir).unwrap();
    names.sort();
    names
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("this should have been refused").kind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use forebay::disk::counted::CountedDisk;
    use forebay::disk::mem::MemDisk;
    use forebay::disk::real::RealDisk;

    use crate::aloud;
    use crate::mounts::SmallDisk;
    use crate::sim_disk::SimDisk;

    #[test]
    fn the_real_disk_conforms() {
        let tmp = tempfile::tempdir().unwrap();
        check(&RealDisk, &tmp.path().join("dir"));
    }

    /// What is there is still delivered.
    #[test]
    fn of_a_real_disk_that_takes_no_changes_files_are_read() {
        let tmp = tempfile::tempdir().unwrap();
        let mounted = match SmallDisk::mount(tmp.path(), 1 << 20) {
            Ok(mounted) => mounted,
            Err(why) => return aloud::not_run(format_args!("files of a disk that is mounted read-only: {why}")),
        };
        let path = tmp.path().join("file");
        drop(put(&RealDisk, &path, b"there"));
        mounted.take_no_changes();
        let file = RealDisk.open(&path).unwrap();
        assert_eq!(read_all(&*file).unwrap(), b"there");
        assert!(file.write_all_at(&[IoSlice::new(b"T")], 0).is_err());
        assert_eq!(kind(RealDisk.open(&tmp.path().join("none"))), ErrorKind::NotFound);
        assert_eq!(kind(RealDisk.create(&tmp.path().join("new"))), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(get(&RealDisk, &path), b"there");
    }

    #[test]
    fn the_disk_in_memory_conforms_with_absolute_and_with_relative_paths() {
        check(&MemDisk::new(), Path::new("/dir"));
        check(&MemDisk::new(), Path::new("dir"));
    }

    #[test]
    fn the_counted_disk_conforms() {
        check(&CountedDisk::new(Arc::new(MemDisk::new())), Path::new("/dir"));
    }

    #[test]
    fn the_simulated_disk_conforms() {
        check(&SimDisk::new(1), Path::new("/dir"));
        check(&SimDisk::new(1), Path::new("dir"));
    }
}
