//! Reads that the disk refuses: counted, and told once a minute for as long as they go on.
//!
//! Decides nothing. A reader that meets one stays where it is, so whoever sees only that nothing moves finds the reason
//! here; why it is not skipped after a while is in docs/decisions/0006.

use super::limits::READ_TROUBLE_TOLD_EVERY;
use super::reader::ReadError;
use super::stats::Counter;
use crate::sync::{Mutex, PoisonError};
use std::time::Duration;

/// See the file's header.
#[derive(Default)]
pub(super) struct ReadTrouble {
    count: Counter,
    /// When it was last told, by the monotonic clock.
    told: Mutex<Option<Duration>>,
}

impl ReadTrouble {
    /// Refused reads so far.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Counts one. Says whether it was told as well.
    pub(super) fn note(&self, now: Duration, error: &ReadError) -> bool {
        self.count.add(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| now < told + READ_TROUBLE_TOLD_EVERY) {
            return false;
        }
        *told = Some(now);
        let refused_so_far = self.count();
        tracing::error!(
            %error,
            refused_so_far,
            "acknowledged records can't be read: who needs them waits and tries again, nothing is skipped. If the disk \
             does not come back, stop and see `forebay log give-up --help`"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamId;

    #[test]
    fn every_refused_read_is_counted_and_one_a_minute_is_told() {
        let trouble = ReadTrouble::default();
        let source = std::io::Error::from_raw_os_error(5);
        let error = ReadError::Io { stream: StreamId(3), offset: 12, place: None, source };
        let told = |secs| trouble.note(Duration::from_secs(secs), &error);
        assert_eq!([0, 1, 59, 60, 61, 119, 120].map(told), [true, false, false, true, false, false, true]);
        assert_eq!(trouble.count(), 7);
    }
}
