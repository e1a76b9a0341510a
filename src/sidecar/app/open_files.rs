//! How many files the system lets the process have open, and who may have how many of them: connections on the way in,
//! requests on the way out, connections that are kept for the next one, and segments that are kept open for readers.
//!
//! What always holds: together they never take what the log needs. Where there are too few for all that is configured each
//! gets an equal part at least, and what one does not want goes to the others; where that would be next to nothing, nothing is
//! begun.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the log and its readers, its index, listeners, operators and the process itself need.
const OWN: u64 = 320;

/// However few there are, each gets so many.
const LEAST: u64 = 16;

/// What is written, listened to and called at the least: a process with two destinations that does nothing has 23.
const BARE: u64 = 48;

/// With no more than the least for each there are still some for the log's next file and for a few files and objects that are
/// written.
const NEEDED: u64 = BARE + 4 * LEAST;

/// With less than that, connections that ask for nothing would keep the log from its next file, and posts would be refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may have {may} files open and needs {NEEDED}: raise its limit (`ulimit -n`, `LimitNOFILE` of its unit)"
)]
pub struct TooFewFiles {
    may: u64,
}

/// Files for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    /// Connections of SDKs.
    pub(super) ingest: u64,
    /// Requests in flight.
    pub(super) requests: u64,
    /// Connections that nobody uses at the moment.
    pub(super) idle: u64,
    /// Segments of the log that are kept open for readers.
    pub(super) segments: u64,
}

/// Asks the system for as many open files as it lets a process have, and says how many that are.
///
/// # Errors
/// When they are too few.
pub(super) fn limit() -> Result<u64, TooFewFiles> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (current, most) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    // What is there already is enough where it can't be raised.
    let may = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => most,
        Err(_) => current,
    };
    enough(may)
}

fn enough(may: u64) -> Result<u64, TooFewFiles> {
    if may < NEEDED { Err(TooFewFiles { may }) } else { Ok(may) }
}

impl Files {
    /// What each gets of `limit` open files, if it wants `self`.
    pub(super) fn of(self, limit: u64) -> Self {
        let mut left = limit.saturating_sub(OWN);
        let mut wants = [(self.ingest, 0), (self.requests, 1), (self.idle, 2)];
        // Who wants least first: what it leaves of its part is the others'.
        wants.sort_unstable();
        let mut gets = [0; 3];
        for (n, (wanted, place)) in wants.into_iter().enumerate() {
            gets[place] = wanted.min((left / (3 - n as u64)).max(LEAST));
            left = left.saturating_sub(gets[place]);
        }
        let [ingest, requests, idle] = gets;
        // A part of what is everybody's own: a segment that is not open is opened when it is read.
        let segments = self.segments.min(LEAST + limit.saturating_sub(NEEDED) / 4);
        Self { ingest, requests, idle, segments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: Files = Files { ingest: 1024, requests: 1024, idle: 512, segments: 128 };

    #[test]
    fn where_there_are_enough_each_gets_what_it_wants() {
        assert_eq!(WANTED.of(u64::MAX), WANTED);
        assert_eq!(WANTED.of(1024 + 1024 + 512 + OWN), WANTED);
    }

    #[test]
    fn a_plain_limit_of_1024_is_shared_by_all() {
        assert_eq!(WANTED.of(1024), Files { ingest: 235, requests: 235, idle: 234, segments: 128 });
        assert_eq!(
            Files { idle: 10, ..WANTED }.of(1024),
            Files { ingest: 347, requests: 347, idle: 10, segments: 128 }
        );
    }

    #[test]
    fn who_may_open_too_few_is_told_how_many_are_needed_and_what_to_raise() {
        assert_eq!(enough(NEEDED).expect("enough"), NEEDED);
        let told = enough(NEEDED - 1).unwrap_err().to_string();
        assert!(told.contains("may have 111 files open and needs 112") && told.contains("ulimit -n"), "{told}");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_it_wants_and_all_together_what_there_is(
            limit in 0u64..5000,
            ingest in 1u64..3000,
            requests in 1u64..3000,
            idle in 0u64..3000,
        ) {
            let wanted = Files { ingest, requests, idle, segments: 128 };
            let got = wanted.of(limit);
            prop_assert!(got.segments >= LEAST && got.segments <= 128);
            prop_assert!(BARE + got.ingest + got.requests + got.idle + got.segments <= limit.max(NEEDED));
            prop_assert!(got.ingest <= ingest && got.requests <= requests && got.idle <= idle);
            prop_assert!(got.ingest + got.requests + got.idle <= limit.saturating_sub(OWN).max(3 * LEAST));
        }
    }

    #[test]
    fn the_system_has_a_limit_and_lets_us_have_it() {
        assert!(limit().expect("enough for a test") >= 256);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
