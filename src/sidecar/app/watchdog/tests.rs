//! What the watchdog says of threads that a call blocks, and that it wakes those that sleep beside one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use forebay::clock::{ManualClock, SystemClock};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::time::sleep;

use super::*;
use crate::logged::Lines;

const SECOND: Duration = Duration::from_secs(1);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// Waits without a runtime: until it is so, or for a minute.
fn until(what: &str, done: impl Fn() -> bool) {
    let waited = (0..60_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        done()
    });
    assert!(waited, "{what}");
}

/// Blocks one thread of the runtime, after `wait`. It does so when this returns, until what is returned is dropped.
fn block(runtime: &Runtime, wait: Duration) -> SyncSender<()> {
    let (end, ends) = sync_channel(0);
    let (begins, begun) = sync_channel(1);
    runtime.spawn(async move {
        sleep(wait).await;
        begins.send(()).unwrap();
        let _ = ends.recv();
    });
    begun.recv_timeout(SECOND * 60).unwrap();
    end
}

/// The thread that waits for all timers is woken by one, and blocked by what that was for: another is to wait for them.
#[test]
fn while_a_call_blocks_the_thread_that_had_the_timers_another_destinations_timer_fires() {
    let two = runtime(2);
    let every = Duration::from_millis(20);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let _watchdog = Watchdog::start(&clock, [(Threads::Send, two.handle().clone())], every).unwrap();
    // Late enough that both threads sleep when the first one fires.
    let fired = Arc::new(AtomicBool::new(false));
    let fires = Arc::clone(&fired);
    two.spawn(async move {
        sleep(Duration::from_millis(400)).await;
        fires.store(true, Ordering::SeqCst);
    });
    let end = block(&two, Duration::from_millis(100));
    until("a timer fires beside a call that lasts", || fired.load(Ordering::SeqCst));
    drop(end);
}

#[test]
fn threads_that_a_call_blocks_are_told_with_how_long_once_a_stall_and_others_are_not() {
    let (lines, _guard) = Lines::collect();
    let (front, send) = (runtime(1), runtime(1));
    let manual = ManualClock::at(1_000);
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let watch = |threads, of: &Runtime| Arc::new(Watched::new(threads, of.handle().clone(), Arc::clone(&clock)));
    let watched = [watch(Threads::Front, &front), watch(Threads::Send, &send)];
    let of = |name: &'static str, waits: Duration, stalls| ThreadsReading { threads: name, waits, stalls };
    // A clock that stands still tells nothing of that.
    let has_run = |watched: &Watched| matches!(watched.state().asked, Asked::Answered | Asked::Over { .. });
    let look = || {
        watched.iter().for_each(|watched| watched.look(SECOND));
        until("those of the way in are not blocked", || has_run(&watched[0]));
    };
    for stalls in 0..2 {
        let end = block(&send, Duration::ZERO);
        look();
        manual.advance(SECOND / 2);
        look();
        let readings = watched.each_ref().map(|watched| watched.reading());
        assert_eq!(readings, [of("front", Duration::ZERO, 0), of("send", SECOND / 2, stalls)], "so long is no stall");
        manual.advance(SECOND / 2);
        for seconds in 1..10 {
            look();
            let readings = watched.each_ref().map(|watched| watched.reading());
            assert_eq!(readings, [of("front", Duration::ZERO, 0), of("send", SECOND * seconds, stalls + 1)]);
            manual.advance(SECOND);
        }
        let begun = lines.with("nothing new has its turn");
        assert_eq!(begun.len() as u64, stalls + 1, "{begun:?}");
        let says = |line: &String| {
            ["WARN", "forebay-send", "waited=1s", "deliveries wait"].iter().all(|part| line.contains(part))
        };
        assert!(begun.iter().all(says), "{begun:?}");
        drop(end);
        until("it is over", || has_run(&watched[1]));
        assert_eq!(watched[1].reading(), of("send", Duration::ZERO, stalls + 1));
        manual.advance(SECOND);
        look();
        until("they are asked again", || has_run(&watched[1]));
        let over = lines.with("these threads go on");
        let says = |line: &String| ["INFO", "forebay-send", "lasted=10s"].iter().all(|part| line.contains(part));
        assert!(over.len() as u64 == stalls + 1 && over.iter().all(says), "{over:?}");
    }
}

#[test]
fn a_watchdog_ends_while_a_call_blocks_all_that_it_watches_and_outlives_them_where_it_must() {
    let every = Duration::from_millis(1);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let one = runtime(1);
    let end = block(&one, Duration::ZERO);
    let watchdog = Watchdog::start(&clock, [(Threads::Send, one.handle().clone())], every).unwrap();
    let source = watchdog.source();
    until("it has asked, and was not answered", || source()[0].stalls == 1);
    let (ends, ended) = sync_channel(1);
    std::thread::spawn(move || {
        drop(watchdog);
        ends.send(()).unwrap();
    });
    ended.recv_timeout(SECOND * 60).expect("it does not wait for them");
    // What it asked last goes with them.
    assert_eq!(source()[0].stalls, 1);
    let watchdog = Watchdog::start(&clock, [(Threads::Send, one.handle().clone())], every).unwrap();
    let after = watchdog.source();
    until("another asks", || after()[0].stalls == 1);
    drop(end);
    one.shutdown_background();
    until("nothing waits there any more", || source()[0].waits.is_zero() && after()[0].waits.is_zero());
    drop(watchdog);
}
