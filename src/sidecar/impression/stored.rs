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
use wire::Fields;

/// The fields of the proto as they are tagged: number and layout in one byte. `KNOWN` is the greatest number.
mod field {
    pub(super) mod batch {
        use crate::impression::stored::wire::{
            Layout::{Bytes, Varint},
            tag,
        };
        pub(in super::super) const SDK: u8 = tag(1, Bytes);
        pub(in super::super) const MACHINE_NAME: u8 = tag(2, Bytes);
        pub(in super::super) const MACHINE_IP: u8 = tag(3, Bytes);
        pub(in super::super) const MODE: u8 = tag(4, Bytes);
        pub(in super::super) const RECEIVED_MS: u8 = tag(5, Varint);
        pub(in super::super) const SDK_KEY_INDEX: u8 = tag(6, Varint);
        pub(in super::super) const GROUPS: u8 = tag(7, Bytes);
        pub(in super::super) const KNOWN: u8 = 7;
    }
    pub(super) mod group {
        use crate::impression::stored::wire::{Layout::Bytes, tag};
        pub(in super::super) const FLAG: u8 = tag(1, Bytes);
        pub(in super::super) const IMPRESSIONS: u8 = tag(2, Bytes);
        pub(in super::super) const KNOWN: u8 = 2;
    }
    pub(super) mod impression {
        use crate::impression::stored::wire::{
            Layout::{Bytes, Fixed64},
            tag,
        };
        pub(in super::super) const KEY: u8 = tag(1, Bytes);
        pub(in super::super) const TREATMENT: u8 = tag(2, Bytes);
        pub(in super::super) const TIME_MS: u8 = tag(3, Fixed64);
        pub(in super::super) const CHANGE_NUMBER: u8 = tag(4, Fixed64);
        pub(in super::super) const LABEL: u8 = tag(5, Bytes);
        pub(in super::super) const BUCKETING_KEY: u8 = tag(6, Bytes);
        pub(in super::super) const PREVIOUS_TIME_MS: u8 = tag(7, Fixed64);
        pub(in super::super) const PROPERTIES: u8 = tag(8, Bytes);
        pub(in super::super) const KNOWN: u8 = 8;
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

/// How much some records say; see [`StoredBatch::said`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// What stands in each of them.
    pub own: u64,
    /// What several of them share, for each.
    pub shared: u64,
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
        while let Some(tag) = fields.tag()? {
            match byte(tag) {
                field::batch::GROUPS => _ = fields.bytes()?,
                field::batch::SDK => shared.sdk = text(&mut fields)?,
                field::batch::MACHINE_NAME => shared.machine_name = text(&mut fields)?,
                field::batch::MACHINE_IP => shared.machine_ip = text(&mut fields)?,
                field::batch::MODE => shared.mode = text(&mut fields)?,
                field::batch::RECEIVED_MS => shared.received_ms = fields.varint()?,
                field::batch::SDK_KEY_INDEX => {
                    let at = fields.at();
                    shared.sdk_key_index = u32::try_from(fields.varint()?)
                        .map_err(|_| Malformed { at, why: "an SDK key index of more than 32 bits" })?;
                }
                _ => fields.skip(tag, field::batch::KNOWN)?,
            }
        }
        Ok(Self { payload, shared })
    }

    /// What all its impressions share.
    #[must_use]
    pub fn shared(&self) -> &Shared<'a> {
        &self.shared
    }

    /// What the records `skip..skip + take` say, in bytes. `own`: what stands in each of them alone. `shared`: what is
    /// stored once for several of them, the flag, SDK, machine and mode, counted for each record that it is said of. So
    /// far as they can be read; reads no record's fields.
    #[must_use]
    pub fn said(&self, skip: usize, take: usize) -> Said {
        let Shared { sdk, machine_name, machine_ip, mode, .. } = self.shared;
        let of_all = [sdk, machine_name, machine_ip, mode].iter().map(|text| text.as_bytes().len()).sum::<usize>();
        let (mut records, mut said) = (self.records(), Said::default());
        if records.advance(skip).is_ok_and(|stepped| stepped == skip) {
            for _ in 0..take {
                let Ok(Some(fields)) = records.next_fields() else { break };
                said.own += fields.left() as u64;
                said.shared += (of_all + records.flag.as_bytes().len()) as u64;
            }
        }
        said
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
            while let Some(tag) = self.group.tag()? {
                match byte(tag) {
                    field::group::IMPRESSIONS => return Ok(Some(self.group.message()?)),
                    field::group::FLAG => {
                        let at = self.group.at();
                        if text(&mut self.group)? != self.flag {
                            return Err(Malformed { at, why: "a group of two flags" });
                        }
                    }
                    _ => self.group.skip(tag, field::group::KNOWN)?,
                }
            }
            let Some(tag) = self.batch.tag()? else { return Ok(None) };
            if byte(tag) == field::batch::GROUPS {
                self.group = self.batch.message()?;
                self.flag = flag_of(&self.group)?;
            } else {
                self.batch.skip_value(tag)?;
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
    while let Some(tag) = fields.tag()? {
        if byte(tag) == field::group::FLAG {
            return text(&mut fields);
        }
        fields.skip_value(tag)?;
    }
    Ok(JsonText::default())
}

/// Reads an impression. Asks for each field in the order in which they are written, so that there is nothing to
/// search for and every branch goes the usual way; other orders take more rounds.
#[inline]
fn impression<'a>(flag: JsonText<'a>, mut fields: Fields<'a>) -> Result<Impression<'a>, Malformed> {
    let mut read = Impression { flag, ..Impression::default() };
    while !fields.is_at_end() {
        let start = fields.at();
        if fields.next_is(field::impression::KEY) {
            read.key = text(&mut fields)?;
        }
        if fields.next_is(field::impression::TREATMENT) {
            read.treatment = Some(text(&mut fields)?);
        }
        if fields.next_is(field::impression::TIME_MS) {
            read.time_ms = Some(fields.fixed64()?);
        }
        if fields.next_is(field::impression::CHANGE_NUMBER) {
            read.change_number = Some(fields.fixed64()?);
        }
        if fields.next_is(field::impression::LABEL) {
            read.label = Some(text(&mut fields)?);
        }
        if fields.next_is(field::impression::BUCKETING_KEY) {
            read.bucketing_key = Some(text(&mut fields)?);
        }
        if fields.next_is(field::impression::PREVIOUS_TIME_MS) {
            read.previous_time_ms = Some(fields.fixed64()?);
        }
        if fields.next_is(field::impression::PROPERTIES) {
            read.properties = Some(text(&mut fields)?);
        }
        if fields.at() == start {
            let tag = fields.varint()?;
            fields.skip(tag, field::impression::KNOWN)?;
        }
    }
    Ok(read)
}

#[inline]
fn text<'a>(fields: &mut Fields<'a>) -> Result<JsonText<'a>, Malformed> {
    Ok(JsonText::checked(fields.bytes()?))
}

/// The tag of a field that is known; 0, which no field has, for all those beyond a byte.
#[inline]
fn byte(tag: u64) -> u8 {
    u8::try_from(tag).unwrap_or(0)
}

#[cfg(test)]
mod tests;
