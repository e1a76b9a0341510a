//! A batch that was claimed, and what is to be known of it until its answer comes. Values; nothing waits here.

use std::ops::Range;

use super::apart::Apart;
use super::except::Except;
use super::notes::Lane;
use super::sink::{Job, LargeJob};
use super::source::{Claimed, Ticket};

/// A claimed batch: in memory, or read as it is sent.
pub(super) enum Load {
    /// And the bytes that it comes to at most while it is encoded.
    Small(Claimed, u64),
    Large(Claimed<LargeJob>),
}

/// What is to be known of a batch when its answer comes.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The offsets from its first record to behind its last.
    pub(super) offsets: Range<u64>,
    /// Those of its records that are not sent.
    pub(super) except: Except,
    /// How many records are.
    pub(super) records: u64,
    /// The offset of the first that is.
    pub(super) first: u64,
    /// The offset that parts them in halves, if there are two at least.
    pub(super) middle: Option<u64>,
    /// Their size as stored.
    pub(super) bytes: u64,
}

impl Load {
    /// Where its offsets count; it came from the queue at the place `queue`.
    pub(super) fn lane(&self, queue: usize) -> Lane {
        let (Load::Small(Claimed { job: Job { origin, .. }, .. }, _)
        | Load::Large(Claimed { job: LargeJob { origin, .. }, .. })) = self;
        Lane { queue, log: origin.log, stream: origin.stream }
    }

    /// Where the batch begins and ends.
    pub(super) fn offsets(&self) -> Range<u64> {
        match self {
            Load::Small(claimed, _) => claimed.job.origin.offsets.clone(),
            Load::Large(claimed) => claimed.job.origin.offsets.clone(),
        }
    }

    /// Leaves out what is apart from the rest.
    pub(super) fn leave_out(&mut self, apart: &Apart) {
        let except = match self {
            Load::Small(claimed, _) => &mut claimed.job.except,
            Load::Large(claimed) => &mut claimed.job.except,
        };
        *except = apart.except(except);
    }

    /// What is to be known of it.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Load::Small(Claimed { job, .. }, _) => Shape {
                offsets: job.origin.offsets.clone(),
                except: job.except.clone(),
                records: job.records(),
                first: job.runs().next().map_or(job.origin.offsets.start, |run| run.first),
                middle: middle(job),
                bytes: job.bytes,
            },
            Load::Large(Claimed { job, .. }) => {
                let offsets = job.origin.offsets.clone();
                let (first, end) = (offsets.start, offsets.end);
                Shape {
                    except: job.except.clone(),
                    records: job.records_sent(),
                    first: job.except.rest_of(first..end).next().map_or(first, |sent| sent.start),
                    middle: (end - first > 1).then(|| first.midpoint(end)),
                    bytes: job.bytes,
                    offsets,
                }
            }
        }
    }

    /// The right to the batch.
    pub(super) fn ticket(&self) -> &dyn Ticket {
        match self {
            Load::Small(claimed, _) => &*claimed.ticket,
            Load::Large(claimed) => &*claimed.ticket,
        }
    }

    /// The same, to be used up.
    pub(super) fn into_ticket(self) -> Box<dyn Ticket> {
        match self {
            Load::Small(claimed, _) => claimed.ticket,
            Load::Large(claimed) => claimed.ticket,
        }
    }
}

/// The offset of the record that begins the second half of what is sent.
fn middle(job: &Job) -> Option<u64> {
    let mut before = job.records() / 2;
    if before == 0 {
        return None;
    }
    for run in job.runs() {
        if before < run.take as u64 {
            return Some(run.first + before);
        }
        before -= run.take as u64;
    }
    None
}
