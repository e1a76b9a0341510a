//! What of a post cannot be an impression: its raw text and the reason, bounded in number.
//!
//! Nothing is left out, and nothing is there twice: elements beyond those that are kept one by one are kept in arrays,
//! so that all of it together is no longer than the body, and a byte for each array.

use std::mem;

use crate::impression::text::JsonText;

/// Bytes of an array of elements; a larger one is alone in its own. A frame's worth.
const ARRAY_BYTES: usize = 256 << 10;

/// An element of a body that cannot be an impression, or an array of those beyond the number that are kept one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The element as it stood in the body; of several, `[`, each as it stood, with a comma between two, and `]`.
    pub raw: Vec<u8>,
    /// Why, where in the body, and of which flag; for people. Of several only how many they are.
    pub reason: String,
}

/// Why an element was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RejectWhy {
    #[error("a group must be an object")]
    GroupNotObject,
    #[error("the group has no \"{name}\"")]
    GroupLacks { name: &'static str },
    #[error("the group's \"{name}\" must be {must_be}")]
    GroupWrong { name: &'static str, must_be: &'static str },
    #[error("the flag's name is longer than {limit} bytes")]
    FlagTooLong { limit: usize },
    #[error("an impression must be an object")]
    NotObject,
    #[error("the impression has no \"{name}\"")]
    Lacks { name: &'static str },
    #[error("the impression's \"{name}\" must be {must_be}")]
    Wrong { name: &'static str, must_be: &'static str },
}

/// The rejects of one body.
#[derive(Debug)]
pub(super) struct Rejects {
    kept: Vec<Reject>,
    count: u64,
    kept_max: u64,
    /// The array that is still open: what stands in it, and how many that is.
    array: Vec<u8>,
    elements: u64,
}

impl Rejects {
    /// None yet; at most `kept_max` will be kept one by one.
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), count: 0, kept_max: kept_max as u64, array: Vec::new(), elements: 0 }
    }

    /// Adds the element `raw`, which begins at byte `at` of the body, in a group of `flag` if that is known.
    #[cold]
    pub(super) fn add(&mut self, raw: &[u8], at: usize, why: RejectWhy, flag: Option<JsonText<'_>>) {
        self.count += 1;
        if self.count <= self.kept_max {
            let of_flag = flag.map_or(String::new(), |flag| format!(", flag {flag:?}"));
            self.kept.push(Reject { raw: raw.to_vec(), reason: format!("{why} (byte {at} of the body{of_flag})") });
            return;
        }
        let bytes = raw.len() + "[]".len();
        if self.array.len() + bytes > ARRAY_BYTES {
            self.end_array();
        }
        self.array.reserve(bytes);
        self.array.push(if self.elements == 0 { b'[' } else { b',' });
        self.array.extend_from_slice(raw);
        self.elements += 1;
    }

    /// How many elements were rejected.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The rejects, in the order of the body.
    pub(super) fn into_vec(mut self) -> Vec<Reject> {
        self.end_array();
        self.kept
    }

    fn end_array(&mut self) {
        if self.elements == 0 {
            return;
        }
        let (mut raw, elements) = (mem::take(&mut self.array), mem::take(&mut self.elements));
        raw.push(b']');
        // Else a body of large elements would be in memory twice.
        raw.shrink_to_fit();
        let reason = format!("{elements} more elements of the body that cannot be impressions, in one array");
        self.kept.push(Reject { raw, reason });
    }
}
