//! The few rules of protobuf's wire format that a stored batch needs, read and written by hand.
//!
//! Knows tags, varints, lengths and how to skip what it does not know; knows no message. Reading allocates nothing
//! and copies nothing.

/// A payload that is not a stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored batch at byte {at} of its payload: {why}")]
pub struct Malformed {
    /// Bytes of the payload, counted from 0, before the place.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
}

/// The tag of a field: its number and layout, as they are written. One byte for numbers up to 15.
pub(super) const fn tag(field: u8, layout: Layout) -> u8 {
    assert!(field >= 1 && field <= 15);
    field << 3 | layout as u8
}

/// A stretch of a payload and a position in it.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    /// The payload up to the end of the stretch, so that positions count from the payload's beginning.
    payload: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// All of `payload`.
    pub(super) fn all(payload: &'a [u8]) -> Self {
        Self { payload, at: 0 }
    }

    /// No fields at all.
    pub(super) fn none() -> Self {
        Self { payload: &[], at: 0 }
    }

    /// Bytes of the payload before the position.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reads a tag as [`tag`] makes them; `None` at the end. Its value is to be read, or [`Fields::skip`]ped, next.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<Option<u64>, Malformed> {
        if self.is_at_end() { Ok(None) } else { self.varint().map(Some) }
    }

    /// Bytes that are left of the stretch.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.payload.len().saturating_sub(self.at)
    }

    /// Whether nothing is left.
    #[inline]
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.payload.len()
    }

    /// Reads a tag if it is `tag`.
    #[inline]
    pub(super) fn next_is(&mut self, tag: u8) -> bool {
        let is = self.payload.get(self.at) == Some(&tag);
        self.at += usize::from(is);
        is
    }

    /// Reads a varint of up to ten bytes.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let byte = self.byte()?;
        if byte < 0x80 { Ok(u64::from(byte)) } else { self.long_varint(byte) }
    }

    /// Reads what follows the `first` byte of a varint.
    fn long_varint(&mut self, first: u8) -> Result<u64, Malformed> {
        let mut value = u64::from(first & 0x7F);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed { at: self.at, why: "a number of more than 64 bits" })
    }

    /// Reads eight bytes as a signed number.
    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<i64, Malformed> {
        let bytes = self.take(8)?;
        Ok(i64::from_le_bytes(*bytes.first_chunk().expect("eight bytes were taken")))
    }

    /// Reads a length and as many bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// Reads a length and lends as many bytes as fields of a message inside this one.
    #[inline]
    pub(super) fn message(&mut self) -> Result<Self, Malformed> {
        let length = self.length()?;
        let start = self.at;
        self.take(length)?;
        Ok(Self { payload: &self.payload[..self.at], at: start })
    }

    /// Reads past the value of a field of unknown `tag`. Fields up to number `known` are not unknown: there it must be
    /// the layout that is wrong.
    #[cold]
    pub(super) fn skip(&mut self, tag: u64, known: u8) -> Result<(), Malformed> {
        let field = tag >> 3;
        if field <= u64::from(known) {
            let why = if field == 0 { "field number 0" } else { "a known field of another type" };
            return Err(Malformed { at: self.at, why });
        }
        self.skip_value(tag)
    }

    /// Reads past the value of any field.
    pub(super) fn skip_value(&mut self, tag: u64) -> Result<(), Malformed> {
        match tag & 7 {
            0 => _ = self.varint()?,
            1 => _ = self.take(8)?,
            2 => _ = self.bytes()?,
            5 => _ = self.take(4)?,
            _ => return Err(Malformed { at: self.at, why: "a layout that proto3 does not have" }),
        }
        Ok(())
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.varint()?;
        usize::try_from(length).map_err(|_| Malformed { at: self.at, why: "a length beyond the end" })
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        let Some(&byte) = self.payload.get(self.at) else {
            return Err(Malformed { at: self.at, why: "it ends in the middle of a number" });
        };
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.payload.get(self.at..).and_then(|rest| rest.get(..length)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(Malformed { at: self.at, why: "a length beyond the end" }),
        }
    }
}

/// Bytes that [`push_varint`] writes for `value`.
#[inline]
pub(super) fn varint_length(value: usize) -> usize {
    // A bit of the value costs 8/7 of a bit; 0 is written like 1.
    let bits = (usize::BITS - (value | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

/// Appends `value`, seven bits a byte, lowest first.
#[inline]
pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of bytes.
#[inline]
pub(super) fn push_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() < 0x80 {
        out.extend_from_slice(&[tag, bytes.len() as u8]);
    } else {
        out.push(tag);
        push_varint(bytes.len() as u64, out);
    }
    out.extend_from_slice(bytes);
}

/// Appends a field of eight bytes.
#[inline]
pub(super) fn push_fixed64(tag: u8, value: i64, out: &mut Vec<u8>) {
    let mut field = [tag; 9];
    field[1..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_is_as_long_as_it_was_said_to_be_and_reads_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, (1 << 35) - 1, 1 << 35, usize::MAX] {
            let mut out = Vec::new();
            push_varint(value as u64, &mut out);
            assert_eq!(out.len(), varint_length(value), "{value}");
            assert_eq!(Fields::all(&out).varint(), Ok(value as u64));
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_malformed() {
        assert!(Fields::all(&[0xFF; 11]).varint().is_err());
        assert!(Fields::all(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]).varint().is_err());
        assert_eq!(Fields::all(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_length_beyond_its_message_is_malformed_even_inside_the_payload() {
        // A message of two bytes whose string claims three: the third belongs to the payload, not to the message.
        let payload = [0x0A, 2, 0x0A, 3, b'a', b'b', b'c'];
        let mut fields = Fields::all(&payload);
        fields.tag().unwrap();
        let mut inner = fields.message().unwrap();
        inner.tag().unwrap();
        assert_eq!(inner.bytes(), Err(Malformed { at: 4, why: "a length beyond the end" }));
    }
}
