//! The names of a file destination's files. The one place that makes and reads them. Pure.
//!
//! `<destination>-<opened, ms since 1970>-<n>.jsonl`, or `.jsonl.zst` where it is packed; both numbers padded so that names sort by age; with `.open`
//! behind it while it is written to, and `.failed-<bytes>` where the disk broke its promise: so many of its bytes are good.

use std::fmt;

use super::packing::Packing;

/// The name of one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Counts the destination's files in the directory.
    pub(super) n: u64,
    /// When it was opened. Behind `n`: clocks jump, counts do not.
    pub(super) opened_ms: u64,
    pub(super) destination: String,
    pub(super) packing: Packing,
}

/// What the end of a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Being written to; its last line may be torn.
    Open,
    /// Whole, and never touched again.
    Done,
    /// What lies behind its last good sync is unknown, and could not be cut off.
    Failed {
        /// Bytes before that: whole lines, and delivered. Of a file that an earlier version set aside it is not known, and 0.
        whole: u64,
    },
}

impl Name {
    /// Reads a file's name; `None` if it is not of this destination.
    pub(super) fn parse(file_name: &str, destination: &str) -> Option<(Self, Stage)> {
        let (name, stage) = match file_name.rsplit_once(".failed-") {
            Some((name, bytes)) => {
                let whole: u64 = bytes.parse().ok().filter(|whole: &u64| whole.to_string() == bytes)?;
                (name, Stage::Failed { whole })
            }
            None => [(".open", Stage::Open), (".failed", Stage::Failed { whole: 0 }), ("", Stage::Done)]
                .into_iter()
                .find_map(|(end, stage)| Some((file_name.strip_suffix(end)?, stage)))?,
        };
        let (stem, packing) = [Packing::Zstd, Packing::Lines]
            .into_iter()
            .find_map(|packing| Some((name.strip_suffix(extension(packing))?, packing)))?;
        // From the right: a destination's id may hold hyphens.
        let mut parts = stem.rsplitn(3, '-');
        let n = parts.next()?.parse().ok()?;
        let opened_ms = parts.next()?.parse().ok()?;
        (parts.next()? == destination)
            .then(|| (Self { n, opened_ms, destination: destination.to_owned(), packing }, stage))
    }

    pub(super) fn at(&self, stage: Stage) -> String {
        match stage {
            Stage::Open => format!("{self}.open"),
            Stage::Done => self.to_string(),
            Stage::Failed { whole } => format!("{self}.failed-{whole}"),
        }
    }
}

/// What names of whole files end in.
fn extension(packing: Packing) -> &'static str {
    match packing {
        Packing::Lines => ".jsonl",
        Packing::Zstd => ".jsonl.zst",
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extension = extension(self.packing);
        write!(f, "{}-{:013}-{:06}{extension}", self.destination, self.opened_ms, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_reads_back_at_every_stage(n: u64, opened_ms: u64, whole: u64, destination in "[A-Za-z0-9_-]{1,40}") {
            for packing in [Packing::Lines, Packing::Zstd] {
                let name = Name { n, opened_ms, destination: destination.clone(), packing };
                for stage in [Stage::Open, Stage::Done, Stage::Failed { whole }] {
                    prop_assert_eq!(Name::parse(&name.at(stage), &destination), Some((name.clone(), stage)));
                }
            }
        }

        #[test]
        fn any_text_is_survived(text: String) {
            let _ = Name::parse(&text, "d");
        }
    }

    #[test]
    fn names_sort_by_age() {
        let packing = Packing::Lines;
        let name = |n, opened_ms| Name { n, opened_ms, destination: "d".to_owned(), packing }.to_string();
        assert_eq!(name(7, 1_700_000_000_000), "d-1700000000000-000007.jsonl");
        assert!(name(9, 999_999_999_999) < name(10, 1_700_000_000_000));
        assert!(name(9, 1_700_000_000_000) < name(10, 1_700_000_000_000));
    }

    #[test]
    fn files_that_earlier_versions_set_aside_are_known_and_what_is_good_of_them_is_not() {
        let parsed =
            |end: &str| Name::parse(&format!("a-1700000000000-000007.jsonl{end}"), "a").map(|(_, stage)| stage);
        assert_eq!(parsed(".failed"), Some(Stage::Failed { whole: 0 }));
        assert_eq!(parsed(".failed-4096"), Some(Stage::Failed { whole: 4096 }));
        for end in [".failed-", ".failed-04096", ".failed-x", ".failed-1.open"] {
            assert_eq!(parsed(end), None, "{end}");
        }
    }

    #[test]
    fn a_neighbours_files_are_not_ours() {
        assert_eq!(Name::parse("a-b-1700000000000-000007.jsonl", "a"), None);
        assert_eq!(Name::parse("a-1700000000000-000007.jsonl", "a-b"), None);
        assert_eq!(Name::parse("a-1700000000000-000007.jsonl.gz", "a"), None);
        assert_eq!(Name::parse("a-1700000000000-x.jsonl", "a"), None);
    }
}
