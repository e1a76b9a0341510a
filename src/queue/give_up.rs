//! Giving up the oldest records of a queue, because an operator said so beforehand: how much is said by time or by bytes,
//! and what lies there is found here.
//!
//! Decides nothing about when. What always holds: a batch that somebody has is left to its answer, and so is one that
//! reaches beyond what goes: an id never stands for fewer records than it did.

use super::balance::{Count, Settled};
use super::reading::{offset_at_time_in, total_at};
use super::{Inner, Queue, QueueError};
use crate::{Log, ReadError, StreamId};
use std::ops::Range;

/// How much of what waits is given up, from the oldest record on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Much {
    /// What was taken in before this moment, in milliseconds since 1970. Where the wall clock was set back in between, up to
    /// one of the places where records from before that moment and from after it meet.
    OlderThan(u64),
    /// So many bytes of it, as stored, or up to one record more.
    Bytes(u64),
}

impl Queue {
    /// Settles the oldest records that wait as [`Settled::Expired`], and says how much that was: for an overflow policy.
    /// What lies at `below` or behind it stays, whatever `much` says. Batches that are out are left to their answer, those
    /// that reach beyond what goes are left whole; both may go when this is called again. A batch that was given back goes:
    /// it is never sent again, though the destination may have got it.
    ///
    /// Durable after the next tick; a crash before it takes it back. Reads a few frames' headers.
    ///
    /// ```
    /// # use forebay::{LogOptions, Much, Payload, QueueOptions, Queues, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// assert_eq!(queue.drop_oldest(Much::Bytes(25), u64::MAX)?.records, 3);
    /// assert_eq!((queue.balance().expired.records, queue.lag().records), (3, 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the log cannot be read. Nothing was settled then.
    pub fn drop_oldest(&self, much: Much, below: u64) -> Result<Count, QueueError> {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(Count::default()) };
        let Some(going) = queue.oldest(stream, much, below)? else { return Ok(Count::default()) };
        let bytes_at = queue.bytes_of(stream, &going)?;
        let gone = queue.with_window(|window| window.let_waiting_go(going, Settled::Expired, bytes_at));
        queue.touch();
        Ok(gone)
    }
}

impl Inner {
    /// What of the queue `much` means: from its low mark on.
    fn oldest(&self, stream: StreamId, much: Much, below: u64) -> Result<Option<Range<u64>>, ReadError> {
        let log = &self.context.log;
        let cursor = self.window().cursor().clone();
        let tail = self.tail(stream); // after the cursor, which is never ahead of it
        let most = tail.offset.min(below);
        if cursor.low >= most {
            return Ok(None);
        }
        let end = match much {
            Much::OlderThan(ms) => offset_at_time_in(log, stream, ms, cursor.low..most)?,
            Much::Bytes(0) => cursor.low,
            Much::Bytes(bytes) => {
                let mut left = bytes;
                let mut end = most;
                for part in cursor.unsettled(cursor.low..most) {
                    // It begins at the low mark, or where something is settled.
                    let ((_, from), above) = cursor.around(&part);
                    let until = match above {
                        Some((at, total)) if at == part.end => total,
                        _ if part.end == tail.offset => tail.bytes,
                        _ => self.total_at(stream, part.end)?,
                    };
                    let here = until.saturating_sub(from);
                    if here >= left {
                        end = offset_at_total(log, stream, part, from + left)?;
                        break;
                    }
                    left -= here;
                }
                end
            }
        };
        Ok((cursor.low < end).then_some(cursor.low..end))
    }
}

/// The first offset behind the start of `part` at which the stream's running total is `total` or more; its end where it is
/// nowhere. Looks at a few frames' headers, by halving.
pub(super) fn offset_at_total(log: &Log, stream: StreamId, part: Range<u64>, total: u64) -> Result<u64, ReadError> {
    // At `from` it is less, at `until` it is not, or that is the end.
    let (mut from, mut until) = (part.start, part.end);
    while from + 1 < until {
        let middle = from + (until - from) / 2;
        if total_at(log, stream, middle)? < total { from = middle } else { until = middle }
    }
    Ok(until)
}
