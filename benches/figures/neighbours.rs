//! A thousand destinations of a thousand customers, and what the healthy ones notice when some are sick: a tenth hangs for
//! ever, a tenth throttles, one has half of the traffic. Against a sidecar of which all are well, round by round, with the
//! same total traffic.

use crate::load::{Keys, Load, Sent, Sidecar, wait_until, webhook_of};
use crate::report::{Figure, Target, median, quantile};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::clock::{Clock, SystemClock};

const DESTINATIONS: usize = 1000;
const HANG: usize = 100;
const THROTTLE: usize = 200;
const HUGE: usize = 200;
const ROUNDS: usize = 5;
const LOAD: Load = Load { connections: 16, impressions: 10, time: Duration::from_secs(6), rate: Some(400.0) };

/// How long everything that is late may take before it is missed.
const PATIENCE: Duration = Duration::from_secs(60);

/// p99 from a post to its delivery, and p99 of the post's answer: beside the sick, against without.
pub(crate) fn measure() -> Vec<Figure> {
    let (alone, beside) = (Side::start(false), Side::start(true));
    let mut next = 0;
    let mut round = |side: &Side| {
        let first = next;
        let sent = side.round(first);
        next += sent.requests as usize;
        let delays = side.all_delays(first..next);
        (quantile(delays, 0.99), quantile(sent.latencies, 0.99) * 1e3)
    };
    // The sick have been sick for a while, and before that well for as long as it takes to notice.
    round(&alone);
    round(&beside);
    let (mut delivered, mut answered) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (at, (delay, answer)) in [round(&alone), round(&beside)].into_iter().enumerate() {
            delivered[at].push(delay);
            answered[at].push(answer);
        }
    }
    let figure = |what: &str, [alone, beside]: [Vec<f64>; 2]| {
        let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(beside, alone)| beside / alone).collect();
        let (least, most) = (quantile(ratios.clone(), 0.0), quantile(ratios.clone(), 1.0));
        Figure {
            name: "neighbours",
            what: format!(
                "p99 {what} with {DESTINATIONS} webhooks, a tenth of which hang, a tenth throttle and one has half of the \
                 traffic, against all well: {} posts of {} a second; ratios of {ROUNDS} interleaved rounds from {least:.2} to \
                 {most:.2}",
                LOAD.rate.unwrap_or_default(),
                LOAD.impressions
            ),
            value: median(beside),
            unit: "ms",
            baseline: Some(median(alone)),
            ratio: Some(median(ratios)),
            target: Target::RatioAtMost(1.5),
        }
    };
    vec![figure("from a post to its delivery at a healthy one", delivered), figure("of a post's answer", answered)]
}

/// A sidecar, and what its healthy destinations got.
struct Side {
    sidecar: Sidecar,
    /// The destination that a turn's post is for, and the key that it is sent with.
    of: fn(usize) -> usize,
    key: fn(usize) -> String,
    /// Of no other side: what comes late is told of those that it is late for.
    delays: Arc<Mutex<Vec<f64>>>,
}

impl Side {
    fn start(sick: bool) -> Self {
        let delays = Arc::new(Mutex::new(Vec::new()));
        let [well, other, hangs, throttles] =
            [Manner::Answers(Some(Arc::clone(&delays))), Manner::Answers(None), Manner::Hangs, Manner::Throttles]
                .map(receiver);
        let table = |n: usize| {
            let to = match n {
                // Of the same ones in both, so that the same is told.
                n if is_healthy(n) => well,
                n if sick && n < HANG => hangs,
                n if sick && n < THROTTLE => throttles,
                _ => other,
            };
            let own = format!("[[environments]]\nid = \"env-{n}\"\nsdk_keys = [\"{}\"]\n", key(n));
            own + &webhook_of(&format!("env-{n}"), &format!("hook-{n}"), to, "none")
        };
        let sidecar = Sidecar::start(&(0..DESTINATIONS).map(table).collect::<String>());
        if sick {
            Self { sidecar, of: uneven, key: |turn| key(uneven(turn)), delays }
        } else {
            Self { sidecar, of: even, key: |turn| key(even(turn)), delays }
        }
    }

    /// Posts, from the turn `first` on.
    fn round(&self, first: usize) -> Sent {
        let keys = Keys { of: self.key, first, count: usize::MAX, timed: true };
        let sent = LOAD.run_with(self.sidecar.ingest, keys);
        assert_eq!(sent.refused, 0, "a refusal is no answer");
        sent
    }

    /// How late each impression came that these turns posted for a healthy destination, when all of them are there.
    fn all_delays(&self, turns: Range<usize>) -> Vec<f64> {
        let all = turns.filter(|turn| is_healthy((self.of)(*turn))).count() * LOAD.impressions;
        wait_until(PATIENCE, || self.delays.lock().expect("no panic").len() >= all);
        let delays = std::mem::take(&mut *self.delays.lock().expect("no panic"));
        let lack = all.saturating_sub(delays.len());
        assert_eq!(delays.len(), all, "each is delivered to the healthy once; after {PATIENCE:?} {lack} lack");
        delays
    }
}

/// No other has part in what is told: those below are sick on one side, or the huge one.
fn is_healthy(n: usize) -> bool {
    n > HUGE
}

fn key(n: usize) -> String {
    format!("figures-{n:07}")
}

fn even(turn: usize) -> usize {
    turn % DESTINATIONS
}

/// Every other post is the huge one's.
fn uneven(turn: usize) -> usize {
    if turn.is_multiple_of(2) { HUGE } else { turn / 2 % DESTINATIONS }
}

/// How a receiver answers.
#[derive(Clone)]
pub(crate) enum Manner {
    /// At once; it notes how old what it got is, in milliseconds.
    Answers(Option<Arc<Mutex<Vec<f64>>>>),
    Hangs,
    Throttles,
}

pub(crate) fn receiver(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let manner = manner.clone();
            // A connection that ends is how each of them ends.
            let thread = std::thread::Builder::new().stack_size(64 << 10);
            let _ = thread.spawn(move || drop(serve(stream, &manner)));
        }
    });
    address
}

fn serve(stream: TcpStream, manner: &Manner) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        body.resize(length, 0);
        input.read_exact(&mut body)?;
        match manner {
            Manner::Answers(delays) => {
                if let Some(delays) = delays {
                    delays.lock().expect("no panic").extend(ages(&body));
                }
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
            // Until the sidecar has lost patience.
            Manner::Hangs => {}
            Manner::Throttles => out.write_all(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
}

/// How long ago the impressions of a body were made, in milliseconds.
fn ages(body: &[u8]) -> Vec<f64> {
    let now = SystemClock::new().wall_ms() as f64;
    let field = b"\"time\":";
    let made = |at: usize| {
        let digits = body.get(at + field.len()..)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(&digits[..end]).ok()?.parse::<f64>().ok()
    };
    memchr::memmem::find_iter(body, field).filter_map(|at| Some(now - made(at)?)).collect()
}
