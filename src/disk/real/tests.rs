//! Files, directories and locks of this machine, one by one.

use super::*;
use crate::disk::read_all;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_and_directories_are_for_their_owner_only() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("a/b");
    RealDisk.create_dir(&dir).unwrap();
    RealDisk.create(&dir.join("file")).unwrap();
    let _lock = RealDisk.lock(&dir.join("LOCK"), "me").unwrap();
    assert_eq!(mode(&tmp.path().join("a")), 0o700);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("file")), 0o600);
    assert_eq!(mode(&dir.join("LOCK")), 0o600);
}

#[test]
fn a_write_of_more_buffers_than_the_kernel_takes_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let file = RealDisk.create(&tmp.path().join("file")).unwrap();
    let lines: Vec<String> = (0..3 * BUFFERS_PER_WRITE_MAX + 1).map(|n| format!("{n}\n")).collect();
    let bufs: Vec<IoSlice<'_>> = lines.iter().map(|line| IoSlice::new(line.as_bytes())).collect();
    file.write_all_at(&bufs, 3).unwrap();
    assert_eq!(&read_all(&*file).unwrap()[3..], lines.concat().as_bytes());
}

#[test]
fn a_link_or_a_directory_in_place_of_a_file_is_refused_and_a_link_is_listed() {
    let tmp = tempfile::tempdir().unwrap();
    let real = tmp.path().join("real");
    let link = tmp.path().join("link");
    RealDisk.create(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(RealDisk.open(&link).is_err());
    assert!(RealDisk.lock(&link, "me").is_err());
    assert!(RealDisk.open(tmp.path()).is_err());
    assert_eq!(RealDisk.create(&link).err().unwrap().kind(), ErrorKind::AlreadyExists);
    assert!(RealDisk.list(tmp.path()).unwrap().contains(&"link".to_owned()));
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_waited_for_by_nobody() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("file");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(RealDisk.open(&path).err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[test]
fn directories_are_not_listed_and_a_file_is_none() {
    let tmp = tempfile::tempdir().unwrap();
    RealDisk.create_dir(&tmp.path().join("dir")).unwrap();
    RealDisk.create(&tmp.path().join("file")).unwrap();
    assert_eq!(RealDisk.list(tmp.path()).unwrap(), ["file"]);
    assert_eq!(RealDisk.create_dir(&tmp.path().join("file")).unwrap_err().kind(), ErrorKind::NotADirectory);
}

#[test]
fn a_name_that_is_no_text_is_none_of_ours() {
    use std::os::unix::ffi::OsStrExt;
    let tmp = tempfile::tempdir().unwrap();
    RealDisk.create(&tmp.path().join("ours")).unwrap();
    RealDisk.create(&tmp.path().join(std::ffi::OsStr::from_bytes(b"\xff.seg"))).unwrap();
    assert_eq!(RealDisk.list(tmp.path()).unwrap(), ["ours"]);
}

/// There is nothing above to make first: whoever looked for it there would never end.
#[test]
fn a_directory_without_a_name_is_not_found() {
    assert_eq!(RealDisk.create_dir(Path::new("")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn zeros_stand_in_for_a_reservation_and_leave_what_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("file");
    let file = RealFile { file: fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap() };
    file.write_all_at(&[IoSlice::new(b"abc")], 0).unwrap();
    let len = 2 * ZEROS.len() as u64 + 5;
    file.allocate_with_zeros(len).unwrap();
    assert_eq!(file.len().unwrap(), len);
    let bytes = read_all(&file).unwrap();
    assert_eq!(&bytes[..3], b"abc");
    assert!(bytes[3..].iter().all(|byte| *byte == 0));
    file.allocate_with_zeros(2).unwrap();
    assert_eq!(file.len().unwrap(), len, "never shorter");
}

/// ZFS and older NFS say the first, older kernels the second; any other error is the caller's.
#[test]
fn zeros_are_written_only_where_a_file_system_cannot_reserve() {
    let answers = [Ok(()), Err(Errno::OPNOTSUPP), Err(Errno::NOSYS)];
    assert_eq!(answers.map(|answer| can_reserve(answer).unwrap()), [true, false, false]);
    let refused = [Errno::NOSPC, Errno::IO].map(|error| can_reserve(Err(error)).unwrap_err().raw_os_error());
    assert_eq!(refused, [Errno::NOSPC, Errno::IO].map(|error| Some(error.raw_os_error())));
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("file");
    RealDisk.create(&path).unwrap();
    let file = RealFile { file: fs::File::open(&path).unwrap() };
    assert!(file.allocate(9).is_err(), "it is open for reading only");
    assert_eq!(file.len().unwrap(), 0);
}

#[test]
fn a_write_that_takes_nothing_is_an_error_and_is_not_made_for_ever() {
    assert_eq!(some(3).unwrap(), 3);
    assert_eq!(some(0).unwrap_err().kind(), ErrorKind::WriteZero);
}

#[test]
fn a_directory_that_others_made_where_we_may_not_look_needs_no_sync_of_ours() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
        unless_it_is_not_ours(Err(kind.into())).unwrap();
    }
    unless_it_is_not_ours(Ok(())).unwrap();
    let failed = unless_it_is_not_ours(Err(Errno::IO.into())).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()), "its name may be lost");
}

#[test]
fn a_file_is_as_long_as_was_said_last() {
    let tmp = tempfile::tempdir().unwrap();
    let file = RealDisk.create(&tmp.path().join("file")).unwrap();
    file.write_all_at(&[IoSlice::new(b"abcdef")], 0).unwrap();
    file.set_len(3).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(read_all(&*file).unwrap(), b"abc\0\0");
}

#[test]
fn allocated_blocks_are_taken_from_the_file_system() {
    use std::os::unix::fs::MetadataExt;
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("file");
    RealDisk.create(&path).unwrap().allocate(1 << 20).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
}

#[test]
fn a_lock_file_left_by_a_longer_name_holds_only_the_new_one() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("LOCK");
    drop(RealDisk.lock(&path, "a process with a long name").unwrap());
    let _lock = RealDisk.lock(&path, "pid 7").unwrap();
    let refused = RealDisk.lock(&path, "pid 8").err().unwrap();
    assert_eq!(refused.to_string(), "held by pid 7");
    let nameless = tmp.path().join("nameless");
    let _lock = RealDisk.lock(&nameless, "").unwrap();
    let refused = RealDisk.lock(&nameless, "pid 8").err().unwrap();
    assert_eq!(refused.to_string(), "held by another process, which has not written its name");
}

#[test]
fn what_lies_in_no_directory_lies_in_the_current_one_and_the_root_in_itself() {
    let above = ["x", "x/y", "/"].map(|path| parent(Path::new(path)));
    assert_eq!(above, [".", "x", "/"].map(Path::new));
}

#[test]
fn no_two_draws_of_entropy_are_alike() {
    assert_ne!(entropy(), entropy());
}
