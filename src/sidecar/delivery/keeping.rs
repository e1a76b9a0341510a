//! Keeps the records that a batch leaves behind as letters, then settles the batch. Decides nothing.
//!
//! What always holds: a batch is settled only when all its letters are durable, but for records that damage took meanwhile:
//! these settle as lost. Until then it stays claimed, however long the log takes nothing; a crash in between brings it again,
//! and with it the same letters.

use std::sync::Arc;
use std::time::Duration;

use forebay::Settled;
use forebay::failpoints::{self, Point};
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::sleep;

use super::Common;
use super::apart::Apart;
use super::backoff::Backoff;
use super::parking::{LETTERS_MAX, Letter};
use super::source::{BoxError, Stored, Ticket};

/// Letters of a batch above this size are made this many at a time: each may lie in a frame of its own.
const LARGE_BYTES: u64 = 8 << 20;
const LETTERS_OF_LARGE: usize = 32;

/// A batch of which only the letters are left to see to.
pub(super) struct Keeping {
    pub(super) destination: Arc<str>,
    pub(super) ticket: Box<dyn Ticket>,
    pub(super) apart: Apart,
    /// The batch's size as stored.
    pub(super) bytes: u64,
    /// How often its records were sent.
    pub(super) sends: u32,
}

/// Why letters are not kept: the batch went back.
pub(super) enum Unkept {
    /// It was to stop.
    Stopping,
    /// Whoever looked for its records panicked, and would again.
    Panicked(JoinError),
}

/// Keeps the letters and settles the batch. Tries until it has done so, or is `stopping`, and returns what is kept now.
/// `failed` hears of what went wrong.
pub(super) async fn keep(
    common: Arc<Common>,
    keeping: Keeping,
    stopping: impl Fn() -> bool,
    failed: impl Fn(&BoxError),
) -> Result<Apart, Unkept> {
    let Keeping { destination, mut ticket, mut apart, bytes, sends } = keeping;
    let at_once = if bytes > LARGE_BYTES { LETTERS_OF_LARGE } else { LETTERS_MAX };
    let (mut backoff, mut rng) = (Backoff::default(), common.rng());
    let (offsets, mut lost) = (apart.offsets(), Vec::new());
    for chunk in offsets.chunks(at_once) {
        let chunk: Arc<[u64]> = chunk.into();
        loop {
            let stored;
            (ticket, stored) = find(&common, ticket, Arc::clone(&chunk)).await.map_err(Unkept::Panicked)?;
            let found: Vec<u64> = stored.iter().flatten().map(|stored| stored.offset).collect();
            let letters = stored.map(|stored| letters(&common, &destination, &apart, stored, sends));
            let parked = failpoints::around_async(Point::LettersKeep, park(&common, letters)).await;
            let Err(why) = parked else {
                lost.extend(chunk.iter().filter(|offset| found.binary_search(offset).is_err()));
                break;
            };
            failed(&why);
            let wait = backoff.next(&mut rng).max(Duration::from_millis(50));
            if waited_in_vain(wait, &stopping).await {
                return Err(Unkept::Stopping);
            }
        }
    }
    if !lost.is_empty() {
        tracing::error!(%destination, offsets = ?lost, "records that were to become letters are lost to damage");
        apart = lost.iter().fold(apart, |apart, offset| apart.without(*offset));
    }
    let mut parts = apart.parts();
    parts.extend(lost.into_iter().map(|offset| (offset..offset + 1, Settled::Lost)));
    failpoints::around(Point::LettersSettle, || ticket.settle(&parts, Settled::Delivered));
    Ok(apart)
}

async fn find(
    common: &Common,
    ticket: Box<dyn Ticket>,
    offsets: Arc<[u64]>,
) -> Result<(Box<dyn Ticket>, Result<Vec<Stored>, BoxError>), JoinError> {
    let find = move || {
        let stored = ticket.letters(&offsets);
        (ticket, stored)
    };
    common.on_a_thread(find).await
}

fn letters(common: &Common, destination: &Arc<str>, apart: &Apart, stored: Vec<Stored>, sends: u32) -> Vec<Letter> {
    let at_ms = common.clock.wall_ms();
    let letter = |Stored { offset, origin, replay, environment, payload, index }: Stored| {
        let fate = apart.fate(offset)?;
        Some(Letter {
            kind: fate.kind,
            destination: Arc::clone(destination),
            origin,
            replay,
            environment,
            payload,
            index,
            reason: fate.reason.to_string(),
            excerpt: fate.excerpt.to_string(),
            at_ms,
            attempts: sends,
        })
    };
    stored.into_iter().filter_map(letter).collect()
}

/// Waits until they are durable.
async fn park(common: &Common, letters: Result<Vec<Letter>, BoxError>) -> Result<(), BoxError> {
    let (done, parked) = oneshot::channel();
    common.parking.park(letters?, Box::new(move |result| drop(done.send(result))));
    parked.await.unwrap_or_else(|_| Err("whoever keeps letters stopped".into()))
}

/// Waits; `true` if it is to stop instead of trying again. Looks every second.
async fn waited_in_vain(mut wait: Duration, stopping: &impl Fn() -> bool) -> bool {
    while !wait.is_zero() && !stopping() {
        let step = wait.min(Duration::from_secs(1));
        sleep(step).await;
        wait -= step;
    }
    stopping()
}
