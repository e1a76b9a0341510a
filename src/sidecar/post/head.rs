//! Which headers of a post are kept. Pure.
//!
//! Those that an SDK sets to be read by Split, and what sort of client and page it was. What belongs to one
//! connection, to one hop or to a proxy's own secrets is not; nor is anything that holds the SDK key.

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, USER_AGENT};
use memchr::memmem;

use super::CLIENT_KEY;
use crate::proto::v1::stored_post::Header;

/// All that is kept of a head: SDKs fill half a kilobyte. What is beyond it is left out.
const HEADERS_BYTES_MAX: usize = 8 * 1024;

/// The headers to keep.
pub(super) fn kept(headers: &HeaderMap, key: &[u8]) -> Vec<Header> {
    let mut room = HEADERS_BYTES_MAX;
    let mut kept = Vec::new();
    for (name, value) in headers {
        let bytes = name.as_str().len() + value.len();
        if !is_kept(name) || holds(value, key) || bytes > room {
            continue;
        }
        room -= bytes;
        kept.push(Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
    }
    kept
}

/// A stored header as it is sent; `None` for what no header can be.
pub(super) fn read(header: &Header) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(header.name.as_bytes()).ok()?, HeaderValue::from_bytes(&header.value).ok()?))
}

fn is_kept(name: &HeaderName) -> bool {
    // Split Proxy renames the mode's header on its way.
    let of_sdk = name.as_str().starts_with("splitsdk") || name == "sdkimpressionsmode";
    (of_sdk && name != CLIENT_KEY) || [CONTENT_TYPE, USER_AGENT, ORIGIN].contains(name)
}

fn holds(value: &HeaderValue, key: &[u8]) -> bool {
    !key.is_empty() && memmem::find(value.as_bytes(), key).is_some()
}
