//! The vendors' protocols: each sink turns batches into one receiver's bytes and judges that receiver's answers.
//!
//! No sink waits, repeats or settles; that is the loop's part (see [`crate::delivery`]).

pub mod address_guard;
pub mod amplitude;
mod events;
pub mod file;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gzip;
pub mod http;
mod rfc3339;
pub mod s3;
pub mod segment;
mod size_cap;
pub mod upstream;
pub mod webhook;
mod written_out;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod receiver;
#[cfg(test)]
mod requests;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
