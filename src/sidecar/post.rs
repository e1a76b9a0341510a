//! An SDK's post as it came: what is kept of it for Split's own endpoints, and what goes out again.
//!
//! Pure: knows no log and no configuration. The stored form is `proto/forebay/v1/post.proto`. What always holds: no
//! byte of the SDK key is in it (wherever the key stood, it is cut out), and what [`Post::request`] makes with the
//! same key is what the SDK sent: the body byte for byte, and those of its headers that say something to Split.

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod key;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use thiserror::Error;

use crate::proto::v1::StoredPost;

use key::KEY_PLACES_MAX;
pub use key::{Check, token};

/// The header that Java fills with the last characters of its key.
const CLIENT_KEY: HeaderName = HeaderName::from_static("splitsdkclientkey");

/// The longest path that is believed when it is read back: ours have 30 bytes.
const PATH_BYTES_MAX: usize = 64;

/// What kind of post it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Impressions in bulk.
    Impressions,
    /// The same from a browser that leaves its page.
    ImpressionsBeacon,
    /// How often flags were evaluated.
    Counts,
    /// The same from a browser that leaves its page.
    CountsBeacon,
    /// What an application tracked.
    Events,
    /// The same from a browser that leaves its page.
    EventsBeacon,
    /// Unique keys of a server's SDK.
    KeysOfServer,
    /// The same as a beacon.
    KeysOfServerBeacon,
    /// Unique keys of a client's SDK.
    KeysOfClient,
    /// The same from a browser that leaves its page.
    KeysOfClientBeacon,
    /// How an SDK is set up.
    MetricsConfig,
    /// How it fares.
    MetricsUsage,
    /// The same from a browser that leaves its page.
    MetricsUsageBeacon,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Impressions,
        Self::ImpressionsBeacon,
        Self::Counts,
        Self::CountsBeacon,
        Self::Events,
        Self::EventsBeacon,
        Self::KeysOfServer,
        Self::KeysOfServerBeacon,
        Self::KeysOfClient,
        Self::KeysOfClientBeacon,
        Self::MetricsConfig,
        Self::MetricsUsage,
        Self::MetricsUsageBeacon,
    ];

    /// Where it is posted: below `/api`, those of telemetry with their `v1`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Impressions => "testImpressions/bulk",
            Self::ImpressionsBeacon => "testImpressions/beacon",
            Self::Counts => "testImpressions/count",
            Self::CountsBeacon => "testImpressions/count/beacon",
            Self::Events => "events/bulk",
            Self::EventsBeacon => "events/beacon",
            Self::KeysOfServer => "v1/keys/ss",
            Self::KeysOfServerBeacon => "v1/keys/ss/beacon",
            Self::KeysOfClient => "v1/keys/cs",
            Self::KeysOfClientBeacon => "v1/keys/cs/beacon",
            Self::MetricsConfig => "v1/metrics/config",
            Self::MetricsUsage => "v1/metrics/usage",
            Self::MetricsUsageBeacon => "v1/metrics/usage/beacon",
        }
    }

    /// Whether its body is an envelope with the key in it.
    #[must_use]
    pub fn is_beacon(self) -> bool {
        self.path().ends_with("/beacon")
    }

    /// Whether it carries impressions.
    #[must_use]
    pub fn is_impressions(self) -> bool {
        matches!(self, Self::Impressions | Self::ImpressionsBeacon)
    }
}

/// The name of the stream that keeps the posts of one key of an environment, in the order in which they came.
#[must_use]
pub fn stream(environment: &str, sdk_key_index: u32) -> String {
    format!("posts/{environment}/{sdk_key_index}")
}

/// Whose posts a stream of [`stream`]'s names keeps.
#[must_use]
pub fn stream_owner(name: &str) -> Option<(&str, u32)> {
    let (environment, index) = name.strip_prefix("posts/")?.split_once('/')?;
    Some((environment, index.parse().ok()?))
}

/// Whose a post is, for people: never the key itself.
#[must_use]
pub fn key_name(environment: &str, sdk_key_index: u32) -> String {
    format!("sdk key {sdk_key_index} of environment {environment}")
}

/// What is known of a post beside its head and its body.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// What it is.
    pub kind: Kind,
    /// When it came, in milliseconds since 1970.
    pub received_ms: u64,
    /// The environment whose key it showed.
    pub environment: &'a str,
    /// The SDK key that it showed.
    pub key: &'a [u8],
    /// The key's place in its environment's list.
    pub sdk_key_index: u32,
}

/// A body that names its SDK key more often than any SDK does: cut out everywhere, it would take far more memory than it
/// has bytes, here and wherever it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the body names the sdk key more than {KEY_PLACES_MAX} times")]
pub struct TooManyKeys;

/// The stored form of a post. `body` is without compression.
///
/// # Errors
/// [`TooManyKeys`].
pub fn keep(arrival: &Arrival<'_>, headers: &HeaderMap, body: &Bytes) -> Result<Vec<u8>, TooManyKeys> {
    let Arrival { kind, received_ms, environment, key, sdk_key_index } = *arrival;
    let shown = headers.get(CLIENT_KEY).map(HeaderValue::as_bytes);
    let client_key_chars = shown.filter(|end| key.ends_with(end)).map_or(0, <[u8]>::len);
    let post = StoredPost {
        received_ms,
        path: kind.path().to_owned(),
        environment: environment.to_owned(),
        sdk_key_index,
        authorized: headers.contains_key(AUTHORIZATION),
        client_key_chars: u32::try_from(client_key_chars).unwrap_or(0),
        key_check: Check::of(key).0,
        headers: head::kept(headers, key),
        body: key::cut(body, key, kind.is_beacon())?,
    };
    Ok(post.encode_to_vec())
}

/// A post that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Post(StoredPost);

/// Why a payload is no post.
#[derive(Debug, Error)]
pub enum Malformed {
    /// Not the message.
    #[error("not a stored post: {0}")]
    Message(#[from] prost::DecodeError),
    /// A path that nothing was ever kept under.
    #[error("a post's path is not one of an sdk's")]
    Path,
    /// Not a header.
    #[error("a post's header {0} can't be sent")]
    Header(usize),
}

/// What is sent of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its headers; that of the key is marked as sensitive.
    pub headers: HeaderMap,
    /// Its body, as it came.
    pub body: Bytes,
}

impl Post {
    /// Reads a payload. The body stays where it is, uncopied.
    ///
    /// # Errors
    /// When it holds something that [`keep`] does not write.
    pub fn read(payload: &Bytes) -> Result<Self, Malformed> {
        let post = StoredPost::decode(payload.clone())?;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
        let path = post.path.as_bytes();
        if path.is_empty() || path.len() > PATH_BYTES_MAX || path[0] == b'/' || !path.iter().copied().all(letter) {
            return Err(Malformed::Path);
        }
        match post.headers.iter().position(|header| head::read(header).is_none()) {
            Some(place) => Err(Malformed::Header(place)),
            None => Ok(Self(post)),
        }
    }

    /// Where it was posted; see [`Kind::path`].
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The id of the environment whose key it showed.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.0.environment
    }

    /// The place of its SDK key in the list of its environment, when it came.
    #[must_use]
    pub fn sdk_key_index(&self) -> u32 {
        self.0.sdk_key_index
    }

    /// Tells its SDK key from others.
    #[must_use]
    pub fn key_check(&self) -> Check {
        Check(self.0.key_check)
    }

    /// When it came, in milliseconds since 1970.
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        self.0.received_ms
    }

    /// The size of its body, without the key where that stood in it.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.0.body.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Its Content-Type; empty if it had none.
    #[must_use]
    pub fn content_type(&self) -> String {
        let header = self.0.headers.iter().find(|header| header.name == CONTENT_TYPE.as_str());
        header.map_or_else(String::new, |header| String::from_utf8_lossy(&header.value).into_owned())
    }

    /// The first characters of its body, with `[sdk key]` wherever the key stood. For people: what is no text is shown as
    /// `�`.
    #[must_use]
    pub fn excerpt(&self, chars_max: usize) -> String {
        let mut text = String::new();
        for (at, piece) in self.0.body.iter().enumerate() {
            if at > 0 {
                text.push_str("[sdk key]");
            }
            // No character is longer, so this is enough of it.
            let start = &piece[..piece.len().min(chars_max.saturating_mul(4))];
            text.push_str(&String::from_utf8_lossy(start));
            if text.len() >= chars_max.saturating_mul(4) {
                break;
            }
        }
        text.chars().take(chars_max).collect()
    }

    /// What to send, with `key` wherever the SDK had its own.
    ///
    /// # Errors
    /// When the key can't stand in a header.
    pub fn request(&self, key: &str) -> Result<Request, hyper::header::InvalidHeaderValue> {
        let mut headers: HeaderMap = self.0.headers.iter().filter_map(head::read).collect();
        if self.0.authorized {
            headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {key}"))?);
        }
        if self.0.client_key_chars > 0 {
            let start = key.len().saturating_sub(self.0.client_key_chars as usize);
            headers.insert(CLIENT_KEY, sensitive(key.get(start..).unwrap_or(key))?);
        }
        Ok(Request { headers, body: key::put_back(&self.0.body, key.as_bytes()) })
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, hyper::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
