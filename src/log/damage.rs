//! What was acknowledged and is damaged: named, counted, never skipped in silence.

use super::limits::DAMAGES_KEPT_MAX;
use crate::offset::Sequence;
use std::fmt;
use std::ops::Range;

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: Sequence,
    /// Where in its file.
    pub positions: Range<u32>,
    /// Whose records, where that is known.
    pub stream: Option<String>,
    /// Which records, where that is known.
    pub offsets: Option<Range<u64>>,
    /// What is wrong.
    pub what: &'static str,
}

/// All damage that this process has met.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    kept: Vec<Damage>,
    count: u64,
}

impl Damages {
    pub(crate) fn note(&mut self, damage: Damage) {
        if self.kept.contains(&damage) {
            return; // several readers met the same place
        }
        tracing::error!(%damage, "damaged data");
        self.count += 1;
        if self.kept.len() < DAMAGES_KEPT_MAX {
            self.kept.push(damage);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn all(&self) -> Vec<Damage> {
        self.kept.clone()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = &self.positions;
        write!(f, "segment {} bytes {start}..{end}: {}", self.segment, self.what)?;
        if let Some(stream) = &self.stream {
            write!(f, ", stream {stream:?}")?;
        }
        match &self.offsets {
            Some(offsets) => write!(f, ", records {}..{}", offsets.start, offsets.end),
            None => write!(f, ", at least one record"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_once_and_says_all_that_is_known() {
        let damage = Damage {
            segment: Sequence(3),
            positions: 128..256,
            stream: Some("acme-prod".into()),
            offsets: Some(10..20),
            what: "the payload's checksum is wrong",
        };
        let mut damages = Damages::default();
        damages.note(damage.clone());
        damages.note(damage.clone());
        assert_eq!(damages.count(), 1);
        assert_eq!(
            damage.to_string(),
            "segment 3 bytes 128..256: the payload's checksum is wrong, stream \"acme-prod\", records 10..20"
        );
    }

    #[test]
    fn what_is_not_known_of_a_place_is_not_said() {
        let damage = Damage {
            segment: Sequence(3),
            positions: 128..256,
            stream: None,
            offsets: None,
            what: "no frame can be read here",
        };
        assert_eq!(damage.to_string(), "segment 3 bytes 128..256: no frame can be read here, at least one record");
    }

    #[test]
    fn all_places_are_counted_and_the_first_thousand_kept() {
        let mut damages = Damages::default();
        for position in 0..DAMAGES_KEPT_MAX as u32 + 6 {
            let (segment, positions, what) = (Sequence(3), position..position + 1, "no frame can be read here");
            damages.note(Damage { segment, positions, stream: None, offsets: None, what });
        }
        let kept = damages.all();
        assert_eq!((damages.count(), kept.len()), (1_030, 1_024));
        assert_eq!(kept.last().map(|damage| damage.positions.start), Some(1_023));
    }
}
