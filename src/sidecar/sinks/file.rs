//! A directory of JSON lines: for archives on a mounted disk, for the embedded default, and for tests.
//!
//! One line a record: `{"id":"<record id>","key":…}`, the fields of [`write_json_lines`]. Delivered means synced. Ids
//! are exact: a crash may tear what was written last, which is taken out at the next start, and records that were written but
//! not settled are recognised by id and not written again. Whole lines are never taken out, wherever a disk has damaged the file. Files end by size or age (at the next write: an idle
//! destination keeps its file open); whole files end in `.jsonl`, the one being written in `.jsonl.open`; packed, in `.jsonl.zst`, a zstd frame a batch. Two
//! processes must not share a destination's id in one directory.

mod damaged;
#[cfg(test)]
pub(crate) mod faulty;
mod mending;
mod names;
mod packing;
mod present;
mod search;
mod threads;
mod writer;
mod writers;

use std::sync::Arc;

use bytes::Bytes;
use forebay::Queues;
use forebay::clock::Clock;
use forebay::disk::Disk;
use tokio::time::{Instant, timeout_at};

pub use damaged::Damaged;
pub use writers::Writers;

use super::written_out::{self, OBJECT_BYTES};
use crate::config::FileConfig;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::record_id;
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink};
use crate::impression::{EnvironmentLabel, StoredBatch, write_json_lines};
use threads::Threads;
use writers::{Held, Place, writer_of};

/// What a line has beside an object of the webhook and its record's id: the names of three fields, and two numbers.
const LINE_BYTES: u64 = 120;

/// A file destination.
pub struct FileSink {
    inner: Arc<Inner>,
    /// Made at the first batch: an idle destination reads and holds nothing. Taken before a thread is, so that a disk
    /// that hangs holds one thread and not one a request.
    place: Arc<Place>,
    threads: Arc<Threads>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    destination: String,
    config: FileConfig,
    damaged: Arc<Damaged>,
    /// Who knows what is settled.
    queues: Option<Queues>,
}

impl FileSink {
    /// The file destination of this id. Touches the disk when it first sends.
    #[must_use]
    pub fn new(destination: &str, config: FileConfig, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        let (destination, damaged) = (destination.to_owned(), Arc::default());
        let inner = Inner { disk, clock, destination, config, damaged, queues: None };
        Self { inner: Arc::new(inner), place: Arc::default(), threads: Arc::default() }
    }

    /// The same; what comes again after a crash is recognised however many files ago it was written. Without that it is in the
    /// newest two of them.
    #[must_use]
    pub fn draining(mut self, queues: &Queues) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("nobody was sent anything yet");
        inner.queues = Some(queues.clone());
        self
    }

    /// The same; what damage its files have is counted there.
    #[must_use]
    pub fn counting(mut self, damaged: &Arc<Damaged>) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("nobody was sent anything yet");
        inner.damaged = Arc::clone(damaged);
        self
    }

    /// The same; a sink before it that was given these writers too may still be writing to its files. Whoever is given them
    /// shares their threads.
    #[must_use]
    pub fn following(mut self, writers: &Writers) -> Self {
        self.place = writers.place_of(&self.inner);
        self.threads = writers.threads();
        self
    }
}

impl Inner {
    /// After a panic inside, the open file is gone from the writer, and the next batch goes to a new one.
    fn append(self: &Arc<Self>, place: &mut Option<Held>, batch: &Encoded) -> std::io::Result<()> {
        writer_of(self, place)?.append(batch, self.clock.wall_ms())
    }
}

impl Sink for FileSink {
    fn format(&self) -> Format {
        Format { name: "json-lines", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let refuse = |why: String| EncodeError { at: job.origin.clone(), why };
        let environment = EnvironmentLabel { id: &job.environment.id, name: &job.environment.name };
        let prefix = record_id::prefix(&job.origin);
        // What is not written to takes an address and no memory.
        let mut lines = Vec::with_capacity(usize::try_from(self.encoded_bytes_max(job)).unwrap_or(0));
        for run in job.runs() {
            let mut offset = run.first;
            let batch = StoredBatch::decode(run.payload).map_err(|why| refuse(why.to_string()))?;
            write_json_lines(&batch, run.skip, run.take, &environment, &mut lines, |_, out| {
                record_id::write(&prefix, offset, out);
                offset += 1;
            })
            .map_err(|why| refuse(why.to_string()))?;
        }
        Ok(Encoded::whole(job, Bytes::from(lines)))
    }

    fn encoded_bytes_max(&self, job: &Job) -> u64 {
        written_out::bytes_max(job, OBJECT_BYTES + LINE_BYTES + written_out::id_bytes_max(job), 1)
    }

    /// Waits for its turn, and for a thread, until the deadline. A write that was begun goes on to its end, however long, and whoever waits
    /// for it: only then may the batch be written again.
    fn send<'a>(&'a self, encoded: &'a Encoded, _id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Ok(mut place) = timeout_at(deadline, Arc::clone(&self.place).lock_owned()).await else {
                return Outcome::Retry { why: Failure::Timeout };
            };
            let (inner, encoded) = (Arc::clone(&self.inner), encoded.clone());
            match self.threads.run(deadline, move || inner.append(&mut place, &encoded)).await {
                None => Outcome::Retry { why: Failure::Timeout },
                Some(Ok(Ok(()))) => Outcome::Delivered,
                Some(Ok(Err(error))) => Outcome::Retry { why: Failure::Disk(error.to_string()) },
                Some(Err(panic)) => {
                    Outcome::Retry { why: Failure::Local(format!("the file's writer stopped: {panic}")) }
                }
            }
        })
    }

    /// Repeats are told apart by record, not by batch.
    fn needs_plan(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
