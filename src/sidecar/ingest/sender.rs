//! Who sends: what the head of a request says about the SDK, and the key it shows. Pure.

use std::borrow::Cow;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;

use crate::impression::{BatchMeta, Form};

/// Of what an unknown sender calls itself: "ruby-8.4.0" and its like are a dozen.
const SDK_CHARS_MAX: usize = 40;

/// The key that the head shows. A listener's sender (Split Synchronizer, Split Evaluator) sets no headers, but its URL
/// is free: there the key may stand in the query, `/api/listener?key=<sdk key>`. A beacon's is in its body.
pub(crate) fn key(head: &Parts, form: Form) -> Option<Cow<'_, [u8]>> {
    match (bearer_key(&head.headers), form) {
        (Some(key), _) => Some(Cow::Borrowed(key)),
        (None, Form::Listener) => key_in_query(head.uri.query()?).map(Cow::Owned),
        (None, _) => None,
    }
}

/// The key of a post that is no impressions', if its head shows one.
pub(crate) fn bearer_key(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()))
}

/// What the log keeps of the sender; a missing header is empty.
pub(crate) fn meta(headers: &HeaderMap, received_ms: u64, sdk_key_index: u32) -> BatchMeta<'_> {
    // Split Proxy renames the mode's header on its way.
    let mode = headers.get("splitsdkimpressionsmode").or_else(|| headers.get("sdkimpressionsmode"));
    let value = |name: &'static str| headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    BatchMeta {
        sdk: value("splitsdkversion"),
        machine_name: value("splitsdkmachinename"),
        machine_ip: value("splitsdkmachineip"),
        mode: mode.map_or(&[], HeaderValue::as_bytes),
        received_ms,
        sdk_key_index,
    }
}

/// What the sender says it is, for people: it may be anybody, so it is kept short.
pub(crate) fn sdk(headers: &HeaderMap) -> String {
    let text = headers.get("splitsdkversion").map_or(Cow::Borrowed(""), |sdk| String::from_utf8_lossy(sdk.as_bytes()));
    text.chars().take(SDK_CHARS_MAX).collect()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.trim_ascii().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii_start())
}

fn key_in_query(query: &str) -> Option<Vec<u8>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    Some(percent_decoded(value.as_bytes()))
}

/// `%41` becomes `A`; a `%` without two hexadecimal digits stays as it is.
fn percent_decoded(mut rest: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| tail.first_chunk::<2>().and_then(|digits| hex(*digits))).flatten();
        decoded.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_bearer_token_is_the_key() {
        let bulk = |value| {
            let head = head("/", &[("Authorization", value)]);
            key(&head, Form::Bulk).map(|key| String::from_utf8(key.into_owned()).unwrap())
        };
        assert_eq!(bulk("Bearer key-1").as_deref(), Some("key-1"));
        assert_eq!(bulk("bearer   key-1").as_deref(), Some("key-1"));
        for value in ["key-1", "Basic key-1", "Bearer", "", "Bea"] {
            assert_eq!(bulk(value), None, "{value:?}");
        }
    }

    #[test]
    fn only_a_listener_may_show_its_key_in_the_query() {
        let head = head("/listener?a=b&key=ke%79%2d1%&c", &[]);
        assert_eq!(key(&head, Form::Listener).as_deref(), Some(&b"key-1%"[..]));
        assert_eq!(key(&head, Form::Bulk), None);
    }

    #[test]
    fn the_sdk_is_taken_from_its_headers_and_from_a_proxys() {
        let sdk = head("/", &[("SplitSDKVersion", "go-6.8.1"), ("SplitSDKMachineIp", "10.0.0.1")]);
        let meta_of = meta(&sdk.headers, 5, 1);
        assert_eq!((meta_of.sdk, meta_of.machine_ip), (&b"go-6.8.1"[..], &b"10.0.0.1"[..]));
        assert_eq!((meta_of.machine_name, meta_of.mode), (&[][..], &[][..]));
        let proxy = head("/", &[("SDKImpressionsMode", "optimized")]);
        assert_eq!(meta(&proxy.headers, 5, 1).mode, b"optimized");
    }
}
