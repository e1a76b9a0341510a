//! One environment posts the largest bodies there are, ten times as many as there is room for; what the others notice.
//!
//! Both kinds of rounds are against one sidecar, in turn, and what the flood left behind is delivered before the next one
//! begins. Its senders and the receiver run on the sidecar's own cores: what they take is in the figure.

use crate::load::{Keys, Load, Reads, Receiver, SDK_KEY, Sidecar, request, status, webhook};
use crate::report::{Figure, Target, median, quantile};
use crate::scale::{key, tables, with_keys};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Environments beside the one that floods.
const OTHERS: usize = 1000;
const ROUNDS: usize = 5;
const LOAD: Load = Load { connections: 16, impressions: 10, time: Duration::from_secs(6), rate: Some(400.0) };

/// Of a body of 64 MiB, which is charged twice its size, one has room beside the part that is kept for others.
const FLOODING: usize = 10;
const BODY_BYTES: usize = 64 << 20;

/// p99 of the others' answers beside the flood, against without.
pub(crate) fn measure() -> Vec<Figure> {
    let receiver = Receiver::start(Reads::Nothing);
    let flooding = webhook("flooded", receiver.address, "none");
    let sidecar = Sidecar::start_as(with_keys(), &(tables(OTHERS, receiver.address) + &flooding));
    let body = largest();
    let mut next = 0;
    let mut round = |flooded: bool| {
        let flood = flooded.then(|| Flood::start(sidecar.ingest, &body));
        let sent = LOAD.run_with(sidecar.ingest, Keys { of: key, first: next, count: OTHERS, timed: false });
        let flood = flood.map(Flood::stop).unwrap_or_default();
        next += sent.requests as usize;
        assert_eq!(sent.refused, 0, "nobody is refused for what another sends");
        sidecar.drain();
        (quantile(sent.latencies.clone(), 0.5) * 1e3, quantile(sent.latencies, 0.99) * 1e3, flood)
    };
    round(false);
    round(true);
    let (mut alone, mut beside, mut medians, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Bodies::default());
    for _ in 0..ROUNDS {
        let (before, without, _) = round(false);
        let (meanwhile, with, flood) = round(true);
        alone.push(without);
        beside.push(with);
        medians.push((before, meanwhile));
        bodies.taken += flood.taken;
        bodies.refused += flood.refused;
    }
    let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(beside, alone)| beside / alone).collect();
    let (least, most) = (quantile(ratios.clone(), 0.0), quantile(ratios.clone(), 1.0));
    let (quiet, loud): (Vec<f64>, Vec<f64>) = medians.into_iter().unzip();
    let seconds = LOAD.time.as_secs_f64() * ROUNDS as f64;
    vec![Figure {
        name: "admission",
        what: format!(
            "p99 of the answer to {} posts of {} a second of {OTHERS} environments, beside one that has {FLOODING} bodies of 64 MiB \
             under way all the time ({:.2} a second taken, {:.2} refused), against without it; medians {:.2} and {:.2} ms; \
             ratios of {ROUNDS} interleaved rounds from {least:.2} to {most:.2}",
            LOAD.rate.unwrap_or_default(),
            LOAD.impressions,
            bodies.taken as f64 / seconds,
            bodies.refused as f64 / seconds,
            median(loud),
            median(quiet),
        ),
        value: median(beside),
        unit: "ms",
        baseline: Some(median(alone)),
        ratio: Some(median(ratios)),
        target: Target::RatioAtMost(1.5),
    }]
}

/// As many impressions as go into the largest body.
fn largest() -> Arc<[u8]> {
    const SAMPLE: usize = 100_000;
    // The names of flags and users grow a little with their numbers.
    let impressions = BODY_BYTES / (request(SAMPLE).len() / SAMPLE + 1) * 98 / 100;
    let request: Arc<[u8]> = request(impressions).into();
    assert!(
        memchr::memmem::find(&request, SDK_KEY.as_bytes()).is_some() && request.len() < BODY_BYTES,
        "it is allowed"
    );
    request
}

/// What became of the flood.
#[derive(Default)]
struct Bodies {
    taken: u64,
    refused: u64,
}

/// Connections that post the largest body again and again.
struct Flood {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Bodies>>,
}

impl Flood {
    fn start(address: SocketAddr, body: &Arc<[u8]>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |_| {
            let (body, stop) = (Arc::clone(body), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut bodies = Bodies::default();
                while !stop.load(Ordering::Relaxed) {
                    // A connection may end with a refusal: whoever floods comes again.
                    let _ = post(address, &body, &stop, &mut bodies);
                }
                bodies
            })
        };
        let senders = (0..FLOODING).map(sender).collect();
        Self { stop, senders }
    }

    /// No body is begun any more; those under way are sent to their ends.
    fn stop(self) -> Bodies {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.into_iter().fold(Bodies::default(), |all, sender| {
            let one = sender.join().expect("no panic");
            Bodies { taken: all.taken + one.taken, refused: all.refused + one.refused }
        })
    }
}

/// Posts on one connection for as long as it lasts.
fn post(address: SocketAddr, body: &[u8], stop: &AtomicBool, bodies: &mut Bodies) -> std::io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while !stop.load(Ordering::Relaxed) {
        out.write_all(body)?;
        if status(&mut input)? == 200 {
            bodies.taken += 1;
        } else {
            bodies.refused += 1;
        }
    }
    Ok(())
}
