//! Starts the sidecar's parts in order. Knows every part; holds none.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::{Log, LogOptions, QueueOptions, Queues};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::open_files::{self, Files};
use super::operations::{ConfigFile, OperationError, Operations};
use super::pages::Pages;
use super::registry::{EnvironmentsChange, Registry};
use super::sinks::SinkFactory;
use super::upstreams::Upstreams;
use super::watchdog::{self, Threads, Watchdog};
use super::{Addresses, Sidecar, StopError, WrapSink, disk, learned, readings};
use crate::ages::Now;
use crate::api::dead_letters::is_dead_letters;
use crate::api::readings::{LogReading, QueueReading, Replayed, Sources};
use crate::api::{Api, BindError, Listener, LocalListener};
use crate::config::{self, Config, Listen};
use crate::control::Journal;
use crate::delivery::Delivery;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::parking::Parking;
use crate::ingest::{self, Environments, Ingest, Limits as IngestLimits};
use crate::letters::{self, Letters};
use crate::overflow::{self, Overflow};
use crate::ready::Readiness;
use crate::shutdown::Shutdown;
use crate::sinks::address_guard::AddressGuard;
use crate::sinks::file::Damaged;
use crate::sinks::http::IDLE_MAX;

/// Why the sidecar did not start (or, last, did not stop well).
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The threads of the process.
    #[error(transparent)]
    Threads(#[from] super::threads::TooFewThreads),
    /// The files that it may open.
    #[error(transparent)]
    Files(#[from] open_files::TooFewFiles),
    /// The data directory, or what is in it.
    #[error("can't open the data directory")]
    Data(#[from] forebay::OpenQueuesError),
    /// An address for SDKs.
    #[error("can't listen for sdks on {address}; {}", remedy(source))]
    Ingest {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An address for operators.
    #[error("can't listen for operators: [{section}] listen")]
    Bind {
        /// The section of the configuration that has it.
        section: &'static str,
        /// What is wrong.
        source: BindError,
    },
    /// The SDK keys.
    #[error("the sdk keys can't be used")]
    Environments(#[from] EnvironmentsChange),
    /// What operators decided.
    #[error("what operators decided at run time can't be read or written")]
    Control(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Threads or signals.
    #[error("the operating system refuses what a process needs")]
    Runtime(#[source] io::Error),
    /// It started, ran, and stopped badly.
    #[error(transparent)]
    Stop(StopError),
}

/// What to do about an address that can't be listened on.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "is another sidecar running? choose another [ingest] listen",
        io::ErrorKind::AddrNotAvailable => {
            "[ingest] listen is to be an address of this machine, or 0.0.0.0 for all of them"
        }
        _ => "choose another [ingest] listen",
    }
}

impl From<OperationError> for StartError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Environments(error) => error.into(),
            OperationError::Journal(error) => Self::Control(error.into()),
        }
    }
}

/// What most of the parts need.
struct Ground {
    config: Config,
    files: Files,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
}

pub(super) async fn start(
    mut config: Config,
    file: Option<ConfigFile>,
    shutdown: Shutdown,
    wrap: WrapSink,
    deliveries: Handle,
    disk: Arc<dyn Disk>,
) -> Result<Sidecar, StartError> {
    // Each is used up as it starts: what the file says of thousands of them is not needed a second time.
    let destinations = std::mem::take(&mut config.destinations);
    let environments = std::mem::take(&mut config.environments);
    let secrets = std::mem::take(&mut config.secrets);
    let files = files(&config)?;
    let ground = Arc::new(Ground { config, files, disk, clock: Arc::new(SystemClock::new()) });
    // They are the same where a sidecar is started on one runtime.
    let threads = [(Threads::Front, Handle::current()), (Threads::Send, deliveries.clone())];
    let watchdog = Watchdog::start(&ground.clock, threads, watchdog::EVERY).map_err(StartError::Runtime)?;
    let readiness = Readiness::new();
    let opening = readiness.latch("the way in");
    // Addresses first: a clash costs nothing then.
    let config = &ground.config;
    let ingest_listener = bind(config.ingest.listen).await?;
    let refused = |section| move |source| StartError::Bind { section, source };
    let grpc = LocalListener::bind(&config.grpc.listen).await.map_err(refused("grpc"))?;
    let http = Listener::bind(&Listen::Tcp(config.admin.listen)).await.map_err(refused("admin"))?;
    let addresses = Addresses {
        ingest: ingest_listener.local_addr().map_err(StartError::Runtime)?,
        grpc: grpc.address().map_err(StartError::Runtime)?,
        admin: http.address().map_err(StartError::Runtime)?,
    };
    let opener = Arc::clone(&ground);
    let queues = tokio::task::spawn_blocking(move || open_queues(&opener))
        .await
        .map_err(|e| StartError::Runtime(io::Error::other(e)))??;
    say_what_was_found(&queues);
    let letters = open_letters(&ground, &queues).await?;
    let parking = Arc::clone(&letters) as Arc<dyn Parking>;
    let delivery = {
        let _on_theirs = deliveries.enter();
        Arc::new(Delivery::new(budget(&ground), Arc::clone(&ground.clock), parking))
    };
    // Until all are there.
    delivery.hold_back();
    let ingest = Arc::new(ingest(&ground, &queues));
    let customers = AddressGuard::customer(&config.grpc.allow_addresses);
    let idle_max = usize::try_from(ground.files.idle).unwrap_or(usize::MAX);
    let (disk, clock) = (Arc::clone(&ground.disk), Arc::clone(&ground.clock));
    let factory = SinkFactory::new(queues.clone(), disk, clock, idle_max, customers, wrap);
    let damaged = factory.damaged();
    let parts = (Arc::clone(&delivery), Arc::clone(&ingest), Arc::clone(&letters));
    let (disk, clock) = (Arc::clone(&ground.disk), Arc::clone(&ground.clock));
    let upstreams = Arc::new(Upstreams::new(&config.data_dir, disk, clock, &config.ingest, Arc::clone(&letters)));
    let registry = Registry::new(queues.clone(), Arc::clone(&upstreams), parts, factory, config.shutdown_grace);
    let (log, clock) = (queues.log().clone(), Arc::clone(&ground.clock));
    let journal = tokio::task::spawn_blocking(move || Journal::open(log, clock)).await;
    let (journal, skipped) =
        journal.map_err(|e| StartError::Runtime(io::Error::other(e)))?.map_err(|e| StartError::Control(e.into()))?;
    let told = Config { destinations, environments, secrets, ..config.clone() };
    let overflow = registry.overflow();
    let operations = Operations::start(queues.clone(), Arc::new(registry), journal, &skipped, told).await?;
    file.into_iter().for_each(|file| operations.comes_from(file));
    let (tended, clock) = (Arc::clone(&letters), Arc::clone(&ground.clock));
    let due = move || {
        let letters = (!tended.is_idle()).then(|| Arc::clone(&tended))?;
        let now = Now::of(&*clock);
        Some(move || letters.tend(now))
    };
    tokio::spawn(tend("tending the letters", letters::TEND_EVERY, due, shutdown.clone()));
    let (tended, clock) = (Arc::clone(&overflow), Arc::clone(&ground.clock));
    let due = move || {
        let overflow = (!tended.is_idle()).then(|| Arc::clone(&tended))?;
        let now = Now::of(&*clock);
        Some(move || overflow.tend(now))
    };
    tokio::spawn(tend("looking after what overflows", overflow::TEND_EVERY, due, shutdown.clone()));
    tokio::spawn(learned::keep_on(queues.clone(), Arc::clone(&delivery), shutdown.clone()));
    let kept = (&letters, &overflow, damaged);
    let shown = sources(&ground, (&queues, &upstreams), (&delivery, &ingest), kept, &operations, readiness.clone());
    let api = Api::new(Arc::clone(&ground.clock), Sources { threads: watchdog.source(), ..shown });
    let pages = Pages::start(&api, grpc, http);
    let grace = config.shutdown_grace;
    let stop = shutdown.clone();
    let serving = tokio::spawn(ingest::serve(ingest_listener, ingest, async move { stop.requested().await }, grace));
    tokio::spawn(Arc::clone(&operations).look_after(shutdown.clone()));
    drop(opening);
    delivery.go_on();
    info!(ingest = %addresses.ingest, grpc = %addresses.grpc, admin = %addresses.admin, "serving");
    Ok(Sidecar {
        queues,
        letters,
        upstreams,
        delivery,
        operations,
        api,
        ingest: serving,
        pages,
        watchdog,
        addresses,
        grace,
        readiness,
        shutdown,
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Ingest { address, source })
}

/// Opens the data directory. Blocks: recovery reads.
fn open_queues(ground: &Ground) -> Result<Queues, StartError> {
    let Ground { config, files, disk, clock } = ground;
    let dir = &config.data_dir;
    let options = log_options(config, files, budget_bytes(config, &**disk));
    Ok(Queues::open(Arc::clone(disk), Arc::clone(clock), dir, options, QueueOptions::default())?)
}

/// Takes up dead and held letters. Blocks as long as it takes to read them.
async fn open_letters(ground: &Ground, queues: &Queues) -> Result<Arc<Letters>, StartError> {
    let (queues, clock) = (queues.clone(), Arc::clone(&ground.clock));
    let opened = tokio::task::spawn_blocking(move || Letters::open(queues, clock));
    opened.await.map_err(|e| StartError::Runtime(io::Error::other(e)))
}

/// Does what `due` has to do, if anything, on a thread that may block: every so often, until the sidecar stops.
async fn tend<W: FnOnce() + Send + 'static>(
    what: &'static str,
    every: Duration,
    due: impl Fn() -> Option<W>,
    shutdown: Shutdown,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return,
        }
        let Some(work) = due() else { continue };
        if let Err(panic) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%panic, "a bug: {what} stopped");
        }
    }
}

/// A start after a crash looks like any other, save for this line.
fn say_what_was_found(queues: &Queues) {
    let (log, stats) = (queues.log().stats(), queues.stats());
    // From the books: to ask for the lag is to read a frame of each of thousands of queues, for its age.
    let pending: u64 = queues.all().iter().map(|queue| queue.balance().pending.records).sum();
    info!(
        streams = log.streams,
        segments = log.segments,
        queues = stats.queues,
        pending,
        plans_resumed = stats.plans_resumed,
        damages = log.damages,
        "opened the data directory: what was pending goes on"
    );
}

/// The configuration is checked without a log.
const _: () = assert!(config::APPEND_BYTES == LogOptions::APPEND_BYTES_MAX as u64);

fn log_options(config: &Config, files: &Files, budget_bytes: u64) -> LogOptions {
    let defaults = LogOptions::default();
    let segment_bytes = u32::try_from(config.log.segment_bytes).unwrap_or(u32::MAX);
    LogOptions {
        segment_bytes,
        // Not cut to what the log takes: one that is too large for it must not start.
        append_bytes_max: u32::try_from(config.ingest.append_bytes_max()).unwrap_or(u32::MAX),
        queue_bytes_max: usize::try_from(config.ingest.queue_bytes_max).unwrap_or(usize::MAX),
        tail_cache_bytes: usize::try_from(config.log.tail_cache_bytes).unwrap_or(usize::MAX),
        open_segments_max: usize::try_from(files.segments).unwrap_or(usize::MAX),
        replay_window: config.log.replay_window,
        budget_bytes: budget_bytes.max(u64::from(segment_bytes) * (defaults.reserve_segments as u64 + 3)),
        ..defaults
    }
}

/// What the log may take: of what is free, with what it takes already counted as free, so that a restart of a well
/// filled log does not shrink it.
fn budget_bytes(config: &Config, disk: &dyn Disk) -> u64 {
    let log = config.data_dir.join("log");
    let existing = |dir: &Path| dir.ancestors().find_map(|dir| disk.space(dir).ok());
    // A relative path without a parent that exists is below the working directory.
    let free =
        existing(&config.data_dir).or_else(|| disk.space(Path::new(".")).ok()).map_or(u64::MAX, |space| space.free);
    let size = |name: &String| disk.open(&log.join(name)).and_then(|file| file.len()).unwrap_or(0);
    let taken: u64 = disk.list(&log).map_or(0, |names| names.iter().map(size).sum());
    config.log.budget.bytes(free.saturating_add(taken))
}

/// How many open files each part may have.
fn files(config: &Config) -> Result<Files, open_files::TooFewFiles> {
    let wanted = Files {
        ingest: IngestLimits::default().connections_max as u64,
        requests: u64::from(config.delivery.requests_max),
        idle: IDLE_MAX as u64,
        segments: LogOptions::default().open_segments_max as u64,
    };
    let limit = open_files::limit()?;
    let files = wanted.of(limit);
    if files != wanted {
        let Files { ingest, requests, idle, .. } = files;
        warn!(limit, ingest, requests, idle, "the system allows few open files: fewer connections; raise ulimit -n");
    }
    Ok(files)
}

fn budget(ground: &Ground) -> Budget {
    let delivery = &ground.config.delivery;
    Budget::new(BudgetLimits {
        requests_max: usize::try_from(ground.files.requests).unwrap_or(usize::MAX),
        bytes_max: delivery.batch_memory_bytes,
        bulk_percent: delivery.bulk_percent,
        ..BudgetLimits::default()
    })
}

/// The way in, as yet without environments.
fn ingest(ground: &Ground, queues: &Queues) -> Ingest {
    let config = &ground.config.ingest;
    let limits = IngestLimits {
        body_bytes_max: config.body_bytes_max,
        memory_bytes_max: config.memory_bytes_max,
        queue_bytes_max: config.queue_bytes_max,
        connections_max: usize::try_from(ground.files.ingest).unwrap_or(usize::MAX),
        ..IngestLimits::default()
    };
    Ingest::new(queues.log().clone(), Arc::clone(&ground.clock), Environments::none(), limits)
}

/// What the API looks at.
fn sources(
    ground: &Ground,
    (queues, upstreams): (&Queues, &Arc<Upstreams>),
    (delivery, ingest): (&Arc<Delivery>, &Arc<Ingest>),
    (letters, overflow, damaged): (&Arc<Letters>, &Arc<Overflow>, Arc<Damaged>),
    operations: &Arc<Operations>,
    readiness: Readiness,
) -> Sources {
    let [asked, reloads, kinds, owners, wanted, decided] = std::array::from_fn(|_| Arc::clone(operations));
    let (all, stats, log): (_, _, Log) = (queues.clone(), queues.clone(), queues.log().clone());
    let (upstreams, delivery, ingest) = (Arc::clone(upstreams), Arc::clone(delivery), Arc::clone(ingest));
    let (letters, counted) = (Arc::clone(letters), Arc::clone(letters));
    let clock = Arc::clone(&ground.clock);
    let memory_bytes_max = ground.config.ingest.memory_bytes_max;
    let overflow = Arc::clone(overflow);
    let reading = move |queue: &forebay::Queue| {
        let lag = queue.lag();
        QueueReading {
            destination: queue.destination_name(),
            stream: queue.stream_name(),
            lag,
            balance: queue.balance(),
            overflow: overflow.ahead(queue.destination(), queue.stream()).map(readings::overflow),
            // Nobody asks of the thousands that have nothing.
            left_behind: lag.records > 0 && owners.left_behind(queue),
        }
    };
    let (books, posts, on_disk) = (queues.clone(), Arc::clone(&upstreams), queues.clone());
    let relayed = Arc::clone(&upstreams);
    Sources {
        booked: Box::new(move || {
            let mut all = books.all();
            posts.each_queue(&mut |queue| all.push(queue.clone()));
            all
        }),
        // Dead letters are no lag: nothing is behind until somebody decides.
        queues: Box::new(move |each| {
            let lagging = all.all().into_iter().filter(|queue| !is_dead_letters(queue.stream()));
            lagging.map(|queue| reading(&queue)).for_each(&mut *each);
            upstreams.each_queue(&mut |queue| each(reading(queue)));
            let is_there = |id: &str, environment: &str| {
                all.find(id, environment).is_some() || !upstreams.queues_of(id).is_empty()
            };
            readings::queues_missing(wanted.not_as_decided(), is_there).into_iter().for_each(&mut *each);
        }),
        deliveries: Box::new(move || {
            let stats = delivery.stats().into_iter();
            let deliveries = stats.map(|(id, snapshot)| readings::delivery(id, snapshot)).collect();
            readings::as_decided(deliveries, decided.not_as_decided())
        }),
        ingest: Box::new(move || {
            readings::ingest(ingest.stats().snapshot(), ingest.relays(), ingest.memory_used_bytes(), memory_bytes_max)
        }),
        log: Box::new(move || {
            let stats = stats.stats();
            LogReading {
                log: log.stats(),
                floor_writes: stats.floor_commits,
                floor_errors: stats.floor_errors,
                floor_pinned: stats.pinned || !relayed.pinned().is_empty(),
                sled_resets: stats.store_resets,
                dead_letters: counted.dead().into_iter().collect(),
                damaged_lines: damaged.all(),
            }
        }),
        disk: Box::new(move || disk::reading(&on_disk, &*clock)),
        replayed: Some(Replayed { queues: queues.clone(), keeps_repeats: Arc::new(move |id| kinds.keeps_repeats(id)) }),
        reloads: Box::new(move || reloads.reloads()),
        threads: Box::new(Vec::new),
        operations: Some(asked),
        letters: Some(letters),
        readiness,
    }
}

#[cfg(test)]
mod tests;
