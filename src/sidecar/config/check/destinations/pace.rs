//! Reads how fast a destination may be sent to: requests in flight, order, rate.

use super::super::super::raw::Section;
use super::super::super::{RateConfig, SinkKind, limits};

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

/// `rate`: what is not written is not limited.
pub(super) fn rate(destination: &Section<'_>) -> RateConfig {
    let section = destination.section("rate");
    let requests = section.get("requests").and_then(|field| field.count(&limits::RATE_REQUESTS));
    let records = section.get("records").and_then(|field| field.count(&limits::RATE_RECORDS));
    let bytes = section.get("bytes").and_then(|field| field.bytes(&limits::RATE_BYTES));
    section.finish();
    RateConfig { requests, records, bytes }
}
