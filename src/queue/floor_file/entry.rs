//! One queue as the floor keeps it: who it is, how far it is, and its books. A value and its bytes; no file here.

use crate::StreamId;
use crate::queue::balance::{Books, KINDS, KINDS_WITHOUT_HELD};
use crate::queue::codec::{Decoder, Malformed, put_text};
use crate::queue::cursor::{Cursor, SettledRange};
use crate::queue::limits::{DESTINATION_BYTES_MAX, STREAM_BYTES_MAX};
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
}

/// Stands for "no stream yet".
const NO_STREAM: u32 = u32::MAX;

impl FloorEntry {
    /// The encoding of an entry with the longest names and every range in use.
    pub(super) const ENCODED_BYTES_MAX: usize =
        1 + DESTINATION_BYTES_MAX + 1 + STREAM_BYTES_MAX + 12 + Books::ENCODED_BYTES + Cursor::ENCODED_BYTES_MAX;

    /// Bytes that [`encode`](Self::encode) writes.
    pub(super) fn encoded_len(&self) -> usize {
        let ranges_free = crate::queue::limits::SETTLED_RANGES_MAX - self.cursor.settled.len();
        let names_free = DESTINATION_BYTES_MAX - self.destination.len() + STREAM_BYTES_MAX - self.stream.len();
        Self::ENCODED_BYTES_MAX - names_free - ranges_free * SettledRange::ENCODED_BYTES
    }

    /// Appends: destination and stream (each a length byte and UTF-8), stream id, incarnation, epoch (u32 each),
    /// the books, the cursor.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.books.agree_with(&self.cursor), "cursor and books are one snapshot");
        put_text(out, &self.destination);
        put_text(out, &self.stream);
        out.extend_from_slice(&self.stream_id.map_or(NO_STREAM, |id| id.0).to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        self.books.encode(out);
        self.cursor.encode(out);
    }

    /// Takes an entry off a page of this version.
    pub(super) fn decode(from: &mut Decoder<'_>, version: u16) -> Result<Self, Malformed> {
        let (destination, stream) = (from.text()?, from.text()?);
        if destination.len() > DESTINATION_BYTES_MAX || stream.len() > STREAM_BYTES_MAX {
            return Err(Malformed("a name longer than names may be"));
        }
        let stream_id = Some(from.u32()?).filter(|id| *id != NO_STREAM).map(StreamId);
        let (incarnation, epoch) = (from.u32()?, from.u32()?);
        let kinds = if version == 1 { KINDS_WITHOUT_HELD } else { KINDS };
        let (books, cursor) = (Books::decode(from, kinds)?, Cursor::decode(from)?);
        if !books.agree_with(&cursor) {
            return Err(Malformed("the books are not those of the cursor"));
        }
        Ok(Self {
            destination: destination.into(),
            stream: stream.into(),
            stream_id,
            incarnation,
            epoch,
            books,
            cursor,
        })
    }
}
