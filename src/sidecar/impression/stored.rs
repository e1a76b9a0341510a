//! The stored form of a batch: `proto/forebay/v1/impression.proto`, read without allocating.
//!
//! Not the writer (that is `stored/writer.rs`), and not a check of the text: the log's checksum vouches that what is
//! read is what was written. The layout is plain protobuf, so any implementation reads it; this one lends slices of
//! the payload and skips fields that it does not know. A payload of another make is met with [`Malformed`], never
//! with a panic.

mod wire;
mod writer;

pub use wire::Malformed;
pub use writer::Part;
pub(crate) use writer::Writer;

use super::text::JsonText;
use wire::{Fields, Layout};

/// The field numbers of the proto.
mod number {
    pub(super) mod batch {
        pub(in super::super) const SDK: u8 = 1;
        pub(in super::super) const MACHINE_NAME: u8 = 2;
        pub(in super::super) const MACHINE_IP: u8 = 3;
        pub(in super::super) const MODE: u8 = 4;
        pub(in super::super) const RECEIVED_MS: u8 = 5;
        pub(in super::super) const SDK_KEY_INDEX: u8 = 6;
        pub(in super::super) const GROUPS: u8 = 7;
    }
    pub(super) mod group {
        pub(in super::super) const FLAG: u8 = 1;
        pub(in super::super) const IMPRESSIONS: u8 = 2;
    }
    pub(super) mod impression {
        pub(in super::super) const KEY: u8 = 1;
        pub(in super::super) const TREATMENT: u8 = 2;
        pub(in super::super) const TIME_MS: u8 = 3;
        pub(in super::super) const CHANGE_NUMBER: u8 = 4;
        pub(in super::super) const LABEL: u8 = 5;
        pub(in super::super) const BUCKETING_KEY: u8 = 6;
        pub(in super::super) const PREVIOUS_TIME_MS: u8 = 7;
        pub(in super::super) const PROPERTIES: u8 = 8;
    }
}

/// One evaluation of one flag. The names are Split's webhook's, the bulk's letters stand beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Impression<'a> {
    /// Name of the feature flag (`f`).
    pub flag: JsonText<'a>,
    /// The matching key (`k`).
    pub key: JsonText<'a>,
    /// The treatment that was given (`t`).
    pub treatment: Option<JsonText<'a>>,
    /// When the flag was evaluated, in milliseconds since 1970, as the SDK sent it (`m`).
    pub time_ms: Option<i64>,
    /// Version of the flag's definition (`c`).
    pub change_number: Option<i64>,
    /// Label of the rule that decided (`r`).
    pub label: Option<JsonText<'a>>,
    /// The bucketing key, where the caller gave one (`b`).
    pub bucketing_key: Option<JsonText<'a>>,
    /// When this SDK last saw the same evaluation, in milliseconds since 1970 (`pt`).
    pub previous_time_ms: Option<i64>,
    /// A JSON object in a string (`properties`).
    pub properties: Option<JsonText<'a>>,
}

/// What all impressions of a batch share. Empty text: not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shared<'a> {
    /// `SplitSDKVersion`, such as `python-10.7.0`.
    pub sdk: JsonText<'a>,
    /// The application's host.
    pub machine_name: JsonText<'a>,
    /// The application's address.
    pub machine_ip: JsonText<'a>,
    /// The SDK's impressions mode, in the case it was sent.
    pub mode: JsonText<'a>,
    /// When the post was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Which of the environment's SDK keys authorised the post.
    pub sdk_key_index: u32,
}

/// A payload of the log, read in place.
#[derive(Debug, Clone)]
pub struct StoredBatch<'a> {
    payload: &'a [u8],
    shared: Shared<'a>,
}

impl<'a> StoredBatch<'a> {
    /// Reads what the batch's impressions share. The impressions themselves are read by [`StoredBatch::records`].
    ///
    /// # Errors
    /// [`Malformed`] where the outermost fields are not protobuf or not of the proto's types.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut shared = Shared::default();
        let mut fields = Fields::all(payload);
        while let Some((field, layout)) = fields.tag()? {
            match (u8::try_from(field).unwrap_or(0), layout) {
                (number::batch::GROUPS, Layout::Bytes) => _ = fields.bytes()?,
                (number::batch::SDK, Layout::Bytes) => shared.sdk = text(&mut fields)?,
                (number::batch::MACHINE_NAME, Layout::Bytes) => shared.machine_name = text(&mut fields)?,
                (number::batch::MACHINE_IP, Layout::Bytes) => shared.machine_ip = text(&mut fields)?,
                (number::batch::MODE, Layout::Bytes) => shared.mode = text(&mut fields)?,
                (number::batch::RECEIVED_MS, Layout::Varint) => shared.received_ms = fields.varint()?,
                (number::batch::SDK_KEY_INDEX, Layout::Varint) => {
                    let at = fields.at();
                    shared.sdk_key_index = u32::try_from(fields.varint()?)
                        .map_err(|_| Malformed { at, why: "an SDK key index of more than 32 bits" })?;
                }
                (1..=number::batch::GROUPS, _) => return Err(wrong_layout(&fields)),
                _ => fields.skip(layout)?,
            }
        }
        Ok(Self { payload, shared })
    }

    /// What all its impressions share.
    #[must_use]
    pub fn shared(&self) -> &Shared<'a> {
        &self.shared
    }

    /// The impressions in their order, which is that of their offsets. Allocates nothing.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records { batch: Fields::all(self.payload), group: Fields::none(), flag: JsonText::default(), failed: false }
    }
}

/// The impressions of a [`StoredBatch`], first to last. Ends behind the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    /// Behind the group that is being read.
    batch: Fields<'a>,
    /// What is left of that group.
    group: Fields<'a>,
    flag: JsonText<'a>,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Steps over up to `count` impressions without reading them. Returns how many there were.
    ///
    /// # Errors
    /// [`Malformed`] as for reading them, save for what is inside an impression.
    pub fn advance(&mut self, count: usize) -> Result<usize, Malformed> {
        for stepped in 0..count {
            if self.next_fields()?.is_none() {
                return Ok(stepped);
            }
        }
        Ok(count)
    }

    /// The fields of the next impression.
    #[inline]
    fn next_fields(&mut self) -> Result<Option<Fields<'a>>, Malformed> {
        loop {
            while let Some((field, layout)) = self.group.tag()? {
                match (u8::try_from(field).unwrap_or(0), layout) {
                    (number::group::IMPRESSIONS, Layout::Bytes) => return Ok(Some(self.group.message()?)),
                    (number::group::FLAG, Layout::Bytes) => {
                        let at = self.group.at();
                        if text(&mut self.group)? != self.flag {
                            return Err(Malformed { at, why: "a group of two flags" });
                        }
                    }
                    (1..=number::group::IMPRESSIONS, _) => return Err(wrong_layout(&self.group)),
                    _ => self.group.skip(layout)?,
                }
            }
            let Some((field, layout)) = self.batch.tag()? else { return Ok(None) };
            if (field, layout) == (u64::from(number::batch::GROUPS), Layout::Bytes) {
                self.group = self.batch.message()?;
                self.flag = flag_of(&self.group)?;
            } else {
                self.batch.skip(layout)?;
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Impression<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = match self.next_fields() {
            Ok(None) => return None,
            Ok(Some(fields)) => impression(self.flag, fields),
            Err(malformed) => Err(malformed),
        };
        self.failed = read.is_err();
        Some(read)
    }
}

/// The flag of a group. Written first, but protobuf allows it anywhere; absent means empty.
fn flag_of<'a>(group: &Fields<'a>) -> Result<JsonText<'a>, Malformed> {
    let mut fields = group.clone();
    while let Some((field, layout)) = fields.tag()? {
        if (field, layout) == (u64::from(number::group::FLAG), Layout::Bytes) {
            return text(&mut fields);
        }
        fields.skip(layout)?;
    }
    Ok(JsonText::default())
}

#[inline]
fn impression<'a>(flag: JsonText<'a>, mut fields: Fields<'a>) -> Result<Impression<'a>, Malformed> {
    let mut read = Impression { flag, ..Impression::default() };
    while let Some((field, layout)) = fields.tag()? {
        match (u8::try_from(field).unwrap_or(0), layout) {
            (number::impression::KEY, Layout::Bytes) => read.key = text(&mut fields)?,
            (number::impression::TREATMENT, Layout::Bytes) => read.treatment = Some(text(&mut fields)?),
            (number::impression::TIME_MS, Layout::Fixed64) => read.time_ms = Some(fields.fixed64()?),
            (number::impression::CHANGE_NUMBER, Layout::Fixed64) => read.change_number = Some(fields.fixed64()?),
            (number::impression::LABEL, Layout::Bytes) => read.label = Some(text(&mut fields)?),
            (number::impression::BUCKETING_KEY, Layout::Bytes) => read.bucketing_key = Some(text(&mut fields)?),
            (number::impression::PREVIOUS_TIME_MS, Layout::Fixed64) => read.previous_time_ms = Some(fields.fixed64()?),
            (number::impression::PROPERTIES, Layout::Bytes) => read.properties = Some(text(&mut fields)?),
            (1..=number::impression::PROPERTIES, _) => return Err(wrong_layout(&fields)),
            _ => fields.skip(layout)?,
        }
    }
    Ok(read)
}

#[inline]
fn text<'a>(fields: &mut Fields<'a>) -> Result<JsonText<'a>, Malformed> {
    Ok(JsonText::checked(fields.bytes()?))
}

#[cold]
fn wrong_layout(fields: &Fields<'_>) -> Malformed {
    Malformed { at: fields.at(), why: "a known field of another type" }
}

#[cfg(test)]
mod tests;
