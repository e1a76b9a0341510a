//! `forebay demo`: the main job in half a minute, with nothing to install.
//!
//! A real sidecar in a temporary directory, SDKs that post to it over HTTP, a file destination and a webhook that
//! throttles for a while. The demo goes through the public doors only: HTTP in, webhook and files out, gRPC for the lag.
//! It believes nobody: at the end it holds what arrived against what was sent, and fails if anything does not add up.
//! Nothing is left behind but the words on the screen.

mod archive;
mod ledger;
mod meter;
mod receiver;
mod report;
mod screen;
mod sdk;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::mem::discriminant;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock::{Clock, SystemClock};
use forebay::disk::real::RealDisk;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Channel;

use self::meter::Meter;
use self::receiver::{Manners, Receiver};
use self::report::Books;
use self::screen::{Act, History, View};
use self::sdk::{APPLICATIONS, Sent};
use crate::api::listen::uri;
use crate::app::{Addresses, Sidecar, StartError, StopError};
use crate::config::{
    AdminConfig, Budget, Config, Destination, Endpoint, EndpointError, Environment, FileConfig, GrpcConfig,
    IngestConfig, Listen, LogSettings, SinkConfig, WebhookConfig,
};
use crate::console::lag_table::Snapshot;
use crate::proto::v1::ListLagRequest;
use crate::proto::v1::cursors_client::CursorsClient;
use crate::shutdown::{self, Shutdown, Signals};
use crate::telemetry;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// When the webhook throttles, in parts of the time for which impressions are sent.
const THROTTLES: Range<f64> = 0.2..0.6;

/// The receiver takes this much more than is sent: it drains in less time than it had throttled.
const CATCHES_UP_BY: f64 = 2.5;

/// For what is left when the SDKs are done. The receiver's pace needs a third of it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Small files, so that the demo takes a few dozen MB at most.
const SEGMENT_BYTES: u64 = 4 << 20;
const BUDGET_BYTES: u64 = 256 << 20;

const ENVIRONMENT: &str = "demo";
const SDK_KEY: &str = "demo-sdk-key";

/// How the demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything adds up.
    Balanced,
    /// Something does not; the screen says what.
    Wrong,
    /// A signal stopped it.
    Interrupted,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Threads, ports, a temporary directory: the demo needs some of each.
    #[error("can't {what} for the demo")]
    Ground {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The receiver's address is none. It was made here.
    #[error("the demo's own address can't be used: a bug")]
    Address(#[from] EndpointError),
    /// The sidecar did not start.
    #[error("the sidecar of the demo did not start")]
    Start(#[from] StartError),
    /// The sidecar did not stop.
    #[error("the sidecar of the demo did not stop")]
    Stop(#[from] StopError),
    /// A part of the demo panicked.
    #[error("a part of the demo broke: a bug")]
    Broke(#[from] JoinError),
    /// The sidecar's API did not answer.
    #[error("the lag can't be read")]
    Connect(#[from] tonic::transport::Error),
    /// The sidecar's API answered with an error.
    #[error("the lag can't be read")]
    Api(#[from] tonic::Status),
    /// The output can't be written.
    #[error("can't write to the screen")]
    Output(#[from] io::Error),
}

/// Shows the demo on the standard output; impressions are sent for `seconds`.
///
/// # Errors
/// See [`DemoError`]; the temporary directory is removed all the same.
pub fn run(seconds: u64) -> Result<Ending, DemoError> {
    // The sidecar's own lines would tear the picture: only who asks gets them.
    let _lines = std::env::var_os("FOREBAY_LOG").map(|_| telemetry::start());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ground("start threads"))?;
    let dir = tempfile::Builder::new().prefix("forebay-demo-").tempdir().map_err(ground("make a directory"))?;
    let ended = runtime.block_on(async {
        let (stop, interrupted) = shutdown::channel();
        tokio::spawn(Signals::install().map_err(ground("listen for signals"))?.obey(stop));
        play(seconds, dir.path(), interrupted).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    close(dir)?;
    ended
}

fn ground(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Ground { what, source }
}

fn close(dir: TempDir) -> Result<(), DemoError> {
    dir.close().map_err(ground("remove the directory"))
}

/// Starts all of it, shows it, stops it, and draws up the books.
async fn play(seconds: u64, dir: &Path, interrupted: Shutdown) -> Result<Ending, DemoError> {
    let sending = Duration::from_secs(seconds);
    let manners = Manners {
        throttles: sending.mul_f64(THROTTLES.start)..sending.mul_f64(THROTTLES.end),
        records_per_second: sdk::RECORDS_PER_SECOND as f64 * CATCHES_UP_BY,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ground("open a port"))?;
    let archive = dir.join("out");
    let config = config(dir, &archive, listener.local_addr().map_err(ground("open a port"))?)?;
    let (stop, shutdown) = shutdown::channel();
    let sidecar = Sidecar::start(config, shutdown).await?;
    // All that is shown begins here, however long the start took: else the receiver might be through with its while.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let receiver = Receiver::start(listener, Arc::clone(&clock), manners.clone());
    let mut show = Show {
        clock,
        seconds,
        sending,
        throttles: manners.throttles,
        addresses: sidecar.addresses().clone(),
        sent: Arc::default(),
        meters: BTreeMap::new(),
        history: History::default(),
        terminal: io::stdout().is_terminal(),
    };
    let running = tokio::spawn(sidecar.run_until_stopped());
    let shown = tokio::select! {
        shown = show.run() => Some(shown),
        () = interrupted.requested() => None,
    };
    stop.stop();
    running.await??;
    let Some(shown) = shown else {
        writeln!(io::stdout(), "\nstopped; nothing is left behind")?;
        return Ok(Ending::Interrupted);
    };
    let snapshot = shown?;
    let archive = tokio::task::spawn_blocking(move || archive::read(&RealDisk, &archive)).await?;
    let archive = archive.map_err(ground("read the files"))?;
    let books = Books {
        acknowledged: show.sent.acknowledged(),
        evaluated: show.sent.evaluated(),
        refused: show.sent.refused(),
        lags: &snapshot.lags,
        received: &receiver.received(),
        archive: &archive,
    };
    let (text, good) = report::report(&books);
    if !show.terminal {
        // There the last picture has them.
        io::stdout().write_all(show.history.curves().as_bytes())?;
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(if good { Ending::Balanced } else { Ending::Wrong })
}

/// What `forebay.toml` would say.
fn config(dir: &Path, archive: &Path, receiver: SocketAddr) -> Result<Config, EndpointError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let webhook = WebhookConfig::new(Endpoint::parse(&format!("http://{receiver}/impressions"))?);
    let environments = vec![ENVIRONMENT.to_owned()];
    let destination = |id: &str, sink| Destination::new(id, environments.clone(), sink);
    Ok(Config {
        data_dir: dir.join("data"),
        ingest: IngestConfig { listen: any, ..IngestConfig::default() },
        grpc: GrpcConfig { listen: Listen::Tcp(any), ..GrpcConfig::default() },
        admin: AdminConfig { listen: any },
        log: LogSettings {
            segment_bytes: SEGMENT_BYTES,
            budget: Budget::Bytes(BUDGET_BYTES),
            ..LogSettings::default()
        },
        environments: vec![Environment {
            id: ENVIRONMENT.to_owned(),
            name: "demonstration".to_owned(),
            sdk_keys: vec![SDK_KEY.to_owned().into()],
        }],
        destinations: vec![
            destination("file", SinkConfig::File(FileConfig::new(archive))),
            destination("webhook", SinkConfig::Webhook(webhook)),
        ],
        ..Config::default()
    })
}

/// The demo as it is seen.
struct Show {
    clock: Arc<dyn Clock>,
    seconds: u64,
    sending: Duration,
    throttles: Range<Duration>,
    addresses: Addresses,
    sent: Arc<Sent>,
    meters: BTreeMap<String, Meter>,
    history: History,
    terminal: bool,
}

impl Show {
    /// Runs the SDKs, and shows the lag until all is delivered. Returns the last look.
    async fn run(&mut self) -> Result<Snapshot, DemoError> {
        let mut cursors = CursorsClient::connect(uri(&self.addresses.grpc)).await?;
        let mut sdks = self.start_sdks();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !self.terminal {
            io::stdout().write_all(screen::opening(self.seconds).as_bytes())?;
        }
        let mut announced = None;
        loop {
            looks.tick().await;
            // Before the look: what they had done by then is in it.
            while sdks.try_join_next().transpose()?.is_some() {}
            let done = sdks.is_empty();
            let snapshot = self.look(&mut cursors).await?;
            let elapsed = self.clock.monotonic();
            let act = self.act(elapsed, done, &snapshot);
            let view = View {
                elapsed,
                act,
                ingest: self.addresses.ingest,
                acknowledged: self.sent.acknowledged(),
                snapshot: &snapshot,
                history: &self.history,
            };
            let text = if self.terminal {
                screen::picture(&view, self.seconds)
            } else {
                let begins = announced.replace(discriminant(&act)) != Some(discriminant(&act));
                let headline = if begins { screen::headline(act) } else { String::new() };
                headline + &screen::line(&view)
            };
            io::stdout().write_all(text.as_bytes())?;
            let drained = done && snapshot.lags.iter().all(|lag| lag.records_behind == 0);
            if drained || elapsed > self.sending + DRAIN_TIME_MAX {
                return Ok(snapshot);
            }
        }
    }

    fn start_sdks(&self) -> JoinSet<()> {
        let key: Arc<str> = SDK_KEY.into();
        APPLICATIONS
            .into_iter()
            .map(|application| {
                let (clock, sent) = (Arc::clone(&self.clock), Arc::clone(&self.sent));
                sdk::run(application, self.addresses.ingest, Arc::clone(&key), clock, self.sending, sent)
            })
            .collect()
    }

    /// Both queues now, with the rates of the last moments.
    async fn look(&mut self, cursors: &mut CursorsClient<Channel>) -> Result<Snapshot, DemoError> {
        let page = cursors.list_lag(ListLagRequest::default()).await?.into_inner();
        let mut snapshot = Snapshot { lags: page.lags, omitted: 0, read_at_unix_ms: page.read_at_unix_ms };
        let now = self.clock.monotonic();
        for lag in &mut snapshot.lags {
            self.meters.entry(lag.destination.clone()).or_default().refresh(lag, now);
        }
        self.history.note(&snapshot.lags);
        Ok(snapshot)
    }

    fn act(&self, elapsed: Duration, sdks_done: bool, snapshot: &Snapshot) -> Act {
        // Known while the sidecar waits to try again.
        let next_attempt_ms = snapshot.lags.iter().find_map(|lag| lag.next_attempt_unix_ms);
        if self.throttles.contains(&elapsed) {
            Act::Throttled(self.throttles.end - elapsed)
        } else if let Some(next_ms) = next_attempt_ms {
            Act::Awaited(Duration::from_millis(next_ms.saturating_sub(snapshot.read_at_unix_ms)))
        } else if sdks_done {
            Act::Draining
        } else if elapsed < self.throttles.start {
            Act::Calm
        } else {
            Act::Recovered
        }
    }
}
