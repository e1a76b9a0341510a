//! One attempt at one batch, from claim to answer: plan and encode side by side, then send. Decides nothing.
//!
//! What always holds: where the sink needs a plan, no byte leaves before it is durable; and what the attempt holds of
//! the shared budget falls with each step, from records and their encoding to the bytes being sent. A batch that is
//! read as it is sent holds what its sink says that this takes, whatever its size.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use forebay::failpoints::{self, Point};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Common;
use super::apart::Apart;
use super::budget::{Asking, BATCH_BYTES_LEAST, ENCODING_FACTOR, Grant, Sharer};
use super::except::Except;
use super::filling::Filling;
use super::heavy::Heavy;
use super::notes::Lane;
use super::outcome::{Failure, Outcome, RejectedRecord};
use super::patience::{OTHERS_WAIT_MAX, Patience};
use super::sharing::Shared;
use super::sink::{Job, LargeJob, LargeSink, Sink};
use super::source::{BoxError, Claimed, Limits, Source, Ticket};
use crate::causes;

/// Jobs up to this many stored bytes are encoded where they are: 0.15 ms, a webhook's default batch and a little more.
/// Larger ones would hold up other destinations' turns on the async worker; they pay for the way to a thread of their
/// own and back.
const ENCODE_INLINE_BYTES_MAX: u64 = 64 << 10;

/// The same where it is compressed too, which takes some three times as long.
const COMPRESS_INLINE_BYTES_MAX: u64 = 32 << 10;

/// What is encoded to more than so many times that is not encoded where it is either: usual records come to six times what
/// they are as stored, those that share long names to a thousand times.
const ENCODE_INLINE_FACTOR: u64 = 8;

/// A claimed batch: in memory, or read as it is sent.
pub(super) enum Load {
    Small(Claimed),
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

/// What came of an attempt.
pub(super) struct Landed {
    pub(super) ticket: Box<dyn Ticket>,
    pub(super) shape: Shape,
    pub(super) came: Came,
    /// Whether it kept others waiting for long; `None` if that is not known.
    pub(super) slow: Option<bool>,
}

/// How far it came.
pub(super) enum Came {
    /// It was told to hold back.
    Unsent,
    /// Something else than the batch is in the way, on our side.
    Hindered(Failure),
    /// The batch cannot be encoded.
    Unencodable(Failure),
    /// The sink sent it, if there was anything to send.
    Sent {
        /// `None`: its sink knows of all its records that they are never taken.
        outcome: Option<Outcome>,
        /// How many records the request carried.
        records: u64,
        /// Those that the sink left out, as they are never taken.
        rejected: Vec<RejectedRecord>,
        /// From its first byte to the end of its answer.
        took: Duration,
    },
}

impl Load {
    /// Where its offsets count; it came from the queue at the place `queue`.
    pub(super) fn lane(&self, queue: usize) -> Lane {
        let (Load::Small(Claimed { job: Job { origin, .. }, .. })
        | Load::Large(Claimed { job: LargeJob { origin, .. }, .. })) = self;
        Lane { queue, log: origin.log, stream: origin.stream }
    }

    /// Where the batch begins and ends.
    pub(super) fn offsets(&self) -> Range<u64> {
        match self {
            Load::Small(claimed) => claimed.job.origin.offsets.clone(),
            Load::Large(claimed) => claimed.job.origin.offsets.clone(),
        }
    }

    /// Leaves out what is apart from the rest.
    pub(super) fn leave_out(&mut self, apart: &Apart) {
        let except = match self {
            Load::Small(claimed) => &mut claimed.job.except,
            Load::Large(claimed) => &mut claimed.job.except,
        };
        *except = apart.except(except);
    }

    /// The right to the batch, and what is to be known of it.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Load::Small(Claimed { job, .. }) => Shape {
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
    pub(super) fn into_ticket(self) -> Box<dyn Ticket> {
        match self {
            Load::Small(claimed) => claimed.ticket,
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

/// What there was to claim.
pub(super) enum Prepared {
    Nothing,
    /// Records wait, and a batch is to be made of them later: look again after so long.
    NotYet(Duration),
    Batch(Load, Grant),
    /// It is to be split, if it has two records or more: encoded it takes more than a batch may.
    TooLong(Load, Grant),
}

/// Waits for room in the budget, then claims a batch, off the async workers if it must be read from disk. Where batches
/// are to fill it looks first whether it is time.
pub(super) async fn prepare(
    common: Arc<Common>,
    asking: Asking,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    limits: Limits,
    wait_max: Duration,
) -> Result<Prepared, BoxError> {
    if !wait_max.is_zero() {
        let partition_ms = sink.large().and_then(LargeSink::partition_ms);
        let asked = Arc::clone(&source);
        let waiting = tokio::task::spawn_blocking(move || asked.waiting()).await??;
        let filling = Filling { limits, wait_max, partition_ms };
        if let Some(wait) = filling.look_again(&waiting, common.clock.wall_ms()) {
            return Ok(Prepared::NotYet(wait));
        }
    }
    match sink.large() {
        Some(_) => {
            let batch = claim_large(common, asking, source, sink, limits).await?;
            Ok(batch.map_or(Prepared::Nothing, |(load, grant)| Prepared::Batch(load, grant)))
        }
        None => claim(common, asking, source, sink, limits).await,
    }
}

async fn claim(
    common: Arc<Common>,
    asking: Asking,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    limits: Limits,
) -> Result<Prepared, BoxError> {
    let encoded_bytes_max = common.budget.encoded_bytes_max(limits.bytes_max);
    // Twice what waits: more may have come when its turn has.
    let waiting = source.bytes_waiting(limits).saturating_mul(2).max(BATCH_BYTES_LEAST);
    let bytes = limits.bytes_max.min(waiting);
    let mut grant = common.budget.grant(asking, bytes.saturating_mul(ENCODING_FACTOR)).await;
    let mut asked = 0;
    loop {
        // Less may have been given.
        let limits = Limits { bytes_max: limits.bytes_max.min(grant.bytes() / ENCODING_FACTOR), ..limits };
        let claimed = if source.in_memory() {
            weighed(&*source, &*sink, limits)?
        } else {
            let turn = common.budget.heavy(asking.sharer, limits.bytes_max).await;
            let (source, sink) = (Arc::clone(&source), Arc::clone(&sink));
            let claimed = tokio::task::spawn_blocking(move || weighed(&*source, &*sink, limits)).await??;
            drop(turn);
            claimed
        };
        let Some((claimed, encoded)) = claimed else { return Ok(Prepared::Nothing) };
        let usual = claimed.job.bytes.saturating_mul(ENCODING_FACTOR);
        // One that may have been sent keeps its boundaries, and its id with them, whatever the settings are now.
        let most = if claimed.ticket.is_planned() { common.budget.bytes_max() } else { encoded_bytes_max };
        if encoded > usual.max(most) && claimed.job.records() > 1 {
            return Ok(Prepared::TooLong(Load::Small(claimed), grant));
        }
        let needed = usual.max(encoded);
        let granted = grant.bytes().max(asked);
        // What is usual was asked for, and usual records come to half as much again.
        if usual <= granted && needed / 2 <= granted {
            grant.shrink(needed);
            return Ok(Prepared::Batch(Load::Small(claimed), grant));
        }
        // One that comes again comes as it stood, however little was given: it goes back until there is enough for it.
        drop((claimed, grant));
        grant = common.budget.grant_whole(asking, needed).await;
        asked = needed;
    }
}

/// The next batch, and what it comes to at most while it is encoded: as stored, and what is made of it.
fn weighed(source: &dyn Source, sink: &dyn Sink, limits: Limits) -> Result<Option<(Claimed, u64)>, BoxError> {
    let claimed = source.next(limits)?;
    Ok(claimed.map(|claimed| {
        let bytes = claimed.job.bytes.saturating_add(sink.encoded_bytes_max(&claimed.job));
        (claimed, bytes)
    }))
}

/// The same for a batch that is read as it is sent: only the headers of its frames are read now, unless it is filtered.
async fn claim_large(
    common: Arc<Common>,
    asking: Asking,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    limits: Limits,
) -> Result<Option<(Load, Grant)>, BoxError> {
    let Some(large) = sink.large() else { return Ok(None) };
    let partition_ms = large.partition_ms();
    // For what waits, not for the most that could: else one small object at a time would be all that fits.
    let waiting = source.bytes_waiting(limits).saturating_mul(2).max(BATCH_BYTES_LEAST);
    let mut asked = large.memory_bytes(limits.bytes_max.min(waiting));
    loop {
        let mut grant = common.budget.grant_bulk(asking, asked).await;
        // What is read is charged as it is read.
        let turn = common.budget.heavy(asking.sharer, 0).await;
        let heavy = Heavy::holding(turn, common.budget.turns(asking.sharer));
        let source = Arc::clone(&source);
        let claimed = tokio::task::spawn_blocking(move || source.next_large(limits, partition_ms, &heavy)).await??;
        let Some(mut claimed) = claimed else { return Ok(None) };
        let needed = large.memory_bytes(claimed.job.bytes);
        if needed <= asked {
            claimed.job.turns = common.budget.turns(asking.sharer);
            grant.shrink(needed);
            return Ok(Some((Load::Large(claimed), grant)));
        }
        // More came meanwhile than was thought: it goes back until there is enough for it.
        drop((claimed, grant));
        asked = needed;
    }
}

/// Brings a claimed batch to its destination once; not at all, if it may `go` no more when its plan and its bytes (so
/// many) are ready: that takes as long as the disk takes.
pub(super) async fn fly(
    common: Arc<Common>,
    sharer: Sharer,
    sink: Arc<dyn Sink>,
    load: Load,
    mut grant: Grant,
    timeout: Duration,
    go: impl Fn(u64) -> bool,
) -> Landed {
    let shape = load.shape();
    match load {
        Load::Small(Claimed { job, ticket }) => {
            let came = send((&common, sharer), &sink, job, &*ticket, &mut grant, timeout, go).await;
            Landed { ticket, shape, came, slow: None }
        }
        Load::Large(Claimed { mut job, ticket }) => {
            let (hurry, patience) = Patience::new();
            job.patience = patience;
            let (came, outstayed) = {
                let mut putting = std::pin::pin!(put(&*sink, &job, &*ticket, timeout, go));
                tokio::select! {
                    came = &mut putting => (came, false),
                    () = grant.outstayed() => {
                        hurry.now();
                        (putting.await, true)
                    }
                }
            };
            let slow = match &came {
                _ if outstayed => Some(true),
                Came::Sent { outcome: Some(Outcome::Delivered), took, .. } if *took < OTHERS_WAIT_MAX => Some(false),
                _ => None,
            };
            Landed { ticket, shape, came, slow }
        }
    }
}

async fn send(
    (common, sharer): (&Arc<Common>, Sharer),
    sink: &Arc<dyn Sink>,
    job: Job,
    ticket: &dyn Ticket,
    grant: &mut Grant,
    timeout: Duration,
    go: impl Fn(u64) -> bool,
) -> Came {
    let id = Arc::clone(&job.id);
    let planned = sink.needs_plan().then(|| plan(ticket));
    let encoded = match encode((common, sharer), sink, job, grant.bytes()).await {
        Ok(encoded) => encoded,
        Err(came) => return came,
    };
    if let Err(why) = durable(planned).await {
        return Came::Hindered(why);
    }
    let (records, rejected) = (encoded.records(), encoded.rejected.clone());
    if records == 0 {
        return Came::Sent { outcome: None, records, rejected, took: Duration::ZERO };
    }
    if !go(encoded.body.len() as u64) {
        return Came::Unsent;
    }
    grant.shrink(encoded.body.len() as u64);
    let began = Instant::now();
    let sent = sink.send(&encoded, &id, began + timeout);
    let outcome = Some(failpoints::around_async(Point::Send, sent).await);
    Came::Sent { outcome, records, rejected, took: began.elapsed() }
}

async fn put(
    sink: &dyn Sink,
    job: &LargeJob,
    ticket: &dyn Ticket,
    timeout: Duration,
    go: impl Fn(u64) -> bool,
) -> Came {
    let Some(large) = sink.large() else {
        return Came::Hindered(Failure::Local("the sink takes no batch that is read as it is sent".to_owned()));
    };
    let records = job.records_sent();
    if records == 0 {
        return Came::Sent { outcome: None, records, rejected: Vec::new(), took: Duration::ZERO };
    }
    let planned = sink.needs_plan().then(|| plan(ticket));
    if let Err(why) = durable(planned).await {
        return Came::Hindered(why);
    }
    if !go(job.bytes) {
        return Came::Unsent;
    }
    let began = Instant::now();
    let outcome = Some(failpoints::around_async(Point::Put, large.put(job, timeout)).await);
    Came::Sent { outcome, records, rejected: Vec::new(), took: began.elapsed() }
}

type Planned = oneshot::Receiver<Result<(), BoxError>>;

/// Asks for the plan; the answer comes when it is durable.
fn plan(ticket: &dyn Ticket) -> Planned {
    let (durable, planned) = oneshot::channel();
    // Nobody waits any more when the attempt was given up: the plan is then simply there for the next one.
    ticket.plan(Box::new(move |result| drop(durable.send(result))));
    planned
}

/// Waits for the plan, if one was asked for.
async fn durable(planned: Option<Planned>) -> Result<(), Failure> {
    let Some(planned) = planned else { return Ok(()) };
    match planned.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Failure::Local(format!("the batch's plan could not be stored: {}", causes::line(&*why)))),
        Err(_) => Err(Failure::Local("the batch's plan could not be stored: the queue is closed".into())),
    }
}

/// `charged`: about what it takes to encode it.
async fn encode(
    (common, sharer): (&Arc<Common>, Sharer),
    sink: &Arc<dyn Sink>,
    job: Job,
    charged: u64,
) -> Result<Shared, Came> {
    let inline_bytes_max =
        if sink.format().gzip.is_some() { COMPRESS_INLINE_BYTES_MAX } else { ENCODE_INLINE_BYTES_MAX };
    let result = if job.bytes <= inline_bytes_max && charged <= inline_bytes_max * ENCODE_INLINE_FACTOR {
        common.sharing.encode(&**sink, &job)
    } else {
        let turn = common.budget.heavy(sharer, job.bytes.max(charged / ENCODE_INLINE_FACTOR)).await;
        let (common, sink) = (Arc::clone(common), Arc::clone(sink));
        let encoded = tokio::task::spawn_blocking(move || common.sharing.encode(&*sink, &job)).await;
        drop(turn);
        encoded.map_err(|panic| Came::Hindered(Failure::Local(format!("the encoder stopped: {panic}"))))?
    };
    result.map_err(|why| Came::Unencodable(Failure::Local(causes::line(&why))))
}
