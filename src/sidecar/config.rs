//! What the sidecar is told: one value, checked as a whole before anything starts.
//!
//! [`load`] reads a file, [`check`] judges a text; both find every mistake at once and hand them back as data. A
//! [`Config`] that came from them is consistent: every name resolves, every bound fits the others, every secret is
//! there. One built by hand (tests, the demo) starts from [`Config::default`], which holds the same defaults that
//! `forebay.example.toml` documents. Changes nothing and starts nothing.

mod check;
mod endpoint;
mod events;
mod files;
mod filter;
mod finding;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod listen;
mod overflow;
mod raw;
mod report;
mod s3;
mod secret;
mod signing;
mod sinks;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod upstream;

pub(crate) use units::parse_duration;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use check::{Checked, Outside, Surroundings, Through, check, check_destination, check_environment, posts_wanted};
pub use endpoint::{Endpoint, EndpointError};
pub use events::{
    AmplitudeApi, AmplitudeConfig, AmplitudeIdentity, EVENT_NAME, Region, SegmentConfig, SegmentIdentity,
};
pub use files::{FileContent, Ground};
pub use filter::{FilterSpec, Pattern, PatternError};
pub use finding::{Finding, Severity, any_error, render, tally};
pub(crate) use limits::APPEND_BYTES;
pub use listen::{Listen, ListenError};
pub use overflow::{OverflowConfig, OverflowPolicy};
pub use s3::{
    AssumeRole, Encryption, KeyTemplate, LinesCompression, ParquetCompression, S3Config, S3Format, S3Keys, S3Layout,
    S3Location, TemplateError,
};
pub use secret::Secret;
pub use signing::{SigningSecret, SigningSecretError};
use sinks::SinkKind;
pub use sinks::{Compression, FileCompression, FileConfig, SinkConfig, WebhookConfig};
pub use tls::{TlsError, TlsSettings};
pub use upstream::{NotABase, SPLIT_EVENTS, SPLIT_TELEMETRY, UpstreamConfig};

/// All that the sidecar is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the log, the floor and the index live.
    pub data_dir: PathBuf,
    /// Time for what is in flight when the sidecar is told to stop.
    pub shutdown_grace: Duration,
    /// The way in.
    pub ingest: IngestConfig,
    /// The operators' API.
    pub grpc: GrpcConfig,
    /// Metrics and health.
    pub admin: AdminConfig,
    /// The log's files and memory.
    pub log: LogSettings,
    /// What all destinations share.
    pub delivery: DeliveryConfig,
    /// Where impressions come from, by SDK key.
    pub environments: Vec<Environment>,
    /// Where they go.
    pub destinations: Vec<Destination>,
    /// `[secrets]`: values that destinations made through the API may name.
    pub secrets: BTreeMap<String, Secret<String>>,
}

impl Default for Config {
    /// Everything that has a default, in `./data`, with no environments and no destinations.
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            shutdown_grace: limits::SHUTDOWN_GRACE.default,
            ingest: IngestConfig::default(),
            grpc: GrpcConfig::default(),
            admin: AdminConfig::default(),
            log: LogSettings::default(),
            delivery: DeliveryConfig::default(),
            environments: Vec::new(),
            destinations: Vec::new(),
            secrets: BTreeMap::new(),
        }
    }
}

/// `[ingest]`: where SDKs post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// The address for SDKs.
    pub listen: SocketAddr,
    /// The largest body, after decompression.
    pub body_bytes_max: u64,
    /// All bodies being read and parsed at once.
    pub memory_bytes_max: u64,
    /// What may wait for the log's next sync.
    pub queue_bytes_max: u64,
}

impl IngestConfig {
    /// The most bytes that the log must take in one append: the worst that may be stored of one body.
    #[must_use]
    pub fn append_bytes_max(&self) -> u64 {
        limits::append_bytes(self.body_bytes_max)
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            body_bytes_max: limits::BODY_BYTES.default,
            memory_bytes_max: limits::INGEST_MEMORY_BYTES.default,
            queue_bytes_max: limits::QUEUE_BYTES.default,
        }
    }
}

/// `[grpc]`: the operators' API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Loopback or a unix socket: it has no authentication yet.
    pub listen: Listen,
    /// Where destinations that are made through it may be, besides public addresses.
    pub allow_addresses: Vec<IpNet>,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self { listen: Listen::Tcp(loopback(9090)), allow_addresses: Vec::new() }
    }
}

/// `[admin]`: `/metrics`, `/livez`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Any address may be given: these pages hold names and numbers, no impression and no secret, and change nothing.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: loopback(9091) }
    }
}

/// `[log]`: the log's files and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The size of one file of the log.
    pub segment_bytes: u64,
    /// What the log may take of the disk (`budget_bytes` in the file).
    pub budget: Budget,
    /// How long delivered records are kept to be sent again.
    pub replay_window: Duration,
    /// What was just appended, kept in memory for all destinations.
    pub tail_cache_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES.default,
            budget: Budget::default(),
            replay_window: limits::REPLAY_WINDOW.default,
            tail_cache_bytes: limits::TAIL_CACHE_BYTES.default,
        }
    }
}

/// What the log may take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Percent of what is free at the first start.
    FreePercent(u8),
    /// That many bytes.
    Bytes(u64),
}

impl Budget {
    /// The budget in bytes on a disk with `free` bytes of room.
    #[must_use]
    pub fn bytes(self, free: u64) -> u64 {
        match self {
            // Divided first: `free` times a hundred may not fit.
            Self::FreePercent(percent) => free / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::FreePercent(limits::BUDGET_PERCENT.default)
    }
}

/// `[delivery]`: what all destinations share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Batches being encoded and sent, over all destinations.
    pub batch_memory_bytes: u64,
    /// Requests in flight over all destinations.
    pub requests_max: u32,
    /// What of both work may hold that takes long, in percent.
    pub bulk_percent: u32,
    /// Threads that deliveries run on; 0 is half of the cores, at least one.
    pub threads: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            batch_memory_bytes: limits::BATCH_MEMORY_BYTES.default,
            requests_max: limits::REQUESTS.default,
            bulk_percent: limits::BULK_PERCENT.default,
            threads: limits::DELIVERY_THREADS.default,
        }
    }
}

/// `[[environments]]`: a customer's environment; its id is the name of its stream in the log.
#[derive(Debug, Clone, Hash)]
pub struct Environment {
    /// 1 to 40 of `[A-Za-z0-9_-]`.
    pub id: String,
    /// The name that goes out with every impression; the id if none is given.
    pub name: String,
    /// The keys whose impressions belong to it. The log stores a key's place in this list, never the key.
    pub sdk_keys: Vec<Secret<String>>,
}

/// `[[destinations]]`: one sink with its settings. Its `Hash` takes in all of it, secrets included: two that have the
/// same are the same, as far as a process can tell.
#[derive(Debug, Clone, Hash)]
pub struct Destination {
    /// 1 to 40 of `[A-Za-z0-9_-]`.
    pub id: String,
    /// The ids of the environments whose impressions it gets: at least one.
    pub environments: Vec<String>,
    /// Requests in flight at once.
    pub concurrency: u32,
    /// Whether each stream's records are sent in their order: one request is in flight at a time then.
    pub ordered: bool,
    /// What it gets first when it is behind.
    pub catch_up: CatchUpConfig,
    /// How fast it may be sent to.
    pub rate: RateConfig,
    /// Where there is not enough for all, one of twice the weight gets twice as much.
    pub weight: u32,
    /// From the first byte of a request to the last of its answer.
    pub timeout: Duration,
    /// The most records in one batch.
    pub batch_records_max: u32,
    /// The most bytes of records in one batch, before compression.
    pub batch_bytes_max: u64,
    /// How long the oldest record of a batch waits for others; zero: not at all.
    pub batch_wait_max: Duration,
    /// Where it starts when it was never seen before.
    pub start: Start,
    /// What of its environments' impressions it gets.
    pub filter: FilterSpec,
    /// What lets its dead letters go without anybody asking: nothing, unless it is set.
    pub dead_letters: DeadLettersConfig,
    /// What is given up when it falls behind too far: nothing, unless it is set. In a box, for almost none has it.
    pub overflow: Option<Box<OverflowConfig>>,
    /// What it is.
    pub sink: SinkConfig,
}

impl Destination {
    /// A destination with the defaults of its type.
    #[must_use]
    pub fn new(id: impl Into<String>, environments: Vec<String>, sink: SinkConfig) -> Self {
        let bounds = sink.kind().bounds();
        Self {
            id: id.into(),
            environments,
            concurrency: bounds.concurrency.default,
            ordered: false,
            catch_up: CatchUpConfig::OldestFirst,
            rate: RateConfig::default(),
            weight: limits::WEIGHT.default,
            timeout: limits::TIMEOUT.default,
            batch_records_max: bounds.records.default,
            batch_bytes_max: bounds.bytes.default,
            batch_wait_max: bounds.wait_default,
            start: Start::default(),
            filter: FilterSpec::default(),
            dead_letters: DeadLettersConfig::default(),
            overflow: None,
            sink,
        }
    }
}

/// `catch_up` of a destination: what it gets first when it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CatchUpConfig {
    /// What has waited longest.
    OldestFirst,
    /// What comes in now, and beside it what waits.
    LiveFirst {
        /// The part of what the destination takes that what waits has at least, in percent.
        backlog_percent: u8,
    },
}

/// `rate` of a destination: what it may be sent a second. What is not set is not limited; how much it takes is learned
/// anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RateConfig {
    /// Requests.
    pub requests: Option<u32>,
    /// Records.
    pub records: Option<u32>,
    /// Bytes of records, before compression.
    pub bytes: Option<u64>,
}

/// `dead_letters` of a destination: limits for records that it never takes. Without any they stay until somebody
/// decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeadLettersConfig {
    /// Older ones are let go.
    pub max_age: Option<Duration>,
    /// While there are more bytes of them, as stored, the oldest are let go.
    pub max_bytes: Option<u64>,
}

/// Where a destination starts when it was never seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// At the oldest record that the log still has: what came in before the destination was written down is sent too.
    #[default]
    Earliest,
    /// At what comes in from now on.
    Now,
    /// At the first record that came in at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// Reads and checks a file and the secrets it names.
///
/// The configuration is there unless a finding is an error. Relative paths in it are taken from the file's directory.
#[must_use]
pub fn load(path: &Path) -> (Option<Config>, Vec<Finding>) {
    match read_text(path) {
        Ok(text) => outside(path, |outside| check(&text, outside)),
        Err(finding) => (None, vec![finding]),
    }
}

/// What a file says of one destination, judged with all of it; `None` where it has none of this id, or can't be read.
#[must_use]
pub fn destination_in(path: &Path, id: &str) -> Option<Checked<Destination>> {
    let text = read_text(path).ok()?;
    outside(path, |outside| check::of_file(&text, id, outside))
}

/// Reads settings that are to be sent to the API: no more than it takes.
///
/// # Errors
/// When the file can't be read, or is no text.
pub fn read_settings(path: &Path) -> std::io::Result<String> {
    let found = files::read(path, limits::SETTINGS_FILE_BYTES_MAX)?;
    String::from_utf8(found.bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Reads one key of a file: `listen` under `[grpc]`, or its default. What else is wrong does not matter.
///
/// # Errors
/// What is wrong with that key, or with the file as a whole.
pub fn grpc_listen(path: &Path) -> Result<Listen, Vec<Finding>> {
    let text = read_text(path).map_err(|finding| vec![finding])?;
    outside(path, |outside| check::grpc_listen(&text, outside))
}

/// The world around a configuration in the file `path`, as it is.
fn outside<T>(path: &Path, with: impl FnOnce(&Outside<'_>) -> T) -> T {
    let variables = OnceCell::new();
    // The system looks for each from the first one on, and there may be one for each of thousands of keys.
    let env = |name: &str| {
        let all = variables.get_or_init(environment_variables);
        all.get(OsStr::new(name)).and_then(|value| value.to_str()).map(str::to_owned)
    };
    let file = |path: &Path| files::read(path, secret::SECRET_FILE_BYTES_MAX);
    // In full, so that the log and error messages name places that can be found. Fails only without a working directory.
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = full.parent().unwrap_or(Path::new("/"));
    let secrets = BTreeMap::new();
    with(&Outside { through: Through::File, secrets: &secrets, base, env: &env, file: &file, ground: &files::ground })
}

/// All variables of the process. Of two that have one name the first counts, as everywhere.
fn environment_variables() -> HashMap<OsString, OsString> {
    let mut all = HashMap::new();
    for (name, value) in std::env::vars_os() {
        all.entry(name).or_insert(value);
    }
    all
}

fn read_text(path: &Path) -> Result<String, Finding> {
    let refuse = |message: String, remedy: &str| Finding {
        severity: Severity::Error,
        line: None,
        path: String::new(),
        message,
        remedy: remedy.to_owned(),
    };
    let found = files::read(path, limits::CONFIG_FILE_BYTES_MAX).map_err(|error| {
        refuse(
            format!("can't be read: {error}"),
            "name the file with --config; forebay.example.toml is one to start from",
        )
    })?;
    String::from_utf8(found.bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refuse(format!("is not UTF-8 at byte {at}"), "save it as UTF-8")
    })
}

/// Whether a text can be the id of an environment or a destination.
fn is_id(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=limits::ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(letter)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
