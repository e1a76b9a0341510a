//! What an upstream is told: where Split listens, and how much of the disk posts may take while they wait for it.

use super::{Endpoint, limits};

/// Where Split takes impressions and events.
pub const SPLIT_EVENTS: &str = "https://events.split.io/api";

/// Where Split takes unique keys and metrics.
pub const SPLIT_TELEMETRY: &str = "https://telemetry.split.io/api/v1";

/// SDKs' posts as they came, to Split's own endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamConfig {
    /// The base for impressions and events: `testImpressions/bulk` and the like are below it.
    pub events: Endpoint,
    /// The base for unique keys and metrics: `keys/ss` and the like are below it.
    pub telemetry: Endpoint,
    /// What posts that wait may take of the disk: a log of its own, of this budget.
    pub max_bytes: u64,
}

impl Default for UpstreamConfig {
    /// Split's own endpoints.
    fn default() -> Self {
        let known = |text| Endpoint::parse(text).expect("it is an address");
        Self {
            events: known(SPLIT_EVENTS),
            telemetry: known(SPLIT_TELEMETRY),
            max_bytes: limits::UPSTREAM_SHARE_BYTES.default,
        }
    }
}

impl UpstreamConfig {
    /// Both bases on one host, as Split's Proxy has them. `url` is the events base, with or without `/api`.
    ///
    /// # Errors
    /// When that is no base.
    pub fn at(url: &str) -> Result<Self, NotABase> {
        let events = events_base(url)?;
        let telemetry = telemetry_base(url)?;
        Ok(Self { events, telemetry, ..Self::default() })
    }
}

/// Why an address is not one that paths can be put behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotABase {
    /// No address at all.
    #[error(transparent)]
    Endpoint(#[from] super::EndpointError),
    /// It has a query.
    #[error("the address has a query, and paths are put behind it")]
    Query,
}

impl NotABase {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Endpoint(error) => error.remedy(),
            Self::Query => "remove the ? and what follows it",
        }
    }
}

/// The base of events: what is given to SDKs, with or without `/api` and a slash at its end.
pub(super) fn events_base(url: &str) -> Result<Endpoint, NotABase> {
    base(url, "/api")
}

/// The base of telemetry: with or without `/api/v1`, or `/v1` alone missing.
pub(super) fn telemetry_base(url: &str) -> Result<Endpoint, NotABase> {
    let url = url.trim_end_matches('/');
    base(if url.ends_with("/api") { url } else { url.trim_end_matches("/v1").trim_end_matches('/') }, "/api")
        .and_then(|base| Ok(Endpoint::parse(&format!("{}/v1", base.trimmed()))?))
}

fn base(url: &str, end: &str) -> Result<Endpoint, NotABase> {
    if url.contains('?') {
        return Err(NotABase::Query);
    }
    // Judged as it was written, so that a mistake is told of it.
    Endpoint::parse(url)?;
    let url = url.trim_end_matches('/');
    let whole = if url.ends_with(end) { url.to_owned() } else { format!("{url}{end}") };
    Ok(Endpoint::parse(&whole)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_taken_with_and_without_its_end() {
        for url in ["http://host:1", "http://host:1/", "http://host:1/api", "http://host:1/api/"] {
            let at = UpstreamConfig::at(url).unwrap();
            assert_eq!(at.events.below("events/bulk").unwrap(), "http://host:1/api/events/bulk", "{url}");
            assert_eq!(at.telemetry.below("keys/ss").unwrap(), "http://host:1/api/v1/keys/ss", "{url}");
        }
        for url in ["https://t/api/v1", "https://t/api/v1/", "https://t/api", "https://t", "https://t/v1"] {
            assert_eq!(telemetry_base(url).unwrap().below("keys/cs").unwrap(), "https://t/api/v1/keys/cs", "{url}");
        }
        let behind = events_base("https://gate/split").unwrap();
        assert_eq!(behind.below("events/bulk").unwrap(), "https://gate/split/api/events/bulk");
    }

    #[test]
    fn what_is_no_base_says_so() {
        assert_eq!(UpstreamConfig::at("http://h/api?x=1"), Err(NotABase::Query));
        assert!(matches!(UpstreamConfig::at("split.io"), Err(NotABase::Endpoint(_))));
    }

    #[test]
    fn splits_own_endpoints_are_the_defaults() {
        let split = UpstreamConfig::default();
        assert_eq!(split.events, events_base("https://events.split.io").unwrap());
        assert_eq!(split.telemetry, telemetry_base("https://telemetry.split.io").unwrap());
    }
}
