//! Reads what `type = "upstream"` adds.

use std::collections::BTreeMap;

use super::super::super::raw::{Field, Section};
use super::super::super::upstream::{NotABase, events_base, telemetry_base};
use super::super::super::{Endpoint, UpstreamConfig, limits};
use super::super::{Outside, values};

pub(super) fn upstream(section: &Section<'_>, outside: &Outside<'_>) -> Option<UpstreamConfig> {
    if section.has("filter") {
        let message = "an upstream relays posts whole: nothing of them can be filtered";
        section.at("filter").error(message, "remove filter");
    }
    let max_bytes = section.bytes("max_bytes", &limits::UPSTREAM_SHARE_BYTES);
    let (url, telemetry_url) = (section.get("url"), section.get("telemetry_url"));
    let split = UpstreamConfig::default();
    let events = match &url {
        None => Some(split.events.clone()),
        Some(field) => base(field, outside, events_base),
    };
    let telemetry = match (&telemetry_url, &url) {
        (Some(field), _) => base(field, outside, telemetry_base),
        // Split has two hosts; whoever stands in for it, a Proxy say, has both on one.
        (None, Some(field)) if events.as_ref().is_some_and(|events| *events != split.events) => {
            base(field, outside, telemetry_base)
        }
        (None, _) => Some(split.telemetry),
    };
    Some(UpstreamConfig { events: events?, telemetry: telemetry?, max_bytes })
}

/// An environment's posts go to one upstream: each keeps a copy of its own.
pub(super) fn one_each(section: &Section<'_>, subscribed: &[String], relayed: &mut BTreeMap<String, usize>) {
    if section.get("type").and_then(|field| field.text()) != Some("upstream") {
        return;
    }
    for environment in subscribed {
        if let Some(line) = relayed.get(environment) {
            let message = format!("the posts of {environment:?} go to another upstream already, in line {line}");
            section.at("environments").error(message, "name an environment in one upstream only");
        } else {
            relayed.insert(environment.clone(), section.place().line());
        }
    }
}

fn base(
    field: &Field<'_>,
    outside: &Outside<'_>,
    parse: impl Fn(&str) -> Result<Endpoint, NotABase>,
) -> Option<Endpoint> {
    let text = values::open(field, outside)?;
    match parse(&text) {
        Ok(base) => Some(base),
        Err(error) => {
            field.place.error(error.to_string(), error.remedy());
            None
        }
    }
}
