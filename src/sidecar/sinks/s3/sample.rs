//! Large jobs of known records: those of the sinks' [`sample`](crate::sinks::sample), read as they are sent.

use std::ops::Range;
use std::sync::Arc;

use crate::delivery::budget::Turns;
use crate::delivery::sink::{Job, LargeJob, Part, Reread};
use crate::delivery::source::BoxError;
use crate::sinks::sample;

/// A batch in memory.
struct InMemory(Vec<Part>);

impl Reread for InMemory {
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, BoxError>> + Send + '_> {
        Box::new(self.0.iter().cloned().map(Ok))
    }
}

/// The records at these offsets of the sample's stream, received at its time.
pub(crate) fn large(offsets: Range<u64>) -> LargeJob {
    of(sample::job(offsets))
}

/// A job's parts as a large one, one behind the other from its first offset on.
pub(crate) fn of(mut job: Job) -> LargeJob {
    let mut next = job.origin.offsets.start;
    for part in &mut job.parts {
        part.first = next;
        next += part.take as u64;
    }
    LargeJob {
        id: job.id,
        origin: job.origin,
        environment: job.environment,
        except: job.except,
        received_ms: 1_700_000_000_000,
        bytes: job.bytes,
        settings_revision: None,
        replay: None,
        records: Arc::new(InMemory(job.parts)),
        turns: Turns::default(),
    }
}
