//! A plan: the boundaries of a batch, made durable before its first byte leaves, and the batch's id, which is made of
//! them. After a crash the same records go out again under the same id.
//!
//! Pure: bytes in and out. Plans travel through [`Planner`](super::planner::Planner) into the log's stream of plans.

use super::codec::{Decoder, Malformed, put_text};
use super::limits::{BATCH_ID_BYTES_MAX, BATCH_RECORDS_MAX, DESTINATION_BYTES_MAX};
use super::limits::{PLAN_FRAME_BYTES_MAX, QUEUE_NAME_BYTES_MAX};
use crate::mutants::{self, Mutant};
use crate::{LogId, StreamId, base64_digits};
use std::ops::Range;
use std::sync::Arc;

const VERSION: u8 = 1;

/// The boundaries of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanRecord {
    /// The destination's id; of a replay the name of its queue, which tells its plans from those of the live queue.
    pub(crate) destination: Arc<str>,
    pub(crate) incarnation: u32,
    pub(crate) stream_id: StreamId,
    pub(crate) offsets: Range<u64>,
    /// The revision of the destination's settings that the batch was made under, and is finished under.
    pub(crate) revision: u32,
}

/// A frame's worth of plans: version (u8), then per plan the destination (a length byte and UTF-8), incarnation (u32),
/// stream id (u32), first offset (u64), count (u32), revision (u32), little-endian.
pub(crate) fn encode<'a>(plans: impl IntoIterator<Item = &'a PlanRecord>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for plan in plans {
        put_text(&mut out, &plan.destination);
        out.extend_from_slice(&plan.incarnation.to_le_bytes());
        out.extend_from_slice(&plan.stream_id.0.to_le_bytes());
        out.extend_from_slice(&plan.offsets.start.to_le_bytes());
        out.extend_from_slice(&plan.count().to_le_bytes());
        out.extend_from_slice(&plan.revision.to_le_bytes());
    }
    out
}

/// The plans of a frame, in order.
pub(crate) fn decode(frame: &[u8]) -> Result<Vec<PlanRecord>, Malformed> {
    let mut from = Decoder::new(frame);
    if from.u8()? != VERSION {
        return Err(Malformed("plans of another version"));
    }
    let mut plans = Vec::new();
    while !from.is_empty() {
        let (destination, incarnation, stream_id) = (from.text()?.into(), from.u32()?, StreamId(from.u32()?));
        let (first, count, revision) = (from.u64()?, from.u32()?, from.u32()?);
        let end = first.checked_add(u64::from(count)).ok_or(Malformed("a plan beyond any stream"))?;
        plans.push(PlanRecord { destination, incarnation, stream_id, offsets: first..end, revision });
    }
    Ok(plans)
}

/// Plans in one frame at most.
pub(crate) const PLANS_PER_FRAME_MAX: usize = (PLAN_FRAME_BYTES_MAX - 1) / (1 + QUEUE_NAME_BYTES_MAX + 24);

/// The id of a batch: log id (22 digits), then incarnation, stream, first offset and count, each as one digit that
/// tells how many follow and those digits, then the destination. No two batches share one: it can be read back.
///
/// Of destination `acme-hook`, stream 3, records 1,000 to 1,500 of a fresh log: `‹22 digits›BABDCPoCH0acme-hook`.
pub(crate) fn batch_id(log_id: LogId, plan: &PlanRecord) -> String {
    let mut id = format!("{:A>22}", log_id.to_string());
    for number in
        [u64::from(plan.incarnation), u64::from(plan.stream_id.0), plan.offsets.start, u64::from(plan.count())]
    {
        let digits = base64_digits(u128::from(number));
        id.push_str(&base64_digits(digits.len() as u128));
        id.push_str(&digits);
    }
    id.push_str(&plan.destination);
    mutants::vary(Mutant::NewIdEachTime, id)
}

/// 22 digits of the log id; a digit of length before at most 6, 6, 11 and 6 digits; the destination.
const _: () = assert!(22 + (1 + 6) + (1 + 6) + (1 + 11) + (1 + 6) + DESTINATION_BYTES_MAX < BATCH_ID_BYTES_MAX);
const _: () = assert!(BATCH_RECORDS_MAX <= u32::MAX as u64);

impl PlanRecord {
    fn count(&self) -> u32 {
        u32::try_from(self.offsets.end - self.offsets.start).expect("a batch has at most u32::MAX records")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_plan() -> impl Strategy<Value = PlanRecord> {
        // Small numbers often: that is where encodings run into each other.
        let small = || prop_oneof![0..70u32, any::<u32>()];
        let parts = ("[A-Za-z0-9_-]{1,40}", small(), small(), prop_oneof![0..70u64, any::<u64>()], small(), small());
        parts.prop_map(|(destination, incarnation, stream, first, count, revision)| {
            let offsets = first..first.saturating_add(u64::from(count));
            PlanRecord { destination: destination.into(), incarnation, stream_id: StreamId(stream), offsets, revision }
        })
    }

    /// Reads a number back as 6-bit digits.
    fn number(digits: &str) -> u128 {
        let place = |c: char| (0..64).find(|n| base64_digits(*n) == c.to_string()).expect("a digit");
        digits.chars().fold(0, |sum, c| sum * 64 + place(c))
    }

    /// Reads an id back into what it was made of.
    fn parse(id: &str) -> (u128, Vec<u128>, String) {
        let (log_id, mut rest) = id.split_at(22);
        let mut numbers = Vec::new();
        for _ in 0..4 {
            let len = number(&rest[..1]) as usize;
            numbers.push(number(&rest[1..=len]));
            rest = &rest[len + 1..];
        }
        (number(log_id), numbers, rest.to_owned())
    }

    proptest! {
        #[test]
        fn an_id_can_be_read_back_so_no_two_batches_share_one(plan in any_plan(), log_id in any::<u128>()) {
            let id = batch_id(LogId(log_id), &plan);
            prop_assert!(id.len() < BATCH_ID_BYTES_MAX);
            prop_assert!(id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'));
            let numbers = [plan.incarnation, plan.stream_id.0].map(u128::from).into_iter()
                .chain([u128::from(plan.offsets.start), u128::from(plan.count())]).collect();
            prop_assert_eq!(parse(&id), (log_id, numbers, plan.destination.to_string()));
        }

        #[test]
        fn plans_come_back_as_they_went_in(plans in prop::collection::vec(any_plan(), 0..20)) {
            prop_assert_eq!(decode(&encode(&plans)), Ok(plans));
        }

        #[test]
        fn any_bytes_are_plans_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(plans) = decode(&bytes) {
                prop_assert_eq!(encode(&plans), bytes);
            }
        }
    }

    #[test]
    fn an_ordinary_plan_takes_about_forty_bytes_and_the_documented_id() {
        let plan = PlanRecord {
            destination: "acme-hook".into(),
            incarnation: 0,
            stream_id: StreamId(3),
            offsets: 1_000..1_500,
            revision: 1,
        };
        assert_eq!(encode([&plan]).len() - 1, 34);
        assert_eq!(batch_id(LogId(0), &plan), format!("{}BABDCPoCH0acme-hook", "A".repeat(22)));
    }

    #[test]
    fn a_frame_takes_as_many_of_the_longest_plans_as_it_says_and_no_more() {
        let destination = "d".repeat(QUEUE_NAME_BYTES_MAX).into();
        let longest = PlanRecord { destination, incarnation: 0, stream_id: StreamId(3), offsets: 0..9, revision: 1 };
        let bytes = |plans: usize| encode(std::iter::repeat_n(&longest, plans)).len();
        assert!(
            bytes(PLANS_PER_FRAME_MAX) <= PLAN_FRAME_BYTES_MAX && bytes(PLANS_PER_FRAME_MAX + 1) > PLAN_FRAME_BYTES_MAX
        );
    }
}
