//! Brings one object to the store, exactly once, however often it is tried.
//!
//! What always holds: an object is never overwritten as far as the store lets us ask for that; one that lies there
//! already counts as ours only if its metadata names the same records; an upload in parts is completed only when the
//! encoder has said that its last part was the last; and one that fails is given up.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay::failpoints::{self, Point};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::causes;
use crate::config::{S3Format, S3Layout};
use crate::delivery::heavy::Heavy;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::patience::Patience;
use crate::delivery::sink::LargeJob;

use super::answer::Trouble;
use super::digest::Contents;
use super::encode::{Stopped, encode};
use super::key;
use super::parts::{Part, parts};
use super::store::{Object, Store, Upload};

/// Why an upload is given up that nothing is wrong with.
const SLOW: &str = "the store takes its time and others wait for the memory that the object holds: it is sent again, \
                    beside other slow ones";

/// So many parts an object may have: what is not packed and larger than 80 GB is sent as several.
const PARTS_MAX: i32 = 10_000;

/// For giving up an upload: nobody waits for more than that.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// An object's packed size is about that of its records as stored; unpacked it is four times that.
const SIZE_FACTOR: u64 = 4;

/// The uploads that this process has begun and not ended: not to be taken for left-overs.
pub(super) type Live = Arc<Mutex<HashSet<Upload>>>;

/// The parts of an object as they are made, and how their making ended.
pub(super) struct Making {
    parts: Receiver<Part>,
    encoder: JoinHandle<Result<(), Stopped>>,
}

/// Brings the job's object there, once. `limit`: for each request.
pub(super) async fn upload(store: &Store, live: &Live, layout: &S3Layout, job: &LargeJob, limit: Duration) -> Outcome {
    match try_upload(store, live, layout, job, limit).await {
        Ok(()) => Outcome::Delivered,
        Err(trouble) => trouble.outcome,
    }
}

async fn try_upload(
    store: &Store,
    live: &Live,
    layout: &S3Layout,
    job: &LargeJob,
    limit: Duration,
) -> Result<(), Trouble> {
    if job.records_sent() == 0 {
        return Ok(()); // nothing to send makes no object
    }
    let key = key::key(layout, job);
    let object = Object { key: &key, format: layout.format, timeout: limit };
    let patience = &job.patience;
    let contents = with_patience(patience, contents(job)).await?;
    let mut making = make(layout.format, job);
    let Some(first) = making.parts.recv().await else {
        making.ended().await?;
        return Err(Trouble::local("the object has no bytes"));
    };
    let put = match making.parts.recv().await {
        None => {
            making.ended().await?;
            let put = store.put(object, &contents, first.bytes);
            failpoints::around_async(Point::ObjectPut, with_patience(patience, put)).await
        }
        Some(second) => in_parts(store, live, object, &contents, [first, second], making, &job.patience).await,
    };
    match put {
        Err(trouble) if trouble.exists() => with_patience(patience, is_ours(store, object, &contents)).await,
        put => put,
    }
}

/// What comes of it, unless the others' patience runs out before.
pub(super) async fn with_patience<T>(
    patience: &Patience,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::select! {
        biased;
        () = patience.out() => Err(Trouble::local(SLOW)),
        done = work => done,
    }
}

/// Digests what is to be sent, on a thread that may wait for the disk.
async fn contents(job: &LargeJob) -> Result<Contents, Trouble> {
    let (job, heavy) = (job.clone(), Heavy::new(job.turns.clone()));
    let read = tokio::task::spawn_blocking(move || Contents::of(&job, &heavy)).await;
    let read = read.map_err(|panic| Trouble::local(format!("the reader stopped: {panic}")))?;
    read.map_err(|why| Trouble::retry(Failure::Unread(causes::line(&*why))))
}

/// Starts the encoder.
pub(super) fn make(format: S3Format, job: &LargeJob) -> Making {
    let heavy = Arc::new(Heavy::new(job.turns.clone()));
    let (writer, parts) = parts(job.bytes.saturating_mul(SIZE_FACTOR), Arc::clone(&heavy));
    let job = job.clone();
    let encoder = tokio::task::spawn_blocking(move || encode(&job, format, &heavy, writer));
    Making { parts, encoder }
}

impl Making {
    /// Hands over all parts.
    pub(super) async fn into_parts(mut self, mut take: impl FnMut(Bytes)) -> Result<(), Failure> {
        while let Some(part) = self.parts.recv().await {
            take(part.bytes);
        }
        match self.ended().await.map_err(|trouble| trouble.outcome) {
            Err(outcome) => Err(outcome.failure().cloned().unwrap_or_else(|| Failure::Local(String::new()))),
            Ok(()) => Ok(()),
        }
    }

    /// Whether what came is the whole object.
    async fn ended(self) -> Result<(), Trouble> {
        match self.encoder.await {
            Ok(Ok(())) => Ok(()),
            // It would be so at every attempt: which record that is is searched for, as where batches are encoded whole.
            Ok(Err(why @ Stopped::Record(_))) => {
                let why = Failure::Local(causes::line(&why));
                Err(Trouble { status: None, outcome: Outcome::Rejected { why } })
            }
            Ok(Err(Stopped::Read(why))) => Err(Trouble::retry(Failure::Unread(causes::line(&*why)))),
            Ok(Err(why)) => Err(Trouble::local(causes::line(&why))),
            Err(panic) => Err(Trouble::local(format!("the encoder stopped: {panic}"))),
        }
    }
}

async fn in_parts(
    store: &Store,
    live: &Live,
    object: Object<'_>,
    contents: &Contents,
    ready: [Part; 2],
    making: Making,
    patience: &Patience,
) -> Result<(), Trouble> {
    // After an answer that was lost the object is there: a look costs less than sending all of it to find out.
    let there = with_patience(patience, async { Ok(store.look(object).await.is_ok()) }).await?;
    if there {
        return with_patience(patience, is_ours(store, object, contents)).await;
    }
    let upload = begin(store, object, contents, patience).await?;
    let _alive = Alive::of(live, &upload);
    let sent = with_patience(patience, send_parts(store, &upload, ready, making, object.timeout)).await;
    if sent.is_err()
        && let Err(trouble) = store.abort(&upload, ABORT_TIMEOUT).await
    {
        // It may be complete, and only its answer was lost; or it is found as a left-over later on.
        tracing::debug!(key = upload.key, outcome = ?trouble.outcome, "could not give up an upload");
    }
    sent
}

/// Begins an upload. What was asked for is waited for a little longer than others have patience, so that it can be given up:
/// nobody else knows its name.
async fn begin(store: &Store, object: Object<'_>, contents: &Contents, patience: &Patience) -> Result<Upload, Trouble> {
    let mut begun = pin!(store.begin(object, contents));
    tokio::select! {
        biased;
        upload = &mut begun => upload,
        () = patience.out() => timeout(ABORT_TIMEOUT, begun).await.unwrap_or_else(|_| Err(Trouble::local(SLOW))),
    }
}

async fn send_parts(
    store: &Store,
    upload: &Upload,
    ready: [Part; 2],
    mut making: Making,
    limit: Duration,
) -> Result<(), Trouble> {
    let (mut done, mut number) = (Vec::new(), 0);
    let mut ready = ready.into_iter();
    loop {
        let next = match ready.next() {
            Some(part) => Some(part),
            None => making.parts.recv().await,
        };
        let Some(part) = next else { break };
        number = next_number(number)?;
        done.push(store.part(upload, number, part.bytes.clone(), limit).await?);
    }
    making.ended().await?;
    store.complete(upload, done, limit).await
}

/// The number of the part behind that of this one.
fn next_number(number: i32) -> Result<i32, Trouble> {
    if number >= PARTS_MAX {
        let why = format!("the object has more than {PARTS_MAX} parts, and no store takes more");
        return Err(Trouble { status: None, outcome: Outcome::TooLarge { why: Failure::Local(why) } });
    }
    Ok(number + 1)
}

/// Something lies there: is it this object, from an attempt whose answer was lost?
async fn is_ours(store: &Store, object: Object<'_>, contents: &Contents) -> Result<(), Trouble> {
    let found = store.look(object).await?;
    let differs = contents.metadata().into_iter().find(|(name, value)| found.get(*name) != Some(value));
    let Some((name, value)) = differs else { return Ok(()) };
    let found = found.get(name).map_or("nothing", String::as_str);
    let why = format!(
        "an object of this name with other contents lies in the bucket and is not overwritten: {}; its metadata says \
         {found} for {name}, not {value}. Move it away to go on",
        object.key
    );
    tracing::error!(bucket = store.config.bucket, "{why}");
    Err(Trouble { status: None, outcome: Outcome::Refused { why: Failure::Local(why) } })
}

/// An upload that this process is at work on.
struct Alive<'a> {
    live: &'a Live,
    upload: Upload,
}

impl<'a> Alive<'a> {
    fn of(live: &'a Live, upload: &Upload) -> Self {
        live.lock().unwrap_or_else(PoisonError::into_inner).insert(upload.clone());
        Self { live, upload: upload.clone() }
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.upload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The store's answer to the part after the last that it takes is one that says that the destination's settings are wrong.
    #[test]
    fn an_object_of_more_parts_than_a_store_takes_is_too_large_and_nobodys_fault() {
        assert_eq!(next_number(0), Ok(1));
        assert_eq!(next_number(PARTS_MAX - 1), Ok(PARTS_MAX));
        let outcome = next_number(PARTS_MAX).unwrap_err().outcome;
        assert!(matches!(outcome, Outcome::TooLarge { why: Failure::Local(_) }), "{outcome:?}");
    }
}
