//! Forebay: an embedded durable log with a persistent queue per destination.

pub mod clock;
pub mod disk;
mod log;
mod offset;
mod queue;

pub use log::{
    AppendError, Appended, Class, CloseError, Damage, DamagedRange, Done, Frame, Inspected, Item, Log, LogOptions,
    LogState, LogStats, OnFull, OpenError, PLANS_STREAM, Payload, ReadError, Reader, SegmentReport, StreamStats,
    SyncedMark, Tail, inspect,
};
pub use offset::{LogId, Sequence, StreamId, base64_digits};
pub use queue::{
    Balance, Batch, BatchLimits, CloseQueuesError, Count, Cursor, CursorStore, FloorDamage, FloorError, KeyValue, Lag,
    MemStore, OpenQueuesError, OpenStore, PlanError, Queue, QueueError, QueueOptions, Queues, QueuesStats, Settled,
    SettledRange, Slice, Start, StoreChoice, StoreError,
};
