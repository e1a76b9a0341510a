//! Reads what a webhook is signed with, what certificates it has, and which addresses it may be on besides.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::sign::CertifiedKey;

use super::super::raw::{Field, Section};
use super::super::tls::{self, TlsError};
use super::super::{Endpoint, Secret, SigningSecret, TlsSettings, limits};
use super::{Outside, values};

/// `signing_secrets`, the newest first or in any other order: each signs.
pub(super) fn signing(section: &Section<'_>, outside: &Outside<'_>) -> Vec<SigningSecret> {
    let Some(list) = section.get("signing_secrets") else { return Vec::new() };
    let Some(fields) = list.list() else { return Vec::new() };
    if fields.is_empty() {
        list.place.error("no secret stands here, so nothing would be signed", "add one, or remove the key");
    }
    if fields.len() > limits::SIGNING_SECRETS_MAX {
        let message = format!("{} secrets are more than a rotation needs", fields.len());
        list.place.error(message, format!("write {} or fewer", limits::SIGNING_SECRETS_MAX));
    }
    fields.iter().take(limits::SIGNING_SECRETS_MAX).filter_map(|field| signing_secret(field, outside)).collect()
}

fn signing_secret(field: &Field<'_>, outside: &Outside<'_>) -> Option<SigningSecret> {
    let resolved = values::secret(field, outside)?;
    if resolved.literal {
        let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the secret out of the file";
        field.place.warning("a signing secret stands here for everyone who reads this file", remedy);
    }
    match SigningSecret::parse(&resolved.value) {
        Ok(secret) => Some(secret),
        Err(error) => {
            field.place.error(error.to_string(), "make one: echo whsec_$(head -c 32 /dev/urandom | base64)");
            None
        }
    }
}

/// `client_certificate` with `client_key`, and `ca_certificate`.
pub(super) fn tls(section: &Section<'_>, outside: &Outside<'_>, url: Option<&Endpoint>) -> TlsSettings {
    let (certificate, key) = (section.get("client_certificate"), section.get("client_key"));
    let ca = section.get("ca_certificate");
    if let (Some(url), Some(first)) = (url, [&certificate, &key, &ca].into_iter().flatten().next())
        && url.uri().scheme_str() != Some("https")
    {
        first.place.error("certificates are of no use without TLS", "write https:// in url, or remove it");
    }
    let client = match (&certificate, &key) {
        (Some(certificate), Some(key)) => client(certificate, key, outside),
        (Some(alone), None) => {
            alone.place.error("a certificate is shown with its key", "add client_key = \"file:PATH\"");
            None
        }
        (None, Some(alone)) => {
            alone.place.error("a key is of no use alone", "add client_certificate = \"file:PATH\"");
            None
        }
        (None, None) => None,
    };
    let authorities = ca.and_then(|field| {
        let text = values::open(&field, outside)?;
        complain(&field, tls::authorities(&text))
    });
    TlsSettings { client, authorities: authorities.unwrap_or_default() }
}

fn client(certificate: &Field<'_>, key: &Field<'_>, outside: &Outside<'_>) -> Option<Secret<Arc<CertifiedKey>>> {
    let (chain, resolved) = (values::open(certificate, outside), values::secret(key, outside));
    let (chain, resolved) = (chain?, resolved?);
    if resolved.literal {
        let remedy = "write \"file:PATH\" or \"env:NAME\" and keep the key out of the file";
        key.place.warning("a private key stands here for everyone who reads this file", remedy);
    }
    let pair = tls::client(&chain, &resolved.value);
    complain(if matches!(pair, Err(TlsError::Certificate)) { certificate } else { key }, pair)
}

fn complain<T>(field: &Field<'_>, read: Result<T, TlsError>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            let remedy = match &error {
                TlsError::Certificate => "name a file with -----BEGIN CERTIFICATE----- in it",
                TlsError::Key => "name a file with -----BEGIN PRIVATE KEY----- in it, without a passphrase",
                TlsError::Pair(_) => "name the key that the certificate was made for",
            };
            field.place.error(error.to_string(), remedy);
            None
        }
    }
}

/// `allow_addresses`: networks or single addresses.
pub(super) fn allowed(section: &Section<'_>) -> Vec<IpNet> {
    let Some(fields) = section.get("allow_addresses").and_then(|list| list.list()) else { return Vec::new() };
    fields.iter().filter_map(network).collect()
}

fn network(field: &Field<'_>) -> Option<IpNet> {
    let text = field.text()?;
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok());
    if network.is_none() {
        let message = format!("{:?} is not a network", text.chars().take(60).collect::<String>());
        field.place.error(message, "write one such as \"169.254.7.0/24\", or an address");
    }
    network
}
