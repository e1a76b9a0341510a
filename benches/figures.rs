//! The figures that we promise, each against its baseline in the same run: `cargo bench --bench figures -- [NAME…]`.
//!
//! Prints one line of JSON for each figure. Machines are shared and noisy, so a figure is a ratio against a baseline
//! that ran interleaved with it, and the median of several rounds. Nothing here asserts: `met` says how it stands.

#[path = "figures/ack_latency.rs"]
mod ack_latency;
#[path = "figures/admission.rs"]
mod admission;
#[path = "figures/append.rs"]
mod append;
#[path = "baseline/serde.rs"]
mod baseline;
#[path = "figures/behind.rs"]
mod behind;
#[path = "figures/catch_up.rs"]
mod catch_up;
#[path = "figures/disk_share.rs"]
mod disk_share;
#[path = "figures/encode_cost.rs"]
mod encode_cost;
#[path = "figures/end_to_end.rs"]
mod end_to_end;
#[path = "figures/fan_out.rs"]
mod fan_out;
#[path = "figures/idle.rs"]
mod idle;
#[path = "figures/letters.rs"]
mod letters;
#[path = "figures/load.rs"]
mod load;
#[path = "figures/neighbours.rs"]
mod neighbours;
#[path = "figures/open_time.rs"]
mod open_time;
#[path = "figures/plan_cost.rs"]
mod plan_cost;
#[path = "figures/report.rs"]
mod report;
#[path = "figures/s3.rs"]
mod s3;
#[path = "figures/scale.rs"]
mod scale;
#[path = "figures/start_time.rs"]
mod start_time;
#[path = "../src/sidecar/tests/store/mod.rs"]
mod store;
#[path = "figures/traced_disk.rs"]
mod traced_disk;

use report::Figure;

/// A figure's name and how to measure it.
type Measurement = (&'static str, fn() -> Vec<Figure>);

const MEASUREMENTS: &[Measurement] = &[
    ("append_throughput", append::throughput),
    ("append_latency", append::latency),
    ("catch_up", catch_up::measure),
    ("encode_cost", encode_cost::measure),
    ("end_to_end_cpu", end_to_end::plain),
    ("end_to_end_cpu_gzip", end_to_end::gzip),
    ("fan_out", fan_out::measure),
    ("plan_cost", plan_cost::measure),
    ("ack_latency", ack_latency::measure),
    ("idle_destination", idle::measure),
    ("s3_encode_cost", s3::encode_cost),
    ("s3_throughput", s3::throughput),
    ("s3_memory", s3::memory),
    ("open_time", open_time::measure),
    ("scale", scale::measure),
    ("start_time", start_time::measure),
    ("neighbours", neighbours::measure),
    ("disk_share", disk_share::measure),
    ("admission", admission::measure),
    ("letters", letters::measure),
];

fn main() -> std::process::ExitCode {
    if let Some(code) = plan_cost::play().or_else(s3::play).or_else(letters::play) {
        return code;
    }
    // Cargo passes flags of its own (`--bench`): only bare words are names.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| !MEASUREMENTS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        eprintln!("no figure is called {unknown:?}; there are: {}", known.join(", "));
        return std::process::ExitCode::from(64);
    }
    for (name, measure) in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            for figure in measure() {
                println!("{}", figure.json());
            }
        }
    }
    std::process::ExitCode::SUCCESS
}
