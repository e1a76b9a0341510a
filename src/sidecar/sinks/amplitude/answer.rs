//! What Amplitude's answers mean, event by event. Pure.
//!
//! A 400 or 429 takes nothing, but may name events: those that are wrong are rejected, those of users or devices that
//! are over a limit are held, and the rest is sent again under the same ids. Lists that do not fit the request are not
//! believed, and then the answer counts for the batch as a whole. Nothing is ever given up because a limit was met.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::{AmplitudeApi, AmplitudeIdentity};
use crate::delivery::outcome::{Failure, HeldRecord, Outcome, Partial, RejectedRecord, classify};
use crate::delivery::sink::Encoded;
use crate::sinks::amplitude::encode::subject;

/// The daily quota moves in steps of an hour.
const QUOTA_WAIT: Duration = Duration::from_secs(60 * 60);

/// Somebody at Amplitude silenced the device by hand, and somebody has to lift that.
const SILENCED_WAIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Of a field's name, and of all reasons together, this many characters are shown to people.
const NAME_CHARS_MAX: usize = 60;
const REASON_BYTES_MAX: usize = 240;

/// How the errors begin that Amplitude documents: what may follow is shown to nobody who does not ask for the record.
const SENTENCES: [&str; 11] = [
    "Events silenced",
    "Forbidden",
    "Invalid API key",
    "Invalid JSON request body",
    "Invalid event JSON",
    "Invalid field values on some events",
    "Invalid request path",
    "Missing request body",
    "Payload too large",
    "Request missing required field",
    "Too many requests for some devices and users",
];

/// An answer, as far as it matters.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    /// The answer's own wish.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
    /// The body went on, but no more of it was read.
    pub(super) cut: bool,
    /// What is shown to people, without what the body says of itself.
    pub(super) why: Failure,
}

/// Sorts an answer to a request that carried `encoded`.
pub(super) fn judge(reply: Reply<'_>, encoded: &Encoded, api: AmplitudeApi, identity: AmplitudeIdentity) -> Outcome {
    let Reply { status, retry_after, body, cut, why } = reply;
    let why = || in_words(why.clone(), body);
    match status {
        200 => Outcome::Delivered,
        // Documented is 200 alone; what else succeeds may have come from somebody in between.
        201..=299 => Outcome::Retry { why: why() },
        // Who names a time is obeyed, whatever else it says; lists of events say more.
        _ if retry_after.is_some() && !matches!(status, 400 | 429) => classify(status, retry_after, why),
        401 | 403 | 404 => Outcome::Refused { why: why() },
        413 => Outcome::TooLarge { why: why() },
        400 | 429 => {
            let wait = throttle_wait(api);
            match read(body, cut) {
                Said::Broken | Said::Refuses if retry_after.is_some() => Outcome::Throttled { retry_after, why: why() },
                Said::Broken => Outcome::Retry { why: why() },
                Said::Refuses => Outcome::Refused { why: why() },
                Said::Lists(lists) => {
                    let least = retry_after.unwrap_or(Duration::ZERO);
                    match Apart::of(&lists, encoded, wait.max(least), identity) {
                        Some(apart) => Outcome::Partial(apart.partial(why())),
                        None => as_a_whole(status, lists.asks_to_wait(), retry_after, wait, why()),
                    }
                }
                Said::Nothing { asks_to_wait } => as_a_whole(status, asks_to_wait, retry_after, wait, why()),
            }
        }
        _ => classify(status, None, why),
    }
}

/// With what the body says, if that is a sentence that Amplitude is known for.
fn in_words(why: Failure, body: &[u8]) -> Failure {
    let head: Option<Head> = serde_json::from_slice(body).ok();
    let said = head.as_ref().and_then(|head| head.sentence());
    match (why, said) {
        (Failure::Status { status, excerpt, .. }, Some(said)) => {
            Failure::Status { status, words: said.to_owned(), excerpt }
        }
        (why, _) => why,
    }
}

/// How long Amplitude asks to leave a throttled user or device alone.
fn throttle_wait(api: AmplitudeApi) -> Duration {
    match api {
        AmplitudeApi::Batch => Duration::from_secs(15),
        AmplitudeApi::HttpV2 => Duration::from_secs(30),
    }
}

/// An answer that says nothing of single events.
fn as_a_whole(status: u16, asks_to_wait: bool, told: Option<Duration>, wait: Duration, why: Failure) -> Outcome {
    if status == 400 && !asks_to_wait && told.is_none() {
        Outcome::Rejected { why }
    } else {
        Outcome::Throttled { retry_after: Some(told.unwrap_or(wait)), why }
    }
}

/// What a body says.
enum Said {
    /// It ends in the middle: what it would have said is not known.
    Broken,
    /// Key or address are wrong.
    Refuses,
    Lists(Box<Lists>),
    /// Nothing that can be read; at most, that it is about a limit.
    Nothing {
        asks_to_wait: bool,
    },
}

fn read(body: &[u8], cut: bool) -> Said {
    let head: Head = match serde_json::from_slice(body) {
        Ok(head) => head,
        Err(error) if error.is_eof() && !cut && !body.trim_ascii().is_empty() => return Said::Broken,
        // No JSON, from a proxy perhaps; or so long that only a smaller request can be answered in full.
        Err(_) => return Said::Nothing { asks_to_wait: false },
    };
    if head.refuses() {
        return Said::Refuses;
    }
    match serde_json::from_slice::<Lists>(body) {
        Ok(lists) => Said::Lists(Box::new(lists)),
        Err(_) => Said::Nothing { asks_to_wait: head.asks_to_wait() },
    }
}

/// What an answer says of the request. Read apart from the lists: it counts even where those are of another make.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    missing_field: Option<String>,
}

impl Head {
    /// What its error begins with, if that is documented.
    fn sentence(&self) -> Option<&'static str> {
        let error = self.error.as_deref()?;
        SENTENCES.into_iter().find(|sentence| error.starts_with(sentence))
    }

    fn refuses(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        self.missing_field.as_deref() == Some("api_key")
            || ["Invalid API key", "Invalid request path"].iter().any(|start| error.starts_with(start))
    }

    fn asks_to_wait(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        ["Events silenced", "Too many requests"].iter().any(|start| error.starts_with(start))
    }
}

/// A set of names; their numbers do not matter.
type Names = HashMap<String, IgnoredAny>;

/// The events that an answer names: by their place in the request, or by user or device.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lists {
    error: Option<String>,
    events_with_invalid_fields: Option<HashMap<String, Vec<u64>>>,
    events_with_missing_fields: Option<HashMap<String, Vec<u64>>>,
    /// Not documented, but Amplitude's own SDKs read it.
    events_with_invalid_id_lengths: Option<HashMap<String, Vec<u64>>>,
    silenced_events: Option<Vec<u64>>,
    silenced_devices: Option<Vec<String>>,
    throttled_events: Option<Vec<u64>>,
    throttled_devices: Option<Names>,
    throttled_users: Option<Names>,
    exceeded_daily_quota_devices: Option<Names>,
    exceeded_daily_quota_users: Option<Names>,
}

impl Lists {
    /// Whether it is about a limit: then the records are good, whatever else can't be made out.
    fn asks_to_wait(&self) -> bool {
        let head = Head { error: self.error.clone(), missing_field: None };
        let events = [&self.silenced_events, &self.throttled_events];
        head.asks_to_wait()
            || events.into_iter().flatten().any(|events| !events.is_empty())
            || self.silenced_devices.as_ref().is_some_and(|devices| !devices.is_empty())
            || self.names().any(|names| !names.is_empty())
    }

    fn names(&self) -> impl Iterator<Item = &Names> {
        let names = [
            &self.throttled_devices,
            &self.throttled_users,
            &self.exceeded_daily_quota_devices,
            &self.exceeded_daily_quota_users,
        ];
        names.into_iter().flatten()
    }

    /// The users or devices that are to be left alone, and how long; those of the other kind are not in our requests.
    fn waits(&self, identity: AmplitudeIdentity, throttled: Duration) -> HashMap<u64, Duration> {
        let (over_rate, over_quota, silenced) = match identity {
            AmplitudeIdentity::UserId => (&self.throttled_users, &self.exceeded_daily_quota_users, None),
            AmplitudeIdentity::DeviceId => {
                (&self.throttled_devices, &self.exceeded_daily_quota_devices, self.silenced_devices.as_ref())
            }
        };
        let mut waits = HashMap::new();
        // The longest comes last and stays.
        waits.extend(over_rate.iter().flatten().map(|(id, _)| (subject(id), throttled)));
        waits.extend(over_quota.iter().flatten().map(|(id, _)| (subject(id), throttled.max(QUOTA_WAIT))));
        waits.extend(silenced.into_iter().flatten().map(|id| (subject(id), throttled.max(SILENCED_WAIT))));
        waits
    }
}

/// The records that an answer sets apart, by offset.
#[derive(Default)]
struct Apart {
    rejected: BTreeMap<u64, String>,
    held: BTreeMap<u64, Duration>,
}

impl Apart {
    /// `None` if the answer sets none apart, or names an event that was not in the request.
    fn of(lists: &Lists, encoded: &Encoded, throttled: Duration, identity: AmplitudeIdentity) -> Option<Self> {
        let mut apart = Self::default();
        let wrong = [
            ("invalid", &lists.events_with_invalid_fields),
            ("missing", &lists.events_with_missing_fields),
            ("wrong length of", &lists.events_with_invalid_id_lengths),
        ];
        for (what, fields) in wrong {
            // In the order of names, so that the same answer gives the same reasons.
            for (field, events) in fields.iter().flatten().collect::<BTreeMap<_, _>>() {
                let reason = format!("{what} {}", short(field));
                for &index in events {
                    apart.reject(encoded.offset_at(index)?, &reason);
                }
            }
        }
        let limits = [(&lists.throttled_events, throttled), (&lists.silenced_events, throttled.max(SILENCED_WAIT))];
        for (events, wait) in limits {
            for &index in events.iter().flatten() {
                apart.hold(encoded.offset_at(index)?, wait);
            }
        }
        apart.hold_by_name(&lists.waits(identity, throttled), encoded);
        let rejected = &apart.rejected;
        apart.held.retain(|offset, _| !rejected.contains_key(offset));
        (!apart.rejected.is_empty() || !apart.held.is_empty()).then_some(apart)
    }

    fn reject(&mut self, offset: u64, reason: &str) {
        let reasons = self.rejected.entry(offset).or_default();
        if reasons.len() + reason.len() < REASON_BYTES_MAX {
            if !reasons.is_empty() {
                reasons.push_str(", ");
            }
            reasons.push_str(reason);
        }
    }

    fn hold(&mut self, offset: u64, wait: Duration) {
        let longest = self.held.entry(offset).or_default();
        *longest = wait.max(*longest);
    }

    /// Holds all events of users and devices that are to be left alone, also those that the answer does not number.
    fn hold_by_name(&mut self, waits: &HashMap<u64, Duration>, encoded: &Encoded) {
        if waits.is_empty() {
            return;
        }
        for (index, subject) in (0..).zip(encoded.subjects.iter()) {
            if let (Some(wait), Some(offset)) = (waits.get(subject), encoded.offset_at(index)) {
                self.hold(offset, *wait);
            }
        }
    }

    fn partial(self, why: Failure) -> Partial {
        let rejected = |(offset, reason)| RejectedRecord { offset, reason };
        let held = |(offset, wait)| HeldRecord { offset, wait };
        Partial {
            rejected: self.rejected.into_iter().map(rejected).collect(),
            held: self.held.into_iter().map(held).collect(),
            why,
        }
    }
}

fn short(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
