//! The answers, ready to send. Every one lets any origin read it: SDKs in browsers post from their customers' pages,
//! and an answer that a browser hides counts as a failure there.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

/// What goes back.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What SDKs set, for a preflight that does not say.
const SDK_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization,content-type,splitsdkversion,splitsdkimpressionsmode,splitsdkmachineip,splitsdkmachinename,splitsdkclientkey",
);

/// Stored, all of it: 200 without a body, which no SDK reads.
pub(crate) fn stored() -> Answer {
    empty(StatusCode::OK)
}

/// Stored, with some elements that cannot be an impression set aside.
pub(crate) fn stored_with_rejects(stored: u64, rejected: u64) -> Answer {
    json(StatusCode::OK, format!("{{\"stored\":{stored},\"rejected\":{rejected}}}"))
}

/// Kept for the upstream: what Split itself answers.
pub(crate) fn kept() -> Answer {
    empty(StatusCode::OK)
}

/// Taken and dropped.
pub(crate) fn ignored() -> Answer {
    empty(StatusCode::ACCEPTED)
}

/// Which version this is.
pub(crate) fn version() -> Answer {
    json(StatusCode::OK, concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}").to_owned())
}

/// A browser may. It is given back the headers that it asks for: a future SDK's new header must not cost its
/// impressions.
pub(crate) fn preflight(asked: &HeaderMap) -> Answer {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let headers = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(SDK_HEADERS);
    set(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    set(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS"));
    set(&mut answer, header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}

/// The path is known, the method is not.
pub(crate) fn wrong_method(allow: &'static str) -> Answer {
    let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allow}"), None);
    set(&mut answer, header::ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Refused with the reason, and the byte of the body that it is about.
pub(crate) fn refused(status: StatusCode, why: &str, at: Option<u64>) -> Answer {
    let mut body = serde_json::json!({ "error": why });
    if let Some(at) = at {
        body["at"] = at.into();
    }
    json(status, body.to_string())
}

/// Not now; to be tried again after `seconds`.
pub(crate) fn unavailable(why: &str, seconds: u64) -> Answer {
    let mut answer = refused(StatusCode::SERVICE_UNAVAILABLE, why, None);
    set(&mut answer, header::RETRY_AFTER, seconds.into());
    answer
}

/// The same answer, as the last one of its connection.
pub(crate) fn and_close(mut answer: Answer) -> Answer {
    set(&mut answer, header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = empty(status);
    set(&mut answer, header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.body_mut() = Full::new(body.into());
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    set(&mut answer, header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: HeaderValue) {
    answer.headers_mut().insert(name, value);
}
