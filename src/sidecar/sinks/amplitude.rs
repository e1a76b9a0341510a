//! Amplitude: one event for each impression, over its batch or HTTP V2 API.
//!
//! It tells repeats apart by record: `insert_id` is the record's id, for seven days. So batches need no plan. Where an
//! answer names events, `answer` says what becomes of each; whose users or devices were throttled, `holds` remembers, so that
//! their new events wait with them. The key goes in the body's tail, is shown nowhere, and is
//! taken out of answers that repeat it.

mod answer;
mod encode;
mod holds;
mod rates;

use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::Clock;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::address_guard::AddressGuard;
use super::http::{Answer, Http, Tls};
use super::size_cap::SizeCap;
use crate::config::{AmplitudeApi, AmplitudeConfig, Secret};
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink, Told};
use crate::impression::escape;
use answer::Reply;
use encode::Events;
use holds::Holds;
use rates::{Asked, Rates};

/// An answer about 2,000 events may name each of them, and each of their users.
const ANSWER_BYTES_MAX: u32 = 1 << 20;

/// One project at Amplitude.
pub struct Amplitude {
    http: Http,
    api: AmplitudeApi,
    size_cap: SizeCap,
    events: Box<Events>,
    subjects: Box<Subjects>,
    api_key: Secret<String>,
    clock: Arc<dyn Clock>,
}

/// What is known of single users or devices.
struct Subjects {
    holds: Holds,
    rates: Rates,
}

impl Amplitude {
    /// A destination that keeps at most `connections_max` idle connections. Connects when it first sends.
    #[must_use]
    pub fn new(config: &AmplitudeConfig, connections_max: u32, tls: Arc<Tls>, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: Http::new(&config.url(), tls, connections_max).with_answers_up_to(ANSWER_BYTES_MAX),
            api: config.api,
            size_cap: SizeCap::default(),
            subjects: Box::new(Subjects { holds: Holds::default(), rates: Rates::new(config.api) }),
            events: Box::new(Events::new(config)),
            api_key: config.api_key.clone(),
            clock,
        }
    }

    /// The same, as far as its address lies where `guard` lets it.
    #[must_use]
    pub fn behind(self, guard: AddressGuard) -> Self {
        Self { http: self.http.behind(guard), ..self }
    }

    /// What follows the events.
    fn tail(&self) -> Bytes {
        let mut tail = format!("],\"options\":{{\"min_id_length\":{}}},\"api_key\":\"", self.events.min_id_length());
        let mut key = Vec::new();
        escape(self.api_key.reveal().as_bytes(), &mut key);
        tail.push_str(&String::from_utf8_lossy(&key));
        tail.push_str("\"}");
        tail.into()
    }

    /// What an answer to a request with these events means.
    pub(super) fn judge(&self, mut answer: Answer, encoded: &Encoded) -> Outcome {
        // As it came: what is shown of it may be shorter.
        let cut = answer.body.len() >= ANSWER_BYTES_MAX as usize;
        answer.hide(self.api_key.reveal());
        let reply = Reply {
            status: answer.status.as_u16(),
            retry_after: answer.wait(self.clock.wall_ms()),
            cut,
            body: &answer.body,
            why: answer.failure(),
        };
        let outcome = answer::judge(reply, encoded, self.api, self.events.identity());
        if let Outcome::Partial(partial) = &outcome {
            self.subjects.holds.learn(encoded, &partial.held, self.clock.monotonic());
        }
        outcome
    }

    /// Why the request is not sent: it would be too large, or some in it have to wait. Otherwise how long all of it waits,
    /// until `deadline` is half over at most.
    fn foreseen(&self, encoded: &Encoded, bytes: usize, deadline: Instant) -> Asked {
        if let Some(why) = too_large(self.api, bytes) {
            return Asked::Not(Outcome::TooLarge { why });
        }
        let (Subjects { holds, rates }, now) = (&*self.subjects, self.clock.monotonic());
        let apart = if holds.any(now) { holds.apart(encoded, now) } else { None };
        if let Some(outcome) = apart.or_else(|| self.size_cap.refuses(encoded.records(), bytes)) {
            return Asked::Not(outcome);
        }
        let patience = rates::PATIENCE.min(deadline.saturating_duration_since(Instant::now()) / 2);
        rates.ask(encoded, patience, now)
    }
}

impl Sink for Amplitude {
    fn format(&self) -> Format {
        Format { name: "amplitude", settings: Some(self.events.settings()), gzip: None }
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
            let bytes = encoded.body.len() + tail.len();
            match self.foreseen(encoded, bytes, deadline) {
                Asked::Not(outcome) => return outcome,
                Asked::After(wait) if wait.is_zero() => {}
                Asked::After(wait) => tokio::time::sleep(wait).await,
            }
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            match self.http.post_with_tail(headers, encoded.body.clone(), tail, deadline).await {
                Ok(answer) => {
                    self.http.heed(&answer, self.clock.wall_ms());
                    let outcome = self.judge(answer, encoded);
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

/// Why a body of so many bytes need not be sent: it would be refused.
fn too_large(api: AmplitudeApi, bytes: usize) -> Option<Failure> {
    let bytes_max = match api {
        AmplitudeApi::Batch => 20_000_000,
        AmplitudeApi::HttpV2 => 1_000_000,
    };
    let why = || format!("{bytes} bytes of events are more than Amplitude takes in one request, {bytes_max}");
    (bytes > bytes_max).then(|| Failure::Local(why()))
}

#[cfg(test)]
mod tests;
