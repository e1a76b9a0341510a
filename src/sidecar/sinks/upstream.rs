//! Split's own endpoints, or what stands in for them: each post of an SDK is sent once more, as it came.
//!
//! One post is one request, with the key put back. Its records are posts, not impressions, and come from the upstream's
//! own log, one queue for each SDK key; [`InOrder`] sees to it that the next post of a key starts when the one before
//! is settled. An upstream tells no repeats apart, so there is no plan: what was in flight at a crash, or settled since the
//! last tick, comes twice.

mod in_order;
mod keys;

use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::Clock;
use tokio::time::Instant;

use super::address_guard::{AddressGuard, AddressPolicy};
use super::http::{Answer, Http, Tls};
use crate::config::UpstreamConfig;
use crate::delivery::outcome::{Failure, Outcome, RejectedRecord, classify};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink, Told};
use crate::post::{self, Post};

pub use in_order::InOrder;
pub use keys::SdkKeys;

/// One upstream.
pub struct Upstream {
    events: Http,
    telemetry: Http,
    keys: Arc<SdkKeys>,
    clock: Arc<dyn Clock>,
}

impl Upstream {
    /// An upstream that keeps at most `connections_max` idle connections to each of its hosts. Connects when it first
    /// sends. `policy` says who chose its addresses.
    #[must_use]
    pub fn new(
        config: &UpstreamConfig,
        policy: AddressPolicy,
        connections_max: u32,
        keys: Arc<SdkKeys>,
        tls: &Arc<Tls>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let way = |base| Http::guarded(base, AddressGuard::new(policy, &[]), Arc::clone(tls), connections_max);
        Self { events: way(&config.events), telemetry: way(&config.telemetry), keys, clock }
    }

    /// The same, as far as its addresses lie where `guard` lets it.
    #[must_use]
    pub fn behind(self, guard: AddressGuard) -> Self {
        Self { events: self.events.behind(guard.clone()), telemetry: self.telemetry.behind(guard), ..self }
    }

    async fn relay(&self, post: &Post, deadline: Instant) -> Outcome {
        let (environment, place) = (post.environment(), post.sdk_key_index());
        let Some(key) = self.keys.find(environment, place, post.key_check()) else {
            // It was there a moment ago.
            return Outcome::Retry { why: Failure::Local(no_key(post)) };
        };
        let key = key.reveal();
        let request = match post.request(key) {
            Ok(request) => request,
            Err(_) => {
                let why = format!("{} can't stand in a header", name(post));
                return Outcome::QueueRefused { why: Failure::Local(why) };
            }
        };
        let (way, path) = match post.path().strip_prefix("v1/") {
            Some(path) => (&self.telemetry, path),
            None => (&self.events, post.path()),
        };
        match way.post_below(path, request.headers, request.body, deadline).await {
            Err(why) => Outcome::Retry { why },
            Ok(mut answer) => {
                answer.hide(key);
                way.heed(&answer, self.clock.wall_ms());
                self.judge(&answer, post)
            }
        }
    }

    fn judge(&self, answer: &Answer, post: &Post) -> Outcome {
        let status = answer.status.as_u16();
        let why = || answer.failure();
        let wait = answer.wait(self.clock.wall_ms());
        let classified = || classify(status, wait, why);
        match status {
            // Who names a time is obeyed, whatever else it says: firewalls throttle with a 403 or a 420.
            _ if wait.is_some() => classified(),
            // The key's trouble, not the upstream's: it waits by itself, and the other keys go on.
            401 | 403 => Outcome::QueueRefused { why: answer.failure_in_words(name(post)) },
            // No post is to blame for what is missing or wrong at every path.
            404 | 405 | 410 => Outcome::Refused { why: why() },
            // These pass: too early, a request that came too slowly, a mistaken or overworked server.
            408 | 409 | 421 | 425 | 429 => classified(),
            400..=499 => Outcome::Rejected { why: why() },
            _ => classified(),
        }
    }
}

/// Whose a post is, for people.
fn name(post: &Post) -> String {
    post::key_name(post.environment(), post.sdk_key_index())
}

/// Why a post can't be sent.
fn no_key(post: &Post) -> String {
    let (environment, place) = (post.environment(), post.sdk_key_index());
    format!("the sdk key at place {place} of environment {environment} is not configured any more")
}

impl Sink for Upstream {
    fn format(&self) -> Format {
        Format { name: "post", settings: None, gzip: None }
    }

    /// The post as it lies in the log: no key is in what others may share. One whose key is gone is left out.
    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let refuse = |why: String| EncodeError { at: job.origin.clone(), why };
        let mut runs = job.runs();
        let (Some(run), None) = (runs.next(), runs.next()) else {
            return Err(refuse("a request carries one post".to_owned()));
        };
        if (run.skip, run.take) != (0, 1) {
            return Err(refuse("a payload holds one post".to_owned()));
        }
        let post = Post::read(run.payload).map_err(|error| refuse(error.to_string()))?;
        if self.keys.find(post.environment(), post.sdk_key_index(), post.key_check()).is_none() {
            let rejected = RejectedRecord { offset: run.first, reason: no_key(&post) };
            return Ok(Encoded::without(job, vec![rejected], Bytes::new()));
        }
        Ok(Encoded::whole(job, run.payload.clone()))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if encoded.records() == 0 {
                return Outcome::Delivered;
            }
            match Post::read(&encoded.body) {
                Ok(post) => self.relay(&post, deadline).await,
                Err(error) => Outcome::Retry { why: Failure::Local(error.to_string()) },
            }
        })
    }

    fn allowance(&self) -> Option<Told> {
        self.events.allowance().or_else(|| self.telemetry.allowance())
    }

    fn needs_plan(&self) -> bool {
        false
    }

    /// Each stream is of one SDK key.
    fn senders_apart(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
