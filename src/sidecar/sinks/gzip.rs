//! Gzip of request bodies, chunk by chunk, so that a batch's plain text is never held as a whole.
//!
//! What always holds: the same chunks give the same bytes, since no time and no name go into the header.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The level of all compressed bodies. 1 takes the least CPU by far, and JSON of one kind over and over shrinks well
/// at any level.
pub const GZIP_LEVEL: u8 = 1;

/// A body in the making, compressed or not.
pub(super) enum Body {
    Plain(Vec<u8>),
    /// In a box: the compressor's head is large.
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Body {
    /// `level`: that of gzip, or none for a plain body. `bytes_hint`: about how much plain text will come.
    pub(super) fn new(level: Option<u8>, bytes_hint: usize) -> Self {
        match level {
            None => Body::Plain(Vec::with_capacity(bytes_hint)),
            // Records shrink to about an eighth.
            Some(level) => {
                let out = Vec::with_capacity(bytes_hint / 8);
                Body::Gzip(Box::new(GzEncoder::new(out, Compression::new(u32::from(level)))))
            }
        }
    }

    /// Takes in what `write` appends to the buffer that it is given.
    pub(super) fn append<E>(
        &mut self,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Body::Plain(out) => write(out),
            Body::Gzip(encoder) => {
                scratch.clear();
                write(scratch)?;
                encoder.write_all(scratch).expect("a Vec takes all that is written to it");
                Ok(())
            }
        }
    }

    /// The whole body.
    pub(super) fn finish(self) -> Bytes {
        match self {
            Body::Plain(out) => out.into(),
            Body::Gzip(encoder) => encoder.finish().expect("a Vec takes all that is written to it").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn body(level: Option<u8>) -> Bytes {
        let mut body = Body::new(level, 100);
        let mut scratch = Vec::new();
        for text in ["one,", "two,", "three"] {
            body.append(&mut scratch, |out| {
                out.extend_from_slice(text.as_bytes());
                Ok::<(), ()>(())
            })
            .unwrap();
        }
        body.finish()
    }

    #[test]
    fn what_was_appended_comes_out_in_one_piece() {
        assert_eq!(&body(None)[..], b"one,two,three");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body(Some(GZIP_LEVEL))[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one,two,three");
    }

    #[test]
    fn compressed_twice_the_bytes_are_equal() {
        assert_eq!(body(Some(GZIP_LEVEL)), body(Some(GZIP_LEVEL)));
        assert_eq!(&body(Some(GZIP_LEVEL))[4..8], [0; 4], "no time in the header");
    }
}
