//! From an SDK's post to a webhook's answer, through the real binary: CPU, memory and rate.
//!
//! The rate's baseline is the same load straight into the same receiver, which does the least that a receiver of JSON
//! must: it checks it. What one is worth that counts braces and would take anything is told beside.
//!
//! The CPU's is the usual way to do the least of it, on one thread: the posted JSON into structs and out as Split's
//! objects, by serde. The targets are in seconds and were set where that took 0.55 s a million. So each is told twice: in
//! seconds, and as what of serde's seconds those were: what it means on another machine, or on this one in another hour
//! (docs/decisions/0159).

use crate::baseline::{Group, split_object};
use crate::load::{Load, Reads, Receiver, Sidecar, cpu_seconds, request, webhook};
use crate::report::{Figure, Target, median};
use forebay_sidecar::impression::EnvironmentLabel;
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 32;
/// Impressions of a bulk, and the CPU seconds a million that the figure may take.
const SIZES: [(usize, f64); 2] = [(1000, 0.8), (100, 1.0)];
/// What serde took where those were set, in seconds a million.
const SERDE_SECONDS: f64 = 0.55;

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
        // What is compressed it could not check.
        let receiver = Receiver::start(if with_rate { Reads::Json } else { Reads::Nothing });
        let careless = Receiver::start(Reads::Braces);
        let sidecar = Sidecar::start(&webhook("hook", receiver.address, compression));
        let idle_mb = sidecar.memory_mb().1;
        let (mut cpu, mut serde, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let (mut straight, mut careless_straight) = (Vec::new(), Vec::new());
        Load { time: Duration::from_secs(2), ..load }.run(sidecar.ingest);
        sidecar.drain();
        for _ in 0..ROUNDS {
            serde.push(serde_seconds(impressions));
            if with_rate {
                for (receiver, rates) in [(&receiver, &mut straight), (&careless, &mut careless_straight)] {
                    let direct = load.run(receiver.address);
                    rates.push(direct.requests as f64 * impressions as f64 / direct.seconds);
                }
            }
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
        let ratio = median(cpu.iter().zip(&serde).map(|(ours, serde)| ours / serde).collect());
        let (cpu, serde) = (median(cpu), median(serde));
        let ratio_max = (cpu_max / SERDE_SECONDS * 100.0).round() / 100.0;
        for (told, target) in
            [("in seconds", Target::ValueAtMost(cpu_max)), ("as a part of serde's", Target::RatioAtMost(ratio_max))]
        {
            figures.push(Figure {
                name,
                what: format!(
                    "CPU of the sidecar process per million impressions, beside serde's for its JSON, {told}: {what}"
                ),
                value: cpu,
                unit: "s",
                baseline: Some(serde),
                ratio: Some(ratio),
                target,
            });
        }
        figures.push(Figure {
            name,
            what: format!("most resident memory, beside what it was before the load: {what}"),
            value: most_mb,
            unit: "MB",
            baseline: Some(idle_mb),
            ratio: Some(most_mb / idle_mb),
            target: Target::ValueAtMost(150.0),
        });
        if with_rate {
            let against = |receiver: &str, baselines: Vec<f64>, target| Figure {
                name,
                what: format!(
                    "acknowledged and delivered, against the same load straight into a receiver {receiver}: {what}"
                ),
                value: median(rates.clone()),
                unit: "impressions/s",
                ratio: Some(median(rates.iter().zip(&baselines).map(|(rate, straight)| rate / straight).collect())),
                baseline: Some(median(baselines)),
                target,
            };
            figures.push(against("that checks JSON, as the webhook is one", straight, Target::RatioAtLeast(0.14)));
            figures.push(against("that counts braces", careless_straight, Target::None));
        }
    }
    figures
}

/// CPU seconds a million that serde takes for the same bodies, from posts to Split's objects.
fn serde_seconds(impressions: usize) -> f64 {
    const MILLIONS: f64 = 2.0;
    let request = request(impressions);
    let start = request.windows(4).position(|end| end == b"\r\n\r\n").expect("headers end") + 4;
    let environment = EnvironmentLabel { id: "acme-prod", name: "production" };
    let (mut out, mut written) = (Vec::new(), 0);
    let before = cpu_seconds("self");
    for _ in 0..(MILLIONS * 1e6) as usize / impressions {
        out.clear();
        let groups: Vec<Group<'_>> = serde_json::from_slice(&request[start..]).expect("a bulk");
        for group in &groups {
            for impression in &group.i {
                serde_json::to_writer(&mut out, &split_object(&group.f, impression, &environment)).expect("a Vec");
                out.push(b',');
                written += 1;
            }
        }
        std::hint::black_box(&out);
    }
    assert_eq!(written, (MILLIONS * 1e6) as usize, "it does the same work");
    (cpu_seconds("self") - before) / MILLIONS
}
