//! A resolver by script, on a paused clock: names that begin with `dead` take ten seconds, and all others none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::{sleep, timeout};

use super::*;

const DEAD: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
struct Script {
    asked: Arc<AtomicUsize>,
    /// Lookups under way, and the most there were since somebody looked.
    blocked: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Names that were dead are no more.
    mended: Arc<AtomicBool>,
}

impl Service<Name> for Script {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            let n = script.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let blocked = script.blocked.fetch_add(1, Ordering::SeqCst) + 1;
            script.most.fetch_max(blocked, Ordering::SeqCst);
            assert!(!name.as_str().starts_with("broken"), "as told");
            let dead = name.as_str().starts_with("dead") && !script.mended.load(Ordering::SeqCst);
            sleep(if dead { DEAD } else { Duration::from_millis(1) }).await;
            script.blocked.fetch_sub(1, Ordering::SeqCst);
            if dead { Err("nobody answers".into()) } else { Ok(vec![address(n)].into_iter()) }
        })
    }
}

/// Tells the n-th lookup's answer from others.
fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], n as u16))
}

async fn ask(names: &Names<Script>, name: &str) -> Result<Vec<SocketAddr>, String> {
    let answer = names.clone().call(name.parse().unwrap()).await;
    answer.map(Iterator::collect).map_err(|why| why.to_string())
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_meanwhile_hear_one_answer_and_who_asks_later_a_new_one() {
    let script = Script::default();
    let names = Names::by(script.clone());
    let together = tokio::join!(ask(&names, "hook"), ask(&names, "hook"), ask(&names, "other"), ask(&names, "hook"));
    assert_eq!(together.0, Ok(vec![address(1)]));
    assert_eq!((&together.1, &together.3), (&together.0, &together.0));
    assert_eq!(together.2, Ok(vec![address(2)]));
    assert_eq!(ask(&names, "hook").await, Ok(vec![address(3)]), "a name that leads elsewhere now is heard");
    let failed = tokio::join!(ask(&names, "dead"), ask(&names, "dead"));
    assert_eq!((failed.0, failed.1), (Err("nobody answers".to_owned()), Err("nobody answers".to_owned())));
    assert_eq!(script.asked.load(Ordering::SeqCst), 4);
}

/// A thousand destinations whose names do not answer ask for them again and again; nobody else waits for that.
#[tokio::test(start_paused = true)]
async fn names_that_do_not_answer_leave_the_threads_to_those_that_do() {
    let script = Script::default();
    let names = Names::by(script.clone());
    for n in 0..1_000 {
        let names = names.clone();
        tokio::spawn(async move {
            loop {
                let gave_up = timeout(Duration::from_secs(30), ask(&names, &format!("dead-{n}"))).await.is_err();
                sleep(Duration::from_secs(if gave_up { 1 } else { 5 })).await;
            }
        });
    }
    // Nobody knows them yet: they are got through once.
    sleep(DEAD * 1_000_u32.div_ceil(THREADS as u32)).await;
    assert_eq!(script.most.swap(0, Ordering::SeqCst), THREADS);
    for n in 0..300 {
        let asked = Instant::now();
        assert!(ask(&names, &format!("well-{}", n % 10)).await.is_ok());
        assert!(asked.elapsed() < Duration::from_millis(5), "{:?} at {n}", asked.elapsed());
        sleep(Duration::from_secs(1)).await;
    }
    let most = script.most.load(Ordering::SeqCst);
    assert!(most <= SLOW_THREADS + 1, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_answers_again_is_among_the_others_even_if_nobody_waited() {
    let script = Script::default();
    let names = Names::by(script.clone());
    assert!(ask(&names, "dead-hook").await.is_err());
    assert!(names.shared.state().slow.contains_key(&"dead-hook".parse().unwrap()));
    script.mended.store(true, Ordering::SeqCst);
    let asking = timeout(Duration::ZERO, ask(&names, "dead-hook")).await;
    assert!(asking.is_err(), "it goes before the answer comes");
    sleep(PROMPT).await;
    let state = names.shared.state();
    assert!(state.slow.is_empty() && state.under_way.is_empty(), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_panics_is_an_error_and_the_next_one_is_made() {
    let script = Script::default();
    let names = Names::by(script.clone());
    for _ in 0..2 {
        assert_eq!(ask(&names, "broken").await, Err("the lookup panicked".to_owned()));
    }
    assert_eq!(script.asked.load(Ordering::SeqCst), 2);
    assert_eq!(names.shared.threads.available_permits(), THREADS);
}

#[test]
fn slow_names_are_forgotten_when_there_are_too_many_and_nobody_asks_for_them() {
    let (mut state, began) = (State::default(), Instant::now());
    let name = |n: usize| format!("dead-{n}").parse::<Name>().unwrap();
    for n in 0..SLOW_NAMES {
        state.learn(&name(n), began, began + DEAD);
    }
    state.learn(&name(0), began, began + FORGOTTEN);
    state.learn(&name(SLOW_NAMES), began, began + FORGOTTEN + DEAD);
    assert_eq!(state.slow.len(), 2, "those of the last hour");
}
