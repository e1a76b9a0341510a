//! Fuzzing the two places where bytes come in from outside: the disk and the SDKs.
//!
//! The checks of the disk's side are `forebay::fuzzing`, those of the SDKs' side are `checks`; plain tests call the same
//! functions with every file in `corpus/`. `impression` is the sidecar's own module, through two links: so a fuzz run
//! builds the parser and not the four hundred crates of the sidecar's network.

pub mod checks;
#[allow(missing_docs)]
pub mod impression;
