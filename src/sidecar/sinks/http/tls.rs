//! The TLS settings of connections: whom destinations trust, and as whom they show themselves.

#[cfg(test)]
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

#[cfg(test)]
use hyper_util::client::legacy::connect::dns::Name;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::connections::{Connections, IDLE_MAX};
use super::names::Names;
use super::trusted::Trusted;
use crate::config::TlsSettings;
use crate::delivery::outcome::Failure;

/// What connections over TLS need, the count of all connections, and who looks names up. One for all destinations that ask
/// for nothing of their own: the machine's trusted certificates are large.
pub struct Tls {
    pub(super) connections: Arc<Connections>,
    pub(super) names: Names,
    /// For `https`.
    trusted: Arc<Trusted>,
    /// For plain HTTP: no certificate is ever looked at, so none is loaded.
    plain: OnceLock<Arc<ClientConfig>>,
}

/// What connections of one kind go by.
pub(super) enum Over {
    Plain(Arc<ClientConfig>),
    Tls(Arc<Trusted>),
}

impl Over {
    /// The settings of connections made now. May read files.
    ///
    /// # Errors
    /// When there is no certificate to trust.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        match self {
            Self::Plain(config) => Ok(Arc::clone(config)),
            Self::Tls(trusted) => trusted.config(),
        }
    }
}

impl Default for Tls {
    /// The machine's own, and as many idle connections as are kept by default.
    fn default() -> Self {
        Self::keeping_idle(IDLE_MAX)
    }
}

impl Tls {
    /// The machine's own. So many idle connections are kept, by all who are given this one.
    #[must_use]
    pub fn keeping_idle(connections_max: usize) -> Self {
        Self::with(TlsSettings::default(), Arc::new(Connections::new(connections_max)), Names::default())
    }

    /// With certificates of a destination's own. Its connections and lookups count with the others.
    #[must_use]
    pub fn of(own: TlsSettings, others: &Self) -> Self {
        Self::with(own, Arc::clone(&others.connections), others.names.clone())
    }

    /// The machine's own, where whoever asks for a name hears this.
    #[cfg(test)]
    pub(crate) fn hearing<F>(answer: impl Fn() -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<SocketAddr>, String>> + Send + 'static,
    {
        let resolver = tower::service_fn(move |_: Name| {
            let answering = answer();
            async move { answering.await.map(Vec::into_iter) }
        });
        Self::with(TlsSettings::default(), Arc::new(Connections::new(IDLE_MAX)), Names::asking(resolver))
    }

    fn with(own: TlsSettings, connections: Arc<Connections>, names: Names) -> Self {
        Self { connections, names, trusted: Arc::new(Trusted::of(own)), plain: OnceLock::new() }
    }

    /// For `https`, or for `http`.
    pub(super) fn over(&self, tls: bool) -> Over {
        if tls {
            return Over::Tls(Arc::clone(&self.trusted));
        }
        let make = || Arc::new(builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        Over::Plain(Arc::clone(self.plain.get_or_init(make)))
    }
}

pub(super) fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for the default TLS versions")
}

#[cfg(test)]
mod tests;
