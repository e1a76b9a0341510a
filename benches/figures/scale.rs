//! Ten thousand destinations against ten: the same traffic, in batches of the same size.
//!
//! Each destination has an environment of its own. Posts go to the environments in turn, so that with many each sends
//! seldom: what it costs to wake one, to make its client and its connection anew, is in the figure.

use crate::load::{Keys, Load, Reads, Receiver, Sidecar, command, webhook_of};
use crate::report::{Figure, Target, median};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

const FEW: usize = 10;
/// With the environment that every sidecar of the figures has these are as many as a file may name.
pub(crate) const MANY: usize = 9_999;
const ROUNDS: usize = 3;
const LOAD: Load = Load { connections: 8, impressions: 1000, time: Duration::from_secs(10), rate: Some(60.0) };

/// So many environments of a webhook each, all at one address.
pub(crate) fn tables(destinations: usize, address: SocketAddr) -> String {
    let table = |n: usize| {
        let environment = format!("env-{n}");
        let own = format!("[[environments]]\nid = \"{environment}\"\nsdk_keys = [\"env:SCALE_{n}\"]\n");
        own + &webhook_of(&environment, &format!("hook-{n}"), address, "none")
    };
    (0..destinations).map(table).collect()
}

/// CPU for each delivered million, resident memory, and the time until it is ready.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Braces);
    let start = |destinations: usize| Sidecar::start_as(with_keys(), &tables(destinations, receiver.address));
    let (few, many) = (start(FEW), start(MANY));
    let idle_mb = many.memory_mb().1;
    let mut next = 0;
    let mut cost = |sidecar: &Sidecar, keys: usize| {
        let (before, counted) = (sidecar.cpu_seconds(), receiver.objects.load(Ordering::Relaxed));
        let sent = LOAD.run_with(sidecar.ingest, Keys { of: key, first: next, count: keys, timed: false });
        // By the receiver's own word: to ask the sidecar would be to have it tell of ten thousand destinations.
        let all = counted + sent.requests * LOAD.impressions as u64;
        while receiver.objects.load(Ordering::Relaxed) < all {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(sent.refused, 0, "a refusal is no work done");
        next += sent.requests as usize;
        (sidecar.cpu_seconds() - before) / (sent.requests as f64 * LOAD.impressions as f64 / 1e6)
    };
    let (mut few_cost, mut many_cost) = (Vec::new(), Vec::new());
    cost(&few, FEW);
    cost(&many, MANY);
    for _ in 0..ROUNDS {
        few_cost.push(cost(&few, FEW));
        many_cost.push(cost(&many, MANY));
    }
    let (_, busy_mb) = many.memory_mb();
    let (started, again) = (many.started_seconds, many.again(with_keys()).started_seconds);
    let ratios = many_cost.iter().zip(&few_cost).map(|(many, few)| many / few).collect();
    let value = |what: String, value: f64, before: f64, unit, target| Figure {
        name: "scale",
        what,
        value,
        unit,
        baseline: Some(before),
        ratio: Some(value / before),
        target,
    };
    vec![
        Figure {
            name: "scale",
            what: format!(
                "CPU per delivered million impressions with {MANY} webhooks of as many environments, against {FEW}: 60 posts of \
                 1,000 a second to one after the other"
            ),
            value: median(many_cost),
            unit: "s",
            baseline: Some(median(few_cost)),
            ratio: Some(median(ratios)),
            target: Target::RatioAtMost(1.5),
        },
        value(
            format!("resident memory with {MANY} webhooks behind that load, against before it"),
            busy_mb,
            idle_mb,
            "MB",
            Target::ValueAtMost(400.0),
        ),
        value(
            format!("until ready with {MANY} webhooks, started again after a kill, against the first start"),
            again,
            started,
            "s",
            Target::ValueAtMost(2.0),
        ),
    ]
}

/// The binary, which finds every key in its environment: one that stands in the file is warned of.
pub(crate) fn with_keys() -> Command {
    let mut command = command();
    command.envs((0..MANY).map(|n| (format!("SCALE_{n}"), key(n))));
    command
}

/// As long as that of the other figures.
pub(crate) fn key(n: usize) -> String {
    format!("figures-{n:07}")
}
