//! The queues over everything that a disk and a cursor store can do to them.
//!
//! On the simulated disk: histories with crashes at any change, checked against a model of what was acknowledged,
//! settled and planned, and of the balance hour by hour. On a real directory: sled deleted, damaged, cut, replaced by an older copy, hanging, on a full
//! disk; each may cost repeats and nothing else.

mod damage;
mod failures;
mod found;
mod histories;
mod hours;
mod plans;
mod refused;
mod store;
