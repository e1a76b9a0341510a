//! A power cut at any change that a piece of code makes to a disk, and behind the last, each with the change done or not
//! and with all that a cut may leave. For what is not the log: that has `crash_points`, which goes deeper.

use crate::fault::Performed;
use crate::sim_disk::{PowerCut, SimDisk, Snapshot};
use std::fmt::{self, Debug};

/// Where it was cut, and how: shown when a look fails.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    change: u64,
    changes: u64,
    performed: Performed,
    cut: PowerCut,
}

/// Has `act` play on a disk as in `snapshot`, cut in its midst, and `look` at what is left. `act` notes what it was answered
/// before the cut. Says how many changes it makes.
///
/// # Panics
/// When `act` fails on a disk that does not, and when a look does; the case is printed before it.
pub fn power_cut_at_any_change<S: Default, E: Debug>(
    snapshot: &Snapshot,
    act: impl Fn(&SimDisk, &mut S) -> Result<(), E>,
    mut look: impl FnMut(&SimDisk, S, Case),
) -> u64 {
    let whole = SimDisk::from_snapshot(snapshot);
    let first = whole.ops();
    act(&whole, &mut S::default()).expect("the disk is well");
    let changes = whole.ops() - first;
    for change in 0..=changes {
        for performed in [Performed::Nothing, Performed::All] {
            for cut in [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::RandomSubset] {
                let case = Case { change, changes, performed, cut };
                println!("{case}");
                let disk = SimDisk::from_snapshot(snapshot);
                disk.reseed(first + change);
                disk.crash_at(first + change, performed);
                let mut seen = S::default();
                let _ = act(&disk, &mut seen);
                assert!(disk.crashed() || change == changes, "it does the same each time");
                disk.power_cut(cut);
                look(&disk, seen, case);
            }
        }
    }
    changes
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, changes, performed, cut } = self;
        write!(f, "change {change} of {changes}, {performed:?}, {cut:?}")
    }
}
