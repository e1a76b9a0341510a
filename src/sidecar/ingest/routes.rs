//! Which request is which: method and path in, [`Route`] out. Pure; knows no header, no body, no key.
//!
//! SDKs are given a base URL with or without `/api` and with or without a slash at its end, so both prefixes mean the
//! same and repeated slashes count as one.

use hyper::Method;

use crate::impression::Form;
use crate::post::Kind;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Impressions, in one of their forms.
    Impressions(Form),
    /// Something else that an SDK posts: kept for an upstream, or taken and dropped.
    Other(Kind),
    /// Metrics of SDKs of old, which Split's own Proxy drops too.
    Ignored,
    /// The health check of the JavaScript SDK.
    Version,
    /// A browser asks whether it may.
    Preflight,
    /// The path is known; the method is not among these.
    WrongMethod {
        /// For the `Allow` header.
        allow: &'static str,
    },
    /// Nobody lives here.
    Unknown,
}

/// What lives at a path.
#[derive(Clone, Copy)]
enum Place {
    Impressions(Form),
    Other(Kind),
    Ignored,
    Version,
}

/// The route of a request. `path` is without its query.
pub(crate) fn of(method: &Method, path: &str) -> Route {
    let Some(place) = place(path) else { return Route::Unknown };
    if method == Method::OPTIONS {
        return Route::Preflight;
    }
    match place {
        Place::Version if method == Method::GET || method == Method::HEAD => Route::Version,
        Place::Version => Route::WrongMethod { allow: "GET, HEAD, OPTIONS" },
        _ if method != Method::POST => Route::WrongMethod { allow: "POST, OPTIONS" },
        Place::Impressions(form) => Route::Impressions(form),
        Place::Other(kind) => Route::Other(kind),
        Place::Ignored => Route::Ignored,
    }
}

fn place(path: &str) -> Option<Place> {
    let mut rest = path.split('/').filter(|part| !part.is_empty()).peekable();
    let _prefix = rest.next_if_eq(&"api");
    // No path of ours has more than four parts; a fifth makes it unknown.
    let mut parts = [""; 4];
    let mut count = 0;
    for part in rest {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let place = match &parts[..count] {
        ["testImpressions", "bulk"] => Place::Impressions(Form::Bulk),
        ["testImpressions", "beacon"] => Place::Impressions(Form::Beacon),
        ["listener"] => Place::Impressions(Form::Listener),
        ["version"] => Place::Version,
        ["testImpressions", "count"] => Place::Other(Kind::Counts),
        ["testImpressions", "count", "beacon"] => Place::Other(Kind::CountsBeacon),
        ["events", "bulk"] => Place::Other(Kind::Events),
        ["events", "beacon"] => Place::Other(Kind::EventsBeacon),
        // Split Proxy serves telemetry with and without `/v1`.
        ["v1", rest @ ..] | rest => telemetry(rest)?,
    };
    Some(place)
}

/// Unique keys and metrics, today's and the old SDKs'.
fn telemetry(parts: &[&str]) -> Option<Place> {
    Some(match parts {
        ["keys", "ss"] => Place::Other(Kind::KeysOfServer),
        ["keys", "ss", "beacon"] => Place::Other(Kind::KeysOfServerBeacon),
        ["keys", "cs"] => Place::Other(Kind::KeysOfClient),
        ["keys", "cs", "beacon"] => Place::Other(Kind::KeysOfClientBeacon),
        ["metrics", "config"] => Place::Other(Kind::MetricsConfig),
        ["metrics", "usage"] => Place::Other(Kind::MetricsUsage),
        ["metrics", "usage", "beacon"] => Place::Other(Kind::MetricsUsageBeacon),
        ["metrics", "times" | "counters" | "gauge" | "time" | "counter"] => Place::Ignored,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str) -> Route {
        of(&Method::POST, path)
    }

    #[test]
    fn api_and_doubled_slashes_make_no_difference() {
        for path in [
            "/api/testImpressions/bulk",
            "/testImpressions/bulk",
            "/api//testImpressions/bulk",
            "//api/testImpressions//bulk/",
            "testImpressions/bulk",
        ] {
            assert_eq!(post(path), Route::Impressions(Form::Bulk), "{path}");
        }
        assert_eq!(post("/api/testImpressions/beacon"), Route::Impressions(Form::Beacon));
        assert_eq!(post("/api/listener"), Route::Impressions(Form::Listener));
        assert_eq!(post("/listener"), Route::Impressions(Form::Listener));
    }

    #[test]
    fn every_other_post_of_an_sdk_is_known_with_and_without_its_prefixes() {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_impressions()) {
            assert_eq!(post(&format!("/api/{}", kind.path())), Route::Other(kind));
            assert_eq!(post(kind.path()), Route::Other(kind));
        }
        assert_eq!(post("/api/keys/ss"), Route::Other(Kind::KeysOfServer));
        assert_eq!(post("/api/metrics/usage"), Route::Other(Kind::MetricsUsage));
    }

    #[test]
    fn metrics_of_old_sdks_are_ignored_and_not_refused() {
        for name in ["times", "counters", "gauge", "time", "counter"] {
            assert_eq!(post(&format!("/api/metrics/{name}")), Route::Ignored, "{name}");
        }
    }

    #[test]
    fn what_is_not_ours_is_unknown() {
        for path in [
            "/",
            "",
            "/api",
            "/api/api/version",
            "/api/testImpressions",
            "/a/b/c/d/e/f/g",
            "/api/testImpressions/bulk/x",
        ] {
            assert_eq!(post(path), Route::Unknown, "{path}");
            assert_eq!(of(&Method::OPTIONS, path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        assert_eq!(of(&Method::GET, "/api/testImpressions/bulk"), Route::WrongMethod { allow: "POST, OPTIONS" });
        assert_eq!(of(&Method::POST, "/api/version"), Route::WrongMethod { allow: "GET, HEAD, OPTIONS" });
        assert_eq!(of(&Method::GET, "/api/version"), Route::Version);
        assert_eq!(of(&Method::OPTIONS, "/api//events/bulk"), Route::Preflight);
    }
}
