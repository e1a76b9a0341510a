//! Reads how fast a destination may be sent to, and what first: requests in flight, order, rate, catching up.

use super::super::super::raw::Section;
use super::super::super::{CatchUpConfig, RateConfig, SinkKind, limits};

/// Requests in flight at once, and whether they must be one.
pub(super) fn concurrency(section: &Section<'_>, kind: SinkKind) -> (u32, bool) {
    let written = section.count("concurrency", &kind.bounds().concurrency);
    let ordered = section.flag("ordered", false);
    if !ordered {
        return (written, false);
    }
    if section.has("concurrency") && written != 1 {
        let message = format!("with ordered = true one request is in flight at a time, not {written}");
        section.at("concurrency").error(message, "remove one of the two");
    }
    (1, true)
}

/// `catch_up`: the oldest first, unless what comes in now is to go beside it.
pub(super) fn catch_up(section: &Section<'_>, kind: SinkKind, ordered: bool) -> CatchUpConfig {
    let live_first = section.choice("catch_up", &[("oldest_first", false), ("live_first", true)]);
    let percent = section.count("backlog_percent", &limits::BACKLOG_PERCENT);
    if !live_first {
        if section.has("backlog_percent") {
            let message = "a backlog has no part of its own unless catch_up = \"live_first\"";
            section.at("backlog_percent").error(message, "remove it, or write catch_up = \"live_first\"");
        }
        return CatchUpConfig::OldestFirst;
    }
    let why = match kind {
        SinkKind::File => Some("a file has its lines in the order in which they were received, and no quota to share"),
        SinkKind::Upstream => Some("the posts of an SDK key go in their order"),
        _ if ordered => Some("with ordered = true records go in their order, and what comes in now behind what waits"),
        _ => None,
    };
    if let Some(why) = why {
        let remedy = if ordered { "remove one of the two" } else { "remove it" };
        section.at("catch_up").error(why, remedy);
        return CatchUpConfig::OldestFirst;
    }
    CatchUpConfig::LiveFirst { backlog_percent: u8::try_from(percent).unwrap_or(u8::MAX) }
}

/// `rate`: what is not written is not limited.
pub(super) fn rate(destination: &Section<'_>) -> RateConfig {
    let section = destination.section("rate");
    let requests = section.get("requests").and_then(|field| field.count(&limits::RATE_REQUESTS));
    let records = section.get("records").and_then(|field| field.count(&limits::RATE_RECORDS));
    let bytes = section.get("bytes").and_then(|field| field.bytes(&limits::RATE_BYTES));
    section.finish();
    RateConfig { requests, records, bytes }
}
