//! Every limit of the log, with its reason. Those that stand for something on disk may change only with the format's version.

use std::time::Duration;

/// Bytes of a frame's header. A multiple of [`FRAME_ALIGN`].
pub(crate) const FRAME_HEADER_BYTES: u32 = 56;

/// Frames start at multiples of this, so that a search for the next one behind damage tries one position in eight.
pub(crate) const FRAME_ALIGN: u32 = 8;

/// Bytes of a segment's header. The first frame follows it.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 128;

/// A segment is never larger: positions are 32 bits, and a whole unsealed segment is read into memory at open.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// A segment is never smaller: it must hold its header and a few frames. Tests use small ones.
pub(crate) const SEGMENT_BYTES_MIN: u32 = 4 << 10;

/// Longest name of a stream in bytes: an environment's id with a prefix of ours fits easily.
pub(crate) const STREAM_NAME_BYTES_MAX: usize = 120;

/// Most streams of one log: their table is rewritten with every sealed segment and must stay small beside it.
pub(crate) const STREAMS_MAX: usize = 1 << 20;

/// Most appends taken into one commit: bounds the time until the first of them hears of it.
pub(crate) const COMMIT_APPENDS_MAX: usize = 4096;

/// Most bytes taken into one commit, save when one append alone is larger: who comes next waits for them.
pub(crate) const COMMIT_BYTES_MAX: usize = 8 << 20;

/// In so many steps as much is written as makes an append a large one.
pub(crate) const LARGE_APPEND_STEPS: u32 = 8;

/// Bytes of files that nobody waits for (room taken ahead, compact segments) that are written before they are synced: a commit's
/// sync waits for what the disk has been given before it.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 1 << 20;

/// Cold frames kept so that readers near each other share one read.
pub(crate) const READ_CACHE_BYTES: usize = 8 << 20;

/// Compaction copies so many bytes a second at most, on the average: a fraction of what any disk writes, so that appends
/// hardly wait for it, and many times what one environment brings.
pub(crate) const COMPACTION_BYTES_PER_SECOND: u64 = 32 << 20;

/// Segments that a round of housekeeping looks into for what somebody needs of them, and the bytes of indexes that it may
/// read for that.
pub(crate) const WEIGHED_MAX: usize = 64;
pub(crate) const WEIGHED_BYTES_MAX: usize = 8 << 20;

/// For so long after a start nobody is refused for what it holds, unless the log was told before what is needed: until then all
/// that it has counts. Queues tell it with their first tick.
pub(crate) const SHARES_UNTOLD: Duration = Duration::from_secs(10);

/// Damages kept by name for the operator; further ones are only counted.
pub(crate) const DAMAGES_KEPT_MAX: usize = 1024;

/// Readers that the disk refuses try for ever, each as often as it likes; one line a minute says so.
pub(crate) const READ_TROUBLE_TOLD_EVERY: Duration = Duration::from_secs(60);

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGN), "the first frame is aligned");
const _: () = assert!(SEGMENT_BYTES_MIN > SEGMENT_HEADER_BYTES + 4 * FRAME_HEADER_BYTES);
const _: () = assert!(SEGMENT_BYTES_MAX < u32::MAX / 2, "sums of two positions fit");

/// How far a clock may go back and ingest times stand still instead, in milliseconds: more than what keeping time moves it by.
pub(crate) const CLOCK_BACK_MS_MAX: u64 = 60_000;

/// No file of a log has a greater number, nor does it give one out: at a thousand a second they last for nine thousand years. A name
/// with a greater one is a stranger's.
pub(crate) const NUMBER_MAX: u64 = 1 << 48;
