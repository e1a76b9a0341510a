//! What the sidecar shows of itself: lag over gRPC, health, metrics.
//!
//! Two servers over one set of [`readings`]: [`grpc`] for operators and programs, local only; [`http`] for scrapers and
//! probes. Neither changes anything, and neither can hold up ingest or delivery: both have few connections, short calls, and
//! one thread that reads the queues for all who ask.

use std::sync::Arc;

use forebay::clock::Clock;
use tokio::sync::{Semaphore, watch};

use self::lag::{LagBoard, Reading};
use self::readings::{IngestReading, LogReading, Source, Sources};

pub mod address;
mod cursors;
mod exposition;
pub mod forecast;
pub mod grpc;
pub mod http;
pub mod lag;
mod limits;
pub mod listen;
mod messages;
mod metrics;
mod rates;
pub mod readings;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use listen::{ListenError, Listener, LocalListener};

/// Turns true when the sidecar is to stop. A sender that is gone means the same.
pub type Shutdown = watch::Receiver<bool>;

/// Everything that both servers show. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    board: LagBoard,
    parts: Arc<Parts>,
}

struct Parts {
    ingest: Source<IngestReading>,
    log: Source<LogReading>,
    not_ready: Source<Vec<String>>,
    /// One reader at a time: those who wait here wait without a thread.
    reader: Semaphore,
}

/// The queues could not be read: one of the sources panicked, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("the queues could not be read: a bug, see the log for its trace")]
pub struct ReadError(#[from] tokio::task::JoinError);

impl Api {
    /// Shows these sources. Reads nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, sources: Sources) -> Self {
        let Sources { queues, deliveries, ingest, log, not_ready } = sources;
        let parts = Parts { ingest, log, not_ready, reader: Semaphore::new(1) };
        Self { board: LagBoard::new(clock, queues, deliveries), parts: Arc::new(parts) }
    }

    /// The lag of every queue, a tenth of a second old at most.
    ///
    /// # Errors
    /// When a source panicked.
    pub async fn reading(&self) -> Result<Arc<Reading>, ReadError> {
        let _turn = self.parts.reader.acquire().await.expect("the semaphore is never closed");
        let board = self.board.clone();
        Ok(tokio::task::spawn_blocking(move || board.reading()).await?)
    }

    /// Why nothing should be sent here now; empty when ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        (self.parts.not_ready)()
    }

    /// Everything as Prometheus reads it.
    async fn metrics(&self) -> Result<String, ReadError> {
        let reading = self.reading().await?;
        let parts = Arc::clone(&self.parts);
        // With thousands of queues this is megabytes of text: not on a thread that others wait for.
        let rendered = tokio::task::spawn_blocking(move || {
            let ready = (parts.not_ready)().is_empty();
            metrics::render(&reading, &(parts.ingest)(), &(parts.log)(), ready)
        });
        Ok(rendered.await?)
    }
}

/// Waits until shutdown is requested.
async fn requested(mut shutdown: Shutdown) {
    // The error says that the sender is gone: nobody is left to ask for a stop, so it is one.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
