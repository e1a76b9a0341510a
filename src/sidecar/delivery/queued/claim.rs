//! A claimed batch of a real queue: planned, settled, split, or read once more for its letters. Adds no policy.
//!
//! What always holds: a claim that ends without being settled goes back to the queue, whatever ended it.

use std::ops::Range;
use std::sync::Arc;

use forebay::{Batch, Queue, Settled};

use super::part;
use crate::delivery::except::Except;
use crate::delivery::parking::LetterOrigin;
use crate::delivery::sink::{Environment, Part};
use crate::delivery::source::{BoxError, Stored, Ticket};

/// The right to a batch of a queue.
pub(super) struct Claim {
    pub(super) queue: Queue,
    environment: Arc<Environment>,
    /// Without its records; gone once settled or split.
    batch: Option<Batch>,
    /// Offsets that the destination does not get.
    pub(super) filtered: Except,
}

impl Claim {
    pub(super) fn of(queue: Queue, batch: Batch, environment: &Arc<Environment>) -> Box<Self> {
        let environment = Arc::clone(environment);
        Box::new(Self { queue, environment, batch: Some(batch), filtered: Except::default() })
    }

    pub(super) fn batch(&self) -> &Batch {
        self.batch.as_ref().expect("only settling and splitting take it, and those take the ticket")
    }

    /// Ends the batch at `at`. `false` if it has to stay as it is.
    pub(super) fn shorten(&mut self, at: u64) -> Result<bool, BoxError> {
        let shorter = self.queue.shorten(self.batch(), at)?;
        let is_shorter = shorter.is_some();
        self.batch = shorter.or(self.batch.take());
        Ok(is_shorter)
    }
}

impl Ticket for Claim {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        self.queue.plan(self.batch(), Box::new(move |result| done(result.map_err(BoxError::from))));
    }

    fn is_planned(&self) -> bool {
        self.batch().planned
    }

    fn to_be_split(&self) -> Option<u64> {
        self.queue.failed_split(self.batch())
    }

    fn settle(mut self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled) {
        if let Some(batch) = self.batch.take() {
            let filtered = self.filtered.ranges().iter().map(|range| (range.clone(), Settled::Filtered));
            let parts: Vec<_> = parts.iter().cloned().chain(filtered).collect();
            self.queue.settle_parts(&batch, &parts, rest);
        }
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let Some(batch) = self.batch.take() else { return };
        let (queue, whole) = (self.queue.clone(), batch.clone());
        let halved = move |result: Result<[Batch; 2], _>| {
            match &result {
                Ok(halves) => halves.iter().for_each(|half| queue.release(half)),
                Err(_) => queue.release(&whole),
            }
            done(result.map(drop).map_err(BoxError::from));
        };
        self.queue.split(&batch, at, Box::new(halved));
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        let mut stored = Vec::with_capacity(offsets.len());
        let replay = self.queue.replay().map_or(0, |replay| replay.number);
        let mut left = offsets;
        while let Some((&first, behind)) = left.split_first() {
            let Some(slice) = self.queue.slice_at(self.batch(), first)? else {
                left = behind;
                continue;
            };
            let (stream, within) = (slice.frame.stream, slice.offsets.clone());
            let Part { payload, skip, .. } = part(slice);
            let here;
            (here, left) = left.split_at(left.partition_point(|offset| *offset < within.end));
            for &offset in here {
                let at = usize::try_from(offset - within.start).expect("a frame's records fit in memory");
                stored.push(Stored {
                    offset,
                    origin: LetterOrigin { log: self.queue.log_id(), stream, offset },
                    replay,
                    environment: Arc::clone(&self.environment),
                    payload: payload.clone(),
                    index: skip + at,
                });
            }
        }
        Ok(stored)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            self.queue.release(batch);
        }
    }
}
