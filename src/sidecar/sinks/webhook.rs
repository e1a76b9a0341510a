//! A customer's webhook: POSTs of Split's documented array of impressions.
//!
//! The receiver tells repeats apart by the header `webhook-id`, the batch's id, so boundaries are planned. 2xx means
//! that it has the batch; 400, 415 and 422 that it does not like what is in it, 413 that it is too large; 401, 403, 404 and
//! 410 that nothing is taken here; every other answer waits and is sent again. Signed after Standard Webhooks where there is a
//! secret.

mod signature;

use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::Clock;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use super::address_guard::{AddressGuard, AddressPolicy};
use super::gzip::{Body, GZIP_LEVEL};
use super::http::{Answer, Http, Tls};
use super::size_cap::SizeCap;
use super::written_out::{self, OBJECT_BYTES};
use crate::config::{Compression, Secret, WebhookConfig};
use crate::delivery::outcome::{Failure, Outcome, classify};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink, Told};
use crate::impression::{EnvironmentLabel, StoredBatch, write_split_objects};
use signature::Signer;

/// The header that names the batch, after Standard Webhooks.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// Shorter values of headers are no secrets, and would be found in the midst of words.
const SECRET_BYTES_MIN: usize = 4;

/// When this attempt was signed, in seconds since 1970; receivers take it for five minutes.
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// The signatures, one for each secret.
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// One customer's webhook.
pub struct Webhook {
    http: Http,
    gzip: Option<u8>,
    size_cap: SizeCap,
    /// In a box: many have none of it, and most destinations are idle.
    own: Option<Box<Own>>,
    clock: Arc<dyn Clock>,
}

/// What one webhook has and others have not.
struct Own {
    /// A list, not a map: a map takes a kilobyte.
    headers: Box<[(HeaderName, Secret<HeaderValue>)]>,
    signer: Option<Signer>,
}

impl Webhook {
    /// A webhook that keeps at most `connections_max` idle connections. Connects when it first sends. `policy` says who
    /// chose its address; `tls` is for those without certificates of their own.
    #[must_use]
    pub fn new(
        config: &WebhookConfig,
        policy: AddressPolicy,
        connections_max: u32,
        tls: Arc<Tls>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let gzip = match config.compression {
            Compression::Gzip => Some(GZIP_LEVEL),
            Compression::None => None,
        };
        let guard = AddressGuard::new(policy, &config.allow_addresses);
        let tls = if config.tls.is_empty() { tls } else { Arc::new(Tls::of(config.tls.clone(), &tls)) };
        Self {
            http: Http::guarded(&config.url, guard, tls, connections_max),
            gzip,
            size_cap: SizeCap::default(),
            own: Own::of(config).map(Box::new),
            clock,
        }
    }

    /// The same, as far as its address lies where `guard` lets it.
    #[must_use]
    pub fn behind(self, guard: AddressGuard) -> Self {
        Self { http: self.http.behind(guard), ..self }
    }

    fn headers(&self, id: &str) -> HeaderMap {
        let own = self.own.as_ref().map_or(&[][..], |own| &own.headers);
        let mut headers = HeaderMap::with_capacity(6 + own.len());
        headers.extend(own.iter().map(|(name, value)| (name.clone(), value.reveal().clone())));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.gzip.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(WEBHOOK_ID, HeaderValue::from_str(id).expect("ids are made of [A-Za-z0-9_-]"));
        headers
    }

    /// The headers of one attempt: a signature holds for its own time only.
    async fn signed(&self, id: &str, body: &Bytes, deadline: Instant) -> Result<HeaderMap, Failure> {
        let mut headers = self.headers(id);
        if let Some(signer) = self.own.as_ref().and_then(|own| own.signer.as_ref()) {
            let now = self.clock.wall_ms() / 1_000;
            headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now));
            let signing = signer.sign(id, now, body, self.gzip.is_some());
            let signature = timeout_at(deadline, signing).await.map_err(|_| Failure::Timeout)??;
            headers.insert(WEBHOOK_SIGNATURE, signature);
        }
        Ok(headers)
    }

    /// Takes out of an answer that will be shown what only the receiver should know: the values of the headers, and
    /// where in the receiver's address it was sent, which is a secret for many.
    fn hide_what_it_was_told(&self, answer: &mut Answer) {
        if answer.status.is_success() {
            return;
        }
        let headers = self.own.as_ref().map_or(&[][..], |own| &own.headers);
        for value in headers.iter().filter_map(|(_, value)| value.reveal().to_str().ok()) {
            let credentials = value.split_once(' ').map_or("", |(_, credentials)| credentials);
            for secret in [value, credentials].into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
                answer.hide(secret);
            }
        }
        self.http.hide_place(answer);
    }

    /// What an answer means.
    pub(super) fn judge(&self, answer: &Answer) -> Outcome {
        let status = answer.status.as_u16();
        let why = || answer.failure();
        let wait = answer.wait(self.clock.wall_ms());
        match status {
            // Who names a time is obeyed, whatever else it says: firewalls throttle with a 403.
            _ if wait.is_some() => classify(status, wait, why),
            400 | 415 | 422 => Outcome::Rejected { why: why() },
            401 | 403 | 404 | 410 => Outcome::Refused { why: why() },
            413 => Outcome::TooLarge { why: why() },
            _ => classify(status, None, why),
        }
    }
}

impl Own {
    fn of(config: &WebhookConfig) -> Option<Self> {
        let own = Self { headers: config.headers.clone().into(), signer: Signer::new(&config.signing) };
        (!own.headers.is_empty() || own.signer.is_some()).then_some(own)
    }
}

impl Sink for Webhook {
    fn format(&self) -> Format {
        Format { name: "split-array", settings: None, gzip: self.gzip }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let refuse = |why: String| EncodeError { at: job.origin.clone(), why };
        let environment = EnvironmentLabel { id: &job.environment.id, name: &job.environment.name };
        // Nothing grows by doubling, which would copy it; what is not written to takes an address and no memory.
        let plain_bytes = usize::try_from(self.encoded_bytes_max(job)).unwrap_or(0);
        let mut body = Body::new(self.gzip, plain_bytes);
        let scratch_bytes = if self.gzip.is_some() { plain_bytes } else { 0 };
        let (mut scratch, mut first) = (Vec::with_capacity(scratch_bytes), true);
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

    fn encoded_bytes_max(&self, job: &Job) -> u64 {
        written_out::bytes_max(job, OBJECT_BYTES, 1)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if let Some(outcome) = self.size_cap.refuses(encoded.records(), encoded.body.len()) {
                return outcome;
            }
            let sent = async {
                let headers = self.signed(id, &encoded.body, deadline).await?;
                self.http.post(headers, encoded.body.clone(), deadline).await
            };
            match sent.await {
                Ok(mut answer) => {
                    self.hide_what_it_was_told(&mut answer);
                    self.http.heed(&answer, self.clock.wall_ms());
                    let outcome = self.judge(&answer);
                    self.size_cap.heard(&outcome, encoded.body.len());
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
        true
    }
}

#[cfg(test)]
mod tests;
