//! One attempt at one batch, from its claim to its answer: plan and encode side by side, then send. Decides nothing.
//!
//! What always holds: where the sink needs a plan, no byte leaves before it is durable; and what the attempt holds of
//! the shared budget falls with each step, from records and their encoding to the bytes being sent. A batch that is
//! read as it is sent holds what its sink says that this takes, whatever its size.

use std::sync::Arc;
use std::time::Duration;

use forebay::failpoints::{self, Point};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Common;
use super::budget::{Grant, Sharer};
use super::load::{Load, Shape};
use super::outcome::{Failure, Outcome, RejectedRecord};
use super::patience::{OTHERS_WAIT_MAX, Patience};
use super::sharing::Shared;
use super::sink::{Job, LargeJob, Sink};
use super::source::{BoxError, Claimed, Ticket};
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
        Load::Small(Claimed { job, ticket }, comes_to) => {
            let came = send((&common, sharer), &sink, (job, comes_to), &*ticket, &mut grant, timeout, go).await;
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
    (job, comes_to): (Job, u64),
    ticket: &dyn Ticket,
    grant: &mut Grant,
    timeout: Duration,
    go: impl Fn(u64) -> bool,
) -> Came {
    let id = Arc::clone(&job.id);
    let planned = sink.needs_plan().then(|| plan(ticket));
    let encoded = match encode((common, sharer), sink, job, comes_to).await {
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

/// `comes_to`: what it takes at most to encode it.
async fn encode(
    (common, sharer): (&Arc<Common>, Sharer),
    sink: &Arc<dyn Sink>,
    job: Job,
    comes_to: u64,
) -> Result<Shared, Came> {
    let inline_bytes_max =
        if sink.format().gzip.is_some() { COMPRESS_INLINE_BYTES_MAX } else { ENCODE_INLINE_BYTES_MAX };
    let result = if job.bytes <= inline_bytes_max && comes_to <= inline_bytes_max * ENCODE_INLINE_FACTOR {
        common.sharing.encode(&**sink, &job)
    } else {
        let turn = common.budget.heavy(sharer, job.bytes.max(comes_to / ENCODE_INLINE_FACTOR)).await;
        let (encoder, sink) = (Arc::clone(common), Arc::clone(sink));
        let encoded = common.on_a_thread(move || encoder.sharing.encode(&*sink, &job)).await;
        drop(turn);
        encoded.map_err(|panic| Came::Hindered(Failure::Local(format!("the encoder stopped: {panic}"))))?
    };
    result.map_err(|why| Came::Unencodable(Failure::Local(causes::line(&why))))
}
