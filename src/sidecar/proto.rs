//! What the compiler of protos makes of `proto/forebay`. Nothing here is written by hand.

/// Version 1, package `forebay.v1`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("forebay.v1");
}
