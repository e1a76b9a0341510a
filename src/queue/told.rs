//! What a queue says of itself: who it is, how far it is, how far behind, and what became of its records.
//!
//! Reads and changes nothing but what it remembers of times. What always holds: the window is read before the tail, so no cursor
//! is seen ahead of it.

use super::balance::Balance;
use super::cursor::Cursor;
use super::hours::{Hourly, Hours};
use super::lag::Lag;
use super::{Queue, lock};
use crate::LogId;
use crate::sync::Arc;

impl Queue {
    /// The destination's id. Of a replay it is `<id>!replay-<number>`; see [`replay`](Self::replay).
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.inner.destination
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.inner.stream
    }

    /// The log that its records are of.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.inner.context.log_id
    }

    /// The destination's id, to keep: shared, not copied.
    #[must_use]
    pub fn destination_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.destination)
    }

    /// The stream's name, to keep: shared, not copied.
    #[must_use]
    pub fn stream_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.stream)
    }

    /// What is settled.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.inner.window().cursor().clone()
    }

    /// How far the queue is behind. Reads a frame's header from the disk when the oldest record changed and is not in memory, and
    /// one more where it has two positions; a few where the oldest record cannot be read.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let queue = &*self.inner;
        let window = queue.window();
        let (cursor, in_flight, oldest_ms) = (window.cursor().clone(), window.in_flight(), window.oldest_ms());
        let live = window.parted_at().and_then(|at| Some(cursor.unsettled(at.offset..u64::MAX).first()?.start));
        let live = live.map(|first| (first, window.open_ms(first)));
        drop(window);
        let end = queue.end(); // after the cursor, which is never ahead of it
        let now_ms = queue.context.clock.wall_ms();
        let live_age_ms = live.and_then(|(first, ms)| match first < end.offset {
            true => Some(now_ms.saturating_sub(ms.or_else(|| queue.ingest_ms(first))?)),
            false => Some(0),
        });
        let behind = cursor.pending(end).records > 0;
        let oldest_ms = oldest_ms.or_else(|| queue.oldest_ms(cursor.low).filter(|_| behind));
        let lag = Lag::of(&cursor, end, in_flight, oldest_ms, now_ms);
        Lag { live_age_ms, ..lag }
    }

    /// When the oldest record that is not settled was taken in, in milliseconds since 1970: that one and no other. `None` where none
    /// waits, or where it cannot be read.
    #[must_use]
    pub fn oldest_ingest_ms(&self) -> Option<u64> {
        let queue = &*self.inner;
        let window = queue.window();
        let (low, open_ms) = (window.cursor().low, window.oldest_ms());
        drop(window);
        open_ms.or_else(|| queue.ingest_ms_at(low, 0))
    }

    /// What became of every record since the queue began. It closes, always.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let window = self.inner.window();
        let (cursor, books) = (window.cursor().clone(), window.books().clone());
        drop(window);
        books.balance(&cursor, self.inner.end())
    }

    /// The balance hour by hour, two days of it at most: all hours that are told and what came before
    /// [`known_from_ms`](Hourly::known_from_ms) add up to the [`balance`](Self::balance). Whole hours of the wall clock, but
    /// for the one that is under way and for what lies around a stop. Kept in the cursor store, once an hour, so it may be
    /// forgotten; then it says so.
    ///
    /// ```
    /// # use forebay::{LogOptions, Payload, QueueOptions, Queues, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// queue.settle_range(0..4, Settled::Delivered);
    /// let hour = queue.hourly().hours[0];
    /// assert_eq!((hour.balance.accepted.records, hour.balance.delivered.records), (10, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hourly(&self) -> Hourly {
        let (now_ms, balance) = (self.inner.context.clock.wall_ms(), self.balance());
        match lock(&self.inner.hours).as_deref() {
            Some(hours) => hours.hourly(now_ms, balance),
            None => Hours::from(self.inner.context.opened_ms, Balance::default()).hourly(now_ms, balance),
        }
    }
}
