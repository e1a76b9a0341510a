//! Reads `[[destinations]]`: what all have in common, then what their type adds.

mod events;
mod filter;
mod overflow;
mod pace;
mod s3;
mod start;
mod upstream;

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};

use super::super::raw::{Field, Section, Tables};
use super::super::report::Place;
use super::super::units::show_bytes;
use super::super::{
    Compression, DeadLettersConfig, DeliveryConfig, Destination, Endpoint, FileCompression, FileConfig, Secret,
    SinkConfig, SinkKind, WebhookConfig, limits,
};
use super::environments::{self, Environments};
use super::{Outside, Through, ground, values, webhook as of_webhook};

/// Those that are there, for whoever has to choose.
const TYPES: &str = "\"webhook\", \"file\", \"s3\", \"amplitude\", \"segment\" or \"upstream\"";

/// Headers that Forebay sets itself, or that would break the request.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// The destinations that have no mistakes of their own, and the environments that any of them names.
pub(super) fn read(
    root: &Section<'_>,
    tables: Tables<'_>,
    outside: &Outside<'_>,
    environments: &Environments<'_>,
    delivery: &DeliveryConfig,
    data_dir: Option<&Path>,
) -> (Vec<Destination>, HashSet<String>) {
    root.lists("destinations");
    environments::too_many(root, "destinations", tables.len());
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut directories = Directories { data_dir: data_dir.map(plain), taken: BTreeMap::new() };
    let mut destinations = Vec::with_capacity(tables.len().min(limits::TABLES_MAX));
    let mut routed = HashSet::new();
    let mut relayed = BTreeMap::new();
    for (i, table) in tables.into_iter().take(limits::TABLES_MAX).enumerate() {
        let section = root.table("destinations", i, &table);
        let id = values::id(&section);
        if let Some(id) = id {
            environments::unique(section.place(), "a destination", id, &mut ids);
        }
        let subscribed = environments::subscribed(&section, environments);
        for environment in &subscribed {
            if !routed.contains(environment) {
                routed.insert(environment.clone());
            }
        }
        upstream::one_each(&section, &subscribed, &mut relayed);
        destinations.extend(read_one(section, id, subscribed, outside, delivery, &mut directories));
    }
    (destinations, routed)
}

fn read_one(
    section: Section<'_>,
    id: Option<&str>,
    environments: Vec<String>,
    outside: &Outside<'_>,
    delivery: &DeliveryConfig,
    directories: &mut Directories,
) -> Option<Destination> {
    // Without its type nobody knows which keys it may have: then there is nothing to say about those.
    let kind = kind(&section)?;
    if outside.through == Through::Api {
        not_through_the_api(&section, kind);
    }
    let sink = match kind {
        SinkKind::Webhook => webhook(&section, outside).map(SinkConfig::Webhook),
        SinkKind::File => file(&section, outside, directories).map(SinkConfig::File),
        SinkKind::Amplitude(api) => events::amplitude(&section, api, outside).map(SinkConfig::Amplitude),
        SinkKind::Segment => events::segment(&section, outside).map(SinkConfig::Segment),
        SinkKind::S3 => s3::read(&section, outside).map(|s3| SinkConfig::S3(Box::new(s3))),
        SinkKind::Upstream => upstream::upstream(&section, outside).map(SinkConfig::Upstream),
    };
    let bounds = kind.bounds();
    let (concurrency, ordered) = pace::concurrency(&section, kind);
    let catch_up = pace::catch_up(&section, kind, ordered);
    let rate = pace::rate(&section);
    let weight = section.count("weight", &limits::WEIGHT);
    let timeout = section.duration("timeout", &limits::TIMEOUT);
    // A batch of S3 is an object, and is never held as a whole: its limits have names of their own.
    let (records_key, bytes_key) = match kind {
        SinkKind::S3 => ("max_records", "max_bytes"),
        _ => ("batch_records_max", "batch_bytes_max"),
    };
    let batch_records_max = section.count(records_key, &bounds.records);
    let batch_bytes_max = section.bytes(bytes_key, &bounds.bytes);
    let batch_wait_max = match kind {
        SinkKind::S3 => section.duration("max_age", &limits::S3_AGE),
        _ => section.duration("batch_wait_max", &limits::BATCH_WAIT),
    };
    let start = start::read(&section, outside.through);
    let filter = filter::read(&section);
    let dead_letters = dead_letters(&section);
    let overflow = overflow::read(&section, kind).map(Box::new);
    match &sink {
        Some(SinkConfig::S3(s3)) => s3::fits_memory(&section, s3.format, batch_bytes_max, delivery),
        _ if kind == SinkKind::S3 => {}
        _ => fits_memory(&section, batch_bytes_max, delivery),
    }
    fits_requests(&section, concurrency, delivery);
    section.finish();
    Some(Destination {
        id: id?.to_owned(),
        environments,
        concurrency,
        ordered,
        catch_up,
        rate,
        weight,
        timeout,
        batch_records_max,
        batch_bytes_max,
        batch_wait_max,
        start,
        filter,
        dead_letters,
        overflow,
        sink: sink?,
    })
}

/// What only the operator may say, who owns the machine and the network around it.
fn not_through_the_api(section: &Section<'_>, kind: SinkKind) {
    if kind == SinkKind::File {
        let message = "files are written for the configuration file only";
        section.at("type").error(message, "write this destination into the file");
    }
    if section.has("allow_addresses") {
        let message = "only the configuration file may allow other addresses than public ones";
        section.at("allow_addresses").error(message, "remove it, or write this destination into the file");
    }
}

fn dead_letters(destination: &Section<'_>) -> DeadLettersConfig {
    let section = destination.section("dead_letters");
    let max_age = section.get("max_age").and_then(|field| field.duration(&limits::DEAD_LETTERS_AGE));
    let max_bytes = section.get("max_bytes").and_then(|field| field.bytes(&limits::DEAD_LETTERS_BYTES));
    section.finish();
    DeadLettersConfig { max_age, max_bytes }
}

fn kind(section: &Section<'_>) -> Option<SinkKind> {
    let field = section.require("type", &format!("write type = {TYPES}"))?;
    match field.text()? {
        "webhook" => Some(SinkKind::Webhook),
        "file" => Some(SinkKind::File),
        "amplitude" => Some(SinkKind::Amplitude(events::amplitude_api(section))),
        "segment" => Some(SinkKind::Segment),
        "s3" => Some(SinkKind::S3),
        "upstream" => Some(SinkKind::Upstream),
        other => {
            let other: String = other.chars().take(limits::ID_BYTES_MAX).collect();
            field.place.error(format!("there is no type {other:?}"), format!("write {TYPES}"));
            None
        }
    }
}

/// What one destination takes must fit into what all share.
fn fits_memory(section: &Section<'_>, batch_bytes_max: u64, delivery: &DeliveryConfig) {
    if batch_bytes_max > delivery.batch_memory_bytes {
        let shared = show_bytes(delivery.batch_memory_bytes);
        let message = format!(
            "a batch of {} does not fit into [delivery] batch_memory_bytes, {shared}",
            show_bytes(batch_bytes_max)
        );
        section.at("batch_bytes_max").error(message, format!("write {shared} or less, or raise batch_memory_bytes"));
    }
}

/// As its requests must.
fn fits_requests(section: &Section<'_>, concurrency: u32, delivery: &DeliveryConfig) {
    if concurrency > delivery.requests_max {
        let message =
            format!("{concurrency} requests are more than [delivery] requests_max, {}", delivery.requests_max);
        section
            .at("concurrency")
            .error(message, format!("write {} or less, or raise requests_max", delivery.requests_max));
    }
}

fn webhook(section: &Section<'_>, outside: &Outside<'_>) -> Option<WebhookConfig> {
    let url = section
        .require("url", "say where to post, such as url = \"https://example.com/impressions\"")
        .and_then(|field| url(&field, outside));
    let signing = of_webhook::signing(section, outside);
    // What is signed is the JSON, and most receivers check the body as it comes: compressed only where that was asked for.
    let (gzip, none) = (("gzip", Compression::Gzip), ("none", Compression::None));
    let compression = section.choice("compression", &if signing.is_empty() { [gzip, none] } else { [none, gzip] });
    let headers = section.get("headers").map(|field| headers(&field, outside)).unwrap_or_default();
    let tls = of_webhook::tls(section, outside, url.as_ref());
    let allow_addresses = of_webhook::allowed(section);
    Some(WebhookConfig { url: url?, compression, headers, signing, tls, allow_addresses })
}

/// The address; `env:` and `file:` are taken, for many an address is itself the password.
fn url(field: &Field<'_>, outside: &Outside<'_>) -> Option<Endpoint> {
    let resolved = values::secret(field, outside)?;
    match Endpoint::parse(&resolved.value) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            field.place.error(error.to_string(), error.remedy());
            None
        }
    }
}

fn headers(field: &Field<'_>, outside: &Outside<'_>) -> Vec<(HeaderName, Secret<HeaderValue>)> {
    let mut headers: Vec<(HeaderName, Secret<HeaderValue>)> = Vec::new();
    let entries = field.entries();
    if entries.len() > limits::HEADERS_MAX {
        let message = format!("{} headers are more than servers take", entries.len());
        field.place.error(message, format!("write {} or fewer", limits::HEADERS_MAX));
    }
    for (name, value) in entries.into_iter().take(limits::HEADERS_MAX) {
        let Some(header) = header_name(name, &value.place) else { continue };
        // Header names have no case: `X-Team` and `x-team` are two keys and one header.
        if headers.iter().any(|(other, _)| *other == header) {
            value.place.error("this header stands here twice", "remove one of them");
            continue;
        }
        if let Some(value) = header_value(&header, &value, outside) {
            headers.push((header, Secret::new(value)));
        }
    }
    headers
}

fn header_name(name: &str, place: &Place<'_>) -> Option<HeaderName> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        place.error("this can't be a header's name", "write letters, digits and -");
        return None;
    };
    if OWN_HEADERS.contains(&header.as_str()) {
        place.error("Forebay sets this header itself", "remove it");
        return None;
    }
    Some(header)
}

fn header_value(header: &HeaderName, field: &Field<'_>, outside: &Outside<'_>) -> Option<HeaderValue> {
    let resolved = values::secret(field, outside)?;
    let Ok(mut value) = HeaderValue::from_str(&resolved.value) else {
        field.place.error("this value can't be sent in a header", "look for a line break or a control character");
        return None;
    };
    value.set_sensitive(true);
    if resolved.literal && sounds_secret(header.as_str()) {
        let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the value out of the file";
        field.place.warning("this looks like a secret, and stands here for everyone who reads this file", remedy);
    }
    Some(value)
}

/// Whether a header of this name usually holds a secret. `x-team = "growth"` deserves no warning.
fn sounds_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = ["auth", "cookie", "credential", "key", "pass", "secret", "session", "signature", "token"];
    WORDS.iter().any(|word| name.contains(word))
}

fn file(section: &Section<'_>, outside: &Outside<'_>, directories: &mut Directories) -> Option<FileConfig> {
    let directory = section
        .require("directory", "say where the files go, such as directory = \"./out\"")
        .and_then(|field| Some((values::path(&field, outside)?, field.place)));
    let rotate_bytes = section.bytes("rotate_bytes", &limits::FILE_ROTATE_BYTES);
    let rotate_age = section.duration("rotate_age", &limits::FILE_ROTATE_AGE);
    let compressions = [("none", FileCompression::None), ("zstd", FileCompression::Zstd)];
    let compression = section.choice("compression", &compressions);
    let (directory, place) = directory?;
    directories.take(&directory, &place);
    ground::destination(&directory, &place, outside);
    Some(FileConfig { directory, rotate_bytes, rotate_age, compression })
}

/// Which directories are in use: two writers in one would take each other's files.
struct Directories {
    data_dir: Option<PathBuf>,
    /// With the line.
    taken: BTreeMap<PathBuf, usize>,
}

impl Directories {
    fn take(&mut self, directory: &Path, place: &Place<'_>) {
        let directory = plain(directory);
        if self.data_dir.as_ref().is_some_and(|data_dir| directory.starts_with(data_dir)) {
            place.error("this is inside data_dir, where the log's own files live", "take a directory elsewhere");
        } else if let Some(line) = self.taken.get(&directory) {
            let message = format!("another destination writes to this directory already, in line {line}");
            place.error(message, "give each destination a directory of its own");
        } else {
            self.taken.insert(directory, place.line());
        }
    }
}

/// A path without `.` and `..`, by its letters alone: links are not followed.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
