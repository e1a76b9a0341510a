//! The seam for records that are taken out of their destination's way: dead letters, and records that have to wait for
//! a time of their own. It keeps them; the loop settles their batch only after that.
//!
//! What always holds: a batch is settled only when its letters are durable. A crash in between brings the batch again,
//! and with it the same letters: who keeps them recognises them by their origin and kind, and keeps one of each. A record that a replay sends once more is
//! another: it may become a letter for itself.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{LogId, Queue, StreamId};

use super::sink::Environment;
use super::source::BoxError;

/// Letters in one call of [`Parking::park`], at most.
pub const LETTERS_MAX: usize = 256;

/// Where letters are kept.
pub trait Parking: Send + Sync {
    /// Makes all of `letters` durable, at most [`LETTERS_MAX`] of one destination and one stream, ascending by offset.
    /// `done` runs when they are, or when at least one is not (then they come again, all of them), on any thread, and
    /// must not block. Letters that are kept already are kept once.
    fn park(&self, letters: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>);

    /// Whether rejected records of so many bytes may become letters of this destination. What may not stays in its queue.
    fn has_room(&self, _destination: &str, _bytes: u64) -> bool {
        true
    }
}

/// Keeps nothing: every batch with a letter waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoParking;

impl Parking for NoParking {
    fn park(&self, _: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        done(Err("there is no place to keep dead letters".into()));
    }
}

/// Knows which records lie as letters already though their batch comes again: whoever parked them did not come to settle
/// them, and there was no room to do it for them.
pub trait Apart: Send + Sync {
    /// Settles those among `offsets` of a stream of the log `log`, a batch that `queue` has just handed out: they are not to
    /// be sent. Reads nothing.
    fn settle_within(&self, queue: &Queue, stream: StreamId, offsets: &Range<u64>, log: LogId);
}

/// A record that was taken out of its destination's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// What is to become of it.
    pub kind: Kind,
    /// The destination's id.
    pub destination: Arc<str>,
    /// Where the record comes from.
    pub origin: LetterOrigin,
    /// The number of the replay that it was taken out of, which settles it for itself; 0: of none.
    pub replay: u32,
    /// The environment that it belongs to.
    pub environment: Arc<Environment>,
    /// The stored batch that it lies in, as a whole.
    pub payload: Bytes,
    /// Its place in `payload`: how many records come before it.
    pub index: usize,
    /// Why, in words for people; bounded by the sink.
    pub reason: String,
    /// The start of the destination's answer, made printable; may be empty.
    pub excerpt: String,
    /// When it was taken out, in milliseconds since 1970.
    pub at_ms: u64,
    /// How often it was sent by this process, as far as that is known; at least 1 if it was sent at all.
    pub attempts: u32,
}

/// What is to become of a [`Letter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The destination never takes it: it stays until somebody decides.
    Dead,
    /// The destination does not take it yet: it is sent again by itself, not before this moment.
    Held {
        /// Milliseconds since 1970.
        not_before_ms: u64,
    },
}

/// Where a record comes from. Equal origins are the same record, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterOrigin {
    /// The log.
    pub log: LogId,
    /// The stream in it.
    pub stream: StreamId,
    /// The record's offset in the stream.
    pub offset: u64,
}
