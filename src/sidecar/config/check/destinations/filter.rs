//! Reads `[destinations.filter]`: which impressions a destination gets.

use super::super::super::raw::{Field, Section};
use super::super::super::{FilterSpec, Pattern, PatternError, limits};

pub(super) fn read(destination: &Section<'_>) -> FilterSpec {
    let section = destination.section("filter");
    let list = |key| {
        let fields = section.get(key).and_then(|field| many(&field)).unwrap_or_default();
        fields.iter().filter_map(pattern).collect::<Vec<_>>()
    };
    let filter = FilterSpec { flags: list("flags"), treatments: list("treatments"), labels: list("labels") };
    section.finish();
    filter
}

fn many<'r>(list: &Field<'r>) -> Option<Vec<Field<'r>>> {
    let mut fields = list.list()?;
    if fields.len() > limits::PATTERNS_MAX {
        let message = format!("{} patterns are more than are held against every impression", fields.len());
        list.place.error(message, format!("write {} or fewer", limits::PATTERNS_MAX));
        fields.truncate(limits::PATTERNS_MAX);
    }
    Some(fields)
}

fn pattern(field: &Field<'_>) -> Option<Pattern> {
    let text = field.text()?;
    if text.len() > limits::PATTERN_BYTES_MAX {
        field.place.error("no name is as long as this", "write its beginning and a * behind it");
        return None;
    }
    match text.parse() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let remedy = match error {
                PatternError::Star => {
                    "write \"name\", \"beginning*\", \"!name\" or \"!beginning*\"; \\\\* is a star itself"
                }
                PatternError::Backslash => "write \\\\\\\\ for a backslash itself",
            };
            field.place.error(error.to_string(), remedy);
            None
        }
    }
}
