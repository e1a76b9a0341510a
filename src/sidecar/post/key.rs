//! The SDK key in a body: cut out where it stands, put back when the body is sent. Pure.
//!
//! The body becomes the pieces between the key's places, so that joining them with the key gives the same bytes. A
//! beacon may also spell its token with escapes; then that spelling is cut out, and what is put back is equal as JSON.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;
use ring::digest;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::TooManyKeys;

/// A body is searched for keys of at least this length: Split's have 36 and more, and a shorter one of a test would
/// be found in any text.
const KEY_BYTES_MIN: usize = 8;

/// So often a body may name its key: beacons do once, what else SDKs post never.
pub(super) const KEY_PLACES_MAX: usize = 64;

/// Tells keys apart without holding one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Check(pub(super) u32);

impl Check {
    /// The check of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, key);
        let first = digest.as_ref().first_chunk().expect("a digest has 32 bytes");
        Self(u32::from_le_bytes(*first))
    }
}

/// What a beacon's envelope says of its sender.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    token: Option<&'a RawValue>,
}

/// The SDK key that a beacon of any kind carries; `None` when its body is no envelope or has none.
#[must_use]
pub fn token(body: &[u8]) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    serde_json::from_str(envelope.token?.get()).ok()
}

/// The pieces of a body between the places of the key.
pub(super) fn cut(body: &Bytes, key: &[u8], beacon: bool) -> Result<Vec<Bytes>, TooManyKeys> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places(body, &as_json(key), beacon)? {
        pieces.push(body.slice(from..place.start));
        from = place.end;
    }
    pieces.push(body.slice(from..));
    Ok(pieces)
}

/// Where the key stands, in order; no two places overlap.
fn places(body: &[u8], text: &[u8], beacon: bool) -> Result<Vec<Range<usize>>, TooManyKeys> {
    let mut places = Vec::new();
    if text.len() >= KEY_BYTES_MIN {
        let found = memmem::find_iter(body, text).take(KEY_PLACES_MAX + 1);
        places.extend(found.map(|at| at..at + text.len()));
        if places.len() > KEY_PLACES_MAX {
            return Err(TooManyKeys);
        }
    }
    if let Some(token) = beacon.then(|| token_text(body)).flatten() {
        // Short, or spelt with escapes: the search did not find it.
        let before = places.partition_point(|place| place.end <= token.start);
        if places.get(before).is_none_or(|place| place.start >= token.end) {
            places.insert(before, token);
        }
    }
    Ok(places)
}

/// The body with the key between its pieces.
pub(super) fn put_back(pieces: &[Bytes], key: &[u8]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        // Most bodies: sent from where they lie.
        [whole] => whole.clone(),
        _ => pieces.join(&as_json(key)[..]).into(),
    }
}

/// Where the token's text stands, without its quotes.
fn token_text(body: &[u8]) -> Option<Range<usize>> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    let raw = envelope.token?.get();
    let text = raw.strip_prefix('"')?.strip_suffix('"')?;
    let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    Some(start..start + text.len())
}

/// A key as it stands between the quotes of a JSON string.
pub(super) fn as_json(key: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(key.len());
    for &byte in key {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text
}
