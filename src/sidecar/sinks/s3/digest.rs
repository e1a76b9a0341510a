//! What an object holds, known before it is made: the records that are in it, counted and digested. It stands in the
//! object's metadata, so that an object that lies there already can be told from a stranger.
//!
//! Made of the records as they are stored, not of the object's bytes: another version of Forebay may write other bytes
//! of the same records.

use ring::digest::{Context, SHA256};

use crate::delivery::heavy::Heavy;
use crate::delivery::sink::LargeJob;
use crate::delivery::source::BoxError;

/// Offsets that are digested in one turn: a millisecond of work.
const OFFSETS_AT_ONCE: usize = 64 << 10;

/// The metadata's names, as S3 gives them back.
pub(super) const NAMES: [&str; 4] = ["first-offset", "last-offset", "count", "digest"];

/// The records of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    /// In hexadecimal.
    pub(super) digest: String,
}

impl Contents {
    /// Reads the job's records once. Reads the disk: not for async workers.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn of(job: &LargeJob, heavy: &Heavy) -> Result<Self, BoxError> {
        let mut sum = Context::new(&SHA256);
        // The log's frames are the same at every reading, and so is their checksum: that of each is digested, with what
        // of it is taken.
        let mut parts = job.records.parts();
        loop {
            heavy.take();
            let Some(part) = parts.next() else { break };
            let part = part?;
            sum.update(&crc32fast::hash(&part.payload).to_le_bytes());
            for number in [part.payload.len(), part.skip, part.take] {
                sum.update(&(number as u64).to_le_bytes());
            }
            heavy.give_back();
        }
        // One by one, as ever: what earlier versions wrote is told by it.
        let mut left_out = job.except.offsets().peekable();
        while left_out.peek().is_some() {
            heavy.take();
            left_out.by_ref().take(OFFSETS_AT_ONCE).for_each(|offset| sum.update(&offset.to_le_bytes()));
            heavy.give_back();
        }
        let digest = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let offsets = &job.origin.offsets;
        let (first, last) = (offsets.start, offsets.end.saturating_sub(1));
        Ok(Self { first, last, count: job.records_sent(), digest })
    }

    /// As names and values.
    pub(super) fn metadata(&self) -> [(&'static str, String); 4] {
        let [first, last, count, digest] = NAMES;
        let numbers = [(first, self.first), (last, self.last), (count, self.count)];
        let [first, last, count] = numbers.map(|(name, number)| (name, number.to_string()));
        [first, last, count, (digest, self.digest.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::s3::sample::large;

    #[tokio::test]
    async fn the_same_records_have_the_same_digest_and_others_another() {
        let of = async |job: &LargeJob| {
            let (job, heavy) = (job.clone(), Heavy::new(job.turns.clone()));
            tokio::task::spawn_blocking(move || Contents::of(&job, &heavy).unwrap()).await.unwrap()
        };
        let contents = of(&large(7..25)).await;
        assert_eq!((contents.first, contents.last, contents.count), (7, 24, 18));
        assert_eq!(contents, of(&large(7..25)).await);
        let others = [large(7..24), large(8..25), LargeJob { except: [9].into(), ..large(7..25) }];
        for other in others {
            assert_ne!(contents.digest, of(&other).await.digest);
        }
        assert_eq!(contents.digest.len(), 64);
        let few = of(&LargeJob { except: [9, 10, 20].into(), ..large(7..25) }).await;
        assert_eq!(
            (few.count, few.digest.as_str()),
            (15, "2ca28621981b9398dd2f715f65bbb3dd852f6440d24baefca8e09ed36643714b"),
            "what was written before is told by it"
        );
    }
}
