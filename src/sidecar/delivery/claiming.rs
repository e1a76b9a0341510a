//! Claims the next batch of a queue, with room in the shared budget for what it comes to. Sends nothing, settles nothing.
//!
//! What always holds: whoever is handed a batch to send has half at least of the memory that it comes to at most, which usual
//! ones stay far below (docs/decisions/0148-what-a-batch-comes-to.md); and one for which there is less goes back as it was.

use std::sync::Arc;
use std::time::Duration;

use super::Common;
use super::budget::{Asking, BATCH_BYTES_LEAST, ENCODING_FACTOR, Grant};
use super::filling::Filling;
use super::heavy::Heavy;
use super::load::Load;
use super::sink::{LargeSink, Sink};
use super::source::{BoxError, Claimed, Limits, Source};

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
    let mut fills = None;
    if !wait_max.is_zero() {
        let partition_ms = sink.large().and_then(LargeSink::partition_ms);
        let asked = Arc::clone(&source);
        let waiting = common.on_a_thread(move || asked.waiting()).await??;
        let filling = Filling { limits, wait_max, partition_ms };
        fills = filling.look_again(&waiting, common.clock.wall_ms());
        if let Some(wait) = fills.filter(|_| !source.passes_on()) {
            return Ok(Prepared::NotYet(wait));
        }
    }
    let prepared = match sink.large() {
        Some(_) => {
            let batch = claim_large(common, asking, source, sink, limits).await?;
            batch.map_or(Prepared::Nothing, |(load, grant)| Prepared::Batch(load, grant))
        }
        None => claim(common, asking, source, sink, limits).await?,
    };
    // Of what had the turn instead nothing was left: what fills is looked at all the same.
    Ok(match (prepared, fills) {
        (Prepared::Nothing, Some(wait)) => Prepared::NotYet(wait),
        (prepared, _) => prepared,
    })
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
        let claimed = if source.in_memory(limits) {
            weighed(&*source, &*sink, limits)?
        } else {
            let turn = common.budget.heavy(asking.sharer, limits.bytes_max).await;
            let (source, sink) = (Arc::clone(&source), Arc::clone(&sink));
            let claimed = common.on_a_thread(move || weighed(&*source, &*sink, limits)).await??;
            drop(turn);
            claimed
        };
        let Some((claimed, encoded)) = claimed else { return Ok(Prepared::Nothing) };
        let usual = claimed.job.bytes.saturating_mul(ENCODING_FACTOR);
        // One that may have been sent keeps its boundaries, and its id with them, whatever the settings are now.
        let most = if claimed.ticket.is_planned() { common.budget.bytes_max() } else { encoded_bytes_max };
        if encoded > usual.max(most) && claimed.job.records() > 1 {
            return Ok(Prepared::TooLong(Load::Small(claimed, encoded), grant));
        }
        let needed = usual.max(encoded);
        let granted = grant.bytes().max(asked);
        // What is usual was asked for, and usual records come to half as much again.
        if usual <= granted && needed / 2 <= granted {
            grant.shrink(needed);
            return Ok(Prepared::Batch(Load::Small(claimed, needed), grant));
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
