//! Segment: one `track` call for each impression, over its batch endpoint.
//!
//! It tells repeats apart by record: `messageId` is the record's id, for a day or more. So batches need no plan. A 200
//! says nothing of single events, so whatever it would drop in silence is kept from being sent. `sentAt` is told anew
//! at every attempt: Segment corrects times by it.

mod encode;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use forebay::clock::Clock;
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use super::address_guard::{AddressGuard, AddressPolicy};
use super::http::{Answer, Http, Tls};
use super::rfc3339::Times;
use crate::config::{Secret, SegmentConfig};
use crate::delivery::outcome::{Failure, Outcome, classify};
use crate::delivery::retry_after;
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink};
use crate::impression::escape;
use encode::Events;

/// It takes 500 KB; its own SDKs stop short of that as well.
const BODY_BYTES_MAX: usize = 480_000;

/// Who sends, merged into each event.
const CONTEXT: &str =
    concat!("\"context\":{\"library\":{\"name\":\"forebay\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}}");

/// One source at Segment.
pub struct Segment {
    http: Http,
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
            events: Box::new(Events::new(config)),
            write_key: config.write_key.clone(),
            clock,
        }
    }

    /// The same, with an address that somebody else chose.
    #[must_use]
    pub fn under(self, policy: AddressPolicy) -> Self {
        Self { http: self.http.behind(AddressGuard::new(policy, &[])), ..self }
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

    fn judge(&self, mut answer: Answer) -> Outcome {
        answer.hide(self.write_key.reveal());
        let status = answer.status.as_u16();
        let why = || Failure::Status { status, excerpt: answer.excerpt() };
        match status {
            400 => Outcome::Rejected { why: why() },
            401 | 403 | 404 => Outcome::Refused { why: why() },
            413 => Outcome::TooLarge { why: why() },
            _ => {
                let header = |name| answer.headers.get(name).map(HeaderValue::as_bytes);
                let now: SystemTime = UNIX_EPOCH + Duration::from_millis(self.clock.wall_ms());
                let wait = header(RETRY_AFTER).and_then(|text| retry_after::parse(text, header(DATE), now));
                classify(status, wait, || answer.excerpt())
            }
        }
    }
}

impl Sink for Segment {
    fn format(&self) -> Format {
        Format { name: self.events.format_name(), gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.events.encode(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if encoded.records() == 0 {
                return Outcome::Delivered;
            }
            let tail = self.tail();
            let bytes = encoded.body.len() + tail.len();
            if bytes > BODY_BYTES_MAX {
                let why =
                    format!("{bytes} bytes of events are more than one request to Segment holds, {BODY_BYTES_MAX}");
                return Outcome::TooLarge { why: Failure::Local(why) };
            }
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            match self.http.post_with_tail(headers, encoded.body.clone(), tail, deadline).await {
                Ok(answer) => self.judge(answer),
                Err(why) => Outcome::Retry { why },
            }
        })
    }

    fn needs_plan(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
