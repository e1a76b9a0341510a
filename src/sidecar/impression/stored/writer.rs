//! Writes impressions as stored batches, cut into payloads of a bounded size.
//!
//! Every payload is whole in itself: what the batch shares and the flag are written again at its beginning. Cuts lie
//! between impressions; one that is larger than a payload may be gets a payload of its own. Allocates per payload,
//! never per impression.

use super::field::{batch, group, impression};
use super::wire::{push_bytes, push_fixed64, push_varint, varint_length};
use super::{Impression, Shared};
use crate::impression::text::JsonText;

/// A group's length is known only behind it, so it is written over five bytes that are reserved before it: a varint
/// with leading zeros, which every reader of protobuf takes. Enough for 32 GiB.
const LENGTH_BYTES: usize = 5;

/// One payload for the log: a whole `StoredBatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The protobuf message.
    pub payload: Vec<u8>,
    /// Impressions in it; at least one.
    pub records: u32,
}

/// Gathers impressions into [`Part`]s.
#[derive(Debug)]
pub(crate) struct Writer {
    /// What the batch shares, already written: the beginning of each payload.
    head: Vec<u8>,
    part_bytes: usize,
    /// About how many bytes are still to come, for the size of the first allocation.
    expected_bytes: usize,
    done: Vec<Part>,
    payload: Vec<u8>,
    records: u32,
    /// Where in `payload` the open group's impressions begin.
    group_start: Option<usize>,
}

impl Writer {
    /// A writer of payloads of at most `part_bytes`, which expects about `expected_bytes` in all.
    pub(crate) fn new(shared: &Shared<'_>, part_bytes: usize, expected_bytes: usize) -> Self {
        let mut head = Vec::with_capacity(64);
        let texts = [
            (batch::SDK, shared.sdk),
            (batch::MACHINE_NAME, shared.machine_name),
            (batch::MACHINE_IP, shared.machine_ip),
            (batch::MODE, shared.mode),
        ];
        for (field, text) in texts {
            if !text.is_empty() {
                push_bytes(field, text.as_bytes(), &mut head);
            }
        }
        for (field, number) in
            [(batch::RECEIVED_MS, shared.received_ms), (batch::SDK_KEY_INDEX, u64::from(shared.sdk_key_index))]
        {
            if number != 0 {
                head.push(field);
                push_varint(number, &mut head);
            }
        }
        // The count of a part's records is 32 bits and each takes two bytes or more.
        let part_bytes = part_bytes.min(u32::MAX as usize);
        let (done, payload) = (Vec::new(), Vec::new());
        Self { head, part_bytes, expected_bytes, done, payload, records: 0, group_start: None }
    }

    /// From now on impressions are of another flag, or of the same in a new group.
    pub(crate) fn end_group(&mut self) {
        let Some(start) = self.group_start.take() else { return };
        let length = self.payload.len() - start;
        assert!(length >> (7 * LENGTH_BYTES) == 0, "a group is smaller than the body that it came in");
        let field = &mut self.payload[start - LENGTH_BYTES..start];
        for (place, byte) in field.iter_mut().enumerate() {
            let more = if place + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            *byte = (length >> (7 * place)) as u8 & 0x7F | more;
        }
    }

    /// Writes one impression. Its flag is that of the open group, if one is open.
    #[inline]
    pub(crate) fn push(&mut self, record: &Impression<'_>) {
        let length = length_of(record);
        let framed = 1 + varint_length(length) + length;
        if self.records > 0 && self.payload.len() + self.group_bytes(record.flag) + framed > self.part_bytes {
            self.end_part();
        }
        if self.records == 0 {
            self.begin_part(framed);
        }
        if self.group_start.is_none() {
            self.begin_group(record.flag);
        }
        let out = &mut self.payload;
        out.reserve(framed);
        out.push(group::IMPRESSIONS);
        push_varint(length as u64, out);
        let start = out.len();
        push_bytes(impression::KEY, record.key.as_bytes(), out);
        push_text(impression::TREATMENT, record.treatment, out);
        push_number(impression::TIME_MS, record.time_ms, out);
        push_number(impression::CHANGE_NUMBER, record.change_number, out);
        push_text(impression::LABEL, record.label, out);
        push_text(impression::BUCKETING_KEY, record.bucketing_key, out);
        push_number(impression::PREVIOUS_TIME_MS, record.previous_time_ms, out);
        push_text(impression::PROPERTIES, record.properties, out);
        assert!(out.len() - start == length, "an impression is as long as its length says");
        self.records += 1;
    }

    /// What was written. No impressions make no parts.
    pub(crate) fn finish(mut self) -> Vec<Part> {
        self.end_part();
        self.done
    }

    /// Bytes that a group's beginning would take, were one to be opened.
    #[inline]
    fn group_bytes(&self, flag: JsonText<'_>) -> usize {
        if self.group_start.is_some() { 0 } else { opening_bytes(flag) }
    }

    fn begin_part(&mut self, first: usize) {
        let wanted = self.expected_bytes.max(first).min(self.part_bytes);
        self.payload.reserve_exact(self.head.len() + wanted);
        self.payload.extend_from_slice(&self.head);
    }

    fn begin_group(&mut self, flag: JsonText<'_>) {
        self.payload.reserve(opening_bytes(flag));
        self.payload.push(batch::GROUPS);
        self.payload.extend_from_slice(&[0; LENGTH_BYTES]);
        self.group_start = Some(self.payload.len());
        push_bytes(group::FLAG, flag.as_bytes(), &mut self.payload);
    }

    fn end_part(&mut self) {
        self.end_group();
        if self.records > 0 {
            let mut payload = std::mem::take(&mut self.payload);
            // The log keeps it in memory by what it holds: room left over would be memory that nobody counts.
            payload.shrink_to_fit();
            self.expected_bytes = self.expected_bytes.saturating_sub(payload.len());
            self.done.push(Part { payload, records: std::mem::take(&mut self.records) });
        }
    }
}

/// Bytes of a group before its first impression.
fn opening_bytes(flag: JsonText<'_>) -> usize {
    1 + LENGTH_BYTES + text_length(flag)
}

/// Bytes of an impression's fields.
#[inline]
fn length_of(record: &Impression<'_>) -> usize {
    let optional = |text: Option<JsonText<'_>>| text.map_or(0, text_length);
    let numbers = [record.time_ms, record.change_number, record.previous_time_ms];
    let number_bytes: usize = numbers.iter().map(|number| if number.is_some() { 9 } else { 0 }).sum();
    text_length(record.key)
        + optional(record.treatment)
        + optional(record.label)
        + optional(record.bucketing_key)
        + optional(record.properties)
        + number_bytes
}

/// Bytes of a text with its tag and length.
#[inline]
fn text_length(text: JsonText<'_>) -> usize {
    let length = text.as_bytes().len();
    1 + varint_length(length) + length
}

#[inline]
fn push_text(tag: u8, text: Option<JsonText<'_>>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        push_bytes(tag, text.as_bytes(), out);
    }
}

#[inline]
fn push_number(tag: u8, number: Option<i64>, out: &mut Vec<u8>) {
    if let Some(number) = number {
        push_fixed64(tag, number, out);
    }
}
