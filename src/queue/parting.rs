//! Two read positions in one queue: what comes in now is handed out beside what has waited, and not behind it.
//!
//! Decides nothing about when. What always holds: both positions draw on one set of what is settled and handed out, so each
//! record comes once, under the id that its batch has; a place where a queue was parted is kept in memory alone, and a crash
//! that takes it changes the order of records and nothing else.

use super::balance::{Count, End};
use super::window::pending_at;
use super::{Inner, Position, Queue};
use crate::sync::Arc;

/// The first record that nobody had yet: see [`Queue::front`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    /// When it was taken in, in milliseconds since 1970.
    pub taken_in_ms: u64,
    /// How long ago that is, by the wall clock.
    pub age_ms: u64,
    /// Places that settled ranges and open batches take, of 223: each parting may leave one more range.
    pub ranges: usize,
}

impl Queue {
    pub(super) fn of(inner: Arc<Inner>) -> Self {
        Self { inner, position: Position::Only }
    }

    /// A handle of the same queue that hands out the backlog: what lies below the place where the queue was
    /// [parted](Self::part), and all while it is not.
    #[must_use]
    pub fn backlog(&self) -> Self {
        Self { position: Position::Backlog, ..self.clone() }
    }

    /// A handle of the same queue that hands out what came in since it was [parted](Self::part), the oldest first; nothing while
    /// it is not.
    #[must_use]
    pub fn live(&self) -> Self {
        Self { position: Position::Live, ..self.clone() }
    }

    /// Which records this handle hands out.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Parts the queue: from now on [`live`](Self::live) hands out what comes in, and [`backlog`](Self::backlog) what waits. Live
    /// begins at the tail; or where what is settled ends, if what follows was taken in less than `fresh_ms` ago: there an
    /// earlier live position was when the process ended. A queue that is parted already is parted anew, further on. Says
    /// whether anything changed.
    ///
    /// Once all below is settled the queue has one position again; so it has as soon as somebody claims from a handle that is
    /// neither. Not durable, and need not be: what is settled is. Nothing happens to a queue of a replay.
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// # let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// # let payload = || vec![Payload { bytes: vec![0; 100], records: 10 }];
    /// queues.log().append_wait("acme-prod", payload())?; // an outage
    /// queue.part(0);
    /// queues.log().append_wait("acme-prod", payload())?;
    /// let limits = BatchLimits { records_max: 5, bytes_max: 1 << 20 };
    /// let live = queue.live().next_batch(limits)?.expect("ten came since");
    /// let old = queue.backlog().next_batch(limits)?.expect("ten waited before");
    /// assert_eq!((live.offsets.clone(), old.offsets.clone()), (10..15, 0..5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn part(&self, fresh_ms: u64) -> bool {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id().filter(|_| queue.replay.is_none()) else { return false };
        let window = queue.window();
        let (cursor, before) = (window.cursor().clone(), window.parted_at());
        drop(window);
        let tail = queue.tail(stream); // after the cursor, which is never ahead of it
        let goes_on = cursor.settled.last().filter(|last| before.is_none() && last.end < tail.offset);
        let goes_on = goes_on.filter(|last| queue.age_ms(last.end).is_some_and(|age| age < fresh_ms));
        let from = goes_on.map_or(tail, |last| End { offset: last.end, bytes: last.start_bytes + last.bytes });
        let mut window = queue.window();
        window.part(from);
        window.parted_at() != before
    }

    /// Whether the queue has two positions now. Where these have met it lets go of what was read at the second.
    #[must_use]
    pub fn is_parted(&self) -> bool {
        let queue = &*self.inner;
        let mut window = queue.window();
        window.join_where_they_met();
        let is_parted = window.parted_at().is_some();
        drop(window);
        // Who claims there right now finds nothing, and lets go of it then.
        if !is_parted && let Ok(mut reading) = queue.reading_live.try_lock() {
            reading.rest();
        }
        is_parted
    }

    /// The first record that nobody had yet: of a queue that is parted, of those that came in since. `None` where there is none,
    /// or where it cannot be read. Reads one frame's header where [`front_in_memory`](Self::front_in_memory) says no.
    #[must_use]
    pub fn front(&self) -> Option<Front> {
        let queue = &*self.inner;
        let tail = queue.tail(queue.stream_id()?).offset;
        let (front, ranges) = queue.window().front(tail)?;
        let taken_in_ms = queue.ingest_ms(front)?;
        let age_ms = queue.context.clock.wall_ms().saturating_sub(taken_in_ms);
        Some(Front { taken_in_ms, age_ms, ranges })
    }

    /// Whether [`front`](Self::front) answers without the disk.
    #[must_use]
    pub fn front_in_memory(&self) -> bool {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return true };
        let tail = queue.tail(stream).offset;
        let Some((front, _)) = queue.window().front(tail) else { return true };
        queue.remembered_ms(front).is_some() || queue.context.log.reader(stream, front).in_memory()
    }

    /// Whether so many bytes wait of what nobody had yet, as far as this handle hands it out and that can be told without the
    /// disk: no, where it cannot.
    #[must_use]
    pub fn has_bytes(&self, bytes: u64) -> bool {
        let Some(stream) = self.inner.stream_id() else { return false };
        let tail = self.inner.tail(stream);
        let fresh = self.inner.window().fresh_known(self.position, tail);
        matches!(fresh, Some((_, [Some(start), Some(end)])) if end.saturating_sub(start) >= bytes)
    }

    /// What of the queue is not settled, as far as this handle hands it out.
    #[must_use]
    pub fn pending(&self) -> Count {
        let window = self.inner.window();
        let (cursor, parted) = (window.cursor().clone(), window.parted_at());
        drop(window);
        pending_at(&cursor, parted, self.position, self.inner.end())
    }
}

impl Inner {
    /// How long ago the record at `offset` was taken in.
    pub(super) fn age_ms(&self, offset: u64) -> Option<u64> {
        Some(self.context.clock.wall_ms().saturating_sub(self.ingest_ms(offset)?))
    }
}
