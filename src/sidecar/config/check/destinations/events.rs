//! Reads what event services (Amplitude, Segment) are told.

use super::super::super::events::{
    AmplitudeApi, AmplitudeConfig, AmplitudeIdentity, EVENT_NAME, Region, SegmentConfig, SegmentIdentity,
};
use super::super::super::raw::Section;
use super::super::super::{Endpoint, Secret, limits};
use super::super::{Outside, values};

const REGIONS: [(&str, Region); 2] = [("us", Region::Us), ("eu", Region::Eu)];

/// Which of Amplitude's ways in: it decides what a request may hold, so it is read first.
pub(super) fn amplitude_api(section: &Section<'_>) -> AmplitudeApi {
    section.choice("api", &[("batch", AmplitudeApi::Batch), ("http-v2", AmplitudeApi::HttpV2)])
}

pub(super) fn amplitude(section: &Section<'_>, api: AmplitudeApi, outside: &Outside<'_>) -> Option<AmplitudeConfig> {
    let api_key = key(section, "api_key", "copy the project's API key: api_key = \"env:AMPLITUDE_API_KEY\"", outside);
    let region = section.choice("region", &REGIONS);
    let endpoint = endpoint(section, outside);
    let event_type = event_name(section, "event_type");
    let identities = [("user_id", AmplitudeIdentity::UserId), ("device_id", AmplitudeIdentity::DeviceId)];
    let identity = section.choice("identity", &identities);
    let min_id_length = section.count("min_id_length", &limits::AMPLITUDE_MIN_ID_LENGTH);
    Some(AmplitudeConfig { api_key: api_key?, api, region, endpoint, event_type: event_type?, identity, min_id_length })
}

pub(super) fn segment(section: &Section<'_>, outside: &Outside<'_>) -> Option<SegmentConfig> {
    let write_key = key(section, "write_key", "copy the source's write key: write_key = \"env:SEGMENT_KEY\"", outside);
    let region = section.choice("region", &REGIONS);
    let endpoint = endpoint(section, outside);
    let event = event_name(section, "event");
    let identities = [("user_id", SegmentIdentity::UserId), ("anonymous_id", SegmentIdentity::AnonymousId)];
    let identity = section.choice("identity", &identities);
    Some(SegmentConfig { write_key: write_key?, region, endpoint, event: event?, identity })
}

fn key(section: &Section<'_>, name: &'static str, remedy: &str, outside: &Outside<'_>) -> Option<Secret<String>> {
    let field = section.require(name, remedy)?;
    let resolved = values::secret(&field, outside)?;
    if resolved.value.trim() != resolved.value || resolved.value.contains(char::is_control) {
        field.place.error("the key has spaces around it or a line break in it", "copy the key alone");
        return None;
    }
    if resolved.literal {
        let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the key out of the file";
        field.place.warning("this key stands here for everyone who reads this file", remedy);
    }
    Some(Secret::new(resolved.value))
}

/// An address of one's own: a proxy, or a receiver for trials. It overrides the region's.
fn endpoint(section: &Section<'_>, outside: &Outside<'_>) -> Option<Endpoint> {
    super::url(&section.get("endpoint")?, outside)
}

fn event_name(section: &Section<'_>, key: &'static str) -> Option<String> {
    let Some(field) = section.get(key) else { return Some(EVENT_NAME.to_owned()) };
    let name = field.text()?;
    if name.trim().is_empty() || name.chars().count() > limits::EVENT_NAME_CHARS_MAX {
        let remedy = format!("write 1 to {} characters, such as {EVENT_NAME:?}", limits::EVENT_NAME_CHARS_MAX);
        field.place.error("this can't be the name of an event", remedy);
        return None;
    }
    Some(name.to_owned())
}
