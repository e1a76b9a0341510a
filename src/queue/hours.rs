//! The balance of a queue hour by hour: what changed between two moments at which its books were looked at.
//!
//! An index, not a book: it lives in memory and in the cursor store, once an hour, and either may be lost. What always
//! holds: the spans lie one behind the other, what is in them is exactly what changed from the first one's beginning on,
//! and where nothing is known any more it says from when on it knows. A span is an hour, unless nobody looked at its end
//! (the process was down): then it reaches to where somebody did.

use super::balance::{Balance, Count};
use super::codec::{Decoder, Malformed};
use crate::LogId;
use std::collections::VecDeque;

/// Spans that are kept of a queue: two days of one that is never idle, at most 8 KiB.
pub(crate) const HOURS_MAX: usize = 48;

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: u64 = 3_600_000;

const VERSION: u8 = 2;
/// Without an epoch, which was always 0 then.
const VERSION_WITHOUT_EPOCH: u8 = 1;

/// Which life of a queue it is: the log, the incarnation of its destination, and the epoch of its cursor.
pub(crate) type Life = (LogId, u32, u32);

/// What became of records in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// Its beginning, in milliseconds since 1970.
    pub from_ms: u64,
    /// Its end: an hour later, but for the one that is under way, the first, and those that a stop lies in.
    pub to_ms: u64,
    /// What was accepted and settled in it; `pending` is what was pending at its end.
    pub balance: Balance,
}

/// A queue hour by hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hourly {
    /// From when on it is known, in milliseconds since 1970. What came before is in the balance, and in no hour.
    pub known_from_ms: u64,
    /// In order. Where there is none nothing was accepted or settled.
    pub hours: Vec<Hour>,
}

/// What is kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hours {
    known_from_ms: u64,
    /// Where the span that is under way began, and the balance then.
    since_ms: u64,
    since: Balance,
    closed: VecDeque<Hour>,
}

impl Hours {
    /// Known from now on.
    pub(crate) fn from(now_ms: u64, balance: Balance) -> Self {
        Self { known_from_ms: now_ms, since_ms: now_ms, since: balance, closed: VecDeque::new() }
    }

    /// Ends the span that is under way, with the balance as it is now.
    pub(crate) fn close(&mut self, at_ms: u64, balance: Balance) {
        if at_ms <= self.since_ms {
            return; // the clock was set back: the span goes on
        }
        self.closed.extend(self.span(at_ms, balance));
        (self.since_ms, self.since) = (at_ms, balance);
        if self.closed.len() > HOURS_MAX {
            self.known_from_ms = self.closed.pop_front().expect("more than none").to_ms;
        }
    }

    /// As of now.
    pub(crate) fn hourly(&self, now_ms: u64, balance: Balance) -> Hourly {
        let hours = self.closed.iter().copied().chain(self.span(now_ms.max(self.since_ms), balance));
        Hourly { known_from_ms: self.known_from_ms, hours: hours.collect() }
    }

    /// What changed since the last look, if anything did.
    fn span(&self, to_ms: u64, now: Balance) -> Option<Hour> {
        let (was, is) = (counts(&self.since), counts(&now));
        let less = |(is, was): (&Count, &Count)| Count {
            records: is.records.saturating_sub(was.records),
            bytes: is.bytes.saturating_sub(was.bytes),
        };
        let changed: Vec<Count> = is.iter().zip(&was).map(less).collect();
        let mut balance = of_counts(&changed.try_into().ok()?);
        let moved = balance != Balance::default();
        balance.pending = now.pending;
        moved.then_some(Hour { from_ms: self.since_ms, to_ms, balance })
    }

    /// Version (u8), log id (u128), incarnation, epoch (u32 each), known from and since (u64 each), the balance then, and
    /// the spans: from, to (u64 each) and their balance; a balance is nine pairs of records and bytes. A CRC-32 of all that.
    pub(crate) fn encode(&self, (log_id, incarnation, epoch): Life) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&log_id.0.to_le_bytes());
        out.extend_from_slice(&incarnation.to_le_bytes());
        out.extend_from_slice(&epoch.to_le_bytes());
        let mut sheet = |from: u64, to: u64, balance: &Balance| {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
            for Count { records, bytes } in counts(balance).into_iter().chain([balance.pending]) {
                out.extend_from_slice(&records.to_le_bytes());
                out.extend_from_slice(&bytes.to_le_bytes());
            }
        };
        sheet(self.known_from_ms, self.since_ms, &self.since);
        self.closed.iter().for_each(|hour| sheet(hour.from_ms, hour.to_ms, &hour.balance));
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what a store gave back, and believes it where it can have come before `now`.
    pub(crate) fn decode(bytes: &[u8], of: Life, now: &Balance) -> Result<Self, Malformed> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("ends too early"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(Malformed("the checksum is wrong"));
        }
        let mut from = Decoder::new(body);
        let version = from.u8()?;
        let (log_id, incarnation) = (LogId(from.u128()?), from.u32()?);
        let epoch = match version {
            VERSION => from.u32()?,
            VERSION_WITHOUT_EPOCH => 0,
            _ => return Err(Malformed("of another version")),
        };
        if (log_id, incarnation, epoch) != of {
            return Err(Malformed("of another log, or another life of the queue"));
        }
        let (known_from_ms, since_ms, since) = sheet(&mut from)?;
        let mut hours = Self { known_from_ms, since_ms, since, closed: VecDeque::new() };
        while !from.is_empty() && hours.closed.len() < HOURS_MAX {
            let (from_ms, to_ms, balance) = sheet(&mut from)?;
            hours.closed.push_back(Hour { from_ms, to_ms, balance });
        }
        let grew =
            counts(&since).iter().zip(counts(now)).all(|(was, is)| was.records <= is.records && was.bytes <= is.bytes);
        if !grew {
            return Err(Malformed("ahead of the books")); // what it knows a crash took back
        }
        Ok(hours)
    }
}

fn sheet(from: &mut Decoder<'_>) -> Result<(u64, u64, Balance), Malformed> {
    let (start, end) = (from.u64()?, from.u64()?);
    let mut sheet = [Count::default(); 9];
    for count in &mut sheet {
        *count = Count { records: from.u64()?, bytes: from.u64()? };
    }
    let [counts @ .., pending] = sheet;
    Ok((start, end, Balance { pending, ..of_counts(&counts) }))
}

/// Everything that only grows, in a fixed order. Taken apart by name, so that a new way to settle cannot be forgotten.
fn counts(balance: &Balance) -> [Count; 8] {
    let Balance { accepted, delivered, pending: _, dead_lettered, filtered, expired, purged, lost, held } = *balance;
    [accepted, delivered, dead_lettered, filtered, expired, purged, lost, held]
}

fn of_counts(&[accepted, delivered, dead_lettered, filtered, expired, purged, lost, held]: &[Count; 8]) -> Balance {
    let pending = Count::default();
    Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(records: u64) -> Count {
        Count { records, bytes: records * 10 }
    }

    /// A balance with so many records accepted, and all of them delivered but a few.
    fn balance(accepted: u64, pending: u64) -> Balance {
        let (accepted, delivered, pending) = (count(accepted), count(accepted - pending), count(pending));
        Balance { accepted, delivered, pending, ..Balance::default() }
    }

    fn told(hourly: &Hourly) -> Vec<(u64, u64, u64, u64, u64)> {
        let hours = hourly.hours.iter();
        hours
            .map(|Hour { from_ms, to_ms, balance }| {
                (*from_ms, *to_ms, balance.accepted.records, balance.delivered.records, balance.pending.records)
            })
            .collect()
    }

    #[test]
    fn what_changed_in_an_hour_stands_in_it_and_all_hours_add_up() {
        let mut hours = Hours::from(5, Balance::default());
        hours.close(10, balance(7, 2));
        hours.close(20, balance(7, 2)); // nothing moved
        hours.close(30, balance(100, 0));
        hours.close(25, balance(100, 0)); // a clock that was set back
        let hourly = hours.hourly(34, balance(101, 1));
        assert_eq!(told(&hourly), [(5, 10, 7, 5, 2), (20, 30, 93, 95, 0), (30, 34, 1, 0, 1)]);
        assert_eq!(hourly.hours.iter().map(|hour| hour.balance.accepted.records).sum::<u64>(), 101);
        assert_eq!(hourly.known_from_ms, 5);
    }

    #[test]
    fn the_oldest_hours_go_and_it_says_from_when_on_it_knows() {
        let mut hours = Hours::from(0, Balance::default());
        (1..=HOURS_MAX as u64 + 2).for_each(|n| hours.close(n * HOUR_MS, balance(n * 10, 0)));
        let hourly = hours.hourly(100 * HOUR_MS, balance(HOURS_MAX as u64 * 10 + 20, 0));
        assert_eq!((hourly.hours.len(), hourly.known_from_ms), (HOURS_MAX, 2 * HOUR_MS));
        assert_eq!(hourly.hours[0].from_ms, 2 * HOUR_MS);
    }

    #[test]
    fn of_more_hours_than_are_kept_no_more_come_back() {
        let mut hours = Hours::from(0, Balance::default());
        let hour = |n| Hour { from_ms: n * HOUR_MS, to_ms: (n + 1) * HOUR_MS, balance: balance(1, 0) };
        hours.closed.extend((0..=HOURS_MAX as u64).map(hour));
        let of = (LogId(3), 1, 9);
        let back = Hours::decode(&hours.encode(of), of, &balance(99, 0)).expect("they are sound");
        assert_eq!(back.closed.len(), HOURS_MAX);
    }

    #[test]
    fn they_come_back_as_they_went_in_and_what_the_books_do_not_know_is_refused() {
        let mut hours = Hours::from(5, Balance::default());
        hours.close(10, balance(7, 2));
        let of = (LogId(3), 1, 9);
        let bytes = hours.encode(of);
        assert_eq!(Hours::decode(&bytes, of, &balance(7, 0)).as_ref(), Ok(&hours));
        assert!(Hours::decode(&bytes, of, &balance(6, 0)).is_err(), "a crash took a record back");
        for other in [(LogId(3), 2, 9), (LogId(3), 1, 0), (LogId(4), 1, 9)] {
            assert!(Hours::decode(&bytes, other, &balance(7, 0)).is_err(), "of another life");
        }
        // As it was written before there was an epoch.
        let mut earlier = [&[1], &bytes[1..21], &bytes[25..bytes.len() - 4]].concat();
        let crc = crc32fast::hash(&earlier);
        earlier.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(Hours::decode(&earlier, (LogId(3), 1, 0), &balance(7, 0)).as_ref(), Ok(&hours));
        assert!(Hours::decode(&earlier, of, &balance(7, 0)).is_err());
        let mut later = [&[VERSION + 1], &bytes[1..bytes.len() - 4]].concat();
        let crc = crc32fast::hash(&later);
        later.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(Hours::decode(&later, of, &balance(7, 0)), Err(Malformed("of another version")));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Hours::decode(&changed, of, &balance(7, 0)).is_err());
        }
    }
}
