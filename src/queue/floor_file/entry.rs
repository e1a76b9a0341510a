//! One queue as the floor keeps it: who it is, how far it is, and its books. A value and its bytes; no file here.

use crate::StreamId;
use crate::queue::balance::{Books, Count, End, KINDS, KINDS_WITHOUT_HELD};
use crate::queue::codec::{Decoder, Malformed, put_text};
use crate::queue::cursor::{Cursor, SettledRange};
use crate::queue::limits::{QUEUE_NAME_BYTES_MAX, STREAM_BYTES_MAX};
use crate::queue::marked::Marked;
use crate::queue::replay::{self, Replayed};
use std::sync::Arc;

/// What the floor holds of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FloorEntry {
    pub(crate) destination: Arc<str>,
    pub(crate) stream: Arc<str>,
    /// The stream's number, once the stream exists. Part of batch ids, so it is checked against the log at open.
    pub(crate) stream_id: Option<StreamId>,
    /// How often the destination was made anew; part of batch ids.
    pub(crate) incarnation: u32,
    /// Raised by every move of the cursor that is not forward: hints of an older epoch are not believed.
    pub(crate) epoch: u32,
    pub(crate) books: Books,
    pub(crate) cursor: Cursor,
    /// What few queues have.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What only some queues have in the floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extra {
    /// A destination's own queue that was replayed.
    Replayed(Replayed),
    /// The same, of which some records were given up where they lie.
    Marked(Replayed, Marked),
    /// A replay, and where it ends.
    Replay {
        /// Under new ids.
        again: bool,
        /// Of records that were given up where they lie.
        redrive: bool,
        end: End,
    },
}

/// What follows a cursor, in its first byte.
const PLAIN: u8 = 0;
const REPLAYED: u8 = 1;
const REPLAY_FILL: u8 = 2;
const REPLAY_AGAIN: u8 = 3;
const MARKED: u8 = 4;
const REDRIVE: u8 = 5;

/// Stands for "no stream yet".
const NO_STREAM: u32 = u32::MAX;

impl FloorEntry {
    /// The encoding of an entry with the longest names and every range in use.
    pub(super) const ENCODED_BYTES_MAX: usize = 1
        + QUEUE_NAME_BYTES_MAX
        + 1
        + STREAM_BYTES_MAX
        + 12
        + Books::ENCODED_BYTES
        + Cursor::ENCODED_BYTES_MAX
        + Extra::ENCODED_BYTES_MAX;

    /// Bytes that [`encode`](Self::encode) writes.
    pub(super) fn encoded_len(&self) -> usize {
        let ranges_free = crate::queue::limits::SETTLED_RANGES_MAX - self.cursor.settled.len();
        let names_free = QUEUE_NAME_BYTES_MAX - self.destination.len() + STREAM_BYTES_MAX - self.stream.len();
        let extra_free = Extra::ENCODED_BYTES_MAX - Extra::encoded_len(self.extra.as_deref());
        Self::ENCODED_BYTES_MAX - names_free - ranges_free * SettledRange::ENCODED_BYTES - extra_free
    }

    /// Where what the queue keeps begins: at its low mark, or at a record below that was given up and can still be had.
    pub(crate) fn first_needed(&self) -> End {
        let low = End { offset: self.cursor.low, bytes: self.cursor.low_bytes };
        let marked = match self.extra.as_deref() {
            Some(Extra::Marked(_, marked)) => marked.first(),
            _ => None,
        };
        marked.filter(|first| first.offset < low.offset).unwrap_or(low)
    }

    /// Appends: destination and stream (each a length byte and UTF-8), stream id, incarnation, epoch (u32 each),
    /// the books, the cursor, and what only some queues have.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.books.agree_with(&self.cursor), "cursor and books are one snapshot");
        put_text(out, &self.destination);
        put_text(out, &self.stream);
        out.extend_from_slice(&self.stream_id.map_or(NO_STREAM, |id| id.0).to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        self.books.encode(out);
        self.cursor.encode(out);
        Extra::encode(self.extra.as_deref(), out);
    }

    /// Takes an entry off a page of this version.
    pub(super) fn decode(from: &mut Decoder<'_>, version: u16) -> Result<Self, Malformed> {
        let (destination, stream) = (from.text()?, from.text()?);
        if destination.len() > QUEUE_NAME_BYTES_MAX || stream.len() > STREAM_BYTES_MAX {
            return Err(Malformed("a name longer than names may be"));
        }
        let stream_id = Some(from.u32()?).filter(|id| *id != NO_STREAM).map(StreamId);
        let (incarnation, epoch) = (from.u32()?, from.u32()?);
        let kinds = if version == 1 { KINDS_WITHOUT_HELD } else { KINDS };
        let (books, cursor) = (Books::decode(from, kinds)?, Cursor::decode(from)?);
        if !books.agree_with(&cursor) {
            return Err(Malformed("the books are not those of the cursor"));
        }
        let extra = if version < 3 { None } else { Extra::decode(from)? };
        if let Some(Extra::Marked(_, marked)) = &extra
            && marked.ranges().iter().any(|range| !cursor.unsettled(range.start..range.end).is_empty())
        {
            return Err(Malformed("what is marked is not settled"));
        }
        if matches!(extra, Some(Extra::Replay { .. })) != replay::parse(destination).is_some() {
            return Err(Malformed("a replay by name or by nature only"));
        }
        let extra = extra.map(Box::new);
        Ok(Self {
            destination: destination.into(),
            stream: stream.into(),
            stream_id,
            incarnation,
            epoch,
            books,
            cursor,
            extra,
        })
    }
}

impl Extra {
    /// The longest encoding.
    const ENCODED_BYTES_MAX: usize = 1 + 4 + 16 + Marked::ENCODED_BYTES_MAX;

    fn encoded_len(extra: Option<&Self>) -> usize {
        match extra {
            None => 1,
            Some(Self::Replayed(_)) => 1 + 4 + 16,
            Some(Self::Marked(_, marked)) => 1 + 4 + 16 + marked.encoded_len(),
            Some(Self::Replay { .. }) => 1 + 16,
        }
    }

    /// A byte that says what follows: replays that are over (u32) and the records and bytes that these delivered, or the
    /// offset where a replay ends and the running total there; behind the former, what was given up where it lies.
    fn encode(extra: Option<&Self>, out: &mut Vec<u8>) {
        let (kind, number, pair) = match extra {
            None => (PLAIN, None, None),
            Some(Self::Replayed(Replayed { replays, delivered })) => {
                (REPLAYED, Some(*replays), Some([delivered.records, delivered.bytes]))
            }
            Some(Self::Marked(Replayed { replays, delivered }, _)) => {
                (MARKED, Some(*replays), Some([delivered.records, delivered.bytes]))
            }
            Some(Self::Replay { again, redrive, end }) => {
                let kind = match (again, redrive) {
                    (_, true) => REDRIVE,
                    (true, false) => REPLAY_AGAIN,
                    (false, false) => REPLAY_FILL,
                };
                (kind, None, Some([end.offset, end.bytes]))
            }
        };
        out.push(kind);
        out.extend(number.into_iter().flat_map(u32::to_le_bytes));
        out.extend(pair.into_iter().flatten().flat_map(u64::to_le_bytes));
        if let Some(Self::Marked(_, marked)) = extra {
            marked.encode(out);
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Option<Self>, Malformed> {
        match from.u8()? {
            PLAIN => Ok(None),
            kind @ (REPLAYED | MARKED) => {
                let (replays, delivered) = (from.u32()?, Count { records: from.u64()?, bytes: from.u64()? });
                let over = Replayed { replays, delivered };
                Ok(Some(if kind == MARKED { Self::Marked(over, Marked::decode(from)?) } else { Self::Replayed(over) }))
            }
            kind @ (REPLAY_FILL | REPLAY_AGAIN | REDRIVE) => {
                let end = End { offset: from.u64()?, bytes: from.u64()? };
                Ok(Some(Self::Replay { again: kind == REPLAY_AGAIN, redrive: kind == REDRIVE, end }))
            }
            _ => Err(Malformed("nothing that follows a cursor")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::VERSION;
    use super::*;
    use crate::queue::balance::Settled;
    use crate::queue::marked::MarkedRange;

    fn entry(destination: &str, extra: Option<Extra>) -> FloorEntry {
        let mut books = Books::from(0, 0);
        books.post(Count { records: 10, bytes: 100 }, Settled::DeadLettered);
        FloorEntry {
            destination: destination.into(),
            stream: "acme".into(),
            stream_id: None,
            incarnation: 1,
            epoch: 2,
            books,
            cursor: Cursor::at(10, 100),
            extra: extra.map(Box::new),
        }
    }

    fn read(entry: &FloorEntry) -> Result<FloorEntry, Malformed> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        FloorEntry::decode(&mut Decoder::new(&bytes), VERSION)
    }

    #[test]
    fn names_that_are_longer_than_names_may_be_are_refused() {
        let named = |destination: usize, stream: usize| FloorEntry {
            stream: "s".repeat(stream).into(),
            ..entry(&"d".repeat(destination), None)
        };
        let longest = named(QUEUE_NAME_BYTES_MAX, STREAM_BYTES_MAX);
        assert_eq!(read(&longest).as_ref(), Ok(&longest));
        for (destination, stream) in [(QUEUE_NAME_BYTES_MAX + 1, 1), (1, STREAM_BYTES_MAX + 1)] {
            assert_eq!(read(&named(destination, stream)), Err(Malformed("a name longer than names may be")));
        }
    }

    /// What is marked is had where it lies by whoever decides on it: were it pending as well, it would be sent twice.
    #[test]
    fn what_is_marked_and_not_settled_is_refused() {
        let marked = |start: u64, end: u64| {
            let mut marked = Marked::default();
            let bytes = (end - start) * 10;
            marked.add(MarkedRange { start, end, start_bytes: start * 10, bytes, at_ms: 7 });
            entry("hook", Some(Extra::Marked(Replayed::default(), marked)))
        };
        assert_eq!(read(&marked(4, 10)), Ok(marked(4, 10)));
        for (start, end) in [(4, 11), (10, 12)] {
            assert_eq!(read(&marked(start, end)), Err(Malformed("what is marked is not settled")));
        }
    }

    #[test]
    fn what_follows_a_cursor_is_of_a_kind_that_is_known_or_refused() {
        let mut bytes = Vec::new();
        entry("hook", None).encode(&mut bytes);
        assert_eq!(bytes.last(), Some(&PLAIN));
        for kind in [REDRIVE + 1, u8::MAX] {
            *bytes.last_mut().expect("it is there") = kind;
            let read = FloorEntry::decode(&mut Decoder::new(&bytes), VERSION);
            assert_eq!(read, Err(Malformed("nothing that follows a cursor")));
        }
    }

    #[test]
    fn a_replay_is_one_by_its_name_and_by_what_is_kept_of_it_or_refused() {
        let replay = || Some(Extra::Replay { again: true, redrive: false, end: End { offset: 10, bytes: 100 } });
        let name = replay::name("hook", 1);
        assert_eq!(read(&entry(&name, replay())), Ok(entry(&name, replay())));
        for other in [entry("hook", replay()), entry(&name, None)] {
            assert_eq!(read(&other), Err(Malformed("a replay by name or by nature only")));
        }
    }
}
