//! Replays as values: what is asked for, what became of it, and the name that a replay's queue has.
//!
//! A replay is a queue of its own beside the live one of the same destination and stream: own cursor, own books, bounded
//! on both sides. It takes nothing from the live one, whose cursor never moves back. How one begins and ends is in
//! set/replaying.rs.

use super::balance::{Count, End};
use super::{FloorError, Inner, Queue, lock};
use crate::ReadError;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Weak};
use std::ops::Range;

/// Stands between a destination's id and the number of its replay. No id of a destination has the first character.
const INFIX: &str = "!replay-";

/// Bytes that a replay's name has beyond its destination's id, at most.
pub(crate) const SUFFIX_BYTES_MAX: usize = INFIX.len() + 10;

/// Records to be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRequest {
    /// The first of them.
    pub from: ReplayFrom,
    /// The offset behind the last one; `None` for all that the destination's queue has settled.
    pub to: Option<u64>,
    /// Under which ids.
    pub mode: ReplayMode,
}

/// Where a replay begins. What is not kept any more is left out: see [`Replay::offsets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayFrom {
    /// At the oldest record that is kept.
    Earliest,
    /// At this offset.
    Offset(u64),
    /// At the first record that was taken in at this moment or later, in milliseconds since 1970.
    Time(u64),
}

/// Under which ids a replay sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayMode {
    /// Under the ids that the records had, in the same batches, as far as their plans are kept: a receiver drops what it
    /// has, and gets what it misses. Where no plan is kept the boundaries are new, and so are the ids.
    Fill,
    /// Under ids that were never used: a receiver gets everything once more.
    Again,
}

/// What a replay's queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The destination's id.
    pub of: Arc<str>,
    /// Which replay of that destination and stream this is, from 1.
    pub number: u32,
    /// Under which ids it sends.
    pub mode: ReplayMode,
    /// Its records. It begins later than it was asked to where older ones are not kept; and with [`ReplayMode::Fill`] it
    /// begins and ends where batches did.
    pub offsets: Range<u64>,
    /// How many of them go under the ids that they had, as far as plans were kept when it began or was resumed.
    pub under_old_ids: u64,
}

/// What the replays of a queue did that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Replays that ended, done or cancelled.
    pub replays: u32,
    /// What the destination acknowledged of them.
    pub delivered: Count,
}

/// What is wrong with a range of which nothing can be replayed.
fn nothing(from: u64, to: u64, first_kept: u64) -> String {
    if from >= to && from >= first_kept {
        return format!(
            "there is nothing to replay from {from} on: only records before {to} were sent, the others are still to be \
             delivered for the first time"
        );
    }
    format!("there is nothing to replay from {from} to {to}; the oldest record that is kept is {first_kept}")
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The destination has no queue for the stream.
    #[error("{destination} has no queue for {stream}")]
    NoQueue {
        /// The destination.
        destination: String,
        /// The stream.
        stream: String,
    },
    /// One at a time.
    #[error("replay {number} of it is under way: cancel it, or wait until it is done")]
    UnderWay {
        /// Its number.
        number: u32,
    },
    /// What the live queue has not settled, it will send. It may have settled some of what lies behind that.
    #[error(
        "the record at {low} is still to be delivered for the first time: a replay ends there at most, not at {to}"
    )]
    NotSettled {
        /// Where it was to end.
        to: u64,
        /// The first record that is not settled.
        low: u64,
    },
    /// There are no such records, or none of them is kept.
    #[error("{}", nothing(*from, *to, *first_kept))]
    Nothing {
        /// Where it was to begin.
        from: u64,
        /// Where it was to end.
        to: u64,
        /// The oldest record that is kept.
        first_kept: u64,
    },
    /// There are as many queues as the floor can hold.
    #[error("there are {limit} queues already, and no more are kept")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It did not become durable, and is not there. A crash may bring it back before the next tick that succeeds.
    #[error("the replay cannot be made durable")]
    NotDurable(#[source] FloorError),
}

/// What makes a queue a replay's.
pub(crate) struct Bounds {
    /// The destination's id: batch ids are made with it.
    pub(crate) of: Arc<str>,
    pub(crate) number: u32,
    pub(crate) again: bool,
    /// Of records that were given up where they lie, and that the books of their queue go on counting.
    pub(crate) redrive: bool,
    /// For its queue the stream ends here.
    pub(crate) end: End,
    pub(crate) under_old_ids: AtomicU64,
    /// It hands out nothing any more, and ends with the next tick that can write it down.
    pub(crate) cancelled: AtomicBool,
    /// The queue that is replayed.
    pub(crate) live: Weak<Inner>,
}

/// What a queue knows of its replays.
#[derive(Default)]
pub(crate) struct Replays {
    pub(crate) over: Replayed,
    pub(crate) under_way: Option<Arc<Inner>>,
}

/// The name of a replay's queue.
pub(crate) fn name(of: &str, number: u32) -> String {
    format!("{of}{INFIX}{number}")
}

/// The destination and the number in a replay's name.
pub(crate) fn parse(name: &str) -> Option<(&str, u32)> {
    let (of, number) = name.split_once(INFIX)?;
    let parsed = number.parse().ok().filter(|n: &u32| *n > 0 && n.to_string() == number)?;
    (!of.is_empty()).then_some((of, parsed))
}

/// Whether this is the destination, or the name of one of its replays.
pub(crate) fn is_of(name: &str, destination: &str) -> bool {
    name == destination || parse(name).is_some_and(|(of, _)| of == destination)
}

impl Queue {
    /// What this queue replays, if it is a replay's: see [`Queues::replay`](super::Queues::replay).
    #[must_use]
    pub fn replay(&self) -> Option<Replay> {
        let Bounds { of, number, again, end, under_old_ids, .. } = self.inner.replay.as_deref()?;
        let start = self.inner.window().books().start;
        Some(Replay {
            of: Arc::clone(of),
            number: *number,
            mode: if *again { ReplayMode::Again } else { ReplayMode::Fill },
            offsets: start..end.offset,
            under_old_ids: under_old_ids.load(Ordering::Relaxed),
        })
    }

    /// What replays of this queue did that are over. No part of its balance: these records are counted there once.
    #[must_use]
    pub fn replayed(&self) -> Replayed {
        lock(&self.inner.replays).as_ref().map(|replays| replays.over).unwrap_or_default()
    }

    /// The queue of the replay of this one that is under way. Whoever sends for the destination sends what is in it, too.
    #[must_use]
    pub fn replay_under_way(&self) -> Option<Queue> {
        let under_way = lock(&self.inner.replays).as_ref()?.under_way.clone();
        under_way.map(Queue::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_which_nothing_was_sent_is_told_from_one_that_is_not_kept() {
        assert!(
            nothing(939, 0, 0).starts_with("there is nothing to replay from 939 on: only records before 0 were sent")
        );
        assert!(nothing(3, 9, 20).ends_with("from 3 to 9; the oldest record that is kept is 20"));
        assert!(nothing(30, 20, 50).ends_with("from 30 to 20; the oldest record that is kept is 50"));
        assert!(nothing(9, 9, 9).contains("from 9 on"));
    }

    #[test]
    fn a_replays_name_can_be_read_back_and_no_destination_has_it() {
        assert_eq!(parse(&name("hook", 7)), Some(("hook", 7)));
        assert_eq!(name("hook", u32::MAX).len(), 4 + SUFFIX_BYTES_MAX);
        for other in ["hook", "hook!replay-", "hook!replay-0", "hook!replay-07", "hook!replay-x", "!replay-7", "!plans"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(is_of("hook", "hook") && is_of("hook!replay-3", "hook") && !is_of("hooks!replay-3", "hook"));
    }
}
