//! The lock of a log's directory: one process has it at a time, be it to write or to give places up.

use super::options::OpenError;
use crate::disk::{Disk, Lock};
use std::io::ErrorKind;
use std::path::Path;

/// The file that is locked.
pub(super) const LOCK_FILE: &str = "LOCK";

/// Takes it. Who is refused from then on hears of this process and of `what` it does.
pub(super) fn take(disk: &dyn Disk, dir: &Path, what: &str) -> Result<Box<dyn Lock>, OpenError> {
    let path = dir.join(LOCK_FILE);
    let holder = format!("process {}, forebay {what}", std::process::id());
    disk.lock(&path, &holder).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned(), holder: e.to_string() },
        _ => OpenError::io("lock", &path)(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::RealDisk;

    #[test]
    fn a_lock_that_somebody_has_is_told_from_one_that_cannot_be_had() {
        let tmp = tempfile::tempdir().expect("there is room");
        let held = take(&RealDisk, tmp.path(), "0.1").expect("it is free");
        let Err(OpenError::Locked { dir, holder }) = take(&RealDisk, tmp.path(), "0.2") else { panic!("it is held") };
        assert_eq!(
            (dir.as_path(), holder),
            (tmp.path(), format!("held by process {}, forebay 0.1", std::process::id()))
        );
        drop(held);
        let path = tmp.path().join(LOCK_FILE);
        RealDisk.remove(&path).expect("it is there");
        RealDisk.create_dir(&path).expect("its name is free");
        let refused = take(&RealDisk, tmp.path(), "0.1").map(drop);
        assert!(matches!(&refused, Err(OpenError::Io { what: "lock", path: at, .. }) if *at == path), "{refused:?}");
    }
}
