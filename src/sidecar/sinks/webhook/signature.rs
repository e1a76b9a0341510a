//! Standard Webhooks' signature of a request: HMAC-SHA256 of `id.timestamp.body`, once for each secret.
//!
//! The body is the JSON, whether or not it is compressed on its way: that is what receivers' libraries are given. The
//! time is that of the attempt, so each attempt is signed anew. See
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::io::{self, Read};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use hyper::header::HeaderValue;
use ring::hmac;

use crate::config::SigningSecret;
use crate::delivery::outcome::Failure;

/// A body up to this long, as it is sent, is signed on the spot; a longer one on a thread of its own, since a batch of
/// 1 MiB takes about ten milliseconds to unpack and sign.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Signs with all secrets of a webhook.
pub(super) struct Signer(Arc<[SigningSecret]>);

impl Signer {
    /// Nothing signs without a secret.
    pub(super) fn new(secrets: &[SigningSecret]) -> Option<Self> {
        (!secrets.is_empty()).then(|| Self(secrets.into()))
    }

    /// The value of `webhook-signature` for a request sent at `timestamp`, in seconds since 1970.
    pub(super) async fn sign(
        &self,
        id: &str,
        timestamp: u64,
        body: &Bytes,
        gzip: bool,
    ) -> Result<HeaderValue, Failure> {
        let signed = if body.len() <= INLINE_BYTES_MAX {
            signatures(&self.0, id, timestamp, body, gzip)
        } else {
            let (secrets, id, body) = (Arc::clone(&self.0), id.to_owned(), body.clone());
            let signing = tokio::task::spawn_blocking(move || signatures(&secrets, &id, timestamp, &body, gzip));
            signing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
        };
        let text = signed.map_err(|why| Failure::Local(format!("the request could not be signed: {why}")))?;
        Ok(HeaderValue::from_str(&text).expect("base64, commas and spaces may stand in a header"))
    }
}

/// One signature for each secret, in their order.
fn signatures(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &[u8], gzip: bool) -> io::Result<String> {
    let mut contexts: Vec<hmac::Context> = secrets
        .iter()
        .map(|secret| hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.key())))
        .collect();
    let mut update = |bytes: &[u8]| contexts.iter_mut().for_each(|context| context.update(bytes));
    update(format!("{id}.{timestamp}.").as_bytes());
    if gzip {
        // Chunk by chunk: the plain text is never held as a whole.
        let mut plain = GzDecoder::new(body);
        let mut chunk = vec![0; 16 << 10];
        loop {
            match plain.read(&mut chunk)? {
                0 => break,
                n => update(&chunk[..n]),
            }
        }
    } else {
        update(body);
    }
    let signed: Vec<String> =
        contexts.into_iter().map(|context| format!("v1,{}", STANDARD.encode(context.sign()))).collect();
    Ok(signed.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::gzip::{Body, GZIP_LEVEL};

    /// Published with the reference libraries, or made with them: secret, id, timestamp, body, signature.
    const VECTORS: [(&str, &str, u64, &str, &str); 4] = [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "imp_01J8ZC5V3W2K7Q",
            1_767_225_600,
            concat!(
                r#"{"type":"impressions.batch","timestamp":"2026-01-01T00:00:00Z","data":{"count":2,"impressions":["#,
                r#"{"flag":"new-checkout","variation":"on","key":"u-1"},{"flag":"new-checkout","variation":"off","key":"u-2"}]}}"#
            ),
            "v1,MqwQb6jP8uRN2INdBVSvasb5msgyBw+8mIN6rlMcC90=",
        ),
        (
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "imp_01J8ZC5V3W2K7R",
            1_767_225_601,
            r#"{"type":"impressions.batch","data":{"key":"Zoë ☃","n":0}}"#,
            "v1,mgVnEK5pGpGab8Pd0v39Fck48NXIuq2nKOhhWBOmwUU=",
        ),
    ];

    fn signer(secrets: &[&str]) -> Signer {
        let secrets: Vec<_> = secrets.iter().map(|text| SigningSecret::parse(text).unwrap()).collect();
        Signer::new(&secrets).unwrap()
    }

    fn gzip(text: &str) -> Bytes {
        let mut body = Body::new(Some(GZIP_LEVEL), text.len());
        let append = |out: &mut Vec<u8>| {
            out.extend_from_slice(text.as_bytes());
            Ok::<_, ()>(())
        };
        body.append(&mut Vec::new(), append).unwrap();
        body.finish()
    }

    #[tokio::test]
    async fn the_published_signatures_come_out_whether_or_not_the_body_is_compressed() {
        for (secret, id, at, body, signature) in VECTORS {
            let signer = signer(&[secret]);
            let plain = signer.sign(id, at, &Bytes::from_static(body.as_bytes()), false).await.unwrap();
            let packed = signer.sign(id, at, &gzip(body), true).await.unwrap();
            assert_eq!((plain.to_str().unwrap(), packed.to_str().unwrap()), (signature, signature));
        }
    }

    #[tokio::test]
    async fn while_a_secret_is_replaced_both_sign() {
        let (id, at, body) = (VECTORS[0].1, VECTORS[0].2, VECTORS[0].3);
        let body = Bytes::from_static(body.as_bytes());
        let old = signer(&[VECTORS[0].0]).sign(id, at, &body, false).await.unwrap();
        let new = signer(&[VECTORS[2].0]).sign(id, at, &body, false).await.unwrap();
        let both = signer(&[VECTORS[2].0, VECTORS[0].0]).sign(id, at, &body, false).await.unwrap();
        assert_eq!(both.to_str().unwrap(), format!("{} {}", new.to_str().unwrap(), old.to_str().unwrap()));
    }

    #[tokio::test]
    async fn a_long_body_is_signed_like_a_short_one() {
        // The one is longer than what is signed on the spot, packed it is not.
        let text = "user-17 ".repeat(INLINE_BYTES_MAX);
        let packed = gzip(&text);
        assert!(packed.len() <= INLINE_BYTES_MAX);
        let signer = signer(&[VECTORS[0].0]);
        let plain = signer.sign("id", 7, &Bytes::from(text), false).await.unwrap();
        assert_eq!(plain, signer.sign("id", 7, &packed, true).await.unwrap());
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_unpacked_is_not_signed() {
        let body = Bytes::from_static(b"no gzip");
        assert!(matches!(signer(&[VECTORS[0].0]).sign("id", 7, &body, true).await, Err(Failure::Local(_))));
    }
}
