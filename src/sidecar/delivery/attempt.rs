//! One attempt at one batch, from claim to answer: plan and encode side by side, then send. Decides nothing.
//!
//! What always holds: where the sink needs a plan, no byte leaves before it is durable; and what the attempt holds of
//! the shared budget falls with each step, from records and their encoding to the bytes being sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Common;
use super::budget::{ENCODING_FACTOR, Grant};
use super::outcome::{Failure, Outcome};
use super::sharing::Shared;
use super::sink::{Encoded, Job, Sink};
use super::source::{BoxError, Claimed, Limits, Source, Ticket};
use crate::causes;

/// Jobs up to this many stored bytes are encoded where they are: 0.15 ms, a webhook's default batch and a little more.
/// Larger ones would hold up other destinations' turns on the async worker; they pay for the way to a thread of their
/// own and back.
const ENCODE_INLINE_BYTES_MAX: u64 = 64 << 10;

/// The same where it is compressed too, which takes some three times as long.
const COMPRESS_INLINE_BYTES_MAX: u64 = 32 << 10;

/// What came of an attempt.
pub(super) struct Landed {
    pub(super) ticket: Box<dyn Ticket>,
    /// `None`: nothing was sent.
    pub(super) outcome: Option<Outcome>,
    pub(super) records: u64,
}

/// Waits for room in the budget, then claims a batch, off the async workers if it must be read from disk.
pub(super) async fn prepare(
    common: Arc<Common>,
    source: Arc<dyn Source>,
    limits: Limits,
) -> Result<Option<(Claimed, Grant)>, BoxError> {
    let mut grant = common.budget.grant(limits.bytes_max.saturating_mul(ENCODING_FACTOR)).await;
    let claimed = if source.in_memory() {
        source.next(limits)?
    } else {
        let turn = common.budget.heavy().await;
        let claimed = tokio::task::spawn_blocking(move || source.next(limits)).await??;
        drop(turn);
        claimed
    };
    let Some(claimed) = claimed else { return Ok(None) };
    grant.shrink(claimed.job.bytes.saturating_mul(ENCODING_FACTOR));
    Ok(Some((claimed, grant)))
}

/// Brings a claimed batch to its destination once; not at all, if it may `go` no more when its plan and its bytes (so
/// many) are ready: that takes as long as the disk takes.
pub(super) async fn fly(
    common: Arc<Common>,
    sink: Arc<dyn Sink>,
    claimed: Claimed,
    mut grant: Grant,
    timeout: Duration,
    go: impl Fn(u64) -> bool,
) -> Landed {
    let Claimed { job, ticket } = claimed;
    let (id, records) = (Arc::clone(&job.id), job.records());
    let planned = sink.needs_plan().then(|| plan(&*ticket));
    let outcome = match encode_planned(&common, &sink, job, planned).await {
        Err(why) => Some(Outcome::Retry { why }),
        // As long as nothing keeps them apart they wait, and their batch with them: a success would settle them unsent.
        Ok(encoded) if !encoded.rejected.is_empty() => Some(Outcome::Retry { why: never_sent(&encoded) }),
        Ok(encoded) if !go(encoded.body.len() as u64) => None,
        Ok(encoded) => {
            grant.shrink(encoded.body.len() as u64);
            Some(sink.send(&encoded, &id, Instant::now() + timeout).await)
        }
    };
    Landed { ticket, outcome, records }
}

/// Why a batch is not sent whose sink left records out.
fn never_sent(encoded: &Encoded) -> Failure {
    let (n, first) = (encoded.rejected.len(), encoded.rejected.first());
    let first = first.map(|record| format!(", the first at offset {}: {}", record.offset, record.reason));
    Failure::Local(format!("{n} records of the batch can never be sent{}", first.unwrap_or_default()))
}

/// Asks for the plan; the answer comes when it is durable.
fn plan(ticket: &dyn Ticket) -> oneshot::Receiver<Result<(), BoxError>> {
    let (durable, planned) = oneshot::channel();
    // Nobody waits any more when the attempt was given up: the plan is then simply there for the next one.
    ticket.plan(Box::new(move |result| drop(durable.send(result))));
    planned
}

/// Encodes while the plan is on its way to the disk. Both must have succeeded.
async fn encode_planned(
    common: &Arc<Common>,
    sink: &Arc<dyn Sink>,
    job: Job,
    planned: Option<oneshot::Receiver<Result<(), BoxError>>>,
) -> Result<Shared, Failure> {
    let encoded = encode(common, sink, job).await?;
    match planned {
        None => {}
        Some(planned) => match planned.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                return Err(Failure::Local(format!("the batch's plan could not be stored: {}", causes::line(&*why))));
            }
            Err(_) => return Err(Failure::Local("the batch's plan could not be stored: the queue is closed".into())),
        },
    }
    Ok(encoded)
}

async fn encode(common: &Arc<Common>, sink: &Arc<dyn Sink>, job: Job) -> Result<Shared, Failure> {
    let inline_bytes_max =
        if sink.format().gzip.is_some() { COMPRESS_INLINE_BYTES_MAX } else { ENCODE_INLINE_BYTES_MAX };
    let result = if job.bytes <= inline_bytes_max {
        common.sharing.encode(&**sink, &job)
    } else {
        let turn = common.budget.heavy().await;
        let (common, sink) = (Arc::clone(common), Arc::clone(sink));
        let encoded = tokio::task::spawn_blocking(move || common.sharing.encode(&*sink, &job)).await;
        drop(turn);
        encoded.map_err(|panic| Failure::Local(format!("the encoder stopped: {panic}")))?
    };
    result.map_err(|why| Failure::Local(causes::line(&why)))
}
