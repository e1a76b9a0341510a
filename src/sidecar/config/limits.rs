//! Every number of the configuration: its default, the least and the most, and why.

use std::time::Duration;

/// A default and the bounds of what may stand in its place; both bounds are allowed values.
pub(super) struct Bound<T> {
    pub(super) default: T,
    pub(super) least: T,
    pub(super) most: T,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

/// One HTTP body after decompression. SDKs send up to some MiB; a Synchronizer that was cut off sends tens of them.
/// A body above it is lost upstream, so the default is generous.
pub(super) const BODY_BYTES: Bound<u64> = Bound { default: 64 * MIB, least: 64 * KIB, most: GIB };

/// What the log takes in one append, as `app` sees to while it compiles. A body is one append.
pub(crate) const APPEND_BYTES: u64 = 512 * MIB;

/// What is stored of a body beside its elements: a thousand times a reason and a sender's name, and a name for each array of what is
/// more.
const BESIDE_BODY_BYTES: u64 = 8 * MIB;

/// The most that is stored of one body. What SDKs send is stored shorter than it comes, and what can't be an impression as it came. The
/// shortest impressions are stored a tenth longer, for a number takes nine bytes, and what all of a post share is stored with each part.
pub(super) const fn append_bytes(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(body_bytes / 4).saturating_add(BESIDE_BODY_BYTES)
}

/// The largest body, in whole MiB, whose worst case the log takes: one above it could be refused for ever.
pub(super) const BODY_BYTES_STORABLE: u64 = (APPEND_BYTES - BESIDE_BODY_BYTES) / 5 * 4 / MIB * MIB;

const _: () = assert!(append_bytes(BODY_BYTES_STORABLE) <= APPEND_BYTES);
const _: () = assert!(append_bytes(BODY_BYTES_STORABLE + MIB) > APPEND_BYTES);

/// All bodies being read and parsed at once.
pub(super) const INGEST_MEMORY_BYTES: Bound<u64> = Bound { default: 256 * MIB, least: MIB, most: 64 * GIB };

/// How many times the largest body all of that must be: a body takes its size up to thrice (as it came, as it is stored, and
/// once more where an upstream wants it), and no environment has more than three quarters.
pub(super) const INGEST_MEMORY_BODIES: u64 = 4;

const _: () = assert!(INGEST_MEMORY_BYTES.default == INGEST_MEMORY_BODIES * BODY_BYTES.default);

/// What may wait for the log's next sync. At 100 MB/s of disk 64 MiB are two thirds of a second of waiting.
pub(super) const QUEUE_BYTES: Bound<u64> = Bound { default: 64 * MIB, least: MIB, most: 16 * GIB };

/// Smaller segments free space sooner, larger ones are sealed and synced less often.
pub(super) const SEGMENT_BYTES: Bound<u64> = Bound { default: 64 * MIB, least: MIB, most: GIB };

/// How many segments the budget must hold: two are the reserve, two are being written (impressions, and what is kept about
/// them), and one is the next.
pub(super) const SEGMENTS_MIN: u64 = 5;

/// A budget written as a size.
pub(super) const BUDGET_BYTES: Bound<u64> = Bound { default: 0, least: 4 * MIB, most: 1024 * TIB };

/// A budget written as a share of what is free at the first start: the rest is left to the machine's other tenants.
pub(super) const BUDGET_PERCENT: Bound<u8> = Bound { default: 80, least: 1, most: 95 };

/// How long delivered records are kept to be sent again.
pub(super) const REPLAY_WINDOW: Bound<Duration> = Bound { default: hours(24), least: secs(0), most: hours(365 * 24) };

/// What was just appended and is not delivered yet, one copy for all destinations; a destination that keeps up never
/// reads the disk. 600,000 impressions: seconds of any common load, since what is delivered takes no room.
pub(super) const TAIL_CACHE_BYTES: Bound<u64> = Bound { default: 32 * MIB, least: MIB, most: 64 * GIB };

/// Batches being encoded and sent, over all destinations.
pub(super) const BATCH_MEMORY_BYTES: Bound<u64> = Bound { default: 64 * MIB, least: MIB, most: 64 * GIB };

/// Requests in flight over all destinations: a few hundred that hang, with one each, leave most of it. Each is an open file:
/// where the system allows fewer files there are fewer.
pub(super) const REQUESTS: Bound<u32> = Bound { default: 1_024, least: 1, most: 65_536 };

/// What of requests and memory work may hold that takes long (objects, large batches), and is kept for it while there is any.
pub(super) const BULK_PERCENT: Bound<u32> = Bound { default: 50, least: 10, most: 90 };

/// A destination's weight among those that want more than there is.
pub(super) const WEIGHT: Bound<u32> = Bound { default: 1, least: 1, most: 1_000 };

/// The backlog's part of what a destination takes, where what comes in now goes beside it: live has what it needs up to four
/// fifths of that, and the backlog all that is left, and never nothing.
pub(super) const BACKLOG_PERCENT: Bound<u32> = Bound { default: 20, least: 1, most: 99 };

/// Threads that deliveries run on: 0 is half of the cores. More than there are cores gains nothing.
pub(super) const DELIVERY_THREADS: Bound<u32> = Bound { default: 0, least: 0, most: 1_024 };

/// Time for what is in flight when the sidecar is told to stop. Kubernetes kills after 30 s.
pub(super) const SHUTDOWN_GRACE: Bound<Duration> = Bound { default: secs(20), least: secs(0), most: secs(600) };

/// Requests in flight to one destination: four hide a round trip and do not flood a small receiver.
pub(super) const CONCURRENCY: Bound<u32> = Bound { default: 4, least: 1, most: 1_024 };

/// Requests to one destination a second, if there is a limit.
pub(super) const RATE_REQUESTS: Bound<u32> = Bound { default: 0, least: 1, most: 1_000_000 };

/// Records a second.
pub(super) const RATE_RECORDS: Bound<u32> = Bound { default: 0, least: 1, most: 1_000_000_000 };

/// Bytes a second: a thousand are a modem.
pub(super) const RATE_BYTES: Bound<u64> = Bound { default: 0, least: KIB, most: TIB };

/// From the first byte of a request to the last of its answer.
pub(super) const TIMEOUT: Bound<Duration> =
    Bound { default: secs(30), least: Duration::from_millis(100), most: secs(3_600) };

/// How old dead letters get, if there is a limit: time enough for somebody to look.
pub(super) const DEAD_LETTERS_AGE: Bound<Duration> =
    Bound { default: hours(30 * 24), least: hours(1), most: hours(24 * 3_660) };

/// How many bytes of dead letters are kept, if there is a limit.
pub(super) const DEAD_LETTERS_BYTES: Bound<u64> = Bound { default: 1 << 30, least: MIB, most: 1 << 50 };

/// How far a destination may fall behind before it is given up on, if there is a limit: no outage that a night's sleep or a
/// deployment makes longer.
pub(super) const OVERFLOW_AGE: Bound<Duration> = Bound { default: hours(36), least: secs(600), most: hours(24 * 366) };

/// How many bytes may wait for it, if there is a limit.
pub(super) const OVERFLOW_BYTES: Bound<u64> = Bound { default: 10 * GIB, least: MIB, most: 1024 * TIB };

/// How long the oldest record of a batch waits for others. By default it leaves as soon as a request may start: while one
/// is under way, what comes in gathers by itself.
pub(super) const BATCH_WAIT: Bound<Duration> = Bound { default: secs(0), least: secs(0), most: hours(1) };

/// Records in one webhook request; what Split's documentation leaves open, receivers of its size take.
pub(super) const WEBHOOK_RECORDS: Bound<u32> = Bound { default: 1_000, least: 1, most: 1_000_000 };

/// Bytes of records in one webhook request, before compression: many servers refuse bodies above 1 MiB.
pub(super) const WEBHOOK_BYTES: Bound<u64> = Bound { default: MIB, least: KIB, most: 64 * MIB };

/// Records that a file takes between two syncs.
pub(super) const FILE_RECORDS: Bound<u32> = Bound { default: 50_000, least: 1, most: 1_000_000 };

/// Bytes that a file takes between two syncs: enough that the sync is a small part of the time.
pub(super) const FILE_BYTES: Bound<u64> = Bound { default: 8 * MIB, least: KIB, most: 64 * MIB };

/// A file is closed when it has this size.
pub(super) const FILE_ROTATE_BYTES: Bound<u64> = Bound { default: 128 * MIB, least: KIB, most: TIB };

/// A file is closed when it is this old, so that whoever collects the files gets them.
pub(super) const FILE_ROTATE_AGE: Bound<Duration> = Bound { default: hours(1), least: secs(1), most: hours(7 * 24) };

/// Events in one request to Amplitude's batch API, which takes 2,000.
pub(super) const AMPLITUDE_BATCH_RECORDS: Bound<u32> = Bound { default: 2_000, least: 1, most: 2_000 };

/// Bytes of records in it: it takes bodies of 20 MB, and an event is some hundred bytes longer than its record.
pub(super) const AMPLITUDE_BATCH_BYTES: Bound<u64> = Bound { default: 4 * MIB, least: KIB, most: 16 * MIB };

/// Events in one request to Amplitude's HTTP V2 API, which takes fewer than 2,000.
pub(super) const AMPLITUDE_HTTP_RECORDS: Bound<u32> = Bound { default: 1_000, least: 1, most: 1_999 };

/// Bytes of records in it: it takes bodies of 1 MB, of which a thousand events' own fields are about half.
pub(super) const AMPLITUDE_HTTP_BYTES: Bound<u64> = Bound { default: 256 * KIB, least: KIB, most: 768 * KIB };

/// Amplitude's own default of 5 would take the ids off impressions with short keys, and then refuse them.
pub(super) const AMPLITUDE_MIN_ID_LENGTH: Bound<u32> = Bound { default: 1, least: 1, most: 1_024 };

/// Events in one request to Segment: it takes 2,500, but 500 of common size are half of the bytes it takes.
pub(super) const TO_SEGMENT_RECORDS: Bound<u32> = Bound { default: 500, least: 1, most: 2_500 };

/// Bytes of records in it: it takes bodies of 500 KB.
pub(super) const TO_SEGMENT_BYTES: Bound<u64> = Bound { default: 128 * KIB, least: KIB, most: 400 * KIB };

/// Records in one object of S3: queries run well over objects of one to ten million.
pub(super) const S3_RECORDS: Bound<u32> = Bound { default: 1_000_000, least: 1, most: 100_000_000 };

/// Bytes of records in it, as they are stored in the log; as JSON they are about three times as long.
/// At most what ten thousand parts hold if it is not packed at all.
pub(super) const S3_BYTES: Bound<u64> = Bound { default: 128 * MIB, least: KIB, most: 8 * GIB };

/// How long the oldest record of an object waits for others.
pub(super) const S3_AGE: Bound<Duration> = Bound { default: secs(300), least: secs(1), most: hours(1) };

/// Objects on their way at once. Each takes some tens of MiB of memory.
pub(super) const S3_CONCURRENCY: Bound<u32> = Bound { default: 2, least: 1, most: 64 };

/// The most memory that one object of lines takes while it is written, and one of columns: two parts of 8 MiB, and what is
/// made into them. One of either fits into half of the default of [`BATCH_MEMORY_BYTES`].
pub(super) const S3_LINES_MEMORY_BYTES: u64 = 20 * MIB;
pub(super) const S3_COLUMNS_MEMORY_BYTES: u64 = 32 * MIB;

/// What a small one takes in all its forms, per stored byte: as it is read, as lines or columns, and packed.
pub(super) const S3_SMALL_FACTOR: u64 = 12;

/// S3 takes names of 1,024 bytes; what is filled in, and our own part, come to fewer than 320.
pub(super) const S3_PREFIX_BYTES_MAX: usize = 512;

/// Posts in one request to an upstream: as the SDK sent it, and no other way.
pub(super) const UPSTREAM_RECORDS: Bound<u32> = Bound { default: 1, least: 1, most: 1 };

/// What one post is expected to weigh at most; a larger one is sent all the same.
pub(super) const UPSTREAM_BYTES: Bound<u64> = Bound { default: MIB, least: KIB, most: 64 * MIB };

/// What posts that wait for an upstream may take of the disk: at 100 KB/s of posts three hours.
pub(super) const UPSTREAM_SHARE_BYTES: Bound<u64> = Bound { default: GIB, least: 8 * MIB, most: 1024 * TIB };

/// What Amplitude takes; Segment names no limit.
pub(super) const EVENT_NAME_CHARS_MAX: usize = 1_024;

/// Ids stand in file names, batch ids and URLs.
pub(super) const ID_BYTES_MAX: usize = 40;

/// An environment's name is sent with every impression.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// SDK keys are 36 to 60 characters; servers take headers of 8 KiB in all.
pub(super) const SDK_KEY_BYTES_MAX: usize = 1_024;

/// Secrets that sign one request: the new one, the old one, and room for a slip.
pub(super) const SIGNING_SECRETS_MAX: usize = 4;

/// Custom headers of one webhook: servers take about 100 in all.
pub(super) const HEADERS_MAX: usize = 50;

/// Patterns in one list of a filter: each is held against every impression.
pub(super) const PATTERNS_MAX: usize = 256;

/// Flags have names of up to 100 characters, labels of some hundred.
pub(super) const PATTERN_BYTES_MAX: usize = 1_024;

/// Environments and destinations in one file, each: at 2 KB an idle destination this is 20 MB.
pub(super) const TABLES_MAX: usize = 10_000;

/// One table of it, sent to the API.
pub(super) const SETTINGS_FILE_BYTES_MAX: u64 = 64 << 10;

/// The configuration file itself: room for every environment and destination.
pub(super) const CONFIG_FILE_BYTES_MAX: u64 = 16 * MIB;
