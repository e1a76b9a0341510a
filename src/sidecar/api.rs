//! What the sidecar shows of itself: lag over gRPC, health, metrics.
//!
//! Two servers over one set of [`readings`]: [`grpc`] for operators and programs, local only; [`http`] for scrapers and
//! probes. Neither changes anything, and neither can hold up ingest or delivery: both have few connections, short calls, and
//! one thread that reads the queues for all who ask.

use std::sync::Arc;

use forebay::clock::Clock;
use tokio::sync::Semaphore;

use self::destinations::Operations;
use self::lag::{LagBoard, Reading};
use self::readings::{IngestReading, LogReading, ReloadReading, Replayed, Source, Sources, ThreadsReading};
use crate::letters::Letters;
use crate::ready::{Readiness, Status};

mod balances;
mod cursors;
pub mod dead_letters;
pub mod destinations;
pub mod disk_shares;
mod exposition;
pub mod forecast;
mod gives_up;
pub mod grpc;
pub mod http;
pub mod lag;
mod limits;
pub mod listen;
mod messages;
mod metrics;
mod rates;
pub mod readings;
mod replays;
mod sheets;
#[cfg(test)]
mod tests;
mod turns;

pub use listen::{BindError, Listener, LocalListener};

/// Everything that both servers show. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    board: LagBoard,
    parts: Arc<Parts>,
}

struct Parts {
    ingest: Source<IngestReading>,
    log: Source<LogReading>,
    booked: Booked,
    replayed: Option<Replayed>,
    reloads: Source<ReloadReading>,
    threads: Source<Vec<ThreadsReading>>,
    operations: Option<Arc<dyn Operations>>,
    letters: Option<Arc<Letters>>,
    readiness: Readiness,
    /// One reader at a time: those who wait here wait without a thread.
    reader: Arc<Semaphore>,
}

/// Every queue that has books.
type Booked = Arc<dyn Fn() -> Vec<forebay::Queue> + Send + Sync>;

/// The queues could not be read: one of the sources panicked, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("the queues could not be read: a bug, see the log for its trace")]
pub struct ReadError(#[from] tokio::task::JoinError);

impl Api {
    /// Shows these sources. Reads nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, sources: Sources) -> Self {
        let Sources {
            queues,
            booked,
            deliveries,
            ingest,
            log,
            disk,
            replayed,
            reloads,
            threads,
            operations,
            letters,
            readiness,
        } = sources;
        let (reader, booked) = (Arc::new(Semaphore::new(1)), Booked::from(booked));
        let (all, looked_up) = (Arc::clone(&booked), letters.clone());
        let sheets = Box::new(move || sheets::of(&all(), looked_up.as_deref(), |_| true));
        let parts = Parts { ingest, log, booked, replayed, reloads, threads, operations, letters, readiness, reader };
        Self { board: LagBoard::new(clock, queues, deliveries, sheets, disk), parts: Arc::new(parts) }
    }

    /// The lag of every queue, a tenth of a second old at most.
    ///
    /// # Errors
    /// When a source panicked.
    pub async fn reading(&self) -> Result<Arc<Reading>, ReadError> {
        self.read(LagBoard::reading).await
    }

    /// Feeds the rates, for those who will look. Keeps nothing else.
    ///
    /// # Errors
    /// When a source panicked.
    async fn sample(&self) -> Result<(), ReadError> {
        self.read(LagBoard::sample).await
    }

    /// Looks, when its turn has come. The turn lasts until it has looked, also where whoever asked has gone: else those who
    /// ask and go, again and again, would have all threads wait for the one that looks.
    async fn read<T: Send + 'static>(&self, look: fn(&LagBoard) -> T) -> Result<T, ReadError> {
        let turn = Arc::clone(&self.parts.reader).acquire_owned().await.expect("the semaphore is never closed");
        let board = self.board.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let seen = look(&board);
            drop(turn);
            seen
        });
        Ok(looking.await?)
    }

    /// Why nothing should be sent here now: what the sidecar says, and a log that takes nothing. Empty when ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.parts.not_ready(&(self.parts.log)())
    }

    /// Every queue that has books.
    fn booked(&self) -> Booked {
        Arc::clone(&self.parts.booked)
    }

    /// What operators may have sent once more.
    fn replayed(&self) -> Option<Replayed> {
        self.parts.replayed.clone()
    }

    /// What operators may have done.
    fn operations(&self) -> Option<Arc<dyn Operations>> {
        self.parts.operations.clone()
    }

    /// The letters that operators may see to.
    fn letters(&self) -> Option<Arc<Letters>> {
        self.parts.letters.clone()
    }

    /// What the sidecar itself says of its readiness.
    fn readiness(&self) -> &Readiness {
        &self.parts.readiness
    }

    /// Everything as Prometheus reads it.
    async fn metrics(&self) -> Result<String, ReadError> {
        let reading = self.reading().await?;
        let parts = Arc::clone(&self.parts);
        // With thousands of queues this is megabytes of text: not on a thread that others wait for.
        let rendered = tokio::task::spawn_blocking(move || {
            let log = (parts.log)();
            let ready = parts.not_ready(&log).is_empty();
            metrics::render(&reading, &(parts.ingest)(), &log, &(parts.reloads)(), &(parts.threads)(), ready)
        });
        Ok(rendered.await?)
    }
}

impl Parts {
    fn not_ready(&self, log: &LogReading) -> Vec<String> {
        let mut reasons = match self.readiness.status() {
            Status::Ready => Vec::new(),
            Status::NotReady(reasons) => reasons,
        };
        reasons.extend(readings::not_ready_because(&log.log.state));
        reasons
    }
}
