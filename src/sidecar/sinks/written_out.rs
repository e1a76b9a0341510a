//! How long the records of a job are when each is written out by itself, told before that is done. Pure.
//!
//! What a stored batch says once, its flag, its SDK, its machine, stands in every object that is made of it: fifty
//! thousand records of four bytes under a name of four thousand are 200 KB as stored, and 430 MB as JSON. What always holds: no
//! encoder writes more than this says.

use crate::delivery::record_id;
use crate::delivery::sink::Job;
use crate::impression::{StoredBatch, escape};

/// What the objects of Split's webhook have beside what the records say: the names of all fields, and numbers, which are
/// stored in eight bytes, in twenty digits.
pub(super) const OBJECT_BYTES: u64 = 260;

/// What stands around all of them.
const AROUND: u64 = 256;

/// The most digits of an offset.
const OFFSET_BYTES: u64 = 20;

/// How long the body of a job is at most, before it is compressed. `beside`: what stands in each object beside what the
/// record and its environment say; `times`: how often what only the record says may stand there.
pub(super) fn bytes_max(job: &Job, beside: u64, times: u64) -> u64 {
    let mut environment = Vec::new();
    escape(job.environment.id.as_bytes(), &mut environment);
    escape(job.environment.name.as_bytes(), &mut environment);
    let each = environment.len() as u64 + beside;
    let mut bytes = AROUND;
    for run in job.runs() {
        // What can't be read is not written.
        let Ok(batch) = StoredBatch::decode(run.payload) else { continue };
        let said = batch.said(run.skip, run.take);
        bytes += said.own * times + said.shared + each * run.take as u64;
    }
    bytes
}

/// The most that the id of one of the job's records takes.
pub(super) fn id_bytes_max(job: &Job) -> u64 {
    record_id::prefix(&job.origin).len() as u64 + OFFSET_BYTES
}

#[cfg(test)]
mod tests;
