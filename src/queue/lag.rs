//! How far a queue is behind: a value for whoever shows it. The queue computes it; nothing here reads anything.

use super::balance::End;
use super::cursor::Cursor;

/// How far behind a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Records up to the durable tail that are not settled.
    pub records: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// How long ago the oldest of them was taken in, by the wall clock. `None` when nothing is behind. Where that
    /// record cannot be read, of one behind it that can: it is as old at least; `None` when none is found.
    pub oldest_age_ms: Option<u64>,
    /// The same of the records that came in since the queue was [parted](super::Queue::part); 0 when none of those is behind.
    /// `None` when it has one position, or when the record cannot be read.
    pub live_age_ms: Option<u64>,
    /// The first offset that is not durable yet.
    pub durable_tail: u64,
    /// The first offset that is not settled.
    pub low_mark: u64,
    /// Records handed out in batches and neither settled nor given back.
    pub in_flight: u64,
}

impl Lag {
    /// The lag of a cursor behind `tail`. `oldest_ms` is when the record at the low mark was taken in.
    pub(crate) fn of(cursor: &Cursor, tail: End, in_flight: u64, oldest_ms: Option<u64>, now_ms: u64) -> Self {
        let pending = cursor.pending(tail);
        Self {
            records: pending.records,
            bytes: pending.bytes,
            live_age_ms: None,
            // A wall clock that was set back makes the record look young; it never makes an age negative.
            oldest_age_ms: oldest_ms.filter(|_| pending.records > 0).map(|then| now_ms.saturating_sub(then)),
            durable_tail: tail.offset,
            low_mark: cursor.low,
            in_flight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_tail_less_the_low_mark_less_what_is_settled_between() {
        let mut cursor = Cursor::at(10, 100);
        cursor.insert(20..30, 200..255);
        let lag = Lag::of(&cursor, End { offset: 50, bytes: 400 }, 7, Some(1_000), 4_500);
        assert_eq!((lag.records, lag.bytes, lag.oldest_age_ms), (30, 245, Some(3_500)));
        assert_eq!((lag.durable_tail, lag.low_mark, lag.in_flight), (50, 10, 7));
    }

    #[test]
    fn a_queue_at_the_tail_has_no_age_and_a_clock_set_back_no_negative_one() {
        let end = End { offset: 10, bytes: 100 };
        assert_eq!(Lag::of(&Cursor::at(10, 100), end, 0, Some(1), 9).oldest_age_ms, None);
        assert_eq!(Lag::of(&Cursor::at(9, 90), end, 0, Some(9), 1).oldest_age_ms, Some(0));
    }
}
