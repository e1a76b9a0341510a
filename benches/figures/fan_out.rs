//! One stream, many destinations: what each more of them costs.
//!
//! The same load to 1, 4 and 16 webhooks of the same format, each at a rate that one core could deliver to all of them.
//! What destinations share, reading and encoding, is paid once where their batches are the same.

use crate::load::{Load, Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median};
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROUNDS: usize = 3;
const IMPRESSIONS: usize = 100;
const WEBHOOKS: [usize; 3] = [1, 4, 16];

/// Bulks a second: of a hundred impressions each, that is a million deliveries a second to sixteen webhooks.
const RATE: f64 = 600.0;

/// CPU of the sidecar for each million impressions that a destination gets.
pub(crate) fn measure() -> Vec<Figure> {
    ["none", "gzip"].into_iter().flat_map(measure_packed).collect()
}

fn measure_packed(compression: &'static str) -> Vec<Figure> {
    // What is compressed it could not count.
    let receiver = Receiver::start(if compression == "none" { Reads::Braces } else { Reads::Nothing });
    let load = Load { connections: 8, impressions: IMPRESSIONS, time: Duration::from_secs(4), rate: Some(RATE) };
    let mut costs = WEBHOOKS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (webhooks, costs) in WEBHOOKS.iter().zip(&mut costs) {
            let tables: Vec<String> =
                (0..*webhooks).map(|n| webhook(&format!("hook-{n}"), receiver.address, compression)).collect();
            let sidecar = Sidecar::start(&tables.concat());
            Load { time: Duration::from_secs(1), ..load }.run(sidecar.ingest);
            sidecar.drain();
            let (before, counted) = (sidecar.cpu_seconds(), receiver.objects.load(Ordering::Relaxed));
            let sent = load.run(sidecar.ingest);
            sidecar.drain();
            assert_eq!(sent.refused, 0, "a refusal is no work done");
            let delivered = sent.requests * (IMPRESSIONS * webhooks) as u64;
            if compression == "none" {
                assert_eq!(receiver.objects.load(Ordering::Relaxed) - counted, delivered, "each got each once");
            }
            costs.push((sidecar.cpu_seconds() - before) / (delivered as f64 / 1e6));
        }
    }
    let alone = costs[0].clone();
    let figure = |(webhooks, costs): (usize, Vec<f64>)| Figure {
        name: "fan_out",
        what: format!(
            "CPU of the sidecar process per million impressions and destination, {webhooks} webhooks, {RATE} bulks of \
             {IMPRESSIONS} a second, compression {compression}; baseline one webhook"
        ),
        ratio: Some(median(costs.iter().zip(&alone).map(|(cost, alone)| cost / alone).collect())),
        value: median(costs),
        unit: "s",
        baseline: Some(median(alone.clone())),
        target: Target::None,
    };
    WEBHOOKS.into_iter().zip(costs).map(figure).collect()
}
