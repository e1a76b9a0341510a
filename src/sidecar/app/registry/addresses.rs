//! Addresses that a destination may not be on, where its settings name them: said before anything waits for them, and not
//! only at each try. A name is judged by what it resolves to, when it is connected to.

use super::Registry;
use crate::config::{Config, Destination, Endpoint, Finding, Severity, SinkConfig};
use crate::sinks::address_guard::{AddressGuard, AddressPolicy, Refused};

impl Registry {
    /// The first address of a destination made through the API that it may not be on.
    pub fn refused_address(&self, destination: &Destination) -> Option<Refused> {
        let (endpoints, _) = endpoints(destination);
        endpoints.into_iter().find_map(|(_, endpoint)| self.factory.customers().check_host(endpoint.host()).err())
    }
}

/// Destinations of a file that are on addresses which nothing is ever sent to.
#[must_use]
pub fn misplaced(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for destination in &config.destinations {
        let (endpoints, guard) = endpoints(destination);
        for (key, endpoint) in endpoints {
            let Err(refused) = guard.check_host(endpoint.host()) else { continue };
            findings.push(Finding {
                severity: Severity::Warning,
                line: None,
                path: format!("destinations[{}].{key}", destination.id),
                message: format!("nothing is ever sent there: {refused}"),
                remedy: "only what type = \"webhook\" or \"s3\" sends can be allowed there".to_owned(),
            });
        }
    }
    findings
}

/// Where a destination's settings say that it is, by their keys; and where it may be, if the file says so.
fn endpoints(destination: &Destination) -> (Vec<(&'static str, &Endpoint)>, AddressGuard) {
    let operators = |allowed: &[_]| AddressGuard::new(AddressPolicy::Operator, allowed);
    let named = |endpoint| Option::iter(endpoint).map(|endpoint| ("endpoint", endpoint)).collect();
    match &destination.sink {
        SinkConfig::Webhook(webhook) => (vec![("url", &webhook.url)], operators(&webhook.allow_addresses)),
        SinkConfig::S3(s3) => (named(&s3.endpoint), operators(&s3.allow_addresses)),
        SinkConfig::Amplitude(amplitude) => (named(&amplitude.endpoint), AddressGuard::plain()),
        SinkConfig::Segment(segment) => (named(&segment.endpoint), AddressGuard::plain()),
        SinkConfig::Upstream(upstream) => {
            (vec![("url", &upstream.events), ("telemetry_url", &upstream.telemetry)], AddressGuard::plain())
        }
        SinkConfig::File(_) => (Vec::new(), AddressGuard::plain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SegmentConfig, UpstreamConfig, WebhookConfig};

    #[test]
    fn a_file_that_names_an_address_which_nothing_is_sent_to_is_told_so() {
        let at = |url: &str| WebhookConfig::new(Endpoint::parse(url).unwrap());
        let metadata = "http://169.254.169.254/x";
        let allowed = WebhookConfig { allow_addresses: vec!["169.254.0.0/16".parse().unwrap()], ..at(metadata) };
        let segment = SegmentConfig { endpoint: Some(Endpoint::parse(metadata).unwrap()), ..SegmentConfig::new("key") };
        let destinations = [
            ("public", SinkConfig::Webhook(at("http://93.184.216.34/x"))),
            ("private", SinkConfig::Webhook(at("http://10.1.2.3/x"))),
            ("named", SinkConfig::Webhook(at("http://metadata.internal/x"))),
            ("allowed", SinkConfig::Webhook(allowed)),
            ("hook", SinkConfig::Webhook(at("http://2852039166/x"))),
            ("segment", SinkConfig::Segment(segment)),
            ("split", SinkConfig::Upstream(UpstreamConfig::at(metadata).unwrap())),
        ];
        let destinations =
            destinations.map(|(id, sink)| Destination::new(id, vec!["prod".to_owned()], sink)).into_iter().collect();
        let findings = misplaced(&Config { destinations, ..Config::default() });
        let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
        let expected = ["hook].url", "segment].endpoint", "split].url", "split].telemetry_url"];
        assert_eq!(paths, expected.map(|path| format!("destinations[{path}")));
        let told = &findings[0].message;
        assert!(told.contains("a cloud's metadata address") && told.contains("allow_addresses"), "{told}");
    }
}
