//! Makes names in the log's directory durable, where two threads change them: the writer and housekeeping.
//!
//! A sync of a directory that fails leaves every name that changed before it to chance, whoever changed it, and only one hears
//! of it: the next sync returns `Ok` and proves nothing for them. So syncs go one at a time, the failed ones are counted, and who
//! changes a name takes the count before.
//!
//! What always holds: a sync that returns `Ok` has made durable every name that was changed since its mark.

use crate::disk::Disk;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};
use std::io;
use std::path::Path;

/// See the file's header.
pub(super) struct DirSync {
    sync: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    /// Held by who syncs: nobody's `Ok` overtakes another one's failure.
    one_at_a_time: Mutex<()>,
    failed: AtomicU64,
}

/// A moment before names were changed: what a sync is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(u64);

impl DirSync {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        let dir = dir.to_owned();
        Self::by(move || disk.sync_dir(&dir))
    }

    fn by(sync: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { sync: Box::new(sync), one_at_a_time: Mutex::default(), failed: AtomicU64::default() }
    }

    /// Now: taken before the first change of a name.
    pub(super) fn mark(&self) -> Since {
        Since(self.failed.load(Ordering::SeqCst))
    }

    /// Whether no sync has failed since, which may have lost a name that was changed.
    pub(super) fn holds(&self, since: Since) -> bool {
        self.mark() == since
    }

    /// Makes durable what was changed since.
    ///
    /// # Errors
    /// Also when somebody else's sync failed meanwhile. Which of the names are durable nobody knows then, and no other sync
    /// tells: only another change of a name can be made durable.
    pub(super) fn sync(&self, since: Since) -> io::Result<()> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = (self.sync)() {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(e);
        }
        if self.holds(since) {
            return Ok(());
        }
        Err(io::Error::other(
            "a sync of the log's directory has failed meanwhile: names that were changed before may be lost",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::AtomicBool;

    #[test]
    fn a_sync_that_fails_takes_back_what_was_promised_to_nobody_yet_and_no_later_one_brings_it() {
        let fails = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&fails);
        let names =
            DirSync::by(move || if theirs.load(Ordering::SeqCst) { Err(io::Error::other("no")) } else { Ok(()) });
        let before = names.mark();
        names.sync(before).expect("nothing failed");
        fails.store(true, Ordering::SeqCst);
        assert!(names.sync(names.mark()).is_err() && !names.holds(before));
        fails.store(false, Ordering::SeqCst);
        names.sync(names.mark()).expect("what is named from now on");
        assert!(names.sync(before).is_err(), "what was named before");
    }

    /// Else one that succeeds could be done before another one's failure is counted.
    #[test]
    fn syncs_go_one_at_a_time() {
        let (inside, met) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
        let theirs = Arc::clone(&met);
        let names = DirSync::by(move || {
            theirs.fetch_add(u64::from(inside.swap(true, Ordering::SeqCst)), Ordering::SeqCst);
            std::thread::yield_now();
            inside.store(false, Ordering::SeqCst);
            Ok(())
        });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| names.sync(names.mark()).expect("none fails")));
            }
        });
        assert_eq!(met.load(Ordering::SeqCst), 0, "somebody was in there");
    }
}
