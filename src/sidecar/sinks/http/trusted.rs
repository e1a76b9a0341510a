//! The certificates that connections over TLS trust, read from the machine when they are first needed.
//!
//! What always holds: what was read whole is kept for good. What was read in part is used, and nothing at all is an error,
//! for [`AGAIN_AFTER`]; then it is read again, for files may be short for a moment, or not mounted yet. What is had is
//! never given up for less.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::tls::builder;
use crate::config::TlsSettings;
use crate::delivery::outcome::Failure;

/// Reading takes a few milliseconds, and whoever connects waits for it.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Whom one destination, or all that ask for nothing of their own, trust, and as whom they show themselves.
pub(super) struct Trusted {
    own: TlsSettings,
    kept: Mutex<Option<Kept>>,
}

/// What came of the last reading.
struct Kept {
    config: Result<Arc<ClientConfig>, String>,
    certificates: usize,
    /// What could not be read.
    missing: Option<String>,
    /// When it is read again.
    again_at: Option<Instant>,
}

/// What a reading found.
struct Found {
    certificates: Vec<CertificateDer<'static>>,
    errors: Vec<String>,
}

impl Trusted {
    /// The machine's, and those of these settings.
    pub(super) fn of(own: TlsSettings) -> Self {
        Self { own, kept: Mutex::default() }
    }

    /// The settings of connections made now: the same as before unless the certificates were read anew, and others found.
    /// May read files.
    ///
    /// # Errors
    /// When there is no certificate to trust.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        self.config_at(Instant::now(), machines)
    }

    fn config_at(&self, now: Instant, read: impl FnOnce() -> Found) -> Result<Arc<ClientConfig>, Failure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |kept: &Kept| kept.again_at.is_some_and(|at| at <= now);
        if kept.as_ref().is_none_or(is_due) {
            let before = kept.take();
            *kept = Some(self.keep(read(), before, now + AGAIN_AFTER));
        }
        let config = &kept.as_ref().expect("it was read just now, if not before").config;
        config.clone().map_err(Failure::Connect)
    }

    fn keep(&self, found: Found, before: Option<Kept>, again: Instant) -> Kept {
        let missing = found.errors.first().map(|first| format!("{first} ({} in all)", found.errors.len()));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certificates);
        roots.add_parsable_certificates(self.own.authorities.iter().cloned());
        let certificates = roots.len();
        if missing.is_some() && before.as_ref().is_none_or(|before| before.missing != missing) {
            let why = missing.as_deref().unwrap_or_default();
            tracing::warn!(why, certificates, "not all trusted certificates could be read; they are read again");
        }
        let had = before.filter(|before| before.config.is_ok() && before.certificates >= certificates);
        if let Some(had) = had {
            return Kept { again_at: missing.is_some().then_some(again), missing, ..had };
        }
        let config = if certificates == 0 {
            let why = missing.as_deref().unwrap_or("none were found");
            Err(format!("no trusted certificates: {why}; install ca-certificates or set SSL_CERT_FILE"))
        } else {
            Ok(Arc::new(self.with(roots)))
        };
        Kept { again_at: (missing.is_some() || config.is_err()).then_some(again), config, certificates, missing }
    }

    fn with(&self, roots: RootCertStore) -> ClientConfig {
        let builder = builder().with_root_certificates(roots);
        match &self.own.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let shown = SingleCertAndKey::from(Arc::clone(client.reveal()));
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        }
    }
}

fn machines() -> Found {
    let found = rustls_native_certs::load_native_certs();
    Found { certificates: found.certs, errors: found.errors.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate() -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().der().clone()
    }

    /// Reads what these say one after the other, at these seconds; says what came of it each time.
    struct Machine {
        trusted: Trusted,
        began: Instant,
        reads: usize,
    }

    impl Machine {
        fn at(
            &mut self,
            seconds: u64,
            certificates: &[CertificateDer<'static>],
            errors: &[&str],
        ) -> Result<Arc<ClientConfig>, String> {
            let reads = &mut self.reads;
            let read = || {
                *reads += 1;
                Found {
                    certificates: certificates.to_vec(),
                    errors: errors.iter().map(|why| (*why).to_owned()).collect(),
                }
            };
            let config = self.trusted.config_at(self.began + Duration::from_secs(seconds), read);
            config.map_err(|why| why.to_string())
        }
    }

    /// Before: whatever the first reading found, be it an error or a part, was kept for the life of the process.
    #[test]
    fn what_was_not_read_whole_is_read_again_and_what_was_is_not() {
        let two = [certificate(), certificate()];
        let one = &two[..1];
        let mut machine = Machine { trusted: Trusted::of(TlsSettings::default()), began: Instant::now(), reads: 0 };
        let why = machine.at(0, &[], &["too many open files"]).unwrap_err();
        assert!(why.contains("too many open files"), "{why}");
        assert_eq!(machine.at(9, one, &[]).unwrap_err(), why, "not at once");
        let part = machine.at(10, one, &["too many open files"]).unwrap();
        assert!(Arc::ptr_eq(&part, &machine.at(15, &two, &[]).unwrap()));
        assert!(Arc::ptr_eq(&part, &machine.at(20, &[], &["no such directory"]).unwrap()), "better than none");
        assert!(Arc::ptr_eq(&part, &machine.at(30, one, &["no such directory"]).unwrap()), "nothing is new");
        let whole = machine.at(40, &two, &[]).unwrap();
        assert!(!Arc::ptr_eq(&part, &whole));
        assert_eq!(machine.reads, 5);
        assert!(Arc::ptr_eq(&whole, &machine.at(1_000_000, &[], &["gone"]).unwrap()));
        assert_eq!(machine.reads, 5, "what is whole is kept");
    }

    #[test]
    fn a_machine_without_certificates_is_asked_again() {
        let mut machine = Machine { trusted: Trusted::of(TlsSettings::default()), began: Instant::now(), reads: 0 };
        assert!(machine.at(0, &[], &[]).unwrap_err().contains("none were found"));
        machine.at(10, &[certificate()], &[]).unwrap();
        assert_eq!(machine.reads, 2);
    }
}
