//! A batch as an array of events: what the encoders of event services (Amplitude, Segment) have in common.
//!
//! What always holds: of the same job come the same bytes, with no secret and no time of sending in them; those follow
//! in the request's tail. What can't be sent is left out and said in [`Encoded::rejected`], by offset.

use bytes::Bytes;

use crate::delivery::outcome::RejectedRecord;
use crate::delivery::record_id;
use crate::delivery::sink::{EncodeError, Encoded, Job};
use crate::impression::{EnvironmentLabel, Impression, SplitFields, StoredBatch, each_record};
use crate::sinks::written_out::{self, OBJECT_BYTES};

/// What an event has beside what it begins with, the fields of a webhook's object, and its record's id: names of fields
/// and a time.
const EVENT_BYTES: u64 = 120;

/// One impression on its way to become an event.
pub(super) struct Event<'e, 'a> {
    /// All of its record's id but the offset.
    pub(super) id_prefix: &'e str,
    /// Its record's offset.
    pub(super) offset: u64,
    /// What it says.
    pub(super) record: &'e Impression<'a>,
    /// When it was received, for those that do not say when they happened.
    pub(super) received_ms: u64,
    /// Split's fields of it.
    pub(super) fields: &'e mut SplitFields<'a>,
}

impl Event<'_, '_> {
    /// Appends the record's id.
    pub(super) fn write_id(&self, out: &mut Vec<u8>) {
        record_id::write(self.id_prefix, self.offset, out);
    }

    /// When it happened, in milliseconds since 1970; if it does not say, when it was received.
    pub(super) fn time_ms(&self) -> i64 {
        self.record.time_ms.unwrap_or(i64::try_from(self.received_ms).unwrap_or(i64::MAX))
    }
}

/// How long the body of a job is at most, of events that begin with so many bytes: each says its record's key twice.
pub(super) fn bytes_max(job: &Job, start_bytes: usize) -> u64 {
    let beside = start_bytes as u64 + EVENT_BYTES + OBJECT_BYTES + written_out::id_bytes_max(job);
    written_out::bytes_max(job, beside, 2)
}

/// Writes `opening` and behind it, separated by commas, what `write` appends for each record of the job. A record for
/// which `write` says why it can't be sent is left out. `bytes_max`: see [`bytes_max`]. The array is not closed: that is the tail's part.
pub(super) fn encode(
    job: &Job,
    bytes_max: u64,
    opening: &[u8],
    mut write: impl FnMut(Event<'_, '_>, &mut Vec<u8>) -> Result<(), String>,
) -> Result<Encoded, EncodeError> {
    let refuse = |why: String| EncodeError { at: job.origin.clone(), why };
    let environment = EnvironmentLabel { id: &job.environment.id, name: &job.environment.name };
    let id_prefix = record_id::prefix(&job.origin);
    let mut body = Vec::with_capacity(usize::try_from(bytes_max).unwrap_or(0));
    body.extend_from_slice(opening);
    let mut rejected = Vec::new();
    for run in job.runs() {
        let batch = StoredBatch::decode(run.payload).map_err(|why| refuse(why.to_string()))?;
        let mut fields = SplitFields::new(batch.shared(), &environment);
        let received_ms = batch.shared().received_ms;
        each_record(&batch, run.skip, run.take, |place, record| {
            let offset = run.first + (place - run.skip) as u64;
            let before = body.len();
            if before > opening.len() {
                body.push(b',');
            }
            let event = Event { id_prefix: &id_prefix, offset, record, received_ms, fields: &mut fields };
            if let Err(reason) = write(event, &mut body) {
                body.truncate(before);
                rejected.push(RejectedRecord { offset, reason });
            }
        })
        .map_err(|why| refuse(why.to_string()))?;
    }
    Ok(Encoded::without(job, rejected, Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::sample::job;

    fn all_but_every_third(job: &Job) -> Encoded {
        encode(job, 100, b"<", |event, out| {
            event.write_id(out);
            if event.offset % 3 == 0 { Err(format!("no {}", event.offset)) } else { Ok(()) }
        })
        .unwrap()
    }

    #[test]
    fn what_cannot_be_sent_is_left_out_with_its_reason_and_all_else_is_at_its_place() {
        let job = Job { except: [7, 13].into(), ..job(6..26) };
        let encoded = all_but_every_third(&job);
        let prefix = record_id::prefix(&job.origin);
        let sent: Vec<u64> = (6..26).filter(|offset| ![7, 13].contains(offset) && offset % 3 != 0).collect();
        let ids: Vec<String> = sent.iter().map(|offset| format!("{prefix}{offset}")).collect();
        assert_eq!(encoded.body, format!("<{}", ids.join(",")));
        assert_eq!((0..).map_while(|index| encoded.offset_at(index)).collect::<Vec<_>>(), sent);
        let rejected: Vec<_> = encoded.rejected.iter().map(|record| (record.offset, record.reason.as_str())).collect();
        assert_eq!(rejected[..2], [(6, "no 6"), (9, "no 9")]);
        assert_eq!(encoded.records(), sent.len() as u64);
    }

    #[test]
    fn a_batch_with_fewer_records_than_the_log_says_is_refused() {
        let mut job = job(0..10);
        job.parts[0].take = 11;
        assert!(encode(&job, 0, b"", |_, _| Ok(())).unwrap_err().to_string().contains("offsets 0..10"));
    }
}
