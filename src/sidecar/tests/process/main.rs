//! The real binary, as a process of its own: started, fed over HTTP, killed, stopped, and judged by what arrived.
//!
//! Nothing here looks inside: the load generator, the receiver and the proof share no code with the product. Run one
//! test with `cargo test -p forebay-sidecar --test process NAME`. `FOREBAY_SEED` repeats the random ones, and
//! `FOREBAY_KILLS` says how often the sidecar is killed. With `FOREBAY_BINARY` it is another binary, such as a release;
//! failpoints are met in the tests' build all the same.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests stand outside the process: their clock and their files are the machine's own"
)]

mod books;
mod crowd;
#[path = "../evaluated/mod.rs"]
mod evaluated;
mod event_service;
mod load;
mod proof;
mod receiver;
mod seen;
mod sidecar;
mod split;
#[path = "../store/mod.rs"]
mod store;
mod strace;
mod watchdog;
mod wire;
mod witness;

mod bodies;
mod bucket;
mod buckets;
mod captures;
mod connections;
mod cuts;
mod descriptors;
mod endless;
mod everywhere;
mod failpoints;
mod floods;
mod full;
mod kills;
mod letters;
mod lines;
mod live_first;
mod memory;
mod operations;
mod outages;
mod overflow;
mod relayed;
mod replays;
mod restarts;
mod services;
mod starts;
mod stops;
mod syscalls;
mod times;
mod together;
mod unfinished;
mod whom;
