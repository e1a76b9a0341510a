//! The rules between two keys: bounds that are fine alone and can't stand together.

use std::net::SocketAddr;

use super::super::raw::Section;
use super::super::report::Place;
use super::super::units::show_bytes;
use super::super::{Budget, IngestConfig, LogSettings, limits};

/// What the largest body needs on its way to the log.
pub(super) fn ingest(section: &Section<'_>, ingest: &IngestConfig) {
    for (key, room, bodies, why) in [
        (
            "memory_bytes_max",
            ingest.memory_bytes_max,
            limits::INGEST_MEMORY_BODIES,
            "takes up to three times its size of the three quarters that one environment may have",
        ),
        ("queue_bytes_max", ingest.queue_bytes_max, 1, "could never be queued"),
    ] {
        let least = ingest.body_bytes_max.saturating_mul(bodies);
        if room < least {
            let (room, body) = (show_bytes(room), show_bytes(ingest.body_bytes_max));
            let message = format!("{key} is {room}, and a body of body_bytes_max, {body}, {why}");
            let place = section.at(if section.has(key) { key } else { "body_bytes_max" });
            place.error(message, format!("raise {key} to {} or more, or lower body_bytes_max", show_bytes(least)));
        }
    }
}

/// What may be stored of the largest body must fit into one append of the log.
pub(super) fn append(section: &Section<'_>, ingest: &IngestConfig) {
    if ingest.append_bytes_max() <= limits::APPEND_BYTES {
        return;
    }
    let message = format!(
        "of a body of {} up to {} may have to be stored, and the log takes {} at once",
        show_bytes(ingest.body_bytes_max),
        show_bytes(ingest.append_bytes_max()),
        show_bytes(limits::APPEND_BYTES)
    );
    section
        .at("body_bytes_max")
        .error(message, format!("lower body_bytes_max to {} or less", show_bytes(limits::BODY_BYTES_STORABLE)));
}

/// The budget must hold enough segments for any of them to be reclaimed.
pub(super) fn log(section: &Section<'_>, log: &LogSettings) {
    let Budget::Bytes(budget) = log.budget else { return };
    let least = limits::SEGMENTS_MIN * log.segment_bytes;
    if budget < least {
        let message = format!(
            "the budget of {} does not hold {} segments of {}",
            show_bytes(budget),
            limits::SEGMENTS_MIN,
            show_bytes(log.segment_bytes)
        );
        section
            .at("budget_bytes")
            .error(message, format!("raise it to {} or more, or lower segment_bytes", show_bytes(least)));
    }
}

/// No two listeners on one port, as far as the addresses meet. Port 0 is any free one.
pub(super) fn listens(listens: &[(Place<'_>, SocketAddr, &str)]) {
    for (i, (place, address, _)) in listens.iter().enumerate() {
        let meets = |other: &SocketAddr| {
            other.port() == address.port()
                && address.port() != 0
                && (other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified())
        };
        if let Some((_, other, section)) = listens[..i].iter().find(|(_, other, _)| meets(other)) {
            place.error(format!("{address} is taken by {other} of {section}"), "give each listener a port of its own");
        }
    }
}
