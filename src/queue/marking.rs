//! Giving records up where they lie: they leave the queue's way as dead-lettered, and no byte of them moves.
//!
//! The log keeps them for as long as somebody may want them: until they are sent again (a replay of their own, see
//! [`Queues::redrive`](super::Queues::redrive)) or let go.

use super::balance::{Balance, Count, Settled};
use super::give_up::{Much, offset_at_total};
use super::marked::MarkedRange;
use super::reading::offset_at_time_in;
use super::{Inner, Position, Queue, QueueError, lock};
use crate::sync::Arc;
use std::ops::Range;

/// Somebody may claim what was looked at meanwhile; then it is looked at again, so often.
const LOOKS_MAX: usize = 4;

impl Queue {
    /// Takes the oldest records that nobody ever had out of the queue's way, where they lie: settled as
    /// [`Settled::DeadLettered`], kept, and told by [`marked`](Self::marked). Says how much that was. What was handed out
    /// once stays: its batch may have been delivered, under an id that only stands for it as it is.
    ///
    /// Nothing when there are too many ranges already; see [`Queues::redrive`](super::Queues::redrive) and
    /// [`let_marked_go`](Self::let_marked_go). Durable after the next tick; a crash before it takes it back. Reads a few
    /// frames' headers.
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Much, Payload, QueueOptions, Queues, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// assert_eq!(queue.mark_oldest(Much::Bytes(60))?.records, 6);
    /// assert_eq!((queue.lag().records, queue.marked().0[0].count().records), (4, 6));
    ///
    /// let again = queues.redrive("acme-hook", "acme-prod", 0..10)?.expect("six records wait there");
    /// let batch = again.next_batch(BatchLimits { records_max: 10, bytes_max: 1 << 20 })?.expect("they come again");
    /// assert_eq!(batch.offsets, 0..6);
    /// again.settle(&batch, Settled::Delivered);
    /// queues.tick()?;
    /// queues.tick()?;
    /// assert_eq!(queue.marked().1.delivered.records, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the log cannot be read. Nothing was settled then.
    pub fn mark_oldest(&self, much: Much) -> Result<Count, QueueError> {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(Count::default()) };
        let log = &queue.context.log;
        for _ in 0..LOOKS_MAX {
            let tail = queue.end();
            let fresh = queue.window().fresh_known(Position::Only, tail);
            let Some((fresh, [start, end])) = fresh else { break };
            if queue.window().is_sent_again(fresh.start) {
                break; // it stays until that is over
            }
            let total = |known: Option<u64>, offset| known.map_or_else(|| queue.total_at(stream, offset), Ok);
            let from = total(start, fresh.start)?;
            let until = match much {
                Much::OlderThan(ms) => offset_at_time_in(log, stream, ms, fresh.clone())?,
                Much::Bytes(0) => fresh.start,
                Much::Bytes(bytes) => offset_at_total(log, stream, fresh.clone(), from.saturating_add(bytes))?,
            };
            if until <= fresh.start {
                break;
            }
            let to = total(end.filter(|_| until == fresh.end), until)?;
            let at_ms = queue.context.clock.wall_ms();
            let offsets = fresh.start..until;
            let marked = queue.with_window(|window| window.mark(offsets, from..to.max(from), at_ms));
            let Some(count) = marked else { continue };
            queue.touch();
            queue.note_marks();
            return Ok(count);
        }
        Ok(Count::default())
    }

    /// What was ever [marked](Self::mark_oldest): the ranges that nobody has decided on, and the books of all of them.
    /// `pending` is what is in those ranges, `dead_lettered` what became a letter when it was sent again. In the queue's own
    /// balance all of it is `dead_lettered`.
    #[must_use]
    pub fn marked(&self) -> (Vec<MarkedRange>, Balance) {
        let window = self.inner.window();
        window.marked().map(|marked| (marked.ranges().to_vec(), marked.balance())).unwrap_or_default()
    }

    /// Lets marked records go that lie in `offsets`, in whole ranges, counted as `as_`; none that are being sent again. Says
    /// how much that was. Durable after the next tick; a crash before it takes it back.
    pub fn let_marked_go(&self, offsets: Range<u64>, as_: Settled) -> Count {
        let queue = &*self.inner;
        let all = Count { records: u64::MAX, bytes: u64::MAX };
        let became = match as_ {
            Settled::Delivered => Balance { delivered: all, ..Balance::default() },
            Settled::Filtered => Balance { filtered: all, ..Balance::default() },
            Settled::Expired => Balance { expired: all, ..Balance::default() },
            Settled::Lost => Balance { lost: all, ..Balance::default() },
            Settled::Purged => Balance { purged: all, ..Balance::default() },
            Settled::DeadLettered | Settled::Held => Balance::default(),
        };
        let gone = queue.window().let_marked_go(&offsets, &became);
        queue.touch();
        gone
    }

    /// The records that this queue sends again, if it is that of a redrive.
    #[must_use]
    pub fn redrives(&self) -> Option<Range<u64>> {
        let bounds = self.inner.replay.as_deref().filter(|bounds| bounds.redrive)?;
        Some(self.inner.window().books().start..bounds.end.offset)
    }
}

impl Inner {
    /// Something of it may be marked: see [`Queues::marking`](super::Queues::marking).
    pub(super) fn note_marks(&self) {
        lock(&self.context.marking).insert((Arc::clone(&self.destination), Arc::clone(&self.stream)));
    }

    /// Whether something is marked that nobody has decided on.
    pub(super) fn has_marks(&self) -> bool {
        self.window().marked().is_some_and(|marked| !marked.ranges().is_empty())
    }
}
