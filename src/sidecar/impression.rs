//! Impressions: from the posts of SDKs to the stored form, and from there to what destinations are sent.
//!
//! Pure: reads no clock, no file, no configuration; the same bytes in give the same bytes out. The way of an
//! impression is [`parse`] (post to [`Part`]s for the log), [`StoredBatch`] (a payload of the log, read in place),
//! [`write_split_objects`] and [`write_json_lines`] (JSON for destinations). Text is checked once, at the entry, and
//! copied with its escapes from then on; nothing on the way allocates per impression. The stored form is
//! `proto/forebay/v1/impression.proto`; [`cut_out`] takes a single record out of it.

mod cut;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod parse;
mod scan;
mod stored;
mod text;

pub use cut::cut_out;
pub use encode::{
    EncodeError, EnvironmentLabel, SplitFields, each_record, sdk_name_and_version, write_json_lines,
    write_split_objects,
};
pub use parse::{BatchMeta, Form, Limits, Parsed, Reject, Token, beacon_token, parse};
pub use scan::{DEPTH_MAX, Unreadable, UnreadableWhy};
pub use stored::{Impression, Malformed, Part, Records, Said, Shared, StoredBatch};
pub use text::{JsonText, escape, push_integer};
