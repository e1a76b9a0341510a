//! Writes stored impressions as JSON for destinations.
//!
//! Not a sink: no requests, no files. Text is copied with the escapes it came with, so it was checked once, on the
//! way in. What all records of a batch share is spelled out once for each call and copied from then on; nothing
//! allocates per record. What was not given is left out; nothing is made up.

use super::stored::{Impression, Malformed, Shared, StoredBatch};
use super::text::{JsonText, escape, push_integer};

/// How an environment is named to destinations. SDKs do not send it: it comes from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentLabel<'a> {
    /// The environment's id.
    pub id: &'a str,
    /// The environment's name.
    pub name: &'a str,
}

/// Why the records could not be written. What was appended before the error is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The payload is not a stored batch.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The log counts more records in the payload than there are.
    #[error("records {wanted_from}..{wanted_to} were asked of a stored batch of {found}")]
    TooFew {
        /// The first record asked for.
        wanted_from: usize,
        /// The first record not asked for.
        wanted_to: usize,
        /// Records in the batch.
        found: usize,
    },
}

/// Appends the records `skip..skip + take` of `batch` as the objects of Split's impressions webhook, separated by
/// commas. The brackets around them are the caller's.
///
/// `first` says whether these are the array's first objects, and is false once one was written. The fields are Split's,
/// in the order of its documentation: `key`, `split`, `environmentId`, `environmentName`, `treatment`, `time`,
/// `bucketingKey`, `label`, `machineName`, `machineIp`, `splitVersionNumber`, `sdk`, `sdkVersion`, `properties`.
/// Two things Split's webhook does not have, the previous time and the SDK's mode, are left out; [`write_json_lines`]
/// has them.
///
/// # Errors
/// [`EncodeError`] if the payload is damaged or has fewer records.
pub fn write_split_objects(
    batch: &StoredBatch<'_>,
    skip: usize,
    take: usize,
    environment: &EnvironmentLabel<'_>,
    out: &mut Vec<u8>,
    first: &mut bool,
) -> Result<(), EncodeError> {
    let mut fields = SplitFields::new(batch.shared(), environment);
    each_record(batch, skip, take, |_, record| {
        if !*first {
            out.push(b',');
        }
        *first = false;
        out.extend_from_slice(b"{\"key\":\"");
        fields.write_split_fields(record, out);
        out.push(b'}');
    })
}

/// Appends the records `skip..skip + take` of `batch`, one JSON object a line: `id`, the fields of
/// [`write_split_objects`], and behind them `previousTime`, `impressionsMode` and `receivedTime` (milliseconds).
///
/// `write_id` appends the id of a record, given its place in the batch; its characters must be [`A-Za-z0-9_-]`.
///
/// # Errors
/// [`EncodeError`] if the payload is damaged or has fewer records.
pub fn write_json_lines(
    batch: &StoredBatch<'_>,
    skip: usize,
    take: usize,
    environment: &EnvironmentLabel<'_>,
    out: &mut Vec<u8>,
    mut write_id: impl FnMut(usize, &mut Vec<u8>),
) -> Result<(), EncodeError> {
    let shared = batch.shared();
    let mut fields = SplitFields::new(shared, environment);
    let mut line_end = Vec::with_capacity(64);
    push_shared(b",\"impressionsMode\":\"", shared.mode, &mut line_end);
    line_end.extend_from_slice(b",\"receivedTime\":");
    push_integer(i64::try_from(shared.received_ms).unwrap_or(i64::MAX), &mut line_end);
    line_end.extend_from_slice(b"}\n");
    each_record(batch, skip, take, |place, record| {
        out.extend_from_slice(b"{\"id\":\"");
        write_id(place, out);
        out.extend_from_slice(b"\",\"key\":\"");
        fields.write_split_fields(record, out);
        push_number(b",\"previousTime\":", record.previous_time_ms, out);
        out.extend_from_slice(&line_end);
    })
}

/// Hands the records `skip..skip + take` of `batch` and their places in it to `write`, in order.
///
/// # Errors
/// [`EncodeError`] if the payload is damaged or has fewer records. Those before the error were handed over.
#[inline]
pub fn each_record<'a>(
    batch: &StoredBatch<'a>,
    skip: usize,
    take: usize,
    mut write: impl FnMut(usize, &Impression<'a>),
) -> Result<(), EncodeError> {
    let wanted_to = skip.saturating_add(take);
    let mut records = batch.records();
    let mut found = records.advance(skip)?;
    if found == skip {
        while found < wanted_to {
            let Some(record) = records.next() else { break };
            write(found, &record?);
            found += 1;
        }
    }
    if found < wanted_to { Err(EncodeError::TooFew { wanted_from: skip, wanted_to, found }) } else { Ok(()) }
}

/// Writes the fields of Split's objects, for encoders that put more around them. Holds the parts that stay the same from
/// record to record; one is made for each stored batch.
pub struct SplitFields<'a> {
    /// `","split":"<flag>","environmentId":…,"environmentName":…`, for the flag of the record before.
    middle: Vec<u8>,
    middle_flag: Option<JsonText<'a>>,
    /// `","environmentId":…,"environmentName":…`.
    environment: Vec<u8>,
    /// `,"label":…` to `,"sdkVersion":…`, for the label and change number of the record before: within a flag they
    /// seldom change.
    tail: Vec<u8>,
    tail_of: Option<(Option<JsonText<'a>>, Option<i64>)>,
    /// `,"machineName":…,"machineIp":…`, as far as given.
    machine: Vec<u8>,
    /// `,"sdk":…,"sdkVersion":…`, as far as given.
    sdk: Vec<u8>,
}

impl<'a> SplitFields<'a> {
    /// For the records of the batch that `shared` is of.
    #[must_use]
    pub fn new(shared: &Shared<'_>, environment: &EnvironmentLabel<'_>) -> Self {
        let mut environment_fields = b"\",\"environmentId\":\"".to_vec();
        escape(environment.id.as_bytes(), &mut environment_fields);
        environment_fields.extend_from_slice(b"\",\"environmentName\":\"");
        escape(environment.name.as_bytes(), &mut environment_fields);
        environment_fields.push(b'"');
        let mut machine = Vec::with_capacity(64);
        push_shared(b",\"machineName\":\"", shared.machine_name, &mut machine);
        push_shared(b",\"machineIp\":\"", shared.machine_ip, &mut machine);
        let mut sdk = Vec::with_capacity(64);
        let (name, version) = sdk_name_and_version(shared.sdk);
        push_shared(b",\"sdk\":\"", name, &mut sdk);
        push_shared(b",\"sdkVersion\":\"", version, &mut sdk);
        let (middle, tail) = (Vec::with_capacity(128), Vec::with_capacity(192));
        Self { middle, middle_flag: None, environment: environment_fields, tail, tail_of: None, machine, sdk }
    }

    /// Appends the fields of [`write_split_objects`] without the braces around them. There is one at least.
    #[inline]
    pub fn write(&mut self, record: &Impression<'a>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"key\":\"");
        self.write_split_fields(record, out);
    }

    /// Appends the fields of Split's object from the text of `key` on, without the closing brace.
    #[inline]
    fn write_split_fields(&mut self, record: &Impression<'a>, out: &mut Vec<u8>) {
        if self.middle_flag != Some(record.flag) {
            self.set_flag(record.flag);
        }
        out.extend_from_slice(record.key.as_bytes());
        out.extend_from_slice(&self.middle);
        push_text(b",\"treatment\":\"", record.treatment, out);
        push_number(b",\"time\":", record.time_ms, out);
        push_text(b",\"bucketingKey\":\"", record.bucketing_key, out);
        if self.tail_of != Some((record.label, record.change_number)) {
            self.set_tail(record.label, record.change_number);
        }
        out.extend_from_slice(&self.tail);
        push_text(b",\"properties\":\"", record.properties, out);
    }

    fn set_flag(&mut self, flag: JsonText<'a>) {
        self.middle.clear();
        self.middle.extend_from_slice(b"\",\"split\":\"");
        self.middle.extend_from_slice(flag.as_bytes());
        self.middle.extend_from_slice(&self.environment);
        self.middle_flag = Some(flag);
    }

    fn set_tail(&mut self, label: Option<JsonText<'a>>, change_number: Option<i64>) {
        self.tail.clear();
        push_text(b",\"label\":\"", label, &mut self.tail);
        self.tail.extend_from_slice(&self.machine);
        push_number(b",\"splitVersionNumber\":", change_number, &mut self.tail);
        self.tail.extend_from_slice(&self.sdk);
        self.tail_of = Some((label, change_number));
    }
}

/// `python-10.7.0` is the SDK `python`, version `10.7.0`: cut at the first hyphen. Without one it is all name.
#[must_use]
pub fn sdk_name_and_version(sdk: JsonText<'_>) -> (JsonText<'_>, JsonText<'_>) {
    // A hyphen is never part of an escape, and no SDK spells it as one.
    match memchr::memchr(b'-', sdk.as_bytes()) {
        Some(hyphen) => {
            let (name, version) = sdk.as_bytes().split_at(hyphen);
            (JsonText::checked(name), JsonText::checked(&version[1..]))
        }
        None => (sdk, JsonText::default()),
    }
}

/// Appends what all records share, unless it is empty: that is how it was stored when it was not given.
fn push_shared(start: &[u8], text: JsonText<'_>, out: &mut Vec<u8>) {
    push_text(start, Some(text).filter(|text| !text.is_empty()), out);
}

#[inline]
fn push_text(start: &[u8], text: Option<JsonText<'_>>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        out.extend_from_slice(start);
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

#[inline]
fn push_number(start: &[u8], number: Option<i64>, out: &mut Vec<u8>) {
    if let Some(number) = number {
        out.extend_from_slice(start);
        push_integer(number, out);
    }
}

#[cfg(test)]
mod tests;
