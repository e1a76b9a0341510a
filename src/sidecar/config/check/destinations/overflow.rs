//! Reads `overflow`: what is given up when a destination falls behind too far.

use super::super::super::raw::Section;
use super::super::super::{OverflowConfig, OverflowPolicy, SinkKind, limits};

/// The words, for whoever has to choose.
const WORDS: &str = "policy = \"drop_oldest\" or policy = \"dead_letter\"";

pub(super) fn read(destination: &Section<'_>, kind: SinkKind) -> Option<OverflowConfig> {
    let field = destination.get("overflow")?;
    if kind == SinkKind::Upstream {
        let message = "an upstream's posts have a share of the disk of their own, and no other policy";
        field.place.error(message, "remove it; max_bytes says how much may wait");
    }
    let section = destination.section("overflow");
    if !section.exists() {
        return None;
    }
    let policy = section.require("policy", &format!("write {WORDS}"));
    let policy = policy.map(|_| section.choice("policy", &OverflowPolicy::WORDS));
    let max_age = section.get("max_age").and_then(|field| field.duration(&limits::OVERFLOW_AGE));
    let max_bytes = section.get("max_bytes").and_then(|field| field.bytes(&limits::OVERFLOW_BYTES));
    if !section.has("max_age") && !section.has("max_bytes") {
        let message = "without max_age and max_bytes nobody knows what is too far behind";
        section.place().misplaced(message, "write max_age = \"36h\" or max_bytes = \"10GiB\", or both");
    }
    section.finish();
    Some(OverflowConfig { policy: policy?, max_age, max_bytes }).filter(|_| kind != SinkKind::Upstream)
}
