//! The log under crashes: at every change of a script, and by chance in random histories.

use storage_tests::crash_points::{self, Plan, number};
use storage_tests::workload::{script, tiny};

#[test]
fn a_crash_at_any_change_loses_nothing_that_was_acknowledged() {
    let plan = Plan {
        steps: script(),
        options: tiny(),
        seed: number("FOREBAY_SEED", 1),
        cuts: number("FOREBAY_CUTS", 2),
        nested_every: 40,
    };
    let count = crash_points::run(&plan, "crash");
    println!("{count:?}");
    assert!(count.changes > 150 && count.crashes > 400, "{count:?}");
}
