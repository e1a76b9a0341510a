//! What a destination costs that has nothing to send.

use crate::load::{Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median, quantile};

const MANY: usize = 5000;
const ROUNDS: usize = 3;

/// Resident memory with 5,000 idle webhooks against that with one, all included; one of each in turn.
///
/// It has no baseline: it is a difference to one, and what a machine could be faster or slower at has no part in it.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let memory = |destinations: usize| {
        let tables: String =
            (0..destinations).map(|i| webhook(&format!("hook-{i}"), receiver.address, "gzip")).collect();
        Sidecar::start(&tables).memory_mb().1
    };
    let each = |_| (memory(MANY) - memory(1)) * 1024.0 / (MANY - 1) as f64;
    let rounds: Vec<f64> = (0..ROUNDS).map(each).collect();
    let (least, most) = (quantile(rounds.clone(), 0.0), quantile(rounds.clone(), 1.0));
    vec![Figure {
        name: "idle_destination",
        what: format!(
            "resident memory with {MANY} idle webhooks less that with one, a destination; median of {ROUNDS} interleaved rounds \
             from {least:.2} to {most:.2}"
        ),
        value: median(rounds),
        unit: "KB",
        baseline: None,
        ratio: None,
        target: Target::ValueAtMost(2.0),
    }]
}
