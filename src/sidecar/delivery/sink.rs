//! The seam between the loop of a destination and a vendor's protocol: what a sink is given and what it answers.
//!
//! A sink turns a batch into bytes ([`Sink::encode`], CPU only) and brings bytes to the destination ([`Sink::send`]).
//! It decides nothing about when, how often, or what becomes of the batch: that follows from the [`Outcome`].

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::{LogId, StreamId};
use tokio::time::Instant;

use super::budget::Turns;
use super::outcome::{Outcome, RejectedRecord};
use super::source::BoxError;

/// A future on the heap, so that traits with futures stay object-safe and idle tasks stay small.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where batches go: one destination's protocol and settings.
pub trait Sink: Send + Sync {
    /// Names the bytes that [`encode`](Self::encode) makes. Two sinks that return equal formats make equal bytes of
    /// equal jobs, so that they can share them.
    fn format(&self) -> Format;

    /// Turns the records of a job into the bytes to send. Needs CPU only: no I/O, no clock. The same job gives the
    /// same bytes, always.
    ///
    /// # Errors
    /// When a record cannot be read back.
    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError>;

    /// Brings the bytes to the destination, as the batch named `id`. Answers by `deadline`, or soon after if stopping
    /// half way would do harm. Dropping the future gives up; the destination may then have the batch or not.
    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome>;

    /// Whether the batch's boundaries must be durable before its first byte leaves: yes wherever the destination
    /// tells repeats apart by batch.
    fn needs_plan(&self) -> bool;

    /// The sink's way for batches that are too large to be held, if it has one. Then [`encode`](Self::encode) and
    /// [`send`](Self::send) are not used.
    fn large(&self) -> Option<&dyn LargeSink> {
        None
    }
}

/// A sink whose batches are too large to be held in memory: it reads the records as it sends them.
pub trait LargeSink: Send + Sync {
    /// Memory that a [`put`](Self::put) of a job of so many stored bytes takes at most, all buffers included. The loop
    /// charges it to the shared budget for as long as that runs.
    fn memory_bytes(&self, job_bytes: u64) -> u64;

    /// No batch holds records that were received in different spans of so many milliseconds, counted from 1970.
    fn partition_ms(&self) -> Option<u64> {
        None
    }

    /// Brings the records to the destination, as the batch named by the job. The same job gives the same bytes,
    /// always. Answers by `deadline` after the last progress, or soon after if stopping half way would do harm.
    fn put<'a>(&'a self, job: &'a LargeJob, timeout: Duration) -> BoxFuture<'a, Outcome>;
}

/// A name for an encoding; see [`Sink::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Which encoder.
    pub name: &'static str,
    /// The gzip level, if compressed.
    pub gzip: Option<u8>,
}

/// Where records come from: equal origins are equal records, on every machine, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The log.
    pub log: LogId,
    /// The stream in it.
    pub stream: StreamId,
    /// Their offsets in the stream.
    pub offsets: Range<u64>,
}

impl Origin {
    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.offsets.end - self.offsets.start
    }
}

/// An environment, as destinations are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Environment {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// A batch that is read while it is sent. Cheap to clone.
#[derive(Clone)]
pub struct LargeJob {
    /// The batch's id: the same at every attempt.
    pub id: Arc<str>,
    /// Which records these are.
    pub origin: Origin,
    /// The environment that they belong to.
    pub environment: Arc<Environment>,
    /// Offsets in the batch that are not to be sent, ascending.
    pub except: Arc<[u64]>,
    /// When its first record was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its size as stored.
    pub bytes: u64,
    /// Its records.
    pub records: Arc<dyn Reread>,
    /// One is taken for each part that is read or encoded, and given back before the part is sent.
    pub turns: Turns,
}

/// The records of a large batch: read anew for each attempt, a part at a time.
pub trait Reread: Send + Sync {
    /// The parts in order; together they make up the batch. Reads the disk: not for async workers. An error ends it.
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, BoxError>> + Send + '_>;
}

/// One batch, ready to be encoded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Job {
    /// The batch's id: the same at every attempt.
    pub id: Arc<str>,
    /// Which records these are.
    pub origin: Origin,
    /// The environment that they belong to.
    pub environment: Arc<Environment>,
    /// The records in order; together they make up `origin.offsets`.
    pub parts: Vec<Part>,
    /// Offsets in the batch that are not to be sent, ascending.
    pub except: Arc<[u64]>,
    /// Their size as stored.
    pub bytes: u64,
}

impl Job {
    /// Whether nothing of it is to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.except.len() as u64 == self.origin.records()
    }

    /// What is to be sent, in order: the parts without the records that are excepted. None of them is empty.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let starts = self.parts.iter().scan(self.origin.offsets.start, |next, part| {
            let first = *next;
            *next += part.take as u64;
            Some((first, part))
        });
        starts.flat_map(|(first, part)| part.runs(first, &self.except))
    }
}

/// Some consecutive records of one stored batch.
#[derive(Debug, Clone)]
pub struct Part {
    /// The stored batch as a whole.
    pub payload: Bytes,
    /// How many of its records come before these.
    pub skip: usize,
    /// How many to take.
    pub take: usize,
}

/// Consecutive records to send, of one stored batch.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The stored batch as a whole.
    pub payload: &'a Bytes,
    /// How many of its records come before these.
    pub skip: usize,
    /// How many to take; at least one.
    pub take: usize,
    /// The offset of the first.
    pub first: u64,
}

impl Part {
    /// The records of this part, whose first has the offset `first`, without those at the offsets `except` (ascending).
    pub fn runs<'a>(&'a self, first: u64, except: &'a [u64]) -> impl Iterator<Item = Run<'a>> {
        let end = first + self.take as u64;
        let except = &except[except.partition_point(|&offset| offset < first)..];
        let except = &except[..except.partition_point(|&offset| offset < end)];
        let mut next = first;
        except.iter().copied().chain([end]).filter_map(move |until| {
            let from = std::mem::replace(&mut next, until + 1);
            // Both lie in the part, whose records are counted by a usize.
            let (before, take) = ((from - first) as usize, (until - from) as usize);
            (take > 0).then(|| Run { payload: &self.payload, skip: self.skip + before, take, first: from })
        })
    }
}

/// What one request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The batch that it was made of.
    pub origin: Origin,
    /// Offsets in the batch that are not in the body, ascending.
    pub except: Arc<[u64]>,
    /// Those among them that the sink knows beforehand that its destination never takes, ascending.
    pub rejected: Vec<RejectedRecord>,
    /// The bytes, compressed if the format says so.
    pub body: Bytes,
}

impl Encoded {
    /// The whole job in `body`.
    #[must_use]
    pub fn whole(job: &Job, body: Bytes) -> Self {
        Self { origin: job.origin.clone(), except: Arc::clone(&job.except), rejected: Vec::new(), body }
    }

    /// How many records are in the body.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.origin.records() - self.except.len() as u64
    }

    /// The offset of the record that stands at `index` in the body; `None` behind the last.
    #[must_use]
    pub fn offset_at(&self, index: u64) -> Option<u64> {
        if index >= self.records() {
            return None;
        }
        // Those left out before it push it on; each of them by one.
        let mut offset = self.origin.offsets.start + index;
        for &except in self.except.iter() {
            if except > offset {
                break;
            }
            offset += 1;
        }
        Some(offset)
    }
}

/// A job that cannot be turned into bytes.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode stream {}, offsets {}..{}: {why}", at.stream, at.offsets.start, at.offsets.end)]
pub struct EncodeError {
    /// The records of the job.
    pub at: Origin,
    /// What is wrong with them.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    fn job(sizes: &[usize], first: u64, except: Vec<u64>) -> Job {
        let parts = sizes.iter().map(|&take| Part { payload: Bytes::new(), skip: 3, take }).collect();
        let offsets = first..first + sizes.iter().sum::<usize>() as u64;
        Job {
            id: "batch".into(),
            origin: Origin { log: LogId(1), stream: StreamId(1), offsets },
            environment: Arc::new(Environment { id: "env".to_owned(), name: "env".to_owned() }),
            parts,
            except: except.into(),
            bytes: 1,
        }
    }

    proptest! {
        #[test]
        fn what_is_excepted_is_not_sent_and_all_else_is_at_its_place(
            sizes in proptest::collection::vec(1usize..9, 0..5),
            first in 0u64..1000,
            except in btree_set(0u64..40, 0..20),
        ) {
            let end = sizes.iter().sum::<usize>() as u64;
            let except: Vec<u64> = except.into_iter().filter(|&n| n < end).map(|n| n + first).collect();
            let job = job(&sizes, first, except.clone());
            let sent: Vec<u64> = job.runs().flat_map(|run| run.first..run.first + run.take as u64).collect();
            let wanted: Vec<u64> = job.origin.offsets.clone().filter(|offset| !except.contains(offset)).collect();
            prop_assert_eq!(&sent, &wanted);
            for run in job.runs() {
                let part_first = run.first - (run.skip as u64 - 3);
                let starts = sizes.iter().scan(first, |next, &size| Some(std::mem::replace(next, *next + size as u64)));
                prop_assert!(starts.collect::<Vec<_>>().contains(&part_first), "skip is counted from the part's start");
            }
            let encoded = Encoded::whole(&job, Bytes::new());
            let by_index: Vec<u64> = (0..end + 2).map_while(|index| encoded.offset_at(index)).collect();
            prop_assert_eq!(by_index, wanted);
        }
    }
}
