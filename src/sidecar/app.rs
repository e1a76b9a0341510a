//! The whole sidecar: the one place that wires its parts, starts them in order and stops them in order.
//!
//! Starting: the log first, then what drains it, then what shows it, and the way in last, so that nothing arrives
//! before it can be kept. Stopping: the way in and the deliveries at once, within the grace; then the queues are
//! written down and the log is sealed; what shows it all goes last. A kill at any moment costs repeats, never records.

mod destinations;
mod disk;
#[cfg(test)]
mod house;
mod learned;
mod open_files;
pub mod operations;
mod pages;
pub mod readings;
pub mod registry;
mod runtimes;
mod sinks;
mod start;
mod threads;
mod upstreams;
mod watchdog;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forebay::Queues;
use forebay::disk::real::RealDisk;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::api::{Api, ReadError, lag::Reading};
use crate::causes;
use crate::config::{Config, Listen};
use crate::delivery::Delivery;
use crate::delivery::sink::Sink;
use crate::ingest;
use crate::letters::Letters;
use crate::ready::Readiness;
use crate::shutdown::{self, Shutdown, Signals};
use crate::telemetry;

pub use operations::ConfigFile;
use operations::Operations;
pub use registry::misplaced;
use runtimes::Runtimes;
pub use start::StartError;

/// Puts something around each sink before its destination starts.
pub type WrapSink = fn(Arc<dyn Sink>) -> Arc<dyn Sink>;

/// Runs the sidecar until a signal stops it. Returns the code to exit with.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    run_with(config, |sink| sink)
}

/// The same with the file that the configuration came from, as it was before it was read: it is read again when it has
/// changed since, and at SIGHUP.
#[must_use]
pub fn run_file(config: Config, file: ConfigFile) -> ExitCode {
    run_all(config, Some(file), |sink| sink)
}

/// Like [`run`], with something around each sink: for measuring what a part of its contract costs.
#[must_use]
pub fn run_with(config: Config, wrap: WrapSink) -> ExitCode {
    run_all(config, None, wrap)
}

fn run_all(config: Config, file: Option<ConfigFile>, wrap: WrapSink) -> ExitCode {
    if let Err(e) = threads::may_start(runtimes::workers(config.delivery.threads)) {
        return failed(&StartError::Threads(e));
    }
    let _lines = telemetry::start();
    let runtimes = match Runtimes::start(config.delivery.threads) {
        Ok(runtimes) => runtimes,
        Err(e) => return failed(&StartError::Runtime(e)),
    };
    let ended = runtimes.block_on(async {
        let (stop, shutdown) = shutdown::channel();
        let signals = Signals::install().map_err(StartError::Runtime)?;
        tokio::spawn(signals.obey(stop));
        // Taken over before anything starts: by itself it would end the process.
        let hangups = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;
        let (disk, stop) = (Arc::new(RealDisk), shutdown.clone());
        let sidecar = start::start(config, file, stop, wrap, runtimes.deliveries(), disk).await?;
        tokio::spawn(operations::watch(Arc::clone(&sidecar.operations), hangups, shutdown));
        sidecar.run_until_stopped().await.map_err(StartError::Stop)
    });
    runtimes.end();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    // Standard error may be closed; the exit code still says it.
    let _ = writeln!(io::stderr(), "forebay: {}", causes::line(error));
    ExitCode::FAILURE
}

/// A sidecar that runs.
pub struct Sidecar {
    queues: Queues,
    letters: Arc<Letters>,
    upstreams: Arc<upstreams::Upstreams>,
    delivery: Arc<Delivery>,
    operations: Arc<Operations>,
    api: Api,
    ingest: JoinHandle<ingest::Ended>,
    /// What shows it: ended last.
    pages: pages::Pages,
    watchdog: watchdog::Watchdog,
    addresses: Addresses,
    grace: Duration,
    readiness: Readiness,
    shutdown: Shutdown,
}

/// Where it listens: what was asked for, with the ports that were chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// SDKs.
    pub ingest: SocketAddr,
    /// Operators.
    pub grpc: Listen,
    /// Metrics and health.
    pub admin: Listen,
}

/// The sidecar stopped, and its last words could not be written down. Nothing acknowledged is lost by that.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar stopped without sealing its log; the next start recovers, nothing acknowledged is lost")]
pub struct StopError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Sidecar {
    /// Starts all of it on the current runtime. When it returns, SDKs can post.
    ///
    /// # Errors
    /// When the data directory can't be opened or an address can't be listened on. Nothing runs then.
    pub async fn start(config: Config, shutdown: Shutdown) -> Result<Self, StartError> {
        start::start(config, None, shutdown, |sink| sink, Handle::current(), Arc::new(RealDisk)).await
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What operators may have done.
    #[must_use]
    pub fn operations(&self) -> &Arc<Operations> {
        &self.operations
    }

    /// Lag and books of every destination, as the API tells them.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn reading(&self) -> Result<Arc<Reading>, ReadError> {
        self.api.reading().await
    }

    /// Runs until it is told to stop, then stops in order.
    ///
    /// # Errors
    /// When the log could not be sealed.
    pub async fn run_until_stopped(self) -> Result<(), StopError> {
        self.shutdown.requested().await;
        let Self {
            queues, letters, upstreams, delivery, operations, ingest, pages, watchdog, grace, readiness, ..
        } = self;
        readiness.block("stopping", "");
        let (ended, cut_off) = tokio::join!(ingest, delivery.shutdown(grace));
        match ended {
            Ok(ended) if ended.cut > 0 => warn!(connections = ended.cut, "connections were busy beyond the grace: cut"),
            Ok(_) => {}
            Err(e) => error!(error = %e, "the way in ended badly"),
        }
        if !cut_off.is_empty() {
            warn!(destinations = ?cut_off, "requests in flight were cut: they are repeated at the next start, under the same ids");
        }
        // What an operator, or a file that has changed, asked for last: with nothing in flight it is done at once.
        let held = tokio::time::timeout(grace, operations.hold()).await;
        if held.is_err() {
            warn!("a change of what runs is not done within the grace: the next start does it anew");
        }
        let closed = tokio::task::spawn_blocking(move || {
            // What was delivered of them is settled by now, or comes again.
            letters.rest();
            learned::keep(&queues, &delivery);
            let relayed = upstreams.close();
            queues.close().and(relayed)
        })
        .await;
        drop(held);
        pages.end().await;
        // A stop that hangs is told, too.
        drop(watchdog);
        match closed {
            Ok(Ok(())) => info!("stopped; everything is written down"),
            Ok(Err(e)) => return Err(StopError(e.into())),
            Err(e) => return Err(StopError(e.into())),
        }
        Ok(())
    }
}
