//! The way of one request: who sends, receive the body, queue it, wait for the disk, answer.
//!
//! What always holds: a 2xx to impressions means that they survive a crash. A refusal is counted once, says what is
//! wrong, and is sent when the body has been read, so that the sender gets to see it.

mod other;

use std::sync::Arc;

use forebay::AppendError;
use forebay::failpoints::{self, Point};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, StatusCode, header};
use thiserror::Error;
use tracing::warn;

use super::admission::{Exhausted, Held};
use super::answer::{self, Answer};
use super::body::{self, Body, BodyError, Bounds, Encoding};
use super::complaints::Cause;
use super::environments::KeyOwner;
use super::limits::{BEACON_BYTES_MAX, INLINE_BYTES_MAX, RETRY_AFTER_DISK_SECONDS, RETRY_AFTER_SECONDS};
use super::relay::Relay;
use super::routes::{self, Route};
use super::stats::Refusal;
use super::store::{Original, Queued, StoreError};
use super::{Ingest, STRANGERS, account, sender};
use crate::impression::{self, Form, Unreadable};
use crate::post::{self, Arrival, Kind, TooManyKeys};

/// Answers a request, whatever it is.
pub(crate) async fn answer(ingest: &Arc<Ingest>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let answer = match routes::of(&head.method, head.uri.path()) {
        Route::Impressions(form) => return impressions(ingest, head, form, body).await,
        Route::Other(kind) => return other::answer(ingest, head, kind, body).await,
        Route::Ignored => {
            ingest.stats.ignored();
            answer::ignored()
        }
        Route::Version => answer::version(),
        Route::Preflight => answer::preflight(&head.headers),
        Route::WrongMethod { allow } => {
            ingest.stats.refused(None, Refusal::NotFound);
            answer::wrong_method(allow)
        }
        Route::Unknown => {
            ingest.stats.refused(None, Refusal::NotFound);
            answer::refused(StatusCode::NOT_FOUND, "nothing lives at this path", None)
        }
    };
    after_body(body, answer).await
}

/// An answer that does not need the body, once the body is out of its way.
async fn after_body(mut body: Incoming, answer: Answer) -> Answer {
    if body::discard(&mut body).await { answer } else { answer::and_close(answer) }
}

/// Why impressions were refused.
#[derive(Debug, Error)]
enum Refused {
    #[error("the sdk key is missing or not configured here")]
    UnknownKey,
    #[error("content-encoding is neither gzip nor identity")]
    Encoding,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("no thread came free to parse the body: send it again later")]
    NoThread(Exhausted),
    #[error("the disk is behind with what this environment sent before: send it again later")]
    DiskIsBehind(Exhausted),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the upstream that this is for does not run now: send it again later")]
    NoUpstream,
    #[error("the thread that parsed the body ended early")]
    Parser,
    #[error(transparent)]
    Keys(#[from] TooManyKeys),
}

async fn impressions(ingest: &Arc<Ingest>, head: Parts, form: Form, mut body: Incoming) -> Answer {
    let mut relaying = None;
    let mut owner = sender::key(&head, form).and_then(|key| {
        let owner = ingest.environments().owner_of(&key)?;
        relaying = Relaying::of(ingest, owner, &key, kind(form));
        Some(owner)
    });
    let sdk = owner.is_none().then(|| sender::sdk(&head.headers));
    match take(ingest, head, form, &mut body, &mut owner, relaying).await {
        Ok((owner, queued)) => {
            ingest.stats.request(owner.environment);
            if queued.rejected == 0 {
                return answer::stored();
            }
            note_rejects(ingest, owner, queued.rejected, queued.first_reject.as_deref());
            answer::stored_with_rejects(queued.accepted, queued.rejected)
        }
        Err(refused) => {
            note(ingest, &refused, owner, sdk.as_deref());
            // Who was too slow is not waited for a second time.
            let over = matches!(refused.reason(), Refusal::Slow | Refusal::Disconnected);
            if over { answer::and_close(refused.answer()) } else { after_body(body, refused.answer()).await }
        }
    }
}

/// Takes the impressions in; returns when they are durable. `owner` is filled in as soon as it is known.
async fn take(
    ingest: &Arc<Ingest>,
    head: Parts,
    form: Form,
    body: &mut Incoming,
    owner: &mut Option<KeyOwner>,
    mut relaying: Option<Relaying>,
) -> Result<(KeyOwner, Queued), Refused> {
    if owner.is_none() && form != Form::Beacon {
        return Err(Refused::UnknownKey);
    }
    let encoding = body::encoding(&head.headers).ok_or(Refused::Encoding)?;
    let bytes_max = if form == Form::Beacon { BEACON_BYTES_MAX } else { u64::MAX };
    // Of a beacon nobody knows yet whether it is kept as it came, too.
    let charge = if relaying.is_some() || form == Form::Beacon { 3 } else { 2 };
    let body = receive(ingest, encoding, body, *owner, bytes_max, charge).await?;
    let received_ms = ingest.clock.wall_ms();
    if form == Form::Beacon {
        // The body's own token counts before any header.
        if let Some(token) = impression::beacon_token(&body.bytes).map_err(StoreError::from)? {
            let key = token.secret().as_bytes();
            *owner = ingest.environments().owner_of(key);
            relaying = owner.and_then(|owner| Relaying::of(ingest, owner, key, kind(form)));
        }
    }
    let owner = owner.ok_or(Refused::UnknownKey)?;
    ingest.stats.body(owner.environment, body.bytes.len() as u64);
    let job = Job { ingest: Arc::clone(ingest), head, form, owner, received_ms, relaying };
    let mut queued = queue(job, body).await?;
    failpoints::before(Point::ReplyDurable);
    queued.durable().await?;
    failpoints::after(Point::ReplyDurable);
    Ok((owner, queued))
}

async fn receive(
    ingest: &Ingest,
    encoding: Encoding,
    body: &mut Incoming,
    owner: Option<KeyOwner>,
    bytes_max: u64,
    charge: u64,
) -> Result<Body, BodyError> {
    let limits = &ingest.limits;
    let bounds = Bounds {
        memory: &ingest.memory,
        environment: owner.map_or(STRANGERS, |owner| account(owner.environment)),
        bytes_max: limits.body_bytes_max.min(bytes_max),
        charge,
        memory_wait_max: limits.memory_wait_max,
        time_max: limits.body_time_max,
    };
    body::receive(body, encoding, bounds).await
}

/// Parses and queues: at once when that is short, else on a thread of its own. From here on the append goes on even
/// when the client leaves and this future is dropped.
async fn queue(job: Job, body: Body) -> Result<Queued, Refused> {
    let (account, bytes, limits) = (account(job.owner.environment), body.bytes.len() as u64, &job.ingest.limits);
    let on_its_way = job.ingest.queued.reserve(account, bytes, limits.memory_wait_max).await;
    let on_its_way = on_its_way.map_err(Refused::DiskIsBehind)?;
    if body.bytes.len() <= INLINE_BYTES_MAX {
        return Ok(job.run(body, on_its_way)?);
    }
    let thread = job.ingest.parsers.reserve_for(account, 1, bytes, limits.body_time_max).await;
    let thread = thread.map_err(Refused::NoThread)?;
    let work = move || {
        let queued = job.run(body, on_its_way);
        drop(thread);
        queued
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Parser)??)
}

struct Job {
    ingest: Arc<Ingest>,
    head: Parts,
    form: Form,
    owner: KeyOwner,
    received_ms: u64,
    relaying: Option<Relaying>,
}

impl Job {
    fn run(self, body: Body, on_its_way: Held) -> Result<Queued, StoreError> {
        let Self { ingest, head, form, owner, received_ms, relaying } = self;
        let meta = sender::meta(&head.headers, received_ms, owner.key);
        let original = |body: &_| {
            let relaying = relaying?;
            let relay = Arc::clone(&relaying.relay);
            let original = relaying.original(&head.headers, body, received_ms);
            original.inspect_err(|why| relay.misses(why)).ok()
        };
        let environments = ingest.environments();
        let to = (owner.environment, &*environments.all()[owner.environment]);
        ingest.store.queue(to, body.bytes, form, &meta, (body.held, on_its_way), original)
    }
}

/// What it takes to keep a post as it came: where, and what is to be cut out of it.
struct Relaying {
    relay: Arc<Relay>,
    kind: Kind,
    environment: Arc<str>,
    key: Box<[u8]>,
    place: u32,
}

impl Relaying {
    /// `None` where nobody wants the posts of the key's environment, or this one.
    fn of(ingest: &Ingest, owner: KeyOwner, key: &[u8], kind: Option<Kind>) -> Option<Self> {
        let environments = ingest.environments();
        let environment = &environments.all()[owner.environment];
        let (relay, kind) = (environment.relay()?, kind?);
        Some(Self { relay, kind, environment: environment.id().into(), key: key.into(), place: owner.key })
    }

    fn original(
        self,
        headers: &header::HeaderMap,
        body: &bytes::Bytes,
        received_ms: u64,
    ) -> Result<Original, TooManyKeys> {
        let Self { relay, kind, environment, key, place } = self;
        let arrival = Arrival { kind, received_ms, environment: &environment, key: &key, sdk_key_index: place };
        let post = post::keep(&arrival, headers, body)?;
        Ok(Original { relay, stream: post::stream(&environment, place), post })
    }
}

/// What Split knows this form as. A listener's posts are copies of what it gets already.
fn kind(form: Form) -> Option<Kind> {
    match form {
        Form::Bulk => Some(Kind::Impressions),
        Form::Beacon => Some(Kind::ImpressionsBeacon),
        Form::Listener => None,
    }
}

/// Counts a refusal, and logs those that a sender should mend, once a minute for each key. `sdk` is what a sender
/// whose key is not known says it is.
fn note(ingest: &Ingest, refused: &Refused, owner: Option<KeyOwner>, sdk: Option<&str>) {
    let why = refused.reason();
    ingest.stats.refused(owner.map(|owner| owner.environment), why);
    let now = ingest.clock.monotonic();
    match why {
        Refusal::UnknownKey => {
            if let Some(held_back) = ingest.complaints.due(Cause::UnknownKey, None, 1, now) {
                warn!(
                    sdk,
                    held_back,
                    "a post without an sdk key that is configured here was refused (401); its sender loses it: add the \
                     key to the sdk_keys of an environment"
                );
            }
        }
        Refusal::Unreadable | Refusal::TooLarge | Refusal::Encoding => {
            if let Some(owner) = owner {
                ingest.stats.unreadable_of_key(owner);
            }
            if let Some(held_back) = ingest.complaints.due(Cause::Body, owner, 1, now) {
                let environments = ingest.environments();
                let environment = owner.map_or("unknown", |owner| environments.all()[owner.environment].id());
                let sdk_key = owner.map(|owner| owner.key);
                warn!(environment, sdk_key, error = %refused, held_back, "a body was refused; its sender may lose it");
            }
        }
        _ => {}
    }
}

/// Logs, once a minute for each key, that a post had elements that cannot be impressions, with the first one's reason.
fn note_rejects(ingest: &Ingest, owner: KeyOwner, elements: u64, reason: Option<&str>) {
    let due = ingest.complaints.due(Cause::Elements, Some(owner), elements, ingest.clock.monotonic());
    if let Some(held_back) = due {
        let environments = ingest.environments();
        let environment = &environments.all()[owner.environment];
        warn!(
            environment = environment.id(),
            sdk_key = owner.key,
            elements,
            reason,
            held_back,
            "a post had elements that cannot be impressions; they are kept: forebay log dump DIR --stream '{}'",
            environment.rejects_stream()
        );
    }
}

impl Refused {
    fn reason(&self) -> Refusal {
        match self {
            Self::UnknownKey => Refusal::UnknownKey,
            Self::Encoding => Refusal::Encoding,
            Self::Body(BodyError::TooLarge { .. }) => Refusal::TooLarge,
            Self::Body(BodyError::Gzip(_)) | Self::Store(StoreError::Unreadable(_)) | Self::Keys(_) => {
                Refusal::Unreadable
            }
            Self::Body(BodyError::Memory(_)) => Refusal::Memory,
            Self::Body(BodyError::Slow { .. }) => Refusal::Slow,
            Self::Body(BodyError::Broken { .. }) => Refusal::Disconnected,
            Self::Store(StoreError::Append(AppendError::TooLarge { .. })) => Refusal::TooLarge,
            Self::Store(StoreError::Append(AppendError::Busy { .. })) | Self::NoThread(_) | Self::DiskIsBehind(_) => {
                Refusal::Busy
            }
            Self::Store(StoreError::Append(_) | StoreError::Closed) | Self::NoUpstream | Self::Parser => Refusal::Disk,
        }
    }

    fn answer(&self) -> Answer {
        let why = self.to_string();
        match self.reason() {
            Refusal::UnknownKey => {
                let mut answer = answer::refused(StatusCode::UNAUTHORIZED, &why, None);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
                answer
            }
            Refusal::Head | Refusal::Unreadable | Refusal::Disconnected | Refusal::NotFound => {
                answer::refused(StatusCode::BAD_REQUEST, &why, self.at())
            }
            Refusal::TooLarge => answer::refused(StatusCode::PAYLOAD_TOO_LARGE, &why, self.at()),
            Refusal::Encoding => answer::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &why, None),
            Refusal::Slow => answer::refused(StatusCode::REQUEST_TIMEOUT, &why, None),
            Refusal::Memory | Refusal::Busy => answer::unavailable(&why, RETRY_AFTER_SECONDS),
            Refusal::Disk => answer::unavailable(&why, RETRY_AFTER_DISK_SECONDS),
        }
    }

    /// The place in the body that it is about.
    fn at(&self) -> Option<u64> {
        match self {
            Self::Store(StoreError::Unreadable(Unreadable { at, .. })) => Some(*at as u64),
            Self::Body(BodyError::TooLarge { limit }) => Some(*limit),
            Self::Body(BodyError::Gzip(error)) => Some(error.at()),
            Self::Body(BodyError::Broken { received, .. }) => Some(*received),
            _ => None,
        }
    }
}
