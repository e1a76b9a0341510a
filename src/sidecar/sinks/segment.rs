//! Segment: one `track` call for each impression, over its batch endpoint.
//!
//! It tells repeats apart by record: `messageId` is the record's id, for a day or more. So batches need no plan. A 200
//! says nothing of single events, so whatever it would drop in silence is kept from being sent. `sentAt` is told anew
//! at every attempt: Segment corrects times by it.

mod encode;

use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::Clock;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::address_guard::AddressGuard;
use super::http::{Answer, Http, Tls};
use super::rfc3339::Times;
use super::size_cap::SizeCap;
use crate::config::{Secret, SegmentConfig};
use crate::delivery::outcome::{Failure, Outcome, classify};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink, Told};
use crate::impression::escape;
use encode::Events;

/// It takes 500 KB; its own SDKs stop short of that as well.
const BODY_BYTES_MAX: usize = 480_000;

/// What is beyond it drops, and answers 200.
const EVENTS_MAX: u64 = 2_500;

/// Who sends, merged into each event.
const CONTEXT: &str =
    concat!("\"context\":{\"library\":{\"name\":\"forebay\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}}");

/// One source at Segment.
pub struct Segment {
    http: Http,
    size_cap: SizeCap,
    events: Box<Events>,
    write_key: Secret<String>,
    clock: Arc<dyn Clock>,
}

impl Segment {
    /// A destination that keeps at most `connections_max` idle connections. Connects when it first sends.
    #[must_use]
    pub fn new(config: &SegmentConfig, connections_max: u32, tls: Arc<Tls>, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: Http::new(&config.url(), tls, connections_max),
            size_cap: SizeCap::default(),
            events: Box::new(Events::new(config)),
            write_key: config.write_key.clone(),
            clock,
        }
    }

    /// The same, as far as its address lies where `guard` lets it.
    #[must_use]
    pub fn behind(self, guard: AddressGuard) -> Self {
        Self { http: self.http.behind(guard), ..self }
    }

    /// What follows the events: last of all the time, which is another at every attempt.
    fn tail(&self) -> Bytes {
        let mut tail = b"],".to_vec();
        tail.extend_from_slice(CONTEXT.as_bytes());
        tail.extend_from_slice(b",\"writeKey\":\"");
        escape(self.write_key.reveal().as_bytes(), &mut tail);
        tail.push(b'"');
        let before = tail.len();
        tail.extend_from_slice(b",\"sentAt\":\"");
        let now = i64::try_from(self.clock.wall_ms()).unwrap_or(i64::MAX);
        if Times::new().write(now, &mut tail) {
            tail.push(b'"');
        } else {
            // Without it Segment takes times as they are.
            tail.truncate(before);
        }
        tail.push(b'}');
        tail.into()
    }

    /// What an answer means.
    pub(super) fn judge(&self, mut answer: Answer) -> Outcome {
        answer.hide(self.write_key.reveal());
        let status = answer.status.as_u16();
        let why = || answer.failure();
        let wait = answer.wait(self.clock.wall_ms());
        match status {
            // Who names a time is obeyed, whatever else it says.
            _ if wait.is_some() => classify(status, wait, why),
            400 => Outcome::Rejected { why: why() },
            401 | 403 | 404 => Outcome::Refused { why: why() },
            413 => Outcome::TooLarge { why: why() },
            _ => classify(status, None, why),
        }
    }
}

impl Sink for Segment {
    fn format(&self) -> Format {
        Format { name: "segment", settings: Some(self.events.settings()), gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.events.encode(job)
    }

    fn encoded_bytes_max(&self, job: &Job) -> u64 {
        self.events.bytes_max(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if encoded.records() == 0 {
                return Outcome::Delivered;
            }
            let tail = self.tail();
            let (events, bytes) = (encoded.records(), encoded.body.len() + tail.len());
            if bytes > BODY_BYTES_MAX || events > EVENTS_MAX {
                let why = format!(
                    "{events} events of {bytes} bytes are more than one request to Segment holds, {EVENTS_MAX} of \
                     {BODY_BYTES_MAX}"
                );
                return Outcome::TooLarge { why: Failure::Local(why) };
            }
            if let Some(outcome) = self.size_cap.refuses(events, bytes) {
                return outcome;
            }
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            match self.http.post_with_tail(headers, encoded.body.clone(), tail, deadline).await {
                Ok(answer) => {
                    self.http.heed(&answer, self.clock.wall_ms());
                    let outcome = self.judge(answer);
                    self.size_cap.heard(&outcome, bytes);
                    outcome
                }
                Err(why) => Outcome::Retry { why },
            }
        })
    }

    fn allowance(&self) -> Option<Told> {
        self.http.allowance()
    }

    fn needs_plan(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
