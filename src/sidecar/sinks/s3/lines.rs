//! Objects of JSON lines, packed on the way: the lines of the file destination, [`write_json_lines`].

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::LinesCompression;
use crate::delivery::record_id;
use crate::delivery::sink::LargeJob;
use crate::impression::{EnvironmentLabel, StoredBatch, write_json_lines};
use crate::sinks::gzip::GZIP_LEVEL;

use super::encode::{Stopped, each_run};
use super::parts::PartWriter;
use super::turn::Heavy;

/// Lines of one kind over and over: the lowest level packs them as tightly as higher ones do lesser texts.
const ZSTD_LEVEL: i32 = 1;

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
        write_json_lines(&batch, run.skip, run.take, &environment, &mut lines, |_, out| {
            record_id::write(&prefix, offset, out);
            offset += 1;
        })?;
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
