//! Golden directories: files of a log as an earlier build wrote them, kept in the repository, and put on a disk in memory.
#![expect(clippy::disallowed_methods, reason = "golden files lie in the repository, not on a simulated disk")]

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, read_all};
use forebay::{Item, Log, StreamId};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a stream holds: offsets and texts in order, `None` where records are lost.
pub type Items = Vec<(Range<u64>, Option<String>)>;

/// The files of a golden directory, such as `v1`.
///
/// # Panics
/// When they can't be read.
#[must_use]
pub fn files(version: &str) -> Files {
    let entries = std::fs::read_dir(dir(version)).expect("the golden directory is there");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("it can be listed");
        (entry.file_name().into_string().expect("UTF-8"), std::fs::read(entry.path()).expect("it can be read"))
    };
    entries.map(read).collect()
}

/// The files of a golden directory, against which `written` is to be held. Where `FOREBAY_WRITE_GOLDEN` is set they are
/// `written` from now on.
///
/// # Panics
/// When they can't be written or read.
#[must_use]
pub fn files_beside(version: &str, written: &Files) -> Files {
    if std::env::var_os("FOREBAY_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(dir(version)).expect("made");
        for (name, bytes) in written {
            std::fs::write(dir(version).join(name), bytes).expect("written");
        }
    }
    files(version)
}

/// What lies in a directory of a disk, without the lock, which holds the number of a process.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn files_on(disk: &MemDisk, dir: &Path) -> Files {
    let mut names = disk.list(dir).expect("listed");
    names.retain(|name| name != "LOCK");
    let bytes = |name: &String| read_all(&*disk.open(&dir.join(name)).expect("opened")).expect("read");
    names.into_iter().map(|name| (name.clone(), bytes(&name))).collect()
}

/// A disk with these files in a directory.
///
/// # Panics
/// Never: memory takes them.
#[must_use]
pub fn disk_with(files: &Files, dir: &Path) -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir(dir).expect("made");
    for (name, bytes) in files {
        let file = disk.create(&dir.join(name)).expect("made");
        file.write_all_at(&[IoSlice::new(bytes)], 0).expect("written");
    }
    disk
}

/// Reads a stream from its beginning.
///
/// # Panics
/// When the disk can't be read, or a payload is no text.
#[must_use]
pub fn items(log: &Log, stream: StreamId) -> Items {
    let mut reader = log.reader(stream, 0);
    let mut items = Items::new();
    while let Some(item) = reader.next().expect("the disk reads") {
        items.push(match item {
            Item::Frame(frame) => (frame.offsets(), Some(String::from_utf8(frame.payload().to_vec()).expect("text"))),
            Item::Lost { offsets, .. } => (offsets, None),
        });
    }
    items
}

fn dir(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(version)
}
