//! The lock of a directory: one process has it at a time, be it to write or to give places up.

use super::{Disk, Lock};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that is locked.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// Why it can't be had.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another process has it, and says this of itself.
    Held { dir: PathBuf, holder: String },
    /// The disk does not lock this file.
    Disk { path: PathBuf, source: io::Error },
}

/// Takes it. Who is refused from then on hears of this process and of `what` it does.
pub(crate) fn take(disk: &dyn Disk, dir: &Path, what: &str) -> Result<Box<dyn Lock>, Refused> {
    let path = dir.join(LOCK_FILE);
    let holder = format!("process {}, forebay {what}", std::process::id());
    disk.lock(&path, &holder).map_err(|source| match source.kind() {
        ErrorKind::WouldBlock => Refused::Held { dir: dir.to_owned(), holder: source.to_string() },
        _ => Refused::Disk { path, source },
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
        let Err(Refused::Held { dir, holder }) = take(&RealDisk, tmp.path(), "0.2") else { panic!("it is held") };
        assert_eq!(
            (dir.as_path(), holder),
            (tmp.path(), format!("held by process {}, forebay 0.1", std::process::id()))
        );
        drop(held);
        let path = tmp.path().join(LOCK_FILE);
        RealDisk.remove(&path).expect("it is there");
        RealDisk.create_dir(&path).expect("its name is free");
        let refused = take(&RealDisk, tmp.path(), "0.1").map(drop);
        assert!(matches!(&refused, Err(Refused::Disk { path: at, .. }) if *at == path), "{refused:?}");
    }

    /// Each says it in its own words.
    #[test]
    fn a_log_and_queues_tell_both_apart() {
        use crate::{LogOptions, OpenError, OpenQueuesError, QueueOptions, Queues};
        let tmp = tempfile::tempdir().expect("there is room");
        let open = || {
            let (disk, clock) = (RealDisk, crate::clock::ManualClock::at(1));
            let of_log = crate::Log::open(
                std::sync::Arc::new(disk),
                std::sync::Arc::new(clock.clone()),
                &tmp.path().join("alone"),
                LogOptions { inline: true, ..LogOptions::small() },
            );
            let (disk, clock) = (std::sync::Arc::new(RealDisk), std::sync::Arc::new(clock));
            let of_queues = Queues::open(disk, clock, tmp.path(), LogOptions::small(), QueueOptions::inline());
            (of_log, of_queues)
        };
        let both = open();
        let refused = open();
        assert!(
            matches!(refused.0, Err(OpenError::Locked { .. }))
                && matches!(refused.1, Err(OpenQueuesError::Locked { .. }))
        );
        drop(both);
        for dir in [tmp.path().join("alone"), tmp.path().to_owned()] {
            RealDisk.remove(&dir.join(LOCK_FILE)).expect("it is there");
            RealDisk.create_dir(&dir.join(LOCK_FILE)).expect("its name is free");
        }
        let refused = open();
        assert!(matches!(refused.0, Err(OpenError::Io { what: "lock", .. })));
        assert!(matches!(refused.1, Err(OpenQueuesError::Io { what: "lock", .. })));
    }
}
