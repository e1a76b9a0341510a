//! Fuzzing the places where bytes come in from outside: the disk, the SDKs, the destinations, the operator.
//!
//! The checks of the disk's side are `forebay::fuzzing`, those of the SDKs' side are `checks`, all others
//! `forebay_sidecar::fuzzing`; plain tests call the same functions with every file in `corpus/`. `impression` is the
//! sidecar's own module, through two links: so a fuzz run of it builds the parser and not the four hundred crates of the
//! sidecar's network, which only the feature `sidecar` brings.

pub mod checks;
#[allow(missing_docs)]
pub mod impression;
