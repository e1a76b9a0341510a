//! Whom destinations trust, and as whom they show themselves: the TLS settings of connections, made at their first use.

use std::sync::{Arc, OnceLock};

use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::connections::{Connections, IDLE_MAX};
use super::names::Names;
use crate::config::TlsSettings;
use crate::delivery::outcome::Failure;

/// What connections over TLS need, the count of all connections, and who looks names up. One for all destinations that ask for nothing of
/// their own: the machine's trusted certificates are large.
pub struct Tls {
    pub(super) connections: Arc<Connections>,
    pub(super) names: Names,
    config: OnceLock<Result<ClientConfig, String>>,
    /// For plain HTTP: no certificate is ever looked at, so none is loaded.
    plain: OnceLock<ClientConfig>,
    own: TlsSettings,
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
        let connections = Arc::new(Connections::new(connections_max));
        let (names, config, plain, own) = Default::default();
        Self { connections, names, config, plain, own }
    }

    /// With certificates of a destination's own. Its connections and lookups count with the others.
    #[must_use]
    pub fn of(own: TlsSettings, others: &Self) -> Self {
        let (connections, names) = (Arc::clone(&others.connections), others.names.clone());
        Self { connections, names, own, ..Self::keeping_idle(0) }
    }

    /// For `https`. Reads the machine's trusted certificates when first called.
    pub(super) fn config(&self) -> Result<ClientConfig, Failure> {
        self.config.get_or_init(|| self.load()).clone().map_err(Failure::Connect)
    }

    /// For `http`. Cheap to clone, as the other: what is large in it is shared.
    pub(super) fn plain(&self) -> ClientConfig {
        let make = || builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        self.plain.get_or_init(make).clone()
    }

    fn load(&self) -> Result<ClientConfig, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots.add_parsable_certificates(self.own.authorities.iter().cloned());
        if roots.is_empty() {
            let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
            return Err(format!("no trusted certificates: {why}; install ca-certificates or set SSL_CERT_FILE"));
        }
        let builder = builder().with_root_certificates(roots);
        Ok(match &self.own.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let shown = SingleCertAndKey::from(Arc::clone(client.reveal()));
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        })
    }
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for the default TLS versions")
}

#[cfg(test)]
mod tests;
