//! Data directories in which destinations are behind before a sidecar starts on them, written with the library.

use crate::load::request;
use forebay::clock::SystemClock;
use forebay::disk::real::RealDisk;
use forebay::{Log, LogOptions, OnFull, Payload, QueueOptions, Queues};
use forebay_sidecar::impression::{BatchMeta, Form, Limits, parse};
use std::path::Path;
use std::sync::Arc;

/// The queues there. Their room is not written ahead.
pub(crate) fn queues(dir: &Path, log: LogOptions) -> Queues {
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    let log = LogOptions { prewrite: false, ..log };
    Queues::open(disk, clock, dir, log, QueueOptions::default()).expect("opens")
}

/// What is stored of one post of so many impressions, and its bytes.
pub(crate) fn stored(impressions: usize) -> (Vec<Payload>, u64) {
    let request = request(impressions);
    let body = memchr::memmem::find(&request, b"\r\n\r\n").expect("it has a head") + 4;
    let meta = BatchMeta { sdk: b"nodejs-11.11.2", received_ms: 1_795_450_895_000, ..BatchMeta::default() };
    let parsed = parse(&request[body..], Form::Bulk, &meta, &Limits::default()).expect("it is a bulk");
    let bytes = parsed.parts.iter().map(|part| part.payload.len() as u64).sum();
    let parts = parsed.parts.into_iter().map(|part| Payload { bytes: part.payload.to_vec(), records: part.records });
    (parts.collect(), bytes)
}

/// Appends it, on its way behind what is waited for next.
pub(crate) fn append(log: &Log, stream: &str, parts: &[Payload]) {
    let done = Box::new(|result: Result<_, _>| assert!(result.is_ok(), "durable"));
    log.append_group(stream, parts.to_vec(), OnFull::Wait, done).expect("queued");
}
