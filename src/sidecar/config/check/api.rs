//! Settings that come through the API: one table in the shape of the file, read by the same readers.
//!
//! What always holds: nothing of the machine is read for them, neither a variable nor a file; what is shown of them
//! holds no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::super::finding::Finding;
use super::super::raw::{Section, Tables, take_tables};
use super::super::report::{Report, join};
use super::super::{DeliveryConfig, Destination, Endpoint, Environment, Secret, is_id};
use super::environments::{self, Environments};
use super::{Outside, Through, destinations};

/// What the settings are judged against.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The ids of all environments.
    pub environments: &'a [String],
    /// What all destinations share.
    pub delivery: &'a DeliveryConfig,
    /// The file's `[secrets]`.
    pub secrets: &'a BTreeMap<String, Secret<String>>,
}

/// Settings that were judged.
#[derive(Debug, Clone)]
pub struct Checked<T> {
    /// What they say, if nothing is wrong with them.
    pub value: Option<T>,
    /// The same as TOML, with `(set)` in the place of each secret. Empty where it is no TOML.
    pub shown: String,
    /// Every mistake, and what is odd.
    pub findings: Vec<Finding>,
}

/// Judges a text with one `[[destinations]]`.
#[must_use]
pub fn check_destination(text: &str, around: &Surroundings<'_>) -> Checked<Destination> {
    check(text, around, "destinations", |root, tables, outside| {
        let environments = Environments::named(around.environments);
        destinations::read(root, tables, outside, &environments, around.delivery, None).0
    })
}

/// The environments whose posts a text with one `[[destinations]]` asks for, whatever else is wrong with it.
#[must_use]
pub fn posts_wanted(settings: &str) -> Vec<String> {
    let text = |value: &toml::Value| value.as_str().map(str::to_owned);
    let environments = || {
        let document: toml::Table = settings.parse().ok()?;
        let destination = document.get("destinations")?.as_array()?.first()?;
        let is_upstream = destination.get("type")?.as_str()? == "upstream";
        let environments = destination.get("environments")?.as_array().filter(|_| is_upstream)?;
        Some(environments.iter().filter_map(text).collect())
    };
    environments().unwrap_or_default()
}

/// Judges a text with one `[[environments]]`.
#[must_use]
pub fn check_environment(text: &str, around: &Surroundings<'_>) -> Checked<Environment> {
    check(text, around, "environments", |root, _, outside| environments::read(root, outside).into_values())
}

fn check<T>(
    text: &str,
    around: &Surroundings<'_>,
    key: &'static str,
    read: impl FnOnce(&Section<'_>, Tables<'_>, &Outside<'_>) -> Vec<T>,
) -> Checked<T> {
    let (report, mut document) = Report::parse(text);
    let destinations = take_tables(&mut document, "destinations");
    let root = Section::root(&report, &document);
    let outside = Outside {
        through: Through::Api,
        secrets: around.secrets,
        base: Path::new("/"),
        env: &|_| None,
        file: &|_| Err(io::ErrorKind::PermissionDenied.into()),
        ground: &|_| Err(io::ErrorKind::PermissionDenied.into()),
    };
    let count = if key == "destinations" { destinations.len() } else { root.sections(key).len() };
    if count != 1 {
        root.at(key).error(format!("one [[{key}]] belongs here, not {count}"), "write one at a time");
    }
    let mut values = read(&root, destinations, &outside);
    root.finish();
    let value = values.pop().filter(|_| !report.any_error());
    let secrets = report.secrets();
    let shown = text.parse().map(|table| shown(table, &secrets)).unwrap_or_default();
    Checked { value, shown, findings: report.into_findings() }
}

/// Judges a file's text as a whole, and shows one of its destinations; `None` where it has none of this id.
pub(in super::super) fn of_file(text: &str, id: &str, outside: &Outside<'_>) -> Option<Checked<Destination>> {
    let (report, mut document) = Report::parse(text);
    let destinations = take_tables(&mut document, "destinations");
    let config = super::read(Section::root(&report, &document), destinations, outside);
    let config = config.filter(|_| !report.any_error());
    let value = config.and_then(|config| config.destinations.into_iter().find(|destination| destination.id == id));
    let mut whole = toml::Value::Table(text.parse().ok()?);
    hide(&mut whole, "", &report.secrets(), &["secret:", "env:", "file:"]);
    let destinations = whole.get("destinations")?.as_array()?;
    let is_it = |destination: &&toml::Value| destination.get("id").and_then(toml::Value::as_str) == Some(id);
    let alone = toml::Value::Array(vec![destinations.iter().find(is_it)?.clone()]);
    // Of what is not valid nobody knows which keys are secrets: a misspelt one was never asked for.
    let alone = value.is_some().then(|| toml::Table::from_iter([("destinations".to_owned(), alone)]));
    let shown = alone.and_then(|table| toml::to_string(&table).ok()).unwrap_or_default();
    Some(Checked { value, shown, findings: report.into_findings() })
}

fn shown(table: toml::Table, secrets: &BTreeSet<String>) -> String {
    let mut value = toml::Value::Table(table);
    hide(&mut value, "", secrets, &["secret:"]);
    toml::to_string(&value).unwrap_or_default()
}

/// Puts a word in the place of each secret that is none of these `names`. Paths are spelled as findings have them.
fn hide(value: &mut toml::Value, path: &str, secrets: &BTreeSet<String>, names: &[&str]) {
    match value {
        toml::Value::Table(table) => {
            table.iter_mut().for_each(|(key, value)| hide(value, &join(path, key), secrets, names));
        }
        toml::Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                let id = item.get("id").and_then(toml::Value::as_str).filter(|id| is_id(id));
                let label = id.map_or_else(|| place.to_string(), str::to_owned);
                hide(item, &format!("{path}[{label}]"), secrets, names);
            }
        }
        // A name is no secret; of an address the host may be seen.
        toml::Value::String(text) if secrets.contains(path) && !names.iter().any(|name| text.starts_with(name)) => {
            *text = Endpoint::parse(text).map_or_else(|_| "(set)".to_owned(), |endpoint| format!("{endpoint} (set)"));
        }
        _ => {}
    }
}
