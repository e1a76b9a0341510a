//! From an SDK's post to a webhook's answer, through the real binary: CPU, memory and rate.

use crate::load::{Load, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median};
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 32;
const SIZES: [(usize, f64); 2] = [(1000, 0.8), (100, 1.0)];

/// One webhook, uncompressed.
pub(crate) fn plain() -> Vec<Figure> {
    measure("end_to_end_cpu", "none", true)
}

/// One webhook with the default gzip.
pub(crate) fn gzip() -> Vec<Figure> {
    measure("end_to_end_cpu_gzip", "gzip", false)
}

fn measure(name: &'static str, compression: &str, with_rate: bool) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (impressions, cpu_max) in SIZES {
        let load = Load { connections: CONNECTIONS, impressions, time: ROUND, rate: None };
        let receiver = Receiver::start(true);
        let sidecar = Sidecar::start(&webhook("hook", receiver.address, compression));
        let (mut cpu, mut rates, mut straight) = (Vec::new(), Vec::new(), Vec::new());
        Load { time: Duration::from_secs(2), ..load }.run(sidecar.ingest);
        sidecar.drain();
        for _ in 0..ROUNDS {
            let direct = load.run(receiver.address);
            straight.push(direct.requests as f64 * impressions as f64 / direct.seconds);
            let counted = receiver.objects.load(Ordering::Relaxed);
            let (cpu_before, clock) = (sidecar.cpu_seconds(), forebay::clock::SystemClock::new());
            let sent = load.run(sidecar.ingest);
            sidecar.drain();
            assert_eq!(sent.refused, 0, "a refusal is no work done");
            if with_rate {
                // Uncompressed bodies: the receiver has counted them all, and none twice.
                let delivered = receiver.objects.load(Ordering::Relaxed) - counted;
                assert_eq!(delivered, sent.requests * impressions as u64, "acknowledged and delivered");
            }
            let millions = sent.requests as f64 * impressions as f64 / 1e6;
            cpu.push((sidecar.cpu_seconds() - cpu_before) / millions);
            rates.push(millions * 1e6 / forebay::clock::Clock::monotonic(&clock).as_secs_f64());
        }
        let what = format!(
            "{CONNECTIONS} connections, {impressions} impressions a bulk, fsync before the answer, one webhook, compression \
             {compression}"
        );
        let (most_mb, _) = sidecar.memory_mb();
        figures.push(Figure {
            name,
            what: format!("CPU of the sidecar process per million impressions: {what}"),
            value: median(cpu),
            unit: "s",
            baseline: None,
            ratio: None,
            target: Target::ValueAtMost(cpu_max),
        });
        figures.push(Figure {
            name,
            what: format!("most resident memory: {what}"),
            value: most_mb,
            unit: "MB",
            baseline: None,
            ratio: None,
            target: Target::ValueAtMost(150.0),
        });
        if with_rate {
            let ratio = median(rates.iter().zip(&straight).map(|(rate, straight)| rate / straight).collect());
            figures.push(Figure {
                name,
                what: format!("acknowledged and delivered, against the same load straight into the receiver: {what}"),
                value: median(rates),
                unit: "impressions/s",
                baseline: Some(median(straight)),
                ratio: Some(ratio),
                target: Target::RatioAtLeast(0.14),
            });
        }
    }
    figures
}
