//! Gzip of request bodies, chunk by chunk, so that a batch's plain text is never held as a whole.
//!
//! What always holds: the same chunks give the same bytes, whatever was compressed before, since no time and no name
//! go into the header and a compressor begins each body anew.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// The level of all compressed bodies. 1 takes the least CPU, a fifth to two fifths less than 2, and JSON of one kind over and
/// over shrinks well at any level. Measured beside other encoders: docs/performance.md, "How the encoder and the level were
/// chosen".
pub const GZIP_LEVEL: u8 = 1;

/// Base-2 logarithm of the window, in bytes: the most that the format knows.
const WINDOW_BITS: u8 = 15;

/// Room made for what comes out, in bytes, whenever there is none.
const ROOM: usize = 8 << 10;

/// Compressors that are kept to be used again, at most: as many as are in use at once on a large machine. Of all threads
/// together, for a burst wakes hundreds of those that may wait.
const SPARES_MAX: usize = 16;

/// Compressors that are not in use. Their 400 KB are cleared in a fraction of the time that it takes to ask for them and
/// touch them for the first time, which would be a good part of a batch's cost.
static SPARES: Spares = Spares(Mutex::new(Vec::new()));

struct Spares(Mutex<Vec<Compressor>>);

/// A body in the making, compressed or not.
pub(super) enum Body {
    Plain(Vec<u8>),
    Gzip(Gzip),
}

/// A compressed body in the making.
pub(super) struct Gzip {
    /// There until it goes back to be used again.
    compressor: Option<Compressor>,
    spares: &'static Spares,
    out: Vec<u8>,
}

struct Compressor {
    level: u8,
    deflate: Compress,
}

impl Body {
    /// `level`: that of gzip, or none for a plain body. `bytes_hint`: about how much plain text will come.
    pub(super) fn new(level: Option<u8>, bytes_hint: usize) -> Self {
        Self::with(&SPARES, level, bytes_hint)
    }

    fn with(spares: &'static Spares, level: Option<u8>, bytes_hint: usize) -> Self {
        match level {
            None => Body::Plain(Vec::with_capacity(bytes_hint)),
            // Records shrink to about an eighth.
            Some(level) => Body::Gzip(Gzip {
                compressor: Some(spares.take(level)),
                spares,
                out: Vec::with_capacity(bytes_hint / 8),
            }),
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
            Body::Gzip(gzip) => {
                scratch.clear();
                write(scratch)?;
                gzip.compress(scratch, FlushCompress::None);
                Ok(())
            }
        }
    }

    /// The whole body.
    pub(super) fn finish(self) -> Bytes {
        match self {
            Body::Plain(out) => out.into(),
            Body::Gzip(mut gzip) => {
                gzip.compress(&[], FlushCompress::Finish);
                std::mem::take(&mut gzip.out).into()
            }
        }
    }
}

impl Gzip {
    /// Compresses all of `plain`; with `Finish` to the end of the body.
    fn compress(&mut self, mut plain: &[u8], flush: FlushCompress) {
        let deflate = &mut self.compressor.as_mut().expect("it goes back with the body only").deflate;
        let finishes = matches!(flush, FlushCompress::Finish);
        let mut ended = false;
        while !plain.is_empty() || (finishes && !ended) {
            if self.out.spare_capacity_mut().is_empty() {
                self.out.reserve(ROOM);
            }
            let taken = deflate.total_in();
            let status =
                deflate.compress_vec(plain, &mut self.out, flush).expect("a compressor in order takes anything");
            ended = matches!(status, Status::StreamEnd);
            plain = &plain[(deflate.total_in() - taken) as usize..];
        }
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            self.spares.keep(compressor);
        }
    }
}

impl Spares {
    /// One that is as good as new: the one that was used last, for it is still in some processor's reach.
    fn take(&self, level: u8) -> Compressor {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = kept.iter().rposition(|spare| spare.level == level).map(|at| kept.remove(at));
        drop(kept);
        match spare {
            Some(mut spare) => {
                spare.deflate.reset();
                spare
            }
            None => Compressor { level, deflate: Compress::new_gzip(Compression::new(u32::from(level)), WINDOW_BITS) },
        }
    }

    /// Keeps it, or the one that was not used for longest goes.
    fn keep(&self, compressor: Compressor) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(compressor);
        let oldest = (kept.len() > SPARES_MAX).then(|| kept.remove(0));
        drop(kept);
        drop(oldest);
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

    #[test]
    fn a_compressor_is_used_again_and_remembers_nothing() {
        static OWN: Spares = Spares(Mutex::new(Vec::new()));
        let append = |body: &mut Body, text: &[u8]| {
            body.append(&mut Vec::new(), |out| {
                out.extend_from_slice(text);
                Ok::<(), ()>(())
            })
            .unwrap();
        };
        let body = |level| {
            let mut body = Body::with(&OWN, Some(level), 100);
            append(&mut body, b"one,two,three");
            body.finish()
        };
        let kept = || OWN.0.lock().unwrap().iter().map(|spare| spare.level).collect::<Vec<_>>();
        let first = body(GZIP_LEVEL);
        assert_eq!(kept(), [GZIP_LEVEL]);
        let mut given_up = Body::with(&OWN, Some(GZIP_LEVEL), 100);
        assert!(kept().is_empty(), "it is the one that was there");
        append(&mut given_up, b"one,two,");
        drop(given_up);
        assert_eq!((body(GZIP_LEVEL), kept()), (first, vec![GZIP_LEVEL]));
        assert_eq!(body(9).len(), body(9).len());
        assert_eq!(kept(), [GZIP_LEVEL, 9], "of another level");
    }

    /// Before: each thread that had ever compressed kept one, hundreds after a burst, in no budget.
    #[test]
    fn however_many_compress_at_once_few_compressors_are_kept() {
        static OWN: Spares = Spares(Mutex::new(Vec::new()));
        let bodies: Vec<Body> = (0..3 * SPARES_MAX).map(|_| Body::with(&OWN, Some(GZIP_LEVEL), 0)).collect();
        drop(bodies);
        assert_eq!(OWN.0.lock().unwrap().len(), SPARES_MAX);
    }

    #[test]
    fn more_than_there_was_room_for_comes_out_whole() {
        // Digits of a simple sequence: they shrink by little.
        let mut state = 1_u64;
        let text: String = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b' ' + (state >> 58) as u8)
            })
            .collect();
        let mut body = Body::new(Some(GZIP_LEVEL), 0);
        for piece in text.as_bytes().chunks(33_000) {
            body.append(&mut Vec::new(), |out| {
                out.extend_from_slice(piece);
                Ok::<(), ()>(())
            })
            .unwrap();
        }
        let packed = body.finish();
        assert!(packed.len() > 5 * ROOM, "{}", packed.len());
        let mut back = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
        assert!(back == text);
    }
}
