//! The real source of batches: one queue of the log, as the loop of a destination sees it. Adds names, no policy.
//!
//! What the destination's filter leaves out is excepted from the job, and settled as filtered when the rest of its batch
//! settles; so is what of a batch that comes again was settled apart from it. While a batch is being sent its records are not
//! held in memory for the queue's sake.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay::{
    Batch, BatchLimits, Frame, Front, Position, Queue, RangeLimits, RangeReader, ReplayMode, Slice, StreamId, Waiting,
};

use super::budget::Turns;
use super::catch_up::{MAKES_UP, behind_after};
use super::except::Except;
use super::filter::Filters;
use super::heavy::Heavy;
use super::parking::Apart;
use super::patience::Patience;
use super::sink::{Environment, Job, LargeJob, Origin, Part, Reread, push};
use super::source::{BoxError, Claimed, Limits, Source};
use claim::Claim;
use in_turn::InTurn;

mod claim;
mod in_turn;

/// Ranges of records that a filter leaves out of a batch which is read as it is sent, at most: 160 KB. Each other record may
/// be one: then an object holds ten thousand records.
const LEFT_OUT_RANGES_MAX: usize = 10_000;

/// One destination's queue of one environment, and beside it the replay of that queue while there is one: they take turns.
/// Where what comes in now goes beside a backlog there are two of them, and replays are with the backlog.
pub struct Queued {
    queue: Queue,
    /// How long batches wait on purpose, of a queue that is parted when it is behind.
    parts: Option<Duration>,
    /// Whose turn it is while both have something.
    turns: Mutex<InTurn>,
    /// Whether what the last claim at the second read position left was not looked at, as that would have taken the disk.
    unlooked: AtomicBool,
    /// Since when what each claim there left was late, in seconds since 1970; 0 where the last did not.
    late_since_s: AtomicU32,
    environment: Arc<Environment>,
    filters: Option<Filters>,
    apart: Option<Arc<dyn Apart>>,
}

impl Queued {
    /// The source that `queue` is, for an environment.
    #[must_use]
    pub fn new(queue: Queue, environment: Arc<Environment>) -> Self {
        let (turns, unlooked, late_since_s) = Default::default();
        Self { queue, parts: None, turns, unlooked, late_since_s, environment, filters: None, apart: None }
    }

    /// The same, which has a second read position for what comes in while it is behind. Its batches wait for so long to fill.
    #[must_use]
    pub fn live_first(self, batch_wait_max: Duration) -> Self {
        Self { queue: self.queue.backlog(), parts: Some(batch_wait_max), ..self }
    }

    /// Whether it is the second read position.
    fn is_live(&self) -> bool {
        self.queue.position() == Position::Live
    }

    /// Parts the queue if it has one position and is behind.
    fn part(&self) {
        let may_part = self.parts.is_some() && !self.is_live() && !self.queue.is_parted();
        if may_part && let Some((_, behind_ms)) = self.late() {
            self.queue.part(behind_ms);
        }
    }

    /// Parts the queue anew if what a claim at the second position has just left is behind, and was each time for a while. Not
    /// sooner: however long it waited for its turn, what is to go first does, and so something of what comes in goes at each
    /// turn.
    fn part_anew(&self, may_read: bool) {
        if !self.is_live() {
            return;
        }
        let looks = may_read || self.queue.front_in_memory();
        self.unlooked.store(!looks, Ordering::Relaxed);
        if !looks {
            return;
        }
        let since_s = self.late_since_s.swap(0, Ordering::Relaxed);
        let Some((front, behind_ms)) = self.late() else { return };
        let now_s = u32::try_from((front.taken_in_ms + front.age_ms) / 1_000).unwrap_or(u32::MAX);
        if since_s > 0 && u64::from(now_s.saturating_sub(since_s)) >= MAKES_UP.as_secs() {
            self.queue.part(behind_ms);
        } else {
            self.late_since_s.store(if since_s > 0 { since_s } else { now_s }, Ordering::Relaxed);
        }
    }

    /// The first record that nobody had, if that is late; and from what age on it is.
    fn late(&self) -> Option<(Front, u64)> {
        let (wait_max, front) = (self.parts?, self.queue.front()?);
        let behind_ms = u64::try_from(behind_after(front.ranges, wait_max).as_millis()).unwrap_or(u64::MAX);
        (front.age_ms >= behind_ms).then_some((front, behind_ms))
    }

    /// The same, which sends nothing again that lies as a letter already.
    #[must_use]
    pub fn with_apart(self, apart: Arc<dyn Apart>) -> Self {
        Self { apart: Some(apart), ..self }
    }

    /// The same, for a destination that does not get everything.
    #[must_use]
    pub fn with_filters(self, filters: Filters) -> Self {
        Self { filters: Some(filters), ..self }
    }

    /// The queue that the next batch comes from, and whether it is a replay's.
    fn turn(&self) -> (Queue, bool) {
        match self.replay().filter(Queue::has_more) {
            Some(replay) if self.turns().is_replays() || !self.queue.has_more() => {
                // It began, or was resumed, without knowing the settings.
                replay.set_settings_revision(self.queue.settings_revision());
                (replay, true)
            }
            _ => (self.queue.clone(), false),
        }
    }

    fn turns(&self) -> MutexGuard<'_, InTurn> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replay of it that is sent from here.
    fn replay(&self) -> Option<Queue> {
        if self.is_live() { None } else { self.queue.replay_under_way() }
    }

    /// Claims of whichever queue has its turn, which is over then: if by a panic, too.
    fn in_turn<T>(&self, claim: impl FnOnce(Queue) -> Result<Option<T>, BoxError>) -> Result<Option<T>, BoxError> {
        let (queue, replays) = self.turn();
        let before = *self.turns();
        self.turns().had(replays);
        let claimed = claim(queue);
        if !matches!(claimed, Ok(Some(_))) {
            *self.turns() = before;
        }
        if claimed.is_err() {
            self.turns().failed(replays);
        }
        claimed
    }

    fn claim(&self, queue: Queue, limits: BatchLimits, may_read: bool) -> Result<Option<Claimed>, BoxError> {
        let Some(mut batch) = queue.next_batch(limits)? else { return Ok(None) };
        let slices = std::mem::take(&mut batch.slices);
        // From here on a panic hands the batch back, too.
        let mut ticket = Claim::of(queue, batch, &self.environment);
        self.part_anew(may_read);
        let batch = ticket.batch();
        let stream = slices.first().ok_or("a batch without records")?.frame.stream;
        let mut job = Job {
            id: batch.id.as_str().into(),
            origin: Origin { log: self.queue.log_id(), stream, offsets: batch.offsets.clone() },
            environment: Arc::clone(&self.environment),
            parts: slices.into_iter().map(part).collect(),
            except: Except::default(),
            bytes: batch.bytes,
        };
        // A part of what comes again may lie elsewhere by now: as a letter whose batch was cut off.
        let settled = Except::of(self.settled(&ticket, stream));
        job.except = settled.clone();
        let filtered = self.filtered(&job, batch.settings_revision);
        job.except = filtered.and(settled.ranges().iter().cloned());
        ticket.filtered = filtered;
        Ok(Some(Claimed { job, ticket }))
    }

    fn claim_large(
        &self,
        queue: Queue,
        limits: RangeLimits,
        heavy: &Heavy,
    ) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        let Some(batch) = queue.next_range(limits)? else { return Ok(None) };
        let mut ticket = Claim::of(queue, batch, &self.environment);
        self.part_anew(true);
        self.filter(&mut ticket, heavy)?;
        let (queue, batch) = (&ticket.queue, ticket.batch());
        // The first frame alone: it says which stream this is, and when its records were received.
        let first = queue.read(batch).next()?.ok_or("a batch without records")?;
        let settled = self.settled(&ticket, first.frame.stream);
        let job = LargeJob {
            id: batch.id.as_str().into(),
            origin: Origin { log: self.queue.log_id(), stream: first.frame.stream, offsets: batch.offsets.clone() },
            environment: Arc::clone(&self.environment),
            except: ticket.filtered.and(settled),
            received_ms: first.frame.ingest_ms,
            bytes: batch.bytes,
            settings_revision: Some(batch.settings_revision),
            replay: again(queue),
            records: Arc::new(Records { queue: queue.clone(), batch: batch.clone() }),
            turns: Turns::default(),
            patience: Patience::default(),
        };
        Ok(Some(Claimed { job, ticket }))
    }

    /// What of a batch is settled apart from the rest, be it only now: it is not to be sent.
    fn settled(&self, claim: &Claim, stream: StreamId) -> Vec<Range<u64>> {
        if let Some(apart) = &self.apart {
            apart.settle_within(&claim.queue, stream, &claim.batch().offsets, self.queue.log_id());
        }
        claim.queue.settled_within(claim.batch())
    }

    /// What of the job is filtered out, under the settings of `revision`.
    fn filtered(&self, job: &Job, revision: u32) -> Except {
        let filter = self.filters.as_ref().and_then(|filters| filters.at(revision));
        Except::of(filter.map(|filter| filter.filtered(job.runs())).unwrap_or_default())
    }

    /// The same for a batch that is not in memory: reads all of it, one frame and one turn at a time. It ends early where
    /// more ranges would be left out than are remembered.
    fn filter(&self, claim: &mut Claim, heavy: &Heavy) -> Result<(), BoxError> {
        let revision = claim.batch().settings_revision;
        let Some(filter) = self.filters.as_ref().and_then(|filters| filters.at(revision)) else { return Ok(()) };
        let (mut left_out, mut reader) = (Vec::new(), claim.queue.read(claim.batch()));
        // One that is planned is what it is: a part of it may have been sent.
        let mut may_be_shorter = !claim.batch().planned;
        while let Some(slice) = reader.next()? {
            let bytes = slice.frame.payload().len() as u64;
            for range in filter.filtered(part(slice).runs(&Except::default())) {
                push(range, &mut left_out);
            }
            if may_be_shorter && let Some(first_beyond) = left_out.get(LEFT_OUT_RANGES_MAX) {
                may_be_shorter = claim.shorten(first_beyond.start)?;
                if may_be_shorter {
                    left_out.truncate(LEFT_OUT_RANGES_MAX);
                    break;
                }
            }
            heavy.pass(bytes);
        }
        claim.filtered = Except::of(left_out);
        Ok(())
    }
}

impl Source for Queued {
    fn has_more(&self) -> bool {
        self.queue.has_more() || self.replay().is_some_and(|replay| replay.has_more())
    }

    fn fills(&self, limits: Limits) -> bool {
        self.queue.has_records(limits.records_max) || self.queue.has_bytes(limits.bytes_max)
    }

    fn bytes_waiting(&self, limits: Limits) -> u64 {
        // A batch that comes again is among what is pending, and it may be a small one.
        self.turn().0.pending().bytes.min(limits.bytes_max)
    }

    fn in_memory(&self, limits: Limits) -> bool {
        // To filter is to read every record: too long for an async worker.
        let looks_in_memory = match self.is_live() {
            true => !self.unlooked.load(Ordering::Relaxed),
            false => self.parts.is_none() || self.queue.is_parted() || self.queue.front_in_memory(),
        };
        looks_in_memory && self.filters.is_none() && self.turn().0.ready_in_memory(limits.records_max)
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let limits = BatchLimits { records_max: limits.records_max, bytes_max: limits.bytes_max };
        self.part();
        // Who was told that this is not in memory has it done where it may read.
        let may_read = self.unlooked.load(Ordering::Relaxed);
        self.in_turn(|queue| self.claim(queue, limits, may_read))
    }

    fn next_large(
        &self,
        limits: Limits,
        partition_ms: Option<u64>,
        heavy: &Heavy,
    ) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        let limits = RangeLimits { records_max: limits.records_max, bytes_max: limits.bytes_max, partition_ms };
        self.part();
        self.in_turn(|queue| self.claim_large(queue, limits, heavy))
    }
    fn live(&self) -> Option<Arc<dyn Source>> {
        let parts = Some(self.parts?);
        let (turns, unlooked, late_since_s) = Default::default(); // its own: what it hands out is no turn of the backlog's
        let (environment, filters, apart) = (Arc::clone(&self.environment), self.filters.clone(), self.apart.clone());
        let queue = self.queue.live();
        Some(Arc::new(Self { queue, parts, turns, unlooked, late_since_s, environment, filters, apart }))
    }

    fn is_parted(&self) -> bool {
        self.parts.is_some() && !self.is_live() && self.queue.is_parted()
    }

    fn is_fresh(&self) -> bool {
        let is_behind = || self.queue.is_parted() || self.replay().is_some_and(|replay| replay.has_more());
        self.parts.is_some() && (self.is_live() || !is_behind())
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.part();
        let (queue, replays) = self.turn();
        let waiting = queue.waiting().inspect_err(|_| self.turns().failed(replays))?;
        // A replay is of what has waited before, and no more comes.
        Ok(Waiting { bounded: waiting.bounded || replays, ..waiting })
    }

    fn passes_on(&self) -> bool {
        let (_, replays) = self.turn();
        !replays && self.replay().is_some_and(|replay| replay.has_more()) && self.turns().passes_to_replay()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.queue.on_more(wake);
    }

    fn stream(&self) -> String {
        self.queue.stream().to_owned()
    }
}

/// The number of the replay that a queue is of, where that sends everything once more.
fn again(queue: &Queue) -> Option<u32> {
    queue.replay().filter(|replay| replay.mode == ReplayMode::Again).map(|replay| replay.number)
}

/// The records of a large batch.
struct Records {
    queue: Queue,
    batch: Batch,
}

impl Reread for Records {
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, BoxError>> + Send + '_> {
        Box::new(Parts { reader: self.queue.read(&self.batch), ended: false })
    }
}

/// One reading of them.
struct Parts {
    reader: RangeReader,
    ended: bool,
}

impl Iterator for Parts {
    type Item = Result<Part, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.reader.next().transpose()?;
        self.ended = next.is_err();
        Some(next.map(part).map_err(BoxError::from))
    }
}

/// A frame's payload, shared with the log's cache and not copied.
struct Payload(Arc<Frame>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

fn part(slice: Slice) -> Part {
    let within = |offset: u64| usize::try_from(offset - slice.frame.first).expect("a frame's records fit in memory");
    let (skip, end) = (within(slice.offsets.start), within(slice.offsets.end));
    Part { payload: Bytes::from_owner(Payload(slice.frame)), skip, take: end - skip, first: slice.offsets.start }
}

#[cfg(test)]
mod tests;
