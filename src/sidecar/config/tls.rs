//! A destination's own certificates: the one that it shows, with its key, and those that it trusts besides the machine's.
//!
//! Read and put together once, so that a key which does not belong to its certificate is found before anything starts.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Secret;

/// Certificates of a destination's own.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// What the receiver is shown when it asks.
    pub client: Option<Secret<Arc<CertifiedKey>>>,
    /// Who else may vouch for the receiver.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Hash for TlsSettings {
    /// A key is that of its certificate, or [`TlsSettings::read`] had refused it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let shown = self.client.as_ref().map(|client| client.reveal().cert.iter());
        let shown: Vec<&[u8]> = shown.into_iter().flatten().map(AsRef::as_ref).collect();
        let trusted: Vec<&[u8]> = self.authorities.iter().map(AsRef::as_ref).collect();
        (shown, trusted).hash(state);
    }
}

/// Why certificates cannot be used. Says nothing of the key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// There is none, or one that is damaged.
    #[error("this is no certificate in PEM form")]
    Certificate,
    /// There is none, or one that is damaged or encrypted.
    #[error("this is no private key in PEM form")]
    Key,
    /// They do not go together.
    #[error("the certificate and the key can't be used together: {0}")]
    Pair(rustls::Error),
}

impl TlsSettings {
    /// From PEM texts: the certificate to show with its key, and the authorities.
    ///
    /// # Errors
    /// When one is unreadable, or certificate and key do not belong together.
    pub fn read(client: Option<(&str, &str)>, authorities: Option<&str>) -> Result<Self, TlsError> {
        let client = client.map(|(chain, key)| self::client(chain, key)).transpose()?;
        let authorities = authorities.map(self::authorities).transpose()?.unwrap_or_default();
        Ok(Self { client, authorities })
    }

    /// Whether there is nothing of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client.is_none() && self.authorities.is_empty()
    }
}

/// The certificate to show, the chain behind it first to last, and its key; both as PEM.
///
/// # Errors
/// When one is unreadable, or they do not belong together.
pub(super) fn client(chain: &str, key: &str) -> Result<Secret<Arc<CertifiedKey>>, TlsError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Key)?;
    let pair = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(TlsError::Pair)?;
    Ok(Secret::new(Arc::new(pair)))
}

/// Certificates to trust, as PEM.
///
/// # Errors
/// When one of them can't be read, or there is none.
pub(super) fn authorities(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = certificates(text)?;
    let mut roots = RootCertStore::empty();
    let usable = certificates.iter().all(|certificate| roots.add(certificate.clone()).is_ok());
    if usable { Ok(certificates) } else { Err(TlsError::Certificate) }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or(TlsError::Certificate)
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("client", &self.client)
            .field("authorities", &self.authorities.len())
            .finish()
    }
}
