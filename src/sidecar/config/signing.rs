//! The secrets that requests are signed with, after Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Secret;

/// What each of them starts with.
const PREFIX: &str = "whsec_";

/// The least and the most that Standard Webhooks asks for.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that requests are signed with. Its `Debug` does not show it.
#[derive(Clone, Hash)]
pub struct SigningSecret(Secret<Box<[u8]>>);

/// Why a text is no signing secret. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningSecretError {
    /// It starts otherwise.
    #[error("a signing secret starts with whsec_")]
    Prefix,
    /// A key for signatures of another kind.
    #[error("this is a key for ed25519 signatures, which are not made here")]
    Asymmetric,
    /// What follows is no base64.
    #[error("what follows whsec_ is not base64")]
    Base64,
    /// Too short to be safe, or too long.
    #[error("the signing secret has {bytes} bytes; {} to {} are needed", KEY_BYTES.start(), KEY_BYTES.end())]
    Length {
        /// How many it has.
        bytes: usize,
    },
}

impl SigningSecret {
    /// Reads a secret.
    ///
    /// # Errors
    /// See [`SigningSecretError`].
    pub fn parse(text: &str) -> Result<Self, SigningSecretError> {
        let text = text.trim();
        if text.starts_with("whsk_") || text.starts_with("whpk_") {
            return Err(SigningSecretError::Asymmetric);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(SigningSecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SigningSecretError::Base64)?;
        if KEY_BYTES.contains(&key.len()) {
            Ok(Self(Secret::new(key.into())))
        } else {
            Err(SigningSecretError::Length { bytes: key.len() })
        }
    }

    /// The key of the HMAC. Do not log it.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.0.reveal()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_decoded_bytes_and_is_not_shown() {
        let secret = SigningSecret::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        assert_eq!(secret.key(), (0..32).collect::<Vec<u8>>());
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn each_slip_has_its_own_reason() {
        use SigningSecretError as E;
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (text, why) in [
            ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(), E::Prefix),
            ("whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(), E::Asymmetric),
            ("whsec_not base64".to_owned(), E::Base64),
            (of(23), E::Length { bytes: 23 }),
            (of(65), E::Length { bytes: 65 }),
        ] {
            assert_eq!(SigningSecret::parse(&text).err(), Some(why), "{text}");
        }
        assert!(SigningSecret::parse(&of(24)).is_ok() && SigningSecret::parse(&of(64)).is_ok());
    }
}
