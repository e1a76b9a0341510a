//! What tests append: parts whose bytes tell which append they are of.

use forebay::Payload;
use std::sync::Arc;

/// One part of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// How many records they are.
    pub records: u32,
}

impl Part {
    /// `len` bytes that no other `id` gives.
    #[must_use]
    pub fn new(id: u64, len: usize, records: u32) -> Self {
        let bytes = (0..len).map(|i| (id.wrapping_mul(0x9e37_79b9) >> (i % 4 * 8)) as u8 ^ (i / 4) as u8).collect();
        Self { bytes, records }
    }

    /// As the log takes it.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload { bytes: self.bytes.to_vec(), records: self.records }
    }
}
