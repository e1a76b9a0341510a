//! What one destination is made of: the queues that it drains, and how it is sent to.
//!
//! Whoever gives destinations another source of batches (letters that were held, replays) adds it in [`sources`].

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use forebay::{Queue, QueueError, Queues, Start as QueueStart};

use super::registry::Wanted;
use crate::config::{CatchUpConfig, Destination, FilterSpec, OverflowConfig, OverflowPolicy, RateConfig, Start};
use crate::delivery::catch_up::CatchUp;
use crate::delivery::filter::Filters;
use crate::delivery::queued::Queued;
use crate::delivery::rate::RateLimits;
use crate::delivery::rate::learned::Speed;
use crate::delivery::sink::Environment;
use crate::delivery::source::{Limits, Source};
use crate::delivery::{KnownRate, Settings};
use crate::letters::Letters;
use crate::overflow;

/// A destination's name, its sources, and the queues that they take from.
pub(super) type Named = (Arc<str>, Vec<Arc<dyn Source>>, Vec<Queue>);

/// The sources that a destination takes from, and its name as its queues have it, to be shared.
///
/// Makes queues that are not there yet, which may wait for the disk.
pub(super) fn sources(
    queues: &Queues,
    wanted: &Wanted,
    labels: impl Fn(&str) -> Option<Arc<Environment>>,
    letters: &Letters,
) -> Result<Named, QueueError> {
    let destination = &wanted.destination;
    let filters = filters(wanted);
    let mut name: Option<Arc<str>> = None;
    let mut sources: Vec<Arc<dyn Source>> = Vec::with_capacity(destination.environments.len());
    let mut queues_of = Vec::with_capacity(destination.environments.len());
    for environment in &destination.environments {
        let queue: Queue = queues.queue(&destination.id, environment, start(destination.start))?;
        queues_of.push(queue.clone());
        let name = name.get_or_insert_with(|| queue.destination_name());
        let Some(label) = labels(environment) else { continue };
        let desk = letters.desk(Arc::clone(name));
        let queued = Queued::new(queue, label).with_apart(desk);
        let queued = match destination.catch_up {
            CatchUpConfig::OldestFirst => queued,
            CatchUpConfig::LiveFirst { .. } => queued.live_first(destination.batch_wait_max),
        };
        sources.push(Arc::new(match &filters {
            Some(filters) => queued.with_filters(filters.clone()),
            None => queued,
        }));
    }
    Ok((name.unwrap_or_else(|| destination.id.as_str().into()), sources, queues_of))
}

/// What a destination gets under each revision of its settings; none where it always gets all.
fn filters(wanted: &Wanted) -> Option<Filters> {
    if wanted.filters.is_empty() {
        return (!wanted.destination.filter.is_empty()).then(|| Filters::of(&wanted.destination.filter));
    }
    let filters = Filters::of(&FilterSpec::default());
    wanted.filters.iter().for_each(|(revision, spec)| filters.set(*revision, spec));
    // To look for what is filtered out is to read everything once more.
    filters.any().then_some(filters)
}

fn start(start: Start) -> QueueStart {
    match start {
        Start::Earliest => QueueStart::Earliest,
        Start::Now => QueueStart::Now,
        Start::Time(ms) => QueueStart::Time(ms),
    }
}

/// What of it may be given up.
pub(super) fn overflow(destination: &Destination) -> Option<overflow::Policy> {
    let OverflowConfig { policy, max_age, max_bytes } = **destination.overflow.as_ref()?;
    let what = match policy {
        OverflowPolicy::DropOldest => overflow::What::Drop,
        OverflowPolicy::DeadLetter => overflow::What::Mark,
    };
    Some(overflow::Policy { what, age_max: max_age, bytes_max: max_bytes })
}

/// How a destination is sent to; `learned` of its rate before.
pub(super) fn settings(destination: &Destination, learned: Option<Speed>) -> Settings {
    let RateConfig { requests, records, bytes } = destination.rate;
    let limits = RateLimits {
        requests: requests.and_then(NonZeroU32::new),
        records: records.and_then(NonZeroU32::new),
        bytes: bytes.and_then(NonZeroU64::new),
    };
    let known = KnownRate { limits, learned };
    Settings {
        concurrency_max: destination.concurrency,
        ordered: destination.ordered,
        rate: (known != KnownRate::default()).then(|| Box::new(known)),
        timeout: destination.timeout,
        limits: Limits {
            records_max: u64::from(destination.batch_records_max),
            bytes_max: destination.batch_bytes_max,
        },
        batch_wait_max: destination.batch_wait_max,
        catch_up: match destination.catch_up {
            CatchUpConfig::OldestFirst => None,
            CatchUpConfig::LiveFirst { backlog_percent } => Some(CatchUp { backlog_percent }),
        },
        weight: destination.weight,
    }
}
