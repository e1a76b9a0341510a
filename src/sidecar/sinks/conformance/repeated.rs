//! A receiver that answers with what it was sent, as frameworks do that show a bad request to whoever made it: no record of it
//! shows in a log line or in what operators are told of errors.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use forebay::{Settled, Waiting};
use http_body_util::Full;
use hyper::Response;

use super::statuses::STATUSES;
use super::*;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::heavy::Heavy;
use crate::delivery::parking::NoParking;
use crate::delivery::sink::LargeJob;
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};
use crate::delivery::stats::CLASSES;
use crate::delivery::{Delivery, Settings};
use crate::logged::Lines;
use crate::sinks::receiver::serve;

/// The key of the one record that is sent.
const CANARY: &str = "user-47110";

/// A queue of one batch, which comes again until it is settled.
#[derive(Clone)]
struct OneBatch {
    job: Job,
    out: Arc<AtomicBool>,
    wake: Arc<OnceLock<Arc<dyn Fn() + Send + Sync>>>,
}

impl OneBatch {
    fn of(job: Job) -> Arc<dyn Source> {
        Arc::new(Self { job, out: Arc::default(), wake: Arc::default() })
    }

    fn claim<J>(&self, job: J) -> Option<Claimed<J>> {
        let first = !self.out.swap(true, Ordering::SeqCst);
        first.then(|| Claimed { job, ticket: Box::new(Right { of: self.clone(), back: Mutex::new(true) }) })
    }
}

impl Source for OneBatch {
    fn has_more(&self) -> bool {
        !self.out.load(Ordering::SeqCst)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, _: Limits) -> Result<Option<Claimed>, BoxError> {
        Ok(self.claim(self.job.clone()))
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Ok(self.claim(large_of(self.job.clone())))
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        Ok(Waiting { comes_again: self.has_more(), bounded: true, ..Waiting::default() })
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }
}

/// The right to the batch; without it the batch is back.
struct Right {
    of: OneBatch,
    back: Mutex<bool>,
}

impl Ticket for Right {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        done(Ok(()));
    }

    fn settle(self: Box<Self>, _: &[(Range<u64>, Settled)], _: Settled) {
        *self.back.lock().unwrap() = false;
    }

    fn split(self: Box<Self>, _: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        done(Err("one record has no halves".into()));
    }

    fn letters(&self, _: &[u64]) -> Result<Vec<Stored>, BoxError> {
        Ok(Vec::new())
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        if *self.back.lock().unwrap() {
            self.of.out.store(false, Ordering::SeqCst);
            self.of.wake.get().inspect(|wake| wake());
        }
    }
}

/// Answers each request with this status and with the request's own body.
async fn repeating(status: u16) -> SocketAddr {
    let came = Arc::new(OnceLock::<Received>::new());
    let theirs = Arc::clone(&came);
    let (addr, received) = serve(move |n| {
        let body = theirs.get().expect("nobody knows the address before").lock().unwrap()[n].1.clone();
        Response::builder().status(status).body(Full::from(body)).unwrap()
    })
    .await;
    assert!(came.set(received).is_ok());
    addr
}

/// Before, the first 200 characters of an answer stood in the log, in `last_error`, and in what `forebay lag` says of a queue.
#[tokio::test]
async fn what_a_receiver_repeats_of_a_request_shows_in_no_log_line_and_no_error() {
    let (lines, _guard) = Lines::collect();
    for (column, subject) in SINKS.iter().enumerate() {
        for (status, classes) in STATUSES {
            let place = format!("{} {status}", subject.name);
            let addr = repeating(status).await;
            let job = (subject.job)(47_110..47_111);
            let outcome = deliver(&*subject.at(addr), &job, LATER).await;
            let shown = outcome.failure().map(ToString::to_string).unwrap_or_default();
            assert!(!shown.contains(CANARY), "{place}: {shown}");
            if classes[column] == Class::Delivered {
                continue;
            }
            let delivery = Delivery::new(Budget::new(BudgetLimits::default()), clock(), Arc::new(NoParking));
            let settings = Settings { timeout: LATER, ..Settings::default() };
            delivery.start("d", subject.at(addr), vec![OneBatch::of(job)], settings).unwrap();
            let told = loop {
                let told = delivery.stats_of("d").unwrap();
                if told.failures != [0; CLASSES.len()] {
                    break format!("{told:?}");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            assert!(told.contains(&format!("answered {status}")) && !told.contains(CANARY), "{place}: {told}");
            delivery.shutdown(Duration::ZERO).await;
        }
    }
    assert_eq!(lines.with(CANARY), [""; 0]);
    for said in ["answered 500", "answered 401", "answered 429"] {
        assert!(!lines.with(said).is_empty(), "{said}");
    }
}
