//! An SDK's posts without impressions: kept as they came where an upstream wants them, else taken and dropped.
//!
//! What always holds: where it is wanted, a 2xx means that it survives a crash. What can't be kept, also while the upstream
//! does not run that it is for, is refused with 503:
//! most senders lose it then, but some hold it back and come again, and all of them know. A stranger's post is taken
//! and dropped like one that nobody wants: he learns nothing of keys from it.

use std::sync::Arc;

use bytes::Bytes;
use forebay::AppendError;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::{
    BEACON_BYTES_MAX, Body, INLINE_BYTES_MAX, Ingest, KeyOwner, Original, Refused, Relaying, StoreError, account,
    after_body, note, receive, sender,
};
use crate::ingest::answer::{self, Answer};
use crate::ingest::body::{self, BodyError};
use crate::ingest::stats::Refusal;
use crate::post::{self, Kind};

/// Answers it.
pub(super) async fn answer(ingest: &Arc<Ingest>, head: Parts, kind: Kind, mut body: Incoming) -> Answer {
    let shown = sender::bearer_key(&head.headers);
    let owner = shown.and_then(|key| ingest.environments().owner_of(key));
    let relaying = shown.zip(owner).and_then(|(key, owner)| Relaying::of(ingest, owner, key, Some(kind)));
    let may_be_kept = relaying.is_some() || (kind.is_beacon() && ingest.environments().relayed());
    if !may_be_kept {
        ingest.stats.ignored();
        return after_body(body, answer::ignored()).await;
    }
    let sender = owner.zip(relaying);
    let mut owner = owner;
    match take(ingest, &head, kind, &mut body, sender, &mut owner).await {
        Ok(Some(owner)) => {
            ingest.stats.request(owner.environment);
            answer::kept()
        }
        Ok(None) => {
            ingest.stats.ignored();
            answer::ignored()
        }
        Err(refused) => {
            note(ingest, &refused, owner, None);
            let over = matches!(refused.reason(), Refusal::Slow | Refusal::Disconnected);
            if over { answer::and_close(refused.answer()) } else { after_body(body, refused.answer()).await }
        }
    }
}

/// Keeps it; returns when it is durable. `None`: it is nobody's, or nobody wants it. `owner` is filled in as soon as it
/// is known.
async fn take(
    ingest: &Arc<Ingest>,
    head: &Parts,
    kind: Kind,
    body: &mut Incoming,
    sender: Option<(KeyOwner, Relaying)>,
    owner: &mut Option<KeyOwner>,
) -> Result<Option<KeyOwner>, Refused> {
    let encoding = body::encoding(&head.headers).ok_or(Refused::Encoding)?;
    let bytes_max = if kind.is_beacon() { BEACON_BYTES_MAX } else { u64::MAX };
    let Body { bytes, mut held } = receive(ingest, encoding, body, *owner, bytes_max, 2).await?;
    let received_ms = ingest.clock.wall_ms();
    // A beacon's own token counts before any header.
    let token = kind.is_beacon().then(|| post::token(&bytes)).flatten();
    let sender = match token {
        None => sender,
        Some(token) => {
            *owner = ingest.environments().owner_of(token.as_bytes());
            owner.and_then(|owner| Some((owner, Relaying::of(ingest, owner, token.as_bytes(), Some(kind))?)))
        }
    };
    let Some((owner, relaying)) = sender else { return Ok(None) };
    ingest.stats.body(owner.environment, bytes.len() as u64);
    let original = original(ingest, head, owner, relaying, bytes, received_ms).await?;
    held.shrink_to(original.post.len() as u64);
    let is_there = original.relay.is_there();
    let keeping = original.relay.keep(&original.stream, original.post, held, false);
    match keeping.await {
        Ok(Ok(())) => Ok(Some(owner)),
        Ok(Err(AppendError::TooLarge { limit, .. })) => Err(Refused::Body(BodyError::TooLarge { limit: limit as u64 })),
        Ok(Err(error)) => Err(Refused::Store(StoreError::Append(error))),
        Err(_) if !is_there => Err(Refused::NoUpstream),
        Err(_) => Err(Refused::Store(StoreError::Closed)),
    }
}

/// What is kept of it: at once when that is short, else on a thread, of which there are as many as for impressions. To look
/// for the key in 64 MiB takes some 50 ms, and other connections wait meanwhile.
async fn original(
    ingest: &Arc<Ingest>,
    head: &Parts,
    owner: KeyOwner,
    relaying: Relaying,
    body: Bytes,
    received_ms: u64,
) -> Result<Original, Refused> {
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(relaying.original(&head.headers, &body, received_ms)?);
    }
    let (account, bytes) = (account(owner.environment), body.len() as u64);
    let thread = ingest.parsers.reserve_for(account, 1, bytes, ingest.limits.body_time_max).await;
    let (thread, headers) = (thread.map_err(Refused::NoThread)?, head.headers.clone());
    let work = move || {
        let original = relaying.original(&headers, &body, received_ms);
        drop((thread, body));
        original
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Parser)??)
}
