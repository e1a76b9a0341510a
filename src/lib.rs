//! An embedded durable log with a persistent queue per destination.
//!
//! Many streams share one log. [`Log::append_wait`] returns once the records are on disk, fsynced; appends that wait
//! at the same time share one sync. Readers follow a stream in order and never see a record that a crash could take back.
//! What was acknowledged and is damaged later is reported as [`Item::Lost`], with its offsets: nothing is skipped in silence.
//!
//! Synchronous, and free of any runtime and of the network. The log starts two threads of its own, or none with
//! [`LogOptions::inline`]. Everything it does to files goes through [`disk::Disk`], so that it runs as well on the disk
//! in memory that the example uses, and on a simulated one that crashes.
//!
//! ```
//! use forebay::clock::SystemClock;
//! use forebay::disk::mem::MemDisk; // or forebay::disk::real::RealDisk
//! use forebay::{Item, Log, LogOptions, Payload};
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! let disk = MemDisk::new();
//! let open = || Log::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/data"), LogOptions::small());
//!
//! // A payload is opaque; say how many records it holds, and each gets an offset.
//! let log = open()?;
//! let appended = log.append_wait("acme-prod", vec![Payload { bytes: b"a,b,c".to_vec(), records: 3 }])?;
//! assert_eq!(appended.offsets, 0..3);
//! drop(log); // no close: as after a crash
//!
//! let log = open()?;
//! let stream = log.stream("acme-prod").expect("it was appended to");
//! let mut reader = log.reader(stream, 0);
//! while let Some(item) = reader.next()? {
//!     match item {
//!         Item::Frame(frame) => assert_eq!((frame.offsets(), frame.payload()), (0..3, &b"a,b,c"[..])),
//!         Item::Lost { offsets, why } => panic!("records {offsets:?} were damaged: {why}"),
//!     }
//! }
//! // Nobody needs them any more: their segment may go.
//! log.trim(stream, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Over the log lie [`Queues`]: one [`Queue`] per destination and stream, which hands out batches, remembers what is settled,
//! and gives the same batch the same id across every crash. A destination that takes nothing holds nobody else up.
//!
//! ```
//! use forebay::clock::SystemClock;
//! use forebay::disk::mem::MemDisk;
//! use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start, StoreChoice};
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! // Without sled, which would look for real files, and without threads.
//! let options = QueueOptions { store: StoreChoice::None, inline: true, ..QueueOptions::default() };
//! let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(SystemClock::new()));
//! let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), options)?;
//!
//! let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
//! queues.log().append_wait("acme-prod", vec![Payload { bytes: b"a,b,c".to_vec(), records: 3 }])?;
//! assert_eq!(queue.lag().records, 3);
//!
//! let limits = BatchLimits { records_max: 2, bytes_max: 1 << 20 };
//! let batch = queue.next_batch(limits)?.expect("three records wait");
//! assert_eq!(batch.offsets, 0..2);
//! queue.settle(&batch, Settled::Delivered); // or `release` it: it comes again, unchanged
//! assert_eq!(queue.lag().records, 1);
//! assert!(queue.balance().closes());
//! queues.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every byte on disk is drawn in `docs/format.md`; what is promised, and the proof by cases, is in `docs/durability.md`.

pub mod clock;
pub mod disk;
#[doc(hidden)]
pub mod failpoints;
mod log;
#[doc(hidden)]
pub mod mutants;
mod offset;
mod queue;
mod sync;

/// What the fuzzers call, and the replay of their corpora. No part of the API.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::log::fuzzing::{frame, recovery, tables};
    pub use crate::queue::fuzzing::{floor_page, hint, plans};
}

pub use log::{
    AppendError, Appended, Class, CloseError, Damage, Done, Flaw, Frame, GiveUpError, Inspected, Item, Log, LogOptions,
    LogState, LogStats, OnFull, OpenError, Outline, PLANS_STREAM, Payload, ReadError, Reader, SeenFrame, SeenStream,
    SegmentReport, Skimmed, StreamStats, SyncedMark, Tail, Unreadable, give_up, inspect,
};
pub use offset::{LogId, Sequence, StreamId, base64_digits};
pub use queue::{
    Balance, Batch, BatchLimits, CloseQueuesError, Count, Cursor, CursorStore, Deleted, FloorDamage, FloorError, Front,
    Halved, Hour, Hourly, KeyValue, Lag, MarkedRange, MemStore, Much, OpenQueuesError, OpenStore, PlanError, Position,
    Queue, QueueError, QueueOptions, Queues, QueuesStats, RangeError, RangeLimits, RangeReader, Replay, ReplayError,
    ReplayFrom, ReplayMode, ReplayRequest, Replayed, SeenFloor, Settled, SettledRange, Slice, SplitError, Start,
    StoreChoice, StoreError, Waiting, inspect_floor,
};
