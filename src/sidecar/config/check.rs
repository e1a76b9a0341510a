//! From a text to a [`Config`], or to everything that is wrong with it.
//!
//! Pure: environment variables and secret files come in as functions. Each section is read once, top to bottom, with
//! its defaults; rules between sections stand in `bounds`. A `Config` comes out only when no finding is an error.

mod api;
mod bounds;
mod destinations;
mod environments;
mod ground;
mod secrets;
mod values;
mod webhook;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{FileContent, Ground};
use super::finding::Finding;
use super::limits;
use super::raw::{Field, Section, Tables, take_tables};
use super::report::Report;
use super::{AdminConfig, Budget, Config, DeliveryConfig, GrpcConfig, IngestConfig, Listen, LogSettings, Secret};

pub(super) use api::of_file;
pub use api::{Checked, Surroundings, check_destination, check_environment, posts_wanted};

/// Where settings come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The configuration file, which the operator writes.
    File,
    /// The API: it names no file and no environment variable of the machine, and addresses of the public net only.
    Api,
}

/// What a configuration may ask of the world around it.
pub struct Outside<'a> {
    /// Where the text comes from.
    pub through: Through,
    /// What `secret:NAME` names. That of a file adds its own.
    pub secrets: &'a BTreeMap<String, Secret<String>>,
    /// The directory that relative paths start from.
    pub base: &'a Path,
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a secret's file.
    pub file: &'a dyn Fn(&Path) -> io::Result<FileContent>,
    /// What a directory, which may not exist yet, stands on or would be made on.
    pub ground: &'a dyn Fn(&Path) -> io::Result<Ground>,
}

impl Outside<'_> {
    fn absolute(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}

/// Judges a text. Finds every mistake at once, in the order of the file; the configuration is there unless one of
/// them is an error. No finding holds a secret.
#[must_use]
pub fn check(text: &str, outside: &Outside<'_>) -> (Option<Config>, Vec<Finding>) {
    let (report, mut document) = Report::parse(text);
    let destinations = take_tables(&mut document, "destinations");
    let config = read(Section::root(&report, &document), destinations, outside);
    let usable = !report.any_error();
    (usable.then_some(config).flatten(), report.into_findings())
}

/// Judges one key of a text.
pub(super) fn grpc_listen(text: &str, outside: &Outside<'_>) -> Result<Listen, Vec<Finding>> {
    let (report, document) = Report::parse(text);
    let listen = read_grpc(&Section::root(&report, &document).section("grpc"), outside).listen;
    if report.any_error() { Err(report.into_findings()) } else { Ok(listen) }
}

pub(super) fn read(root: Section<'_>, destinations: Tables<'_>, outside: &Outside<'_>) -> Option<Config> {
    let data_dir = root
        .require("data_dir", "say where the log is to live, such as data_dir = \"/var/lib/forebay\"")
        .and_then(|field| Some((values::path(&field, outside)?, field.place)));
    let room = data_dir.as_ref().and_then(|(dir, place)| ground::data_dir(dir, place, outside));
    let data_dir = data_dir.map(|(dir, _)| dir);
    let shutdown_grace = root.duration("shutdown_grace", &limits::SHUTDOWN_GRACE);

    let secrets = secrets::read(&root, outside);
    let outside = &Outside { secrets: &secrets, ..*outside };
    let ingest_section = root.section("ingest");
    let ingest = read_ingest(&ingest_section);
    let grpc_section = root.section("grpc");
    let grpc = read_grpc(&grpc_section, outside);
    let admin_section = root.section("admin");
    let admin = AdminConfig { listen: values::socket(&admin_section, "listen", AdminConfig::default().listen) };
    let log_section = root.section("log");
    let log = read_log(&log_section);
    let delivery_section = root.section("delivery");
    let delivery = read_delivery(&delivery_section);

    bounds::ingest(&ingest_section, &ingest);
    bounds::append(&ingest_section, &ingest);
    bounds::log(&log_section, &log);
    ground::budget(&log_section, &log, room);
    let mut listens = vec![
        (ingest_section.at("listen"), ingest.listen, "[ingest]"),
        (admin_section.at("listen"), admin.listen, "[admin]"),
    ];
    if let Listen::Tcp(address) = grpc.listen {
        listens.push((grpc_section.at("listen"), address, "[grpc]"));
    }
    bounds::listens(&listens);
    if let Listen::Unix(path) = &grpc.listen {
        ground::socket(&grpc_section, path, outside);
    }

    let environments = environments::read(&root, outside);
    let (destinations, routed) =
        destinations::read(&root, destinations, outside, &environments, &delivery, data_dir.as_deref());
    environments::unrouted(&environments, &routed);

    for section in [ingest_section, grpc_section, admin_section, log_section, delivery_section, root] {
        section.finish();
    }
    Some(Config {
        data_dir: data_dir?,
        shutdown_grace,
        ingest,
        grpc,
        admin,
        log,
        delivery,
        environments: environments.into_values(),
        destinations,
        secrets,
    })
}

fn read_ingest(section: &Section<'_>) -> IngestConfig {
    IngestConfig {
        listen: values::socket(section, "listen", IngestConfig::default().listen),
        body_bytes_max: section.bytes("body_bytes_max", &limits::BODY_BYTES),
        memory_bytes_max: section.bytes("memory_bytes_max", &limits::INGEST_MEMORY_BYTES),
        queue_bytes_max: section.bytes("queue_bytes_max", &limits::QUEUE_BYTES),
    }
}

fn read_grpc(section: &Section<'_>, outside: &Outside<'_>) -> GrpcConfig {
    let default = GrpcConfig::default();
    let listen = section.get("listen").and_then(|field| values::listen(&field, outside)).unwrap_or(default.listen);
    GrpcConfig { listen, allow_addresses: webhook::allowed(section) }
}

fn read_log(section: &Section<'_>) -> LogSettings {
    LogSettings {
        segment_bytes: section.bytes("segment_bytes", &limits::SEGMENT_BYTES),
        budget: section.get("budget_bytes").and_then(|field| budget(&field)).unwrap_or_default(),
        replay_window: section.duration("replay_window", &limits::REPLAY_WINDOW),
        tail_cache_bytes: section.bytes("tail_cache_bytes", &limits::TAIL_CACHE_BYTES),
    }
}

fn read_delivery(section: &Section<'_>) -> DeliveryConfig {
    DeliveryConfig {
        batch_memory_bytes: section.bytes("batch_memory_bytes", &limits::BATCH_MEMORY_BYTES),
        requests_max: section.count("requests_max", &limits::REQUESTS),
        bulk_percent: section.count("bulk_percent", &limits::BULK_PERCENT),
        threads: section.count("threads", &limits::DELIVERY_THREADS),
    }
}

fn budget(field: &Field<'_>) -> Option<Budget> {
    let Some(percent) = field.percent() else { return field.bytes(&limits::BUDGET_BYTES).map(Budget::Bytes) };
    let bound = limits::BUDGET_PERCENT;
    let fits = u8::try_from(percent).ok().filter(|percent| (bound.least..=bound.most).contains(percent));
    if fits.is_none() {
        let remedy = format!("write {}% to {}%: the rest of the disk has other tenants", bound.least, bound.most);
        field.place.error(format!("{percent}% is out of bounds"), remedy);
    }
    fits.map(Budget::FreePercent)
}
