//! Turns the records of a job into an object, part by part, on a thread of its own.
//!
//! What always holds: the same records give the same bytes, within one version of Forebay.

use std::io;

use crate::config::S3Format;
use crate::delivery::heavy::Heavy;
use crate::delivery::sink::{LargeJob, Run};
use crate::delivery::source::BoxError;
use crate::impression;

use super::parts::PartWriter;
use super::{lines, parquet};

/// Why an object was not made to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// The log can't be read, or damage took a part of the batch.
    #[error("the batch could not be read")]
    Read(#[source] BoxError),
    /// A record can't be read back.
    #[error("a record could not be read back")]
    Record(#[from] impression::EncodeError),
    /// Nobody takes the parts any more.
    #[error("the upload ended")]
    Abandoned(#[from] io::Error),
    /// Columns can't be written.
    #[error("the columns could not be written")]
    Columns(#[from] ::parquet::errors::ParquetError),
}

/// Writes the job's object. Reads the disk and waits for who takes the parts: not for async workers.
///
/// # Errors
/// When it is not whole: what was written is of no use then.
pub(super) fn encode(job: &LargeJob, format: S3Format, heavy: &Heavy, to: PartWriter) -> Result<(), Stopped> {
    match format {
        S3Format::JsonLines(compression) => lines::write(job, compression, heavy, to),
        S3Format::Parquet(compression) => parquet::write(job, compression, heavy, to),
    }
}

/// Hands over what is to be sent, in order. Takes a turn for each of the stored parts.
pub(super) fn each_run(
    job: &LargeJob,
    heavy: &Heavy,
    mut each: impl FnMut(Run<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut next = job.origin.offsets.start;
    let mut parts = job.records.parts();
    loop {
        heavy.take();
        let Some(part) = parts.next() else { break };
        let part = part.map_err(Stopped::Read)?;
        for run in part.runs(&job.except) {
            each(run)?;
        }
        next += part.take as u64;
        heavy.give_back();
    }
    if next == job.origin.offsets.end {
        return Ok(());
    }
    let wanted = job.origin.records();
    Err(Stopped::Read(format!("{} records were read of a batch of {wanted}", next - job.origin.offsets.start).into()))
}
