//! Every limit of the queues, each with its reason. They stand together: see the assertions at the end.

/// Settled ranges that a cursor may have above its low mark, and with it the batches that may be open at once: each
/// open batch can leave one range behind. More would let a stuck batch drag an unbounded cursor through every tick.
pub(crate) const SETTLED_RANGES_MAX: usize = 256;

/// Of these, places that are for the halves of the batch at the low mark alone: so many halvings take the largest batch
/// down to a single record. Without them a batch that is too large could find all places taken by ranges that only it
/// can make one of, and neither be sent nor be split.
pub(crate) const SPLIT_PLACES: usize = 32;

/// Settled ranges and open batches that find a place whatever becomes of them.
pub(crate) const PLACES: usize = SETTLED_RANGES_MAX - SPLIT_PLACES;

/// Ranges of records that were given up where they lie, which a queue remembers: with limits acted on in steps of a
/// sixteenth four times as much as a limit, of a destination that takes some and is behind for good. One that takes nothing
/// has one range, however long.
pub(crate) const MARKED_RANGES_MAX: usize = 64;

/// Bytes of a destination's id. Part of every batch id, which must stay under [`BATCH_ID_BYTES_MAX`].
pub(crate) const DESTINATION_BYTES_MAX: usize = 40;

/// Bytes of a queue's name: a destination's id, or that of one of its replays.
pub(crate) const QUEUE_NAME_BYTES_MAX: usize = DESTINATION_BYTES_MAX + super::replay::SUFFIX_BYTES_MAX;

/// Plans that a replay goes by, and with them the batches that it sends under their old ids: some 12 MiB while it runs. A
/// range that has more ends before them; the next replay goes on there.
pub(crate) const REPLAY_PLANS_MAX: usize = 262_144;

/// Bytes of a stream's name as a queue knows it: an environment's id (40) behind the longest prefix (`!rejects/`),
/// and room to grow.
pub(crate) const STREAM_BYTES_MAX: usize = 128;

/// A batch id is shorter than this: the least of what receivers keep (`webhook-id` columns, S3 key parts).
pub(crate) const BATCH_ID_BYTES_MAX: usize = 100;

/// Records of one batch; the count must fit the batch id. S3's largest object of small records is a tenth of it.
pub(crate) const BATCH_RECORDS_MAX: u64 = u32::MAX as u64;

/// One slot of one page of the floor file. Holds a few dozen ordinary entries, or one with every range in use.
pub(crate) const FLOOR_SLOT_BYTES: usize = 12 * 1024;

/// Pages of a floor file, and with it queues of one set: in the worst case an entry fills a page of its own. At 24 KiB
/// a page the file stays below 1.5 GiB even then; 20,000 ordinary entries take 16 MiB.
pub(crate) const FLOOR_PAGES_MAX: usize = 65_536;

/// Queues at one time. Of the floor's pages the first holds none, and one more stays free.
pub(crate) const QUEUES_MAX: usize = 65_534;

/// Synced marks kept in the floor: one per segment that is being written, so a handful. The newest win.
pub(crate) const SYNCED_MARKS_MAX: usize = 64;

/// Plans that wait for the append before them. Callers have at most their open batches here; this holds for 256
/// destinations that fill their windows at once.
pub(crate) const PLANS_WAITING_MAX: usize = 65_536;

/// Plans that are kept though most of them are settled, before those that keep them are written again: some two megabytes, so
/// that it happens seldom and for little.
pub(crate) const PLANS_KEPT_MIN: u64 = 16_384;

/// Bytes of plans in one frame: stays below the log's frame limit, holds about 4,000 plans.
pub(crate) const PLAN_FRAME_BYTES_MAX: usize = 192 * 1024;

/// Bytes of frames that all queues together keep between two batches: 128 frames of the usual size. A queue beyond it
/// reads its frame again for the next batch, mostly from the log's caches.
pub(crate) const HELD_BYTES_MAX: usize = 32 << 20;

/// Plans of queues that the floor does not know (it was damaged), kept for when they are made again.
pub(crate) const ORPHANED_PLANS_MAX: usize = 65_536;

const _: () = assert!(BATCH_RECORDS_MAX >> SPLIT_PLACES == 0, "a halving each, down to one record");
const _: () = assert!(PLANS_WAITING_MAX >= 256 * SETTLED_RANGES_MAX);
