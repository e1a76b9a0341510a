//! Little-endian numbers out of byte strings, for everything the queues keep on disk.
//!
//! Takes what is there or says that it is not; never guesses and never panics, whatever the bytes.

/// The bytes do not hold what they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Takes numbers off the front of a byte string.
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    /// Text behind its length in one byte.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Malformed("a name is not UTF-8"))
    }
}

/// Writes `text` behind its length in one byte.
///
/// # Panics
/// When it is longer than 255 bytes: names are checked where they come in.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("names are at most 128 bytes: checked when a queue is made"));
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_an_error_and_takes_nothing() {
        let mut decoder = Decoder::new(&[1, 2, 3]);
        assert_eq!(decoder.u32(), Err(Malformed("ends too early")));
        assert_eq!(decoder.u16(), Ok(0x0201));
        assert_eq!(decoder.text(), Err(Malformed("ends too early")), "a length of three with nothing behind it");
    }

    #[test]
    fn text_comes_back_as_it_went_in() {
        let mut out = Vec::new();
        put_text(&mut out, "acme-prod");
        let mut decoder = Decoder::new(&out);
        assert_eq!(decoder.text(), Ok("acme-prod"));
        assert!(decoder.is_empty());
    }
}
