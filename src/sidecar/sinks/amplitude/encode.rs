//! Impressions as Amplitude's events. Pure.
//!
//! `event_properties` are Split's fields, and beside them the impression's own properties, as in Split's integration:
//! one with the name of a field takes its place. Text is copied with its escapes; nothing allocates per impression,
//! save for properties that hold objects or lists, that are no JSON object, or that take a field's place.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::{AmplitudeConfig, AmplitudeIdentity};
use crate::delivery::sink::{EncodeError, Encoded, Job};
use crate::impression::{Impression, JsonText, escape, push_integer};
use crate::sinks::events::{self, Event};

/// What a body begins with.
pub(super) const OPENING: &[u8] = b"{\"events\":[";

/// The ids that Amplitude refuses whole, as it lists them.
const REFUSED_IDS: [&str; 14] = [
    "anonymous",
    "nil",
    "none",
    "null",
    "n/a",
    "na",
    "undefined",
    "unknown",
    "{}",
    "lmy47d",
    "0",
    "-1",
    "",
    "00000000-0000-0000-0000-000000000000",
];

/// The names of [`SplitFields`](crate::impression::SplitFields), save for `properties`.
const SPLIT_FIELDS: [&str; 13] = [
    "key",
    "split",
    "environmentId",
    "environmentName",
    "treatment",
    "time",
    "bucketingKey",
    "label",
    "machineName",
    "machineIp",
    "splitVersionNumber",
    "sdk",
    "sdkVersion",
];

/// No escape spells a character with more bytes: a pair of surrogates.
const CHAR_BYTES_MAX: usize = 12;

/// How impressions become events.
pub(super) struct Events {
    /// From the opening brace to the id's opening quote.
    start: Box<[u8]>,
    identity: AmplitudeIdentity,
    min_id_length: u32,
    /// What tells these events from others.
    settings: Arc<str>,
}

impl Events {
    pub(super) fn new(config: &AmplitudeConfig) -> Self {
        let (identity, min_id_length) = (config.identity, config.min_id_length);
        let mut start = b"{\"event_type\":\"".to_vec();
        escape(config.event_type.as_bytes(), &mut start);
        start.extend_from_slice(b"\",\"");
        start.extend_from_slice(field(identity).as_bytes());
        start.extend_from_slice(b"\":\"");
        let settings = format!("{min_id_length} {}", String::from_utf8_lossy(&start)).into();
        Self { start: start.into(), identity, min_id_length, settings }
    }

    pub(super) fn identity(&self) -> AmplitudeIdentity {
        self.identity
    }

    pub(super) fn min_id_length(&self) -> u32 {
        self.min_id_length
    }

    /// Equal where equal impressions become equal events.
    pub(super) fn settings(&self) -> Arc<str> {
        Arc::clone(&self.settings)
    }

    /// The body up to its tail.
    pub(super) fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let mut subjects = Vec::with_capacity(job.runs().map(|run| run.take).sum());
        let mut scratch = String::new();
        let encoded = events::encode(job, self.bytes_max(job), OPENING, |event, out| {
            if let Some(reason) = self.refusal(event.record.key) {
                return Err(reason);
            }
            subjects.push(subject(&event.record.key.unescape()));
            self.write(event, &mut scratch, out);
            Ok(())
        })?;
        Ok(Encoded { subjects: subjects.into(), ..encoded })
    }

    /// See [`Sink::encoded_bytes_max`](crate::delivery::sink::Sink::encoded_bytes_max).
    pub(super) fn bytes_max(&self, job: &Job) -> u64 {
        events::bytes_max(job, self.start.len())
    }

    fn write(&self, mut event: Event<'_, '_>, scratch: &mut String, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start);
        out.extend_from_slice(event.record.key.as_bytes());
        out.extend_from_slice(b"\",\"time\":");
        push_integer(event.time_ms(), out);
        out.extend_from_slice(b",\"insert_id\":\"");
        event.write_id(out);
        out.extend_from_slice(b"\",\"event_properties\":{");
        write_properties(&mut event, scratch, out);
        out.extend_from_slice(b"}}");
    }

    /// Why Amplitude would refuse an event of this id.
    fn refusal(&self, id: JsonText<'_>) -> Option<String> {
        let field = field(self.identity);
        let bytes = id.as_bytes();
        // Far more bytes than an id that is too short can have; all usual ids have.
        let surely_long = bytes.len() >= self.min_id_length as usize * CHAR_BYTES_MAX;
        if !surely_long && id.chars().count() < self.min_id_length as usize {
            return Some(format!("{field} is shorter than min_id_length, {}", self.min_id_length));
        }
        let refused = REFUSED_IDS.iter().find(|refused| id.spells(refused))?;
        Some(format!("Amplitude takes no {field} {refused:?}"))
    }
}

/// A user or device as [`Encoded::subjects`] has it: ids may be long. Of two that share a hash, whoever has to wait has
/// company.
pub(super) fn subject(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// What Amplitude calls the identity.
pub(super) fn field(identity: AmplitudeIdentity) -> &'static str {
    match identity {
        AmplitudeIdentity::UserId => "user_id",
        AmplitudeIdentity::DeviceId => "device_id",
    }
}

/// Split's fields and the impression's own properties, without the braces around them.
fn write_properties(event: &mut Event<'_, '_>, scratch: &mut String, out: &mut Vec<u8>) {
    let Some(properties) = event.record.properties else { return event.fields.write(event.record, out) };
    scratch.clear();
    scratch.extend(properties.chars());
    let bare = Impression { properties: None, ..*event.record };
    match serde_json::from_str(scratch) {
        // What is no object stays what it was: a string.
        Err(_) => event.fields.write(event.record, out),
        Ok(Names::Apart) => {
            event.fields.write(&bare, out);
            let braces = scratch.trim_ascii();
            let members = braces[1..braces.len() - 1].trim_ascii();
            if !members.is_empty() {
                out.push(b',');
                out.extend_from_slice(members.as_bytes());
            }
        }
        Ok(Names::Meet) => {
            let mut fields = b"{".to_vec();
            event.fields.write(&bare, &mut fields);
            fields.push(b'}');
            write_over(&fields, scratch, out);
        }
    }
}

/// The members of both objects, those of `over` in the place of their namesakes.
fn write_over(fields: &[u8], over: &str, out: &mut Vec<u8>) {
    type Members<'a> = BTreeMap<String, &'a RawValue>;
    let mut members: Members<'_> = serde_json::from_slice(fields).expect("Split's fields are members of an object");
    members.extend(serde_json::from_str::<Members<'_>>(over).expect("its names were read before"));
    let text = serde_json::to_vec(&members).expect("raw values and strings can be written");
    out.extend_from_slice(&text[1..text.len() - 1]);
}

/// How the names of an object's members stand to those of Split's fields.
enum Names {
    Apart,
    /// At least one is both.
    Meet,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Names, A::Error> {
        let mut names = Names::Apart;
        while let Some((IsField(is_field), IgnoredAny)) = members.next_entry()? {
            if is_field {
                names = Names::Meet;
            }
        }
        Ok(names)
    }
}

/// Whether a name is one of Split's fields. Not kept as text, which would have to be allocated.
struct IsField(bool);

impl<'de> Deserialize<'de> for IsField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(IsFieldVisitor)
    }
}

struct IsFieldVisitor;

impl Visitor<'_> for IsFieldVisitor {
    type Value = IsField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<IsField, E> {
        Ok(IsField(SPLIT_FIELDS.contains(&name)))
    }
}

#[cfg(test)]
mod tests;
