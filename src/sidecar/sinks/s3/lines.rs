//! Objects of JSON lines, packed on the way: the lines of the file destination, [`write_json_lines`].

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::LinesCompression;
use crate::delivery::heavy::Heavy;
use crate::delivery::record_id;
use crate::delivery::sink::LargeJob;
use crate::impression::{EnvironmentLabel, StoredBatch, write_json_lines};
use crate::sinks::gzip::GZIP_LEVEL;

use super::encode::{Stopped, each_run};
use super::parts::PartWriter;

/// Lines of one kind over and over: the lowest level packs them as tightly as higher ones do lesser texts.
const ZSTD_LEVEL: i32 = 1;

/// Lines are packed when so many bytes of them are there, and not a whole frame of them at once: what a record names by a
/// number as it is stored (its flag, its SDK) stands in full in its line, and may be as long as names get.
const LINES_AT_ONCE: usize = 1 << 20;

/// Writes the job's lines.
pub(super) fn write(
    job: &LargeJob,
    compression: LinesCompression,
    heavy: &Heavy,
    to: PartWriter,
) -> Result<(), Stopped> {
    let mut packed = Packed::new(compression, to)?;
    let environment = EnvironmentLabel { id: &job.environment.id, name: &job.environment.name };
    let prefix = record_id::prefix(&job.origin);
    let mut lines = Vec::new();
    each_run(job, heavy, |run| {
        let mut offset = run.first;
        let batch = StoredBatch::decode(run.payload).map_err(crate::impression::EncodeError::from)?;
        lines.clear();
        let mut taken = Ok(());
        write_json_lines(&batch, run.skip, run.take, &environment, &mut lines, |_, out| {
            if out.len() >= LINES_AT_ONCE {
                if taken.is_ok() {
                    taken = packed.write_all(out);
                }
                out.clear();
            }
            record_id::write(&prefix, offset, out);
            offset += 1;
        })?;
        taken?;
        Ok(packed.write_all(&lines)?)
    })?;
    Ok(packed.finish()?)
}

/// A packer of lines.
enum Packed {
    Zstd(zstd::Encoder<'static, PartWriter>),
    /// In a box: the compressor's head is large.
    Gzip(Box<GzEncoder<PartWriter>>),
    None(PartWriter),
}

impl Packed {
    fn new(compression: LinesCompression, to: PartWriter) -> io::Result<Self> {
        Ok(match compression {
            LinesCompression::Zstd => Self::Zstd(zstd::Encoder::new(to, ZSTD_LEVEL)?),
            // Without a time and a name in its head: those would differ.
            LinesCompression::Gzip => Self::Gzip(Box::new(GzEncoder::new(to, Compression::new(u32::from(GZIP_LEVEL))))),
            LinesCompression::None => Self::None(to),
        })
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(lines),
            Self::Gzip(encoder) => encoder.write_all(lines),
            Self::None(to) => to.write_all(lines),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::None(to) => to,
        }
        .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::LINES_BYTES;
    use super::super::parts::parts;
    use super::super::sample;
    use super::*;
    use crate::delivery::budget::Turns;

    /// Anybody with an SDK key could have a frame of small records with one long name made to a hundred times its size.
    #[tokio::test]
    async fn lines_that_are_much_longer_than_their_records_take_no_more_memory_than_is_charged() {
        let impression = |n: u64| format!(r#"{{"k":"{n}","t":"on","m":17,"c":5,"r":""}}"#);
        let impressions: Vec<String> = (0..3_000).map(impression).collect();
        let flag = "f".repeat(4_000);
        let bulk = format!(r#"[{{"f":"{flag}","i":[{}]}}]"#, impressions.join(","));
        let mut job = sample::of(crate::sinks::sample::job_of(&bulk));
        job.origin.offsets = 100..3_100;
        let heavy = Arc::new(Heavy::new(Turns::default()));
        let (writer, mut from) = parts(0, Arc::clone(&heavy));
        let (bytes_max, written) = tokio::task::spawn_blocking(move || {
            let mut written = Ok(());
            let counted = allocation_counter::measure(|| written = write(&job, LinesCompression::Zstd, &heavy, writer));
            (counted.bytes_max, written)
        })
        .await
        .unwrap();
        written.unwrap();
        let part = from.recv().await.unwrap();
        let lines = zstd::decode_all(&part.bytes[..]).unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3_000);
        assert!(lines.len() > 12_000_000, "{} bytes of lines", lines.len());
        // The first part's room is not of the lines.
        let of_lines = bytes_max - super::super::parts::PART_BYTES as u64;
        assert!(of_lines <= LINES_BYTES, "{of_lines} bytes beside the part");
    }
}
