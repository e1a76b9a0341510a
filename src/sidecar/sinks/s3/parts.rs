//! An object as a row of parts: what encoders write into, and uploads take from.
//!
//! What always holds: at most three parts of an object are in memory: one being filled, one waiting, one on its way.
//! Who does not take parts stops who makes them.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::turn::Heavy;

/// All parts but the last have this size. S3 takes parts of 5 MiB at least and 10,000 of them: so objects of 80 GB.
pub(super) const PART_BYTES: usize = 8 << 20;

/// Parts in memory at once; see above.
pub(super) const PARTS_HELD: u64 = 3;

/// Where an encoder writes. Blocks while nobody takes the parts: not for async workers.
pub(super) struct PartWriter {
    filling: Vec<u8>,
    to: Sender<Bytes>,
    heavy: Arc<Heavy>,
}

/// A writer, and where its parts come out. `bytes_hint`: about how much will be written. `heavy`: the turn of the thread
/// that writes.
pub(super) fn parts(bytes_hint: u64, heavy: Arc<Heavy>) -> (PartWriter, Receiver<Bytes>) {
    let (to, from) = channel(1);
    let room = usize::try_from(bytes_hint).unwrap_or(PART_BYTES).min(PART_BYTES);
    (PartWriter { filling: Vec::with_capacity(room), to, heavy }, from)
}

impl PartWriter {
    /// Hands on the last part, if anything is in it.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.filling.is_empty() { Ok(()) } else { self.hand_on() }
    }

    /// Waits until there is room for it, and lets others work meanwhile.
    fn hand_on(&mut self) -> io::Result<()> {
        let mut part = std::mem::take(&mut self.filling);
        part.shrink_to_fit();
        let part = match self.to.try_send(part.into()) {
            Ok(()) => return Ok(()),
            Err(refused) => refused.into_inner(),
        };
        self.heavy.give_back();
        let handed_on = self.to.blocking_send(part).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        self.heavy.take();
        handed_on
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        if self.filling.len() == PART_BYTES {
            self.hand_on()?;
            self.filling.reserve_exact(PART_BYTES);
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
            sizes.push(part.len());
            whole.extend_from_slice(&part);
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
}
