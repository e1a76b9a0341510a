//! The balance sheet of a queue: what became of every record since the queue began.
//!
//! [`Books`] is what is kept: seven counts and where counting began. [`Balance`] is what is shown: the books beside the
//! durable tail. What always holds, at every moment and across every crash:
//! `accepted = delivered + pending + dead_lettered + filtered + expired + purged + lost + held`, in records and in bytes.
//! Bytes close exactly because they are differences of one running total, never estimates added up.

use super::codec::{Decoder, Malformed};
use super::cursor::Cursor;
use std::ops::{Add, AddAssign};

/// Why a record needs no more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settled {
    /// The destination acknowledged it.
    Delivered,
    /// It lies in the dead-letter queue with its reason.
    DeadLettered,
    /// The destination's filter does not want it.
    Filtered,
    /// An overflow policy that the operator set let it go.
    Expired,
    /// The operator let it go by hand.
    Purged,
    /// Damage took it.
    Lost,
    /// It was moved to another stream of the log, where it is pending still: who asks about the destination adds up
    /// both queues.
    Held,
}

/// How many ways there are to settle a record.
pub(crate) const KINDS: usize = 7;

/// How many of them there were before [`Settled::Held`].
pub(crate) const KINDS_WITHOUT_HELD: usize = 6;

/// How many records, and their bytes in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Their bytes: payload as stored, a frame's bytes shared evenly by its records.
    pub bytes: u64,
}

/// What became of every record that this queue was to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Everything from the queue's start to the durable tail.
    pub accepted: Count,
    /// Acknowledged by the destination.
    pub delivered: Count,
    /// Not settled yet, in flight or waiting.
    pub pending: Count,
    /// In the dead-letter queue.
    pub dead_lettered: Count,
    /// Not wanted by the destination's filter.
    pub filtered: Count,
    /// Let go by an overflow policy.
    pub expired: Count,
    /// Let go by hand.
    pub purged: Count,
    /// Lost to damage.
    pub lost: Count,
    /// Moved to another stream, and in that one's balance from there on.
    pub held: Count,
}

/// Where the log ends for a reader: an offset and the stream's running total of bytes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct End {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Where counting began, and the counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Books {
    /// The queue's first offset.
    pub(crate) start: u64,
    /// The stream's running total at `start`. Wraps: when a log lost data its totals go on from a smaller number, and
    /// the start moves below zero with them, so that what was delivered before stays counted.
    pub(crate) start_bytes: u64,
    delivered: Count,
    /// The other ways to settle in their order; `None` while all are zero, as they are for almost every queue.
    others: Option<Box<[Count; KINDS - 1]>>,
}

impl Balance {
    /// Everything that is settled, whatever became of it.
    #[must_use]
    pub fn settled(&self) -> Count {
        self.delivered + self.dead_lettered + self.filtered + self.expired + self.purged + self.lost + self.held
    }

    /// Whether every accepted record is accounted for. Always true; asked by tests and by the demo.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.accepted == self.settled() + self.pending
    }
}

impl Books {
    pub(crate) fn from(start: u64, start_bytes: u64) -> Self {
        Self { start, start_bytes, delivered: Count::default(), others: None }
    }

    pub(crate) fn post(&mut self, count: Count, as_: Settled) {
        match (as_ as usize).checked_sub(1) {
            None => self.delivered += count,
            Some(_) if count == Count::default() => {}
            Some(other) => self.others.get_or_insert_default()[other] += count,
        }
    }

    /// What the destination acknowledged.
    pub(crate) fn delivered(&self) -> Count {
        self.delivered
    }

    /// All of them, in the order of [`Settled`].
    fn counts(&self) -> [Count; KINDS] {
        let others = self.others.as_deref().copied().unwrap_or_default();
        let mut counts = [self.delivered; KINDS];
        counts[1..].copy_from_slice(&others);
        counts
    }

    /// Everything settled.
    pub(crate) fn settled(&self) -> Count {
        self.counts().iter().fold(Count::default(), |sum, count| sum + *count)
    }

    /// Whether these are the books of that cursor: what they count is what it has settled.
    pub(crate) fn agree_with(&self, cursor: &Cursor) -> bool {
        let Some(below) = cursor.low.checked_sub(self.start) else { return false };
        let settled = self.settled();
        settled.records == below + cursor.settled_records()
            && settled.bytes == cursor.low_bytes.wrapping_sub(self.start_bytes).wrapping_add(cursor.settled_bytes())
    }

    /// Whether these books can have come from `earlier` by settling more.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        self.start == earlier.start
            && self.start_bytes == earlier.start_bytes
            && (self.counts().iter().zip(&earlier.counts()))
                .all(|(now, then)| now.records >= then.records && now.bytes >= then.bytes)
    }

    /// The sheet as of `tail`.
    pub(crate) fn balance(&self, cursor: &Cursor, tail: End) -> Balance {
        let [delivered, dead_lettered, filtered, expired, purged, lost, held] = self.counts();
        let accepted = if tail.offset < cursor.end() {
            self.settled() // a log that lost data: what was settled was accepted all the same
        } else {
            Count { records: tail.offset - self.start, bytes: tail.bytes.wrapping_sub(self.start_bytes) }
        };
        let pending = cursor.pending(tail);
        Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held }
    }

    /// Bytes that [`encode`](Self::encode) writes.
    pub(crate) const ENCODED_BYTES: usize = 16 + KINDS * 16;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.start_bytes.to_le_bytes());
        for count in self.counts() {
            out.extend_from_slice(&count.records.to_le_bytes());
            out.extend_from_slice(&count.bytes.to_le_bytes());
        }
    }

    /// `kinds`: how many ways to settle the writer knew, which is all of them but the last ones.
    pub(crate) fn decode(from: &mut Decoder<'_>, kinds: usize) -> Result<Self, Malformed> {
        let mut books = Self::from(from.u64()?, from.u64()?);
        let mut counts = [Count::default(); KINDS];
        for count in &mut counts[..kinds] {
            *count = Count { records: from.u64()?, bytes: from.u64()? };
        }
        let fits = |part: fn(&Count) -> u64| counts.iter().try_fold(0, |sum: u64, c| sum.checked_add(part(c)));
        if fits(|count| count.records).is_none() || fits(|count| count.bytes).is_none() {
            return Err(Malformed("counts beyond any stream"));
        }
        let [delivered, others @ ..] = counts;
        books.delivered = delivered;
        books.others = others.iter().any(|count| *count != Count::default()).then(|| Box::new(others));
        Ok(books)
    }
}

impl Cursor {
    /// What is not settled between the low mark and `tail`.
    pub(crate) fn pending(&self, tail: End) -> Count {
        // A tail below the cursor is a log that lost data: nothing is pending then, and the set has told the operator.
        let (above, settled) = (tail.offset.saturating_sub(self.low), self.settled_records());
        if tail.offset < self.end() || above == settled {
            return Count::default();
        }
        let bytes = tail.bytes.wrapping_sub(self.low_bytes).wrapping_sub(self.settled_bytes());
        Count { records: above - settled, bytes }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_closes_with_a_part_of_everything() {
        let mut books = Books::from(100, 5000);
        let mut cursor = Cursor::at(100, 5000);
        use Settled::{DeadLettered, Delivered, Expired, Filtered, Held, Purged};
        let kinds = [Delivered, DeadLettered, Filtered, Expired, Purged, Held];
        for (n, as_) in kinds.into_iter().enumerate() {
            let start = 100 + n as u64 * 10;
            cursor.insert(start..start + 10, 5000 + n as u64 * 77..5000 + (n as u64 + 1) * 77);
            books.post(Count { records: 10, bytes: 77 }, as_);
        }
        cursor.insert(170..173, 5500..5530);
        books.post(Count { records: 3, bytes: 30 }, Settled::Lost);
        assert!(books.agree_with(&cursor));

        let balance = books.balance(&cursor, End { offset: 200, bytes: 6000 });
        assert_eq!(balance.accepted, Count { records: 100, bytes: 1000 });
        assert_eq!(balance.pending, Count { records: 37, bytes: 1000 - 6 * 77 - 30 });
        assert_eq!(balance.held, Count { records: 10, bytes: 77 });
        assert!(balance.closes());
    }

    #[test]
    fn books_of_another_cursor_are_told_apart() {
        let mut books = Books::from(0, 0);
        books.post(Count { records: 5, bytes: 50 }, Settled::Delivered);
        assert!(books.agree_with(&Cursor::at(5, 50)));
        assert!(!books.agree_with(&Cursor::at(6, 50)));
        assert!(!books.agree_with(&Cursor::at(5, 51)));
        assert!(!Books::from(9, 0).agree_with(&Cursor::at(5, 50)), "a cursor below the start");
    }

    #[test]
    fn books_come_back_as_they_went_in_and_absurd_counts_are_refused() {
        let mut books = Books::from(3, u64::MAX - 2);
        books.post(Count { records: 5, bytes: 50 }, Settled::Purged);
        let mut bytes = Vec::new();
        books.encode(&mut bytes);
        assert_eq!(bytes.len(), Books::ENCODED_BYTES);
        assert_eq!(Books::decode(&mut Decoder::new(&bytes), KINDS), Ok(books));
        // As it was written before there was a seventh kind.
        let earlier = Books::decode(&mut Decoder::new(&bytes[..bytes.len() - 16]), KINDS_WITHOUT_HELD);
        assert_eq!(earlier, Books::decode(&mut Decoder::new(&bytes), KINDS));
        let only_delivered = Books { delivered: Count { records: 5, bytes: 50 }, ..Books::from(3, 0) };
        bytes.clear();
        only_delivered.encode(&mut bytes);
        assert_eq!(Books::decode(&mut Decoder::new(&bytes), KINDS), Ok(only_delivered), "with nothing else kept");
        bytes.fill(0xFF);
        assert_eq!(Books::decode(&mut Decoder::new(&bytes), KINDS), Err(Malformed("counts beyond any stream")));
    }

    #[test]
    fn a_sheet_on_which_something_is_missing_does_not_close() {
        let one = Count { records: 1, bytes: 10 };
        let sheet = Balance { accepted: one, pending: one, ..Balance::default() };
        assert!(sheet.closes());
        assert!(!Balance { pending: Count { records: 1, bytes: 9 }, ..sheet }.closes());
        assert!(!Balance { delivered: one, ..sheet }.closes());
    }

    #[test]
    fn books_go_on_from_earlier_ones_by_more_of_each_kind_and_from_one_start() {
        let books = |start, start_bytes, delivered, purged| {
            let mut books = Books::from(start, start_bytes);
            books.post(Count { records: delivered, bytes: delivered * 10 }, Settled::Delivered);
            books.post(Count { records: purged, bytes: purged * 10 }, Settled::Purged);
            books
        };
        let earlier = books(3, 30, 5, 2);
        assert!(
            earlier.continues(&earlier)
                && books(3, 30, 6, 2).continues(&earlier)
                && books(3, 30, 5, 3).continues(&earlier)
        );
        for other in [books(4, 30, 6, 3), books(3, 31, 6, 3), books(3, 30, 4, 9), books(3, 30, 9, 1)] {
            assert!(!other.continues(&earlier), "{other:?}");
        }
        let mut fewer_bytes = Books::from(3, 30);
        fewer_bytes.post(Count { records: 9, bytes: 49 }, Settled::Delivered);
        fewer_bytes.post(Count { records: 9, bytes: 90 }, Settled::Purged);
        assert!(!fewer_bytes.continues(&earlier));
        assert!(books(3, 30, 5, 0).others.is_none(), "nothing of a kind takes no room");
    }
}
