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
use super::except::Except;
use super::outcome::{Outcome, RejectedRecord};
use super::patience::Patience;
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

    /// How long the bytes that [`encode`](Self::encode) makes of this job are at most, before they are compressed: far longer
    /// than the job as stored, where a stored batch says once what all its records share. Told without making them. The
    /// loop charges it to the shared budget, and splits what comes to more than it may take.
    fn encoded_bytes_max(&self, job: &Job) -> u64 {
        job.bytes
    }

    /// Brings the bytes to the destination, as the batch named `id`. Answers by `deadline`, or soon after if stopping
    /// half way would do harm. Dropping the future gives up; the destination may then have the batch or not.
    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome>;

    /// Whether the batch's boundaries must be durable before its first byte leaves: yes wherever the destination
    /// tells repeats apart by batch.
    fn needs_plan(&self) -> bool;

    /// Whether each stream is of another sender, so that what is answered to one says nothing about the others: a sender
    /// whose records are rejected, refused, or fail again and again waits by itself.
    fn senders_apart(&self) -> bool {
        false
    }

    /// What the destination said that it still takes, since this was last asked.
    fn allowance(&self) -> Option<Told> {
        None
    }

    /// The sink's way for batches that are too large to be held, if it has one. Then [`encode`](Self::encode) and
    /// [`send`](Self::send) are not used.
    fn large(&self) -> Option<&dyn LargeSink> {
        None
    }
}

/// What a destination said that it still takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Requests.
    pub requests: u64,
    /// Until then.
    pub until: Instant,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Format {
    /// Which encoder.
    pub name: &'static str,
    /// The destination's settings that its bytes depend on, if they do.
    pub settings: Option<Arc<str>>,
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
    /// Offsets in the batch that are not to be sent.
    pub except: Except,
    /// When its first record was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its size as stored.
    pub bytes: u64,
    /// The revision of the destination's settings that it is made under, at every attempt; `None`: those of now.
    pub settings_revision: Option<u32>,
    /// The replay of this number sends once more, beside what was sent before.
    pub replay: Option<u32>,
    /// Its records.
    pub records: Arc<dyn Reread>,
    /// One is taken for each part that is read or encoded, and given back before the part is sent.
    pub turns: Turns,
    /// When it runs out the batch is not sent to its end: what was begun is given up, and it is as if that had failed.
    pub patience: Patience,
}

impl LargeJob {
    /// How many records are to be sent.
    #[must_use]
    pub fn records_sent(&self) -> u64 {
        self.origin.records() - self.except.records()
    }
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
    /// Which records these are: from the first to the last. Letters that are sent again may leave gaps between them.
    pub origin: Origin,
    /// The environment that they belong to.
    pub environment: Arc<Environment>,
    /// The records, ascending by offset, within `origin.offsets`: all of it, save for letters.
    pub parts: Vec<Part>,
    /// Offsets in the batch that are not to be sent.
    pub except: Except,
    /// Their size as stored.
    pub bytes: u64,
}

impl Job {
    /// Whether nothing of it is to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs().next().is_none()
    }

    /// What is to be sent, in order: the parts without the records that are excepted. None of them is empty.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.parts.iter().flat_map(|part| part.runs(&self.except))
    }

    /// How many records are to be sent.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.runs().map(|run| run.take as u64).sum()
    }

    /// The offsets of what is to be sent, ascending and apart from each other, without those in `left_out` (ascending).
    pub(super) fn sent(&self, left_out: &[RejectedRecord]) -> Arc<[Range<u64>]> {
        let mut sent: Vec<Range<u64>> = Vec::with_capacity(1);
        let mut left_out = left_out.iter().map(|record| record.offset).peekable();
        for run in self.runs() {
            let (mut from, end) = (run.first, run.first + run.take as u64);
            while let Some(out) = left_out.next_if(|out| *out < end) {
                push(from..out, &mut sent);
                from = out + 1;
            }
            push(from..end, &mut sent);
        }
        sent.into()
    }
}

/// Appends a range; one that touches the last becomes a part of it.
pub(super) fn push(range: Range<u64>, to: &mut Vec<Range<u64>>) {
    match to.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => to.push(range),
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
    /// The offset of the first that is taken.
    pub first: u64,
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
    /// The records of this part without those that are excepted.
    pub fn runs<'a>(&'a self, except: &'a Except) -> impl Iterator<Item = Run<'a>> {
        let first = self.first;
        except.rest_of(first..first + self.take as u64).map(move |run| {
            // Both lie in the part, whose records are counted by a usize.
            let (before, take) = ((run.start - first) as usize, (run.end - run.start) as usize);
            Run { payload: &self.payload, skip: self.skip + before, take, first: run.start }
        })
    }
}

/// What one request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The batch that it was made of.
    pub origin: Origin,
    /// The offsets of the records in the body, ascending and apart from each other.
    pub sent: Arc<[Range<u64>]>,
    /// Records of the job that the sink knows beforehand that its destination never takes, ascending. Not in the body.
    pub rejected: Vec<RejectedRecord>,
    /// The bytes, compressed if the format says so.
    pub body: Bytes,
    /// Whom the records in the body are about, as hashes, in their order; none where no limit of the destination goes by
    /// that. Not part of what is sent.
    pub subjects: Arc<[u64]>,
}

impl Encoded {
    /// The whole job in `body`.
    #[must_use]
    pub fn whole(job: &Job, body: Bytes) -> Self {
        Self::without(job, Vec::new(), body)
    }

    /// The job in `body`, save for what its destination never takes (ascending).
    #[must_use]
    pub fn without(job: &Job, rejected: Vec<RejectedRecord>, body: Bytes) -> Self {
        Self { origin: job.origin.clone(), sent: job.sent(&rejected), rejected, body, subjects: Arc::default() }
    }

    /// How many records are in the body.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.sent.iter().map(|range| range.end - range.start).sum()
    }

    /// The offset of the record that stands at `index` in the body; `None` behind the last.
    #[must_use]
    pub fn offset_at(&self, index: u64) -> Option<u64> {
        // An index comes from an answer and may be anything.
        let mut left = index;
        for range in self.sent.iter() {
            let records = range.end - range.start;
            if left < records {
                return Some(range.start + left);
            }
            left -= records;
        }
        None
    }

    /// The offsets of the records in the body, in their order.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        self.sent.iter().flat_map(Clone::clone)
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

    fn job(sizes: &[(usize, u64)], first: u64, except: Vec<u64>) -> Job {
        let mut next = first;
        let part = |&(take, gap): &(usize, u64)| {
            let first = next + gap;
            next = first + take as u64;
            Part { payload: Bytes::new(), skip: 3, take, first }
        };
        let parts: Vec<Part> = sizes.iter().map(part).collect();
        let offsets = first..next;
        Job {
            id: "batch".into(),
            origin: Origin { log: LogId(1), stream: StreamId(1), offsets },
            environment: Arc::new(Environment { id: "env".to_owned(), name: "env".to_owned() }),
            parts,
            except: Except::of(except.into_iter().map(|at| at..at + 1)),
            bytes: 1,
        }
    }

    proptest! {
        #[test]
        fn what_is_excepted_is_not_sent_and_all_else_is_at_its_place(
            sizes in proptest::collection::vec((1usize..9, 0u64..3), 0..5),
            first in 0u64..1000,
            except in btree_set(0u64..40, 0..20),
        ) {
            let except: Vec<u64> = except.into_iter().map(|n| n + first).collect();
            let job = job(&sizes, first, except.clone());
            let there: Vec<u64> = job.parts.iter().flat_map(|part| part.first..part.first + part.take as u64).collect();
            let sent: Vec<u64> = job.runs().flat_map(|run| run.first..run.first + run.take as u64).collect();
            let wanted: Vec<u64> = there.iter().copied().filter(|offset| !except.contains(offset)).collect();
            prop_assert_eq!(&sent, &wanted);
            prop_assert_eq!(job.records(), wanted.len() as u64);
            for run in job.runs() {
                let part_first = run.first - (run.skip as u64 - 3);
                prop_assert!(job.parts.iter().any(|part| part.first == part_first), "skip is counted from the part's start");
            }
            let rejected: Vec<RejectedRecord> = (wanted.iter().filter(|&offset| offset % 3 == 0))
                .map(|&offset| RejectedRecord { offset, reason: String::new() })
                .collect();
            let encoded = Encoded::without(&job, rejected, Bytes::new());
            let in_body: Vec<u64> = wanted.into_iter().filter(|offset| offset % 3 != 0).collect();
            let by_index: Vec<u64> = (0..100).map_while(|index| encoded.offset_at(index)).collect();
            prop_assert_eq!(&by_index, &in_body);
            prop_assert_eq!(encoded.offset_at(u64::MAX), None);
            prop_assert_eq!(encoded.offsets().collect::<Vec<_>>(), in_body);
            prop_assert_eq!(encoded.records(), by_index.len() as u64);
            prop_assert!(encoded.sent.windows(2).all(|two| two[0].end < two[1].start), "what touches is one range");
        }
    }
}
