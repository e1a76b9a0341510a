//! An object as a row of parts: what encoders write into, and uploads take from.
//!
//! What always holds: at most [`PARTS_HELD`] parts of an object are in memory: one being filled, the others waiting or on
//! their way. A part has its place from its first byte until who took it drops it. So who does not get parts away stops
//! who makes them.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::delivery::heavy::Heavy;

/// All parts but the last have this size. S3 takes parts of 5 MiB at least and 10,000 of them: so objects of 80 GB.
pub(super) const PART_BYTES: usize = 8 << 20;

/// Parts in memory at once; see above. With two of them the next one is filled while one is on its way.
pub(super) const PARTS_HELD: usize = 2;

/// A part of an object. Keep it until it is where it belongs: that is what stops its maker.
pub(super) struct Part {
    pub(super) bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

/// Where an encoder writes. Blocks while there is no place: not for async workers.
pub(super) struct PartWriter {
    filling: Vec<u8>,
    /// That of the part which is being filled.
    place: Option<OwnedSemaphorePermit>,
    places: Arc<Semaphore>,
    first_bytes: usize,
    to: Sender<Part>,
    heavy: Arc<Heavy>,
}

/// A writer, and where its parts come out. `bytes_hint`: about how much will be written. `heavy`: the turn of the thread
/// that writes.
pub(super) fn parts(bytes_hint: u64, heavy: Arc<Heavy>) -> (PartWriter, Receiver<Part>) {
    let (to, from) = channel(PARTS_HELD);
    let first_bytes = usize::try_from(bytes_hint).unwrap_or(PART_BYTES).min(PART_BYTES);
    let places = Arc::new(Semaphore::new(PARTS_HELD));
    (PartWriter { filling: Vec::new(), place: None, places, first_bytes, to, heavy }, from)
}

impl PartWriter {
    /// Hands on the last part, if anything is in it.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.place.take() {
            Some(place) => self.hand_on(place),
            None => Ok(()),
        }
    }

    fn hand_on(&mut self, place: OwnedSemaphorePermit) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.filling);
        bytes.shrink_to_fit();
        // There is room for every part that has a place.
        let part = Part { bytes: bytes.into(), _place: place };
        self.to.try_send(part).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Waits until another part may be in memory, and lets others work meanwhile.
    fn begin(&mut self) -> OwnedSemaphorePermit {
        let room = if self.first_bytes > 0 { std::mem::take(&mut self.first_bytes) } else { PART_BYTES };
        let places = Arc::clone(&self.places);
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => self.heavy.without(places.acquire_owned()).expect("places are never closed"),
        };
        self.filling.reserve_exact(room);
        place
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let place = match self.place.take() {
            Some(place) => place,
            None => self.begin(),
        };
        let taken = bytes.len().min(PART_BYTES - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        if self.filling.len() == PART_BYTES {
            self.hand_on(place)?;
        } else {
            self.place = Some(place);
        }
        Ok(taken)
    }

    /// Parts are full or the last: nothing is handed on early.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heavy() -> Arc<Heavy> {
        Arc::new(Heavy::new(crate::delivery::budget::Turns::default()))
    }

    #[tokio::test]
    async fn all_parts_but_the_last_have_the_same_size() {
        let (mut writer, mut from) = parts(100, heavy());
        let writing = tokio::task::spawn_blocking(move || {
            for n in 0..10_000_u32 {
                writer.write_all(&n.to_le_bytes().repeat(500)).unwrap();
            }
            writer.finish().unwrap();
        });
        let mut whole = Vec::new();
        let mut sizes = Vec::new();
        while let Some(part) = from.recv().await {
            sizes.push(part.bytes.len());
            whole.extend_from_slice(&part.bytes);
        }
        writing.await.unwrap();
        assert_eq!(sizes, [PART_BYTES, PART_BYTES, 20_000_000 - 2 * PART_BYTES]);
        assert!(whole.chunks(2_000).zip(0_u32..).all(|(chunk, n)| chunk == n.to_le_bytes().repeat(500)));
    }

    #[tokio::test]
    async fn a_writer_that_nobody_takes_from_stops() {
        let (mut writer, from) = parts(100, heavy());
        drop(from);
        let stopped = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; PART_BYTES])).await.unwrap();
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
    #[tokio::test]
    async fn a_part_has_its_place_until_it_is_dropped() {
        let (mut writer, mut from) = parts(100, heavy());
        let places = Arc::clone(&writer.places);
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_all(&vec![7; PART_BYTES * 4]).unwrap();
            writer.finish().unwrap();
        });
        let mut held = Vec::new();
        for _ in 0..PARTS_HELD {
            held.push(from.recv().await.unwrap());
        }
        // Whatever the writer does now, it has no place for another one.
        tokio::task::yield_now().await;
        assert!(places.available_permits() == 0 && from.try_recv().is_err());
        for _ in PARTS_HELD..4 {
            held.remove(0);
            held.push(from.recv().await.unwrap());
        }
        writing.await.unwrap();
        assert!(from.recv().await.is_none());
    }
}
