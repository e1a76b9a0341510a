//! Which records of a batch a destination gets. Pure: reads the stored form, allocates nothing for an impression.
//!
//! What always holds: of the same records and the same filter come the same offsets, so that a batch that is sent again
//! leaves out what it left out before. What was filtered is settled as filtered, with the rest of its batch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::sink::{Run, push};
use crate::config::{FilterSpec, Pattern};
use crate::impression::{Impression, JsonText, StoredBatch, each_record};

/// A destination's filter, ready for use.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    flags: Rules,
    treatments: Rules,
    labels: Rules,
}

impl Filter {
    /// `None` for the one that lets everything pass.
    #[must_use]
    pub fn new(spec: &FilterSpec) -> Option<Self> {
        let filter = Self {
            flags: Rules::new(&spec.flags),
            treatments: Rules::new(&spec.treatments),
            labels: Rules::new(&spec.labels),
        };
        (!spec.is_empty()).then_some(filter)
    }

    /// Whether the destination gets this one. Text is compared as what it stands for, however it is escaped.
    #[must_use]
    pub fn passes(&self, record: &Impression<'_>) -> bool {
        self.flags.pass(record.flag)
            && self.treatments.pass(record.treatment.unwrap_or_default())
            && self.labels.pass(record.label.unwrap_or_default())
    }

    /// The offsets of the records that the destination does not get, ascending, in ranges as long as they can be. What can't
    /// be read back is none of them: its batch is split by who encodes it, until it stands alone and becomes a letter.
    pub fn filtered<'a>(&self, runs: impl Iterator<Item = Run<'a>>) -> Vec<Range<u64>> {
        let mut filtered: Vec<Range<u64>> = Vec::new();
        for run in runs {
            let Ok(batch) = StoredBatch::decode(run.payload) else { continue };
            // Records of one flag lie side by side, and most flags have one label at a time.
            let mut flag = Memo::default();
            let mut label = Memo::default();
            // Those before one that can't be read were handed over.
            let _ = each_record(&batch, run.skip, run.take, |place, record| {
                let passes = flag.pass(&self.flags, record.flag)
                    && label.pass(&self.labels, record.label.unwrap_or_default())
                    && self.treatments.pass(record.treatment.unwrap_or_default());
                if passes {
                    return;
                }
                let offset = run.first + (place - run.skip) as u64;
                push(offset..offset + 1, &mut filtered);
            });
        }
        filtered
    }
}

/// What was last asked of some rules, and the answer.
#[derive(Default)]
struct Memo<'a>(Option<(JsonText<'a>, bool)>);

impl<'a> Memo<'a> {
    #[inline]
    fn pass(&mut self, rules: &Rules, text: JsonText<'a>) -> bool {
        match self.0 {
            Some((last, passed)) if last == text => passed,
            _ => {
                let passed = rules.pass(text);
                self.0 = Some((text, passed));
                passed
            }
        }
    }
}

/// The patterns for one field.
#[derive(Debug, PartialEq, Eq)]
struct Rules {
    wanted: Box<[Word]>,
    unwanted: Box<[Word]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: Box<str>,
    prefix: bool,
}

impl Rules {
    fn new(patterns: &[Pattern]) -> Self {
        let words = |exclude| {
            let of_kind = patterns.iter().filter(|pattern| pattern.exclude == exclude);
            of_kind.map(|pattern| Word { text: pattern.text.as_str().into(), prefix: pattern.prefix }).collect()
        };
        Self { wanted: words(false), unwanted: words(true) }
    }

    fn pass(&self, text: JsonText<'_>) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(|word| word.meets(text)))
            && !self.unwanted.iter().any(|word| word.meets(text))
    }
}

impl Word {
    fn meets(&self, text: JsonText<'_>) -> bool {
        if self.prefix { text.begins_with(&self.text) } else { text.spells(&self.text) }
    }
}

/// The filters of a destination, by the revision of its settings: a batch that was planned under an older one is finished
/// under that one. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Filters(Arc<RwLock<BTreeMap<u32, Option<Arc<Filter>>>>>);

impl Filters {
    /// One filter, for all revisions until more are known.
    #[must_use]
    pub fn of(spec: &FilterSpec) -> Self {
        let filters = Self::default();
        filters.set(0, spec);
        filters
    }

    /// From `revision` on it is this one, until the next that is known. Batches of that revision must not be claimed
    /// before.
    pub fn set(&self, revision: u32, spec: &FilterSpec) {
        let filter = Filter::new(spec).map(Arc::new);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(revision, filter);
    }

    /// The filter for batches of `revision`: that of the nearest revision before it. `None` if all is sent.
    #[must_use]
    pub fn at(&self, revision: u32) -> Option<Arc<Filter>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.range(..=revision).next_back().and_then(|(_, filter)| filter.clone())
    }

    /// Whether any revision has a filter at all.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests;
