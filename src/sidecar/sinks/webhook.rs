//! A customer's webhook: POSTs of Split's documented array of impressions.
//!
//! The receiver tells repeats apart by the header `webhook-id`, the batch's id, so boundaries are planned. 2xx means
//! that it has the batch; every other answer waits and is sent again. Not signed yet.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::clock::Clock;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use super::gzip::{Body, GZIP_LEVEL};
use super::http::{Answer, Http, Tls};
use crate::config::{Compression, Secret, WebhookConfig};
use crate::delivery::outcome::{Outcome, classify};
use crate::delivery::retry_after;
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink};
use crate::impression::{EnvironmentLabel, StoredBatch, write_split_objects};

/// The header that names the batch, after Standard Webhooks.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// JSON is about this many times as long as the stored form.
const JSON_FACTOR: u64 = 3;

/// One customer's webhook.
pub struct Webhook {
    http: Http,
    /// The operator's own. A list, not a map: a map takes a kilobyte, and most destinations are idle.
    headers: Box<[(HeaderName, Secret<HeaderValue>)]>,
    gzip: Option<u8>,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// A webhook that keeps at most `connections_max` idle connections. Connects when it first sends.
    #[must_use]
    pub fn new(config: &WebhookConfig, connections_max: u32, tls: Arc<Tls>, clock: Arc<dyn Clock>) -> Self {
        let gzip = match config.compression {
            Compression::Gzip => Some(GZIP_LEVEL),
            Compression::None => None,
        };
        Self { http: Http::new(&config.url, tls, connections_max), headers: config.headers.clone().into(), gzip, clock }
    }

    fn headers(&self, id: &str) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4 + self.headers.len());
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.reveal().clone())));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.gzip.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(WEBHOOK_ID, HeaderValue::from_str(id).expect("ids are made of [A-Za-z0-9_-]"));
        headers
    }

    fn judge(&self, answer: &Answer) -> Outcome {
        let header = |name| answer.headers.get(name).map(HeaderValue::as_bytes);
        let wait = header(RETRY_AFTER).and_then(|text| retry_after::parse(text, header(DATE), self.now()));
        classify(answer.status.as_u16(), wait, || answer.excerpt())
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.clock.wall_ms())
    }
}

impl Sink for Webhook {
    fn format(&self) -> Format {
        Format { name: "split-array", gzip: self.gzip }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let refuse = |why: String| EncodeError { at: job.origin.clone(), why };
        let environment = EnvironmentLabel { id: &job.environment.id, name: &job.environment.name };
        let mut body = Body::new(self.gzip, usize::try_from(job.bytes * JSON_FACTOR).unwrap_or(0));
        let (mut scratch, mut first) = (Vec::new(), true);
        let mut opening: &[u8] = b"[";
        for run in job.runs() {
            let batch = StoredBatch::decode(run.payload).map_err(|why| refuse(why.to_string()))?;
            body.append(&mut scratch, |out| {
                out.extend_from_slice(std::mem::take(&mut opening));
                write_split_objects(&batch, run.skip, run.take, &environment, out, &mut first)
            })
            .map_err(|why| refuse(why.to_string()))?;
        }
        let close = |out: &mut Vec<u8>| {
            out.extend_from_slice(opening);
            out.push(b']');
            Ok::<_, EncodeError>(())
        };
        body.append(&mut scratch, close)?;
        Ok(Encoded::whole(job, body.finish()))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.http.post(self.headers(id), encoded.body.clone(), deadline).await {
                Ok(answer) => self.judge(&answer),
                Err(why) => Outcome::Retry { why },
            }
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
