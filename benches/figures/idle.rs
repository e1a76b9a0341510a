//! What a destination costs that has nothing to send.

use crate::load::{Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target};

const MANY: usize = 5000;

/// Resident memory with 5,000 idle webhooks against that with one, all included.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let memory = |destinations: usize| {
        let tables: String =
            (0..destinations).map(|i| webhook(&format!("hook-{i}"), receiver.address, "gzip")).collect();
        Sidecar::start(&tables).memory_mb().1
    };
    let (one, many) = (memory(1), memory(MANY));
    vec![Figure {
        name: "idle_destination",
        what: format!("resident memory with {MANY} idle webhooks less that with one, a destination"),
        value: (many - one) * 1024.0 / (MANY - 1) as f64,
        unit: "KB",
        baseline: None,
        ratio: None,
        target: Target::ValueAtMost(2.0),
    }]
}
