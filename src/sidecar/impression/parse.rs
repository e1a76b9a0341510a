//! Makes stored batches of what SDKs post.
//!
//! Not the endpoint: HTTP, gzip, keys and the size of bodies are `ingest`'s affair. What holds: a body that is JSON of
//! the right outer shape is always taken, because a refusal is a loss at most senders. Each of its elements is either
//! an impression in a [`Part`] or in the raw text of a [`Reject`], never in neither. A body that is not JSON is
//! refused as a whole, and nothing of it is kept.
//!
//! The rules for one element:
//! - A flag and a key are needed and must be strings; the rest may be missing. `null` is the same as missing.
//! - Times and change numbers are whole numbers of 64 bits, stored as sent. `1e3`, `5.0` and greater numbers are
//!   rejected: they could not be given back as they came.
//! - Anything else of another type is rejected, `properties` that are an object included; unknown fields are skipped.
//! - Where a name comes twice, the last one counts.

mod envelope;
mod groups;
mod reject;

use std::fmt;

use super::scan::{Scanner, Unreadable};
use super::stored::{Part, Shared, Writer};
use super::text::{JsonText, escape};
use envelope::Envelope;
use groups::{Groups, Stop};
pub use reject::Reject;

/// Which kind of post a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `testImpressions/bulk`: `[{"f": flag, "i": [{"k": key, "t": treatment, "m": time, …}]}]`.
    Bulk,
    /// `testImpressions/beacon`: `{"entries": <a bulk>, "token": …, "sdk": …, "sim": …}`.
    Beacon,
    /// What the Synchronizer and the Evaluator post to a listener:
    /// `{"impressions": [{"testName": flag, "keyImpressions": [{"keyName": key, …}]}], "sdkVersion": …, …}`.
    Listener,
}

/// What is known of a post beside its body. The texts are header values as they came, any bytes; empty when missing.
///
/// Where the body names its SDK, machine or mode too (beacon and listener do), the body's word counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchMeta<'a> {
    /// Header `SplitSDKVersion`.
    pub sdk: &'a [u8],
    /// Header `SplitSDKMachineName`.
    pub machine_name: &'a [u8],
    /// Header `SplitSDKMachineIP`.
    pub machine_ip: &'a [u8],
    /// Header `SplitSDKImpressionsMode`, or `SDKImpressionsMode` from a Split Proxy.
    pub mode: &'a [u8],
    /// When the post was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Which of the environment's configured SDK keys authorised the post.
    pub sdk_key_index: u32,
}

/// How much one post may make of itself. Each limit holds memory or amplification down; none refuses a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a part's payload; a larger single impression gets a part of its own.
    pub part_bytes: usize,
    /// Bytes of a flag's name in JSON. It is sent again with every impression, so a long one multiplies; Split allows
    /// 100 characters. Groups with a longer one are rejected.
    pub flag_bytes_max: usize,
    /// Bytes of the SDK's name, of the mode, of machine name and address each, which are stored with every part.
    /// Longer ones are cut.
    pub shared_bytes_max: usize,
    /// Rejects kept one by one. If more elements are rejected, the last rejects are arrays of them.
    pub rejects_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { part_bytes: 256 << 10, flag_bytes_max: 4_096, shared_bytes_max: 1_024, rejects_max: 1_000 }
    }
}

/// What became of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Payloads for the log, in the order of the body. None if it holds no impression.
    pub parts: Vec<Part>,
    /// Impressions in all parts.
    pub records: u64,
    /// What cannot be an impression, in the order of the body: at most [`Limits::rejects_max`] one by one, and arrays of all
    /// that is more.
    pub rejects: Vec<Reject>,
    /// How many elements were rejected: a group counts once. More than `rejects` has where arrays hold several.
    pub rejected: u64,
    /// The SDK key that a beacon carries in its body.
    pub token: Option<Token>,
}

/// An SDK key. A secret: shown by no formatter.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The key itself, to be compared with those that are configured.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads `body` into parts for the log.
///
/// A body without impressions is fine and gives no parts.
///
/// # Errors
/// [`Unreadable`] if it is not JSON, not UTF-8, cut off, nested too deep or not of the form's outer shape.
///
/// # Examples
/// ```
/// use forebay_sidecar::impression::{BatchMeta, Form, Limits, StoredBatch, parse};
///
/// let body = br#"[{"f":"checkout","i":[{"k":"user-1","t":"on","m":1795450894053},{"k":7}]}]"#;
/// let meta = BatchMeta { sdk: b"go-6.8.1", ..BatchMeta::default() };
/// let parsed = parse(body, Form::Bulk, &meta, &Limits::default())?;
/// assert_eq!(parsed.records, 1);
/// assert_eq!(parsed.rejects[0].raw, br#"{"k":7}"#);
///
/// let batch = StoredBatch::decode(&parsed.parts[0].payload)?;
/// let impression = batch.records().next().expect("one was stored")?;
/// assert_eq!(impression.key.unescape(), "user-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parse(body: &[u8], form: Form, meta: &BatchMeta<'_>, limits: &Limits) -> Result<Parsed, Unreadable> {
    let mut scanner = Scanner::new(body)?;
    let envelope = Envelope::read(&mut scanner, form)?;
    let headers = Headers::new(meta);
    let shared = shared(&headers, &envelope, meta, limits);
    let groups = || {
        // Node's 86 bytes of JSON are stored in 51.
        let writer = Writer::new(&shared, limits.part_bytes, body.len() / 8 * 5 + 64);
        Groups::new(scanner.from(envelope.groups_at), envelope.depth, form, limits, writer)
    };
    let outcome = match groups().read() {
        Err(Stop::NameTwice) => groups().patiently().read(),
        other => other,
    };
    let (parts, rejects) = match outcome {
        Ok(done) => done,
        Err(Stop::Unreadable(unreadable)) => return Err(unreadable),
        Err(Stop::NameTwice) => unreachable!("a patient reader waits for the last of each name"),
    };
    let records = parts.iter().map(|part| u64::from(part.records)).sum();
    let rejected = rejects.count();
    let token = envelope.token.map(|token| Token(token.unescape().into_owned()));
    Ok(Parsed { parts, records, rejects: rejects.into_vec(), rejected, token })
}

/// The SDK key that a beacon's body carries: what to know before [`parse`] can be told whose the post is.
///
/// # Errors
/// [`Unreadable`] where [`parse`] would find the body so.
pub fn beacon_token(body: &[u8]) -> Result<Option<Token>, Unreadable> {
    let envelope = Envelope::read(&mut Scanner::new(body)?, Form::Beacon)?;
    Ok(envelope.token.map(|token| Token(token.unescape().into_owned())))
}

/// Header values made JSON text.
struct Headers {
    sdk: Vec<u8>,
    machine_name: Vec<u8>,
    machine_ip: Vec<u8>,
    mode: Vec<u8>,
}

impl Headers {
    fn new(meta: &BatchMeta<'_>) -> Self {
        let escaped = |plain: &[u8]| {
            let mut text = Vec::with_capacity(plain.len());
            escape(plain, &mut text);
            text
        };
        Self {
            sdk: escaped(meta.sdk),
            machine_name: escaped(meta.machine_name),
            machine_ip: escaped(meta.machine_ip),
            mode: escaped(meta.mode),
        }
    }
}

/// What all impressions of the post share: the body's word before the headers', each cut to its limit.
fn shared<'a>(headers: &'a Headers, envelope: &Envelope<'a>, meta: &BatchMeta<'_>, limits: &Limits) -> Shared<'a> {
    let pick = |body: Option<JsonText<'a>>, header: &'a [u8]| {
        let text = body.filter(|text| !text.is_empty()).unwrap_or(JsonText::checked(header));
        if text.as_bytes().len() > limits.shared_bytes_max { text.cut(limits.shared_bytes_max) } else { text }
    };
    Shared {
        sdk: pick(envelope.sdk, &headers.sdk),
        machine_name: pick(envelope.machine_name, &headers.machine_name),
        machine_ip: pick(envelope.machine_ip, &headers.machine_ip),
        mode: pick(envelope.mode, &headers.mode),
        received_ms: meta.received_ms,
        sdk_key_index: meta.sdk_key_index,
    }
}

#[cfg(test)]
mod tests;
