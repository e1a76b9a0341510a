//! What the file destination wrote: every line of every file, held against what was sent.
//!
//! Only reads, and only once the sidecar has stopped.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use forebay::disk::{Disk, read_all};
use serde::Deserialize;

use super::ledger::{self, Ledger};

/// What lies in the files.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Which impressions.
    pub(super) ledger: Ledger,
    /// Record ids that stand in more than one line, and lines without one.
    pub(super) bad_ids: u64,
    /// Files.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Of a line, what the demo looks at.
#[derive(Deserialize)]
struct Line {
    id: String,
    key: String,
}

/// Reads all files of `dir`.
///
/// # Errors
/// Those of the file system.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Archive> {
    let mut archive = Archive::default();
    let mut ids = HashSet::new();
    for name in disk.list(dir)? {
        let bytes = read_all(&*disk.open(&dir.join(name))?)?;
        archive.files += 1;
        archive.bytes += bytes.len() as u64;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line that can't be read counts as one that nobody sent.
            let read: Option<Line> = serde_json::from_slice(line).ok();
            archive.ledger.note(read.as_ref().and_then(|line| ledger::number(&line.key)));
            let fresh = read.is_some_and(|line| ids.insert(line.id));
            archive.bad_ids += u64::from(!fresh);
        }
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use forebay::disk::mem::MemDisk;

    use super::*;

    #[test]
    fn every_line_counts_and_an_id_counts_once() {
        let disk = MemDisk::new();
        let dir = Path::new("/out");
        disk.create_dir(dir).unwrap();
        let lines = [
            (r#"{"id":"l-0-0","key":"user-0"}"#, r#"{"id":"l-0-1","key":"user-1"}"#),
            (r#"{"id":"l-0-1","key":"user-2"}"#, "torn"),
        ];
        for (name, (first, second)) in ["a.jsonl", "b.jsonl.open"].iter().zip(lines) {
            let text = format!("{first}\n{second}\n");
            disk.create(&dir.join(name)).unwrap().write_all_at(&[IoSlice::new(text.as_bytes())], 0).unwrap();
        }
        let archive = read(&disk, dir).unwrap();
        assert_eq!((archive.files, archive.bad_ids), (2, 2));
        let audit = archive.ledger.audit(3);
        assert_eq!((audit.once, audit.missing, audit.strangers), (3, 0, 1));
    }
}
