//! Large jobs of known records: those of the sinks' [`sample`](crate::sinks::sample), read as they are sent.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{Endpoint, S3Config, S3Keys, Secret};
use crate::delivery::budget::Turns;
use crate::delivery::patience::Patience;
use crate::delivery::sink::{Job, LargeJob, Part, Reread};
use crate::delivery::source::BoxError;
use crate::sinks::sample;

/// A bucket of a store at this address, whose keys are for nobody.
pub(crate) fn bucket_at(base: &str) -> S3Config {
    S3Config {
        endpoint: Some(Endpoint::parse(base).unwrap()),
        path_style: true,
        keys: Some(S3Keys {
            access_key_id: Secret::new("AK".to_owned()),
            secret_access_key: Secret::new("SK".to_owned()),
        }),
        ..S3Config::new("impressions")
    }
}

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
        patience: Patience::default(),
    }
}

/// Records whose lines fill some parts: what does not repeat itself.
pub(crate) fn many(records: u64) -> LargeJob {
    let impression = |n: u64| {
        let noise = digits(n);
        format!(
            "{{\"k\":\"user-{n}\",\"t\":\"on\",\"m\":{},\"c\":5,\"r\":\"default rule\",\"properties\":\"{{\\\"n\\\":\\\"{noise}\\\"}}\"}}",
            1_700_000_000_000 + n
        )
    };
    let mut job = sample::job(0..0);
    // A hundred fill one stored batch.
    for first in (0..records).step_by(100) {
        let impressions: Vec<String> = (first..(first + 100).min(records)).map(impression).collect();
        let bulk = sample::job_of(&format!(r#"[{{"f":"checkout","i":[{}]}}]"#, impressions.join(",")));
        job.parts.extend(bulk.parts);
        job.bytes += bulk.bytes;
    }
    job.origin.offsets = 0..records;
    of(Job { id: "many".into(), ..job })
}

/// 1,600 digits that differ from number to number.
pub(crate) fn digits(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    for _ in 0..100 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}
