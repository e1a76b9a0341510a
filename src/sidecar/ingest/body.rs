//! Receives a request's body into memory that was reserved for it, undoing gzip on the way. Knows no JSON.
//!
//! What always holds: no byte is kept that is not accounted for, and no body grows past its limit, counted in decoded
//! bytes; nor does one go on for long beyond it that is never decoded. A body is charged twice its size, since its stored form lives beside it for a moment; thrice where it is also
//! kept as it came.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use hyper::{HeaderMap, header};
use thiserror::Error;

use super::admission::{Exhausted, Held, Pool};
use super::gunzip::{Gunzip, GunzipError};
use super::limits::{DISCARD_BYTES_MAX, DISCARD_TIME_MAX, STEP_BYTES_MIN};

/// How much compressed input is undone before others get a turn: at most a thousand times as much comes out.
const GUNZIP_INPUT_MAX: usize = 1024;

/// How much is undone before others get a turn, of input and output: about 0.2 ms.
const GUNZIP_WORK_MAX: u64 = 256 * 1024;

/// Gzip never needs more than its plain text, some bytes for each block of it, and a head.
const fn packed_bytes_max(plain_bytes_max: u64) -> u64 {
    plain_bytes_max + plain_bytes_max / 8 + 4096
}

/// Whatever ended the connection.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A body that arrived, and its memory.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) held: Held,
}

/// What bounds a body.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) memory: &'a Pool,
    /// Who is charged.
    pub(crate) environment: usize,
    pub(crate) bytes_max: u64,
    /// What a byte of the body is charged.
    pub(crate) charge: u64,
    pub(crate) memory_wait_max: Duration,
    pub(crate) time_max: Duration,
}

/// How the sender packed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

/// Why a body did not arrive.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error(
        "body is larger than {limit} bytes: send less at once, or raise ingest.body_bytes_max (beacons: 1 MiB at most)"
    )]
    TooLarge { limit: u64 },
    #[error(transparent)]
    Gzip(#[from] GunzipError),
    #[error("no memory came free for the body: send it again later, or raise ingest.memory_bytes_max")]
    Memory(#[from] Exhausted),
    #[error("body was not complete after {after:?}")]
    Slow { after: Duration },
    #[error("body broke off after {received} bytes")]
    Broken { received: u64, source: Cause },
}

/// The encoding that the headers name; `None` for one that we cannot undo.
pub(crate) fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let Some(named) = headers.get(header::CONTENT_ENCODING) else { return Some(Encoding::Identity) };
    match named.as_bytes().trim_ascii() {
        b"" => Some(Encoding::Identity),
        name if name.eq_ignore_ascii_case(b"identity") => Some(Encoding::Identity),
        name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Some(Encoding::Gzip),
        _ => None,
    }
}

/// Receives all of it, or says why not. After an error the rest is still in `incoming`; see [`discard`].
pub(crate) async fn receive<B>(incoming: &mut B, encoding: Encoding, bounds: Bounds<'_>) -> Result<Body, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let work = async {
        match encoding {
            Encoding::Identity => receive_plain(incoming, bounds).await,
            Encoding::Gzip => receive_gzip(incoming, bounds).await,
        }
    };
    tokio::time::timeout(bounds.time_max, work).await.unwrap_or(Err(BodyError::Slow { after: bounds.time_max }))
}

/// Reads what is left and throws it away, within bounds: who is still writing when the connection closes sees a reset
/// and not our answer. Says whether that was all; if not the connection cannot be used again.
pub(crate) async fn discard<B: HttpBody<Data = Bytes> + Unpin>(incoming: &mut B) -> bool {
    let mut left = DISCARD_BYTES_MAX;
    let drain = async {
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > left {
                return false;
            }
            left -= bytes;
        }
        true
    };
    // Too slow or too long: then the sender has to do without the answer.
    tokio::time::timeout(DISCARD_TIME_MAX, drain).await.unwrap_or(false)
}

async fn receive_plain<B>(incoming: &mut B, bounds: Bounds<'_>) -> Result<Body, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let Some(declared) = incoming.size_hint().exact() else { return receive_chunked(incoming, bounds).await };
    let too_large = BodyError::TooLarge { limit: bounds.bytes_max };
    if declared > bounds.bytes_max {
        return Err(too_large);
    }
    let capacity = usize::try_from(declared).map_err(|_| too_large)?;
    let held = bounds.reserve(declared * bounds.charge).await?;
    let Some(first) = next_data(incoming, 0).await? else { return Ok(Body { bytes: Bytes::new(), held }) };
    if first.len() == capacity {
        // Most bodies: kept where they were read, without a copy.
        return Ok(Body { bytes: first, held });
    }
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&first);
    while let Some(data) = next_data(incoming, bytes.len()).await? {
        bytes.extend_from_slice(&data);
    }
    Ok(Body { bytes: bytes.into(), held })
}

async fn receive_chunked<B>(incoming: &mut B, bounds: Bounds<'_>) -> Result<Body, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let mut growing = Growing::new(bounds).await?;
    while let Some(data) = next_data(incoming, growing.bytes.len()).await? {
        growing.make_room(data.len()).await?;
        growing.bytes.extend_from_slice(&data);
    }
    growing.finish()
}

async fn receive_gzip<B>(incoming: &mut B, bounds: Bounds<'_>) -> Result<Body, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let mut growing = Growing::new(bounds).await?;
    let mut gunzip = Gunzip::new();
    let mut turn_ends_at = GUNZIP_WORK_MAX;
    let packed_bytes_max = packed_bytes_max(bounds.bytes_max);
    while let Some(data) = next_data(incoming, growing.bytes.len()).await? {
        for mut rest in data.chunks(GUNZIP_INPUT_MAX) {
            loop {
                growing.make_room(1).await?;
                rest = &rest[gunzip.step(rest, &mut growing.bytes)?..];
                if gunzip.taken() > packed_bytes_max {
                    return Err(BodyError::TooLarge { limit: bounds.bytes_max });
                }
                if gunzip.work() > turn_ends_at {
                    turn_ends_at = gunzip.work() + GUNZIP_WORK_MAX;
                    tokio::task::yield_now().await;
                }
                if rest.is_empty() && growing.bytes.len() < growing.bytes.capacity() {
                    break;
                }
            }
        }
    }
    gunzip.finish()?;
    growing.finish()
}

async fn next_data<B>(incoming: &mut B, received: usize) -> Result<Option<Bytes>, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|source| BodyError::Broken { received: received as u64, source: source.into() })?;
        // Trailers say nothing to us.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A body whose length is not known, and its memory, which grows with it.
struct Growing<'a> {
    bytes: Vec<u8>,
    held: Held,
    bounds: Bounds<'a>,
}

impl<'a> Growing<'a> {
    async fn new(bounds: Bounds<'a>) -> Result<Self, BodyError> {
        let held = bounds.reserve(0).await?;
        Ok(Self { bytes: Vec::new(), held, bounds })
    }

    /// Makes sure that `more` bytes fit, doubling what there is: a few dozen reservations at most, whatever the size.
    async fn make_room(&mut self, more: usize) -> Result<(), BodyError> {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return Ok(());
        }
        let limit = self.bounds.bytes_max;
        let needed = (self.bytes.len() + more) as u64;
        // One byte above the limit is room enough to see that there is more than the limit.
        if needed > limit + 1 {
            return Err(BodyError::TooLarge { limit });
        }
        let capacity = (self.bytes.capacity() as u64 * 2).max(STEP_BYTES_MIN).max(needed).min(limit + 1);
        let charge = (capacity * self.bounds.charge).saturating_sub(self.held.units());
        self.held.grow(charge, self.bounds.memory_wait_max).await?;
        let room = usize::try_from(capacity).map_err(|_| BodyError::TooLarge { limit })? - self.bytes.len();
        self.bytes.reserve_exact(room);
        Ok(())
    }

    fn finish(mut self) -> Result<Body, BodyError> {
        let (bytes, limit) = (self.bytes.len() as u64, self.bounds.bytes_max);
        if bytes > limit {
            return Err(BodyError::TooLarge { limit });
        }
        self.held.shrink_to(bytes * self.bounds.charge);
        Ok(Body { bytes: self.bytes.into(), held: self.held })
    }
}

impl Bounds<'_> {
    async fn reserve(&self, bytes: u64) -> Result<Held, Exhausted> {
        self.memory.reserve(self.environment, bytes, self.memory_wait_max).await
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::super::gunzip::gzip;
    use super::*;

    const LIMIT: u64 = 1_000_000;

    fn bounds(memory: &Pool) -> Bounds<'_> {
        Bounds {
            memory,
            environment: 0,
            bytes_max: LIMIT,
            charge: 2,
            memory_wait_max: Duration::from_millis(1),
            // A starved machine may take seconds for what is no test of time.
            time_max: Duration::from_secs(60),
        }
    }

    /// A body of unknown length, in pieces.
    fn chunked(bytes: &[u8], piece: usize) -> impl HttpBody<Data = Bytes, Error = std::io::Error> + Unpin {
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        StreamBody::new(tokio_stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_known_length_reserves_just_what_it_needs() {
        let memory = Pool::new(10 * LIMIT);
        let body = receive(&mut Full::from("0123456789"), Encoding::Identity, bounds(&memory)).await.unwrap();
        assert_eq!(body.bytes, "0123456789");
        assert_eq!(memory.used(), 20);
        drop(body);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn an_unknown_length_reserves_as_it_grows_and_ends_with_what_it_needs() {
        let memory = Pool::new(10 * LIMIT);
        for len in [0, 1, 65_536, 65_537, LIMIT as usize] {
            let bytes = vec![b'x'; len];
            for (encoding, wire) in [(Encoding::Identity, bytes.clone()), (Encoding::Gzip, gzip(&bytes))] {
                let body = receive(&mut chunked(&wire, 10_000), encoding, bounds(&memory)).await.unwrap();
                assert!(body.bytes == bytes, "{len} {encoding:?}");
                assert_eq!(memory.used(), 2 * len as u64);
            }
        }
    }

    #[tokio::test]
    async fn one_byte_above_the_limit_is_too_large_in_every_form() {
        let memory = Pool::new(10 * LIMIT);
        let bytes = vec![b'x'; LIMIT as usize + 1];
        let mut refused = vec![receive(&mut Full::from(bytes.clone()), Encoding::Identity, bounds(&memory)).await];
        for piece in [1_000, 9_999, 200_000] {
            refused.push(receive(&mut chunked(&bytes, piece), Encoding::Identity, bounds(&memory)).await);
        }
        refused.push(receive(&mut Full::from(gzip(&bytes)), Encoding::Gzip, bounds(&memory)).await);
        for refused in refused {
            assert!(matches!(refused, Err(BodyError::TooLarge { limit: LIMIT })));
        }
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn a_bomb_never_takes_more_memory_than_its_limit() {
        let memory = Pool::new(4 * LIMIT);
        let bomb = gzip(&vec![0; 20_000_000]);
        let refused = receive(&mut Full::from(bomb), Encoding::Gzip, bounds(&memory)).await;
        assert!(matches!(refused, Err(BodyError::TooLarge { limit: LIMIT })));
    }

    /// A gzip header whose name never ends: nothing ever comes out of it.
    fn endless(name_bytes: usize) -> Vec<u8> {
        [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'n'; name_bytes]].concat()
    }

    /// Before: only what came out was counted, so one could come in for as long as a body may take.
    #[tokio::test]
    async fn what_is_never_decoded_is_too_large_as_well() {
        let memory = Pool::new(10 * LIMIT);
        for (bytes, is_too_large) in [(2 * LIMIT as usize, true), (LIMIT as usize, false)] {
            let refused = receive(&mut chunked(&endless(bytes), 10_000), Encoding::Gzip, bounds(&memory)).await;
            assert_eq!(matches!(refused, Err(BodyError::TooLarge { limit: LIMIT })), is_too_large);
            assert!(is_too_large || matches!(refused, Err(BodyError::Gzip(GunzipError::Truncated { .. }))));
        }
        let digits: Vec<u8> = (0..LIMIT as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let body = receive(&mut chunked(&gzip(&digits), 10_000), Encoding::Gzip, bounds(&memory)).await.unwrap();
        assert!(body.bytes == digits, "what does not shrink is taken up to the limit");
    }

    /// Before: whoever sent what nothing comes out of had a thread until the next piece had to be waited for.
    #[tokio::test]
    async fn others_get_a_turn_whatever_comes_out() {
        let memory = Pool::new(10 * LIMIT);
        let none = gzip(b"");
        for (wire, turns) in [(endless(LIMIT as usize), 3), (none.repeat(256), 15), (gzip(&[7; 900_000]), 3)] {
            let (mut whole, mut polls) = (Full::from(wire), 0);
            let mut receiving = Box::pin(receive(&mut whole, Encoding::Gzip, bounds(&memory)));
            _ = std::future::poll_fn(|context| {
                polls += 1;
                receiving.as_mut().poll(context)
            })
            .await;
            assert!(polls > turns, "{polls} turns, and {turns} are due");
        }
    }

    #[tokio::test]
    async fn without_memory_a_body_is_refused_and_not_held() {
        let memory = Pool::new(100);
        let all = memory.reserve(0, 100, Duration::ZERO).await.unwrap();
        let refused = receive(&mut Full::from("0123456789"), Encoding::Identity, bounds(&memory)).await;
        assert!(matches!(refused, Err(BodyError::Memory(_))));
        drop(all);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let memory = Pool::new(LIMIT);
        let first = tokio_stream::once(Ok::<_, std::io::Error>(Frame::data(Bytes::from("["))));
        let mut stalled = StreamBody::new(tokio_stream::StreamExt::chain(first, tokio_stream::pending()));
        let refused = receive(&mut stalled, Encoding::Identity, bounds(&memory)).await;
        assert!(matches!(refused, Err(BodyError::Slow { .. })));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn only_gzip_is_undone() {
        let named = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, name.parse().unwrap());
            encoding(&headers)
        };
        assert_eq!(encoding(&HeaderMap::new()), Some(Encoding::Identity));
        assert_eq!(named("identity"), Some(Encoding::Identity));
        assert_eq!(named("GZip"), Some(Encoding::Gzip));
        assert_eq!(named("x-gzip"), Some(Encoding::Gzip));
        assert_eq!(named("br"), None);
        assert_eq!(named("gzip, gzip"), None);
    }
}
