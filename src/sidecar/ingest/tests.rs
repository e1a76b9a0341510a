//! The way in through its front door: a server on loopback, a client that speaks HTTP by hand, a log on a disk in memory.

mod captures;
mod disk_trouble;
mod gated_disk;
mod harness;
mod heads;
mod lifetime;
mod limits;
mod logged;
mod pair;
mod posts;
mod relayed;
mod slow;
