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

/// Large appends, and what comes meanwhile: of their own stream and of others, new ones too, more than fits into the segment
/// that is written to, and further large ones.
#[must_use]
pub fn large_script() -> Vec<Step> {
    use Step::{Among, Append, Housekeep, Read, Reopen, Trim};
    vec![
        Append("a", vec![(100, 1)]),
        Append("b", vec![(50, 1)]),
        Append("!dead/x", vec![(30, 1)]),
        Among(
            ("a", vec![(700, 3), (700, 2), (800, 1)]),
            vec![("b", vec![(40, 1)]), ("!plans", vec![(40, 1)]), ("a", vec![(30, 1)]), ("b", vec![(60, 2), (10, 1)])],
        ),
        Append("a", vec![(20, 1)]),
        Read,
        Among(
            ("b", vec![(2600, 4)]),
            vec![("late", vec![(10, 1)]), ("b", vec![(1200, 2), (1200, 1)]), ("a", vec![(5, 1)]), ("b", vec![(6, 1)])],
        ),
        Trim("b", 0),
        Housekeep,
        Among(
            ("a", vec![(1100, 2), (1100, 2)]),
            vec![("b", vec![(1500, 1)]), ("b", vec![(1500, 1)]), ("b", vec![(1500, 1)])],
        ),
        Among(
            ("!dead/x", vec![(2400, 3)]),
            vec![("!dead/x", vec![(8, 1)]), ("a", vec![(8, 1)]), ("!dead/y", vec![(2100, 1)])],
        ),
        Read,
        Reopen,
        Among(("a", vec![(2100, 2)]), vec![("a", vec![(2200, 1)]), ("b", vec![(30, 1)])]),
        Trim("a", 0),
        Among(("a", vec![(2500, 1), (2500, 1)]), vec![("!plans", vec![(40, 1)]), ("a", vec![(30, 1)])]),
        Trim("!dead/x", 0),
        Housekeep,
        Append("b", vec![(20, 1)]),
    ]
}
