//! The stored form of what cannot be an impression: a row of protobuf messages, each behind its length. One message
//! is one record of the stream `!rejects/<environment>`.
//!
//! The raw text is kept as it came, without escapes: what was taken in a body of the largest size fits an append again.

use bytes::Buf;
use forebay::Payload;
use prost::{DecodeError, Message};

use crate::impression::Reject;

/// A frame's worth. A single larger element goes alone.
const PART_BYTES_MAX: usize = 256 * 1024;

/// One element that was not stored as an impression.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StoredReject {
    /// When it came, by our clock.
    #[prost(fixed64, tag = "1")]
    pub received_ms: u64,
    /// Why it cannot be an impression.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The place of the SDK key in the environment's list.
    #[prost(uint32, tag = "3")]
    pub sdk_key: u32,
    /// The sender's `SplitSDKVersion`.
    #[prost(bytes = "vec", tag = "4")]
    pub sdk: Vec<u8>,
    /// The element as it was sent.
    #[prost(bytes = "vec", tag = "5")]
    pub raw: Vec<u8>,
}

/// The messages of a payload from a rejects stream; ends with an error where it cannot be read.
pub fn decode(mut payload: &[u8]) -> impl Iterator<Item = Result<StoredReject, DecodeError>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let message = StoredReject::decode_length_delimited(&mut payload);
        if message.is_err() {
            payload.advance(payload.len());
        }
        Some(message)
    })
}

/// Whose they are.
pub(crate) struct Sender<'a> {
    pub(crate) received_ms: u64,
    pub(crate) sdk_key: u32,
    pub(crate) sdk: &'a [u8],
}

/// The payloads that hold `rejects`, in order.
pub(crate) fn encode(rejects: Vec<Reject>, sender: &Sender<'_>) -> Vec<Payload> {
    let mut parts = Vec::new();
    let mut part = Payload { bytes: Vec::new(), records: 0 };
    for reject in rejects {
        let message = StoredReject {
            received_ms: sender.received_ms,
            reason: reject.reason,
            sdk_key: sender.sdk_key,
            sdk: sender.sdk.to_vec(),
            raw: reject.raw,
        };
        if part.records > 0 && part.bytes.len() + message.encoded_len() > PART_BYTES_MAX {
            parts.push(std::mem::replace(&mut part, Payload { bytes: Vec::new(), records: 0 }));
        }
        message.encode_length_delimited(&mut part.bytes).expect("a vector grows as needed");
        part.records += 1;
    }
    if part.records > 0 {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Sender<'_> = Sender { received_ms: 5, sdk_key: 1, sdk: b"go-6.8.1" };

    fn reject(raw: &str) -> Reject {
        Reject { raw: raw.into(), reason: "no key".into() }
    }

    #[test]
    fn an_element_comes_back_as_it_was_sent() {
        let raw = "{\"k\":7,\n \"t\":\"\u{1F600}\\n\"}";
        let parts = encode(vec![reject(raw), reject("null")], &SENDER);
        assert_eq!((parts.len(), parts[0].records), (1, 2));
        let back: Vec<_> = decode(&parts[0].bytes).map(Result::unwrap).collect();
        assert_eq!((back[0].raw.as_slice(), back[1].raw.as_slice()), (raw.as_bytes(), &b"null"[..]));
        assert_eq!((back[0].received_ms, back[0].sdk_key, back[0].sdk.as_slice()), (5, 1, &b"go-6.8.1"[..]));
        assert_eq!(back[1].reason, "no key");
    }

    #[test]
    fn many_or_large_elements_are_cut_into_frames() {
        let large = "x".repeat(PART_BYTES_MAX + 1);
        let rejects: Vec<_> = ["1", &large, "2", "3"].into_iter().map(reject).collect();
        let parts = encode(rejects, &SENDER);
        assert_eq!(parts.iter().map(|part| part.records).collect::<Vec<_>>(), [1, 1, 2]);
        let raws: Vec<_> =
            parts.iter().flat_map(|part| decode(&part.bytes)).map(|reject| reject.unwrap().raw).collect();
        assert!(raws == [b"1".to_vec(), large.into_bytes(), b"2".to_vec(), b"3".to_vec()]);
        assert!(encode(Vec::new(), &SENDER).is_empty());
    }

    #[test]
    fn damage_ends_the_row_with_an_error() {
        let parts = encode(vec![reject("1"), reject("2")], &SENDER);
        let cut = &parts[0].bytes[..parts[0].bytes.len() - 1];
        let back: Vec<_> = decode(cut).collect();
        assert_eq!(back.len(), 2);
        assert!(back[0].is_ok() && back[1].is_err());
    }
}
