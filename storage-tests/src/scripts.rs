//! What is played to a log in the same order every time, so that each of its changes can be the one that fails.

use crate::workload::Step;

/// Every kind of thing that a log does, in a few dozen steps: new streams, groups, an append larger than a segment,
/// sealing, trimming, reclaiming, recycling, a quiet stream, a clean restart.
#[must_use]
pub fn script() -> Vec<Step> {
    use Step::{Append, Housekeep, Read, Reopen, Trim};
    let mut steps = vec![
        Append("quiet", vec![(100, 7)]),
        Append("a", vec![(10, 1)]),
        Append("b", vec![(600, 3), (600, 3), (500, 2)]),
        Append("!plans", vec![(40, 1)]),
        Append("!dead/x", vec![(300, 1)]),
        Append("a", vec![(1500, 10)]),
        Append("a", vec![(1200, 10)]),
        Append("b", vec![(6000, 5)]),
        Append("a", vec![(0, 1)]),
        Append("!dead/x", vec![(2000, 1), (1500, 1)]),
        Append("!dead/x", vec![(900, 1)]),
        Read,
        Trim("a", 0),
        Trim("b", 0),
        Trim("quiet", 0),
        Trim("!plans", 0),
        Housekeep,
    ];
    for i in 0..4 {
        steps.push(Append("a", vec![(1900 + i, 4)]));
        steps.push(Append("b", vec![(1000, 1), (900, 1)]));
        steps.push(Trim("a", 4));
        steps.push(Trim("b", 2));
    }
    steps.extend([Housekeep, Read, Reopen, Append("c", vec![(50, 1)]), Append("a", vec![(3000, 1)])]);
    steps.extend([Trim("!dead/x", 0), Append("!dead/x", vec![(3500, 1)]), Housekeep, Append("!plans", vec![(40, 1)])]);
    steps.extend([Trim("a", 0), Append("a", vec![(3800, 3)]), Trim("b", 0), Housekeep, Append("quiet", vec![(8, 1)])]);
    steps
}
