//! What durable plans cost: the same way with plans and without, in turn.
//!
//! Without them a batch's boundaries are not written down before its first byte leaves, so that a crash could send the
//! same records under another id. Nobody can switch them off; this harness puts a sink that needs none around each.

use crate::load::{Load, Reads, Receiver, Sidecar, webhook};
use crate::report::{Figure, Target, median};
use forebay_sidecar::app;
use forebay_sidecar::delivery::outcome::Outcome;
use forebay_sidecar::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, Sink};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 3;
const IMPRESSIONS: usize = 100;
const PLANNED: &str = "--sidecar-with-plans";
const UNPLANNED: &str = "--sidecar-without-plans";

/// Plays the sidecar, where this process was started for that.
pub(crate) fn play() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    let wrap: app::WrapSink = match args.next()?.as_str() {
        PLANNED => |sink| sink,
        UNPLANNED => |sink| Arc::new(Unplanned(sink)),
        _ => return None,
    };
    let (config, _) = forebay_sidecar::config::load(args.next()?.as_ref());
    Some(app::run_with(config.expect("the harness wrote it"), wrap))
}

/// CPU per million impressions with plans, against that without.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let run = |mode: &str| {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg(mode);
        let sidecar = Sidecar::start_as(command, &webhook("hook", receiver.address, "none"));
        let load = Load { connections: 32, impressions: IMPRESSIONS, time: Duration::from_secs(4), rate: None };
        Load { time: Duration::from_secs(1), ..load }.run(sidecar.ingest);
        sidecar.drain();
        let before = sidecar.cpu_seconds();
        let sent = load.run(sidecar.ingest);
        sidecar.drain();
        (sidecar.cpu_seconds() - before) / (sent.requests as f64 * IMPRESSIONS as f64 / 1e6)
    };
    let (planned, unplanned): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| (run(PLANNED), run(UNPLANNED))).unzip();
    let ratio = median(planned.iter().zip(&unplanned).map(|(with, without)| with / without).collect());
    vec![Figure {
        name: "plan_cost",
        what: format!("CPU per million impressions at {IMPRESSIONS} a bulk, one webhook, with plans; baseline without"),
        value: median(planned),
        unit: "s",
        baseline: Some(median(unplanned)),
        ratio: Some(ratio),
        target: Target::None,
    }]
}

/// A sink that is sent to without a plan.
struct Unplanned(Arc<dyn Sink>);

impl Sink for Unplanned {
    fn format(&self) -> Format {
        self.0.format()
    }
    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.0.encode(job)
    }
    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: tokio::time::Instant) -> BoxFuture<'a, Outcome> {
        self.0.send(encoded, id, deadline)
    }
    fn needs_plan(&self) -> bool {
        false
    }
}
