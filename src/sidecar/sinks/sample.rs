//! Jobs of known records for the tests of sinks, made by the real parser from a bulk as SDKs post it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{LogId, StreamId};

use crate::delivery::sink::{Environment, Job, Origin, Part};
use crate::impression::{BatchMeta, Form, Limits, parse};

/// The records at `offsets` of a stream whose record `n` has the key `user-<n>`. Stored batches hold ten records each,
/// so a range may begin and end within one.
pub(crate) fn job(offsets: Range<u64>) -> Job {
    let mut parts = Vec::new();
    for batch in offsets.start / 10..offsets.end.div_ceil(10) {
        let first = batch * 10;
        let from = offsets.start.max(first);
        let to = offsets.end.min(first + 10);
        parts.push(Part {
            payload: stored(first..first + 10),
            skip: (from - first) as usize,
            take: (to - from) as usize,
        });
    }
    Job {
        except: Arc::default(),
        id: format!("batch-{}-{}", offsets.start, offsets.end).into(),
        bytes: parts.iter().map(|part| part.payload.len() as u64).sum(),
        origin: Origin { log: LogId(77), stream: StreamId(3), offsets },
        environment: Arc::new(Environment { id: "acme-prod".to_owned(), name: "production".to_owned() }),
        parts,
    }
}

fn stored(keys: Range<u64>) -> Bytes {
    let impressions: Vec<String> = keys
        .map(|n| format!(r#"{{"k":"user-{n}","t":"on","m":{},"c":5,"r":"default rule"}}"#, 1_700_000_000_000 + n))
        .collect();
    let body = format!(r#"[{{"f":"checkout","i":[{}]}}]"#, impressions.join(","));
    let meta = BatchMeta {
        sdk: b"rust-1.2.3",
        machine_name: b"host",
        machine_ip: b"10.0.0.1",
        mode: b"optimized",
        received_ms: 1_700_000_000_000,
        sdk_key_index: 0,
    };
    let mut parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap();
    assert_eq!((parsed.parts.len(), parsed.rejects.len()), (1, 0));
    parsed.parts.remove(0).payload.into()
}
