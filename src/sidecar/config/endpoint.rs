//! The address of an HTTP destination.
//!
//! Checked once, when it is made: http or https, with a host, nothing that would not be sent. Paths and queries of
//! webhooks often are the password, so `Debug` and `Display` show scheme, host and port only.

use std::fmt;
use std::sync::Arc;

use hyper::Uri;

/// An `http` or `https` address with a host. Kept as its text, shared by all clones: taken apart it is six times as
/// large, and most destinations are idle.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<str>);

/// Why a text is no endpoint. Says nothing of the text: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `http://` nor `https://` in front.
    #[error("the address does not start with http:// or https://")]
    Scheme,
    /// Nothing between the slashes.
    #[error("the address has no host")]
    NoHost,
    /// `user:password@` before the host.
    #[error("the address holds a user or password")]
    Credentials,
    /// What follows the host's colon is no port.
    #[error("the address has no usable port after its colon")]
    Port,
    /// `#...` is for browsers: it is never sent.
    #[error("the address has a fragment, which is never sent")]
    Fragment,
    /// Some character that an address can't hold.
    #[error("the address holds characters that an address can't have")]
    Unreadable,
}

impl EndpointError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Scheme | Self::NoHost => "write it in full, such as \"https://example.com/impressions\"",
            Self::Credentials => "send them as a header: headers = { authorization = \"env:NAME\" }",
            Self::Port => "write a port from 1 to 65535 after the host, or none",
            Self::Fragment => "remove the # and what follows it",
            Self::Unreadable => "write spaces and other such characters as %20 and so on, and foreign names as xn--...",
        }
    }
}

impl Endpoint {
    /// Checks an address.
    ///
    /// # Errors
    /// Says what it lacks; see [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(EndpointError::Scheme);
        }
        if rest.contains('#') {
            return Err(EndpointError::Fragment);
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return Err(EndpointError::NoHost);
        }
        if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err(EndpointError::Port);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::Unreadable)?;
        if uri.host().is_none_or(str::is_empty) { Err(EndpointError::NoHost) } else { Ok(Self(text.into())) }
    }

    /// The whole address, for sending. May hold a secret: do not log it.
    #[must_use]
    pub fn uri(&self) -> Uri {
        self.0.parse().expect("parse() has read it as one before")
    }

    /// The address of `path` below this one, which has no query; `path` starts without a slash.
    ///
    /// # Errors
    /// When that is no address.
    pub fn below(&self, path: &str) -> Result<Uri, hyper::http::uri::InvalidUri> {
        format!("{}/{path}", self.trimmed()).parse()
    }

    /// The whole address without slashes at its end. May hold a secret: do not log it.
    pub(super) fn trimmed(&self) -> &str {
        self.0.trim_end_matches('/')
    }

    /// The whole address, if it is no more than scheme, host and port: then there is nothing to hide.
    #[must_use]
    pub fn host_alone(&self) -> Option<String> {
        let shown = self.to_string();
        (self.trimmed().eq_ignore_ascii_case(&shown)).then_some(shown)
    }

    /// The host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(self.authority()).0.trim_matches(['[', ']'])
    }

    /// What stands between the slashes.
    fn authority(&self) -> &str {
        let (_, rest) = self.0.split_once("://").expect("parse() refuses an address without a scheme");
        rest.split(['/', '?']).next().unwrap_or_default()
    }
}

/// `host:port` in two; the colons of `[::1]` belong to the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_bracket..].find(':') {
        Some(colon) => (&authority[..after_bracket + colon], Some(&authority[after_bracket + colon + 1..])),
        None => (authority, None),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, _) = self.0.split_once("://").expect("parse() refuses an address without a scheme");
        write!(f, "{}://{}", scheme.to_ascii_lowercase(), self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self}/..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_addresses_are_taken_as_they_are() {
        for text in ["http://127.0.0.1:9000/impressions", "https://example.com", "HTTPS://[::1]:8443/a?b=c"] {
            let endpoint = Endpoint::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert!(!endpoint.host().is_empty() && !endpoint.host().contains('['));
        }
        assert_eq!(Endpoint::parse("https://[::1]:8443/a").expect("good").host(), "::1");
    }

    #[test]
    fn each_slip_has_its_own_reason() {
        use EndpointError as E;
        let slips = [
            ("example.com/x", E::Scheme),
            ("ftp://example.com", E::Scheme),
            ("http:///x", E::NoHost),
            ("http://:80/x", E::NoHost),
            ("https://me:pass@example.com", E::Credentials),
            ("http://example.com:99999/", E::Port),
            ("http://example.com:/", E::Port),
            ("http://example.com:0/", E::Port),
            ("http://example.com/#top", E::Fragment),
            ("http://exa mple.com/", E::Unreadable),
        ];
        for (text, why) in slips {
            assert_eq!(Endpoint::parse(text).err(), Some(why), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        let endpoint = Endpoint::parse("https://hooks.example.com/services/canary?token=canary").expect("good");
        assert_eq!(endpoint.to_string(), "https://hooks.example.com");
        assert!(!format!("{endpoint:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?\\PC{0,30}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                prop_assert!(!endpoint.host().is_empty() || text.contains("[]"));
            }
        }
    }
}
