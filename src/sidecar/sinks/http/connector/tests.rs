//! A scripted resolver, and listeners on loopback that count who comes.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::super::connections::{Connections, Note};
use super::*;
use crate::sinks::address_guard::{AddressPolicy, Refused};
use crate::sinks::receiver::black_hole;

/// Answers each question with the next of its answers.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<Vec<Vec<SocketAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Service<Name> for Script {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(self.answers.lock().unwrap().remove(0).into_iter()))
    }
}

/// A listener on this address of loopback, and how many connected.
async fn listener(address: &str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    (address, count)
}

fn guarded(policy: AddressPolicy, answers: &[&[&str]]) -> (Guarded<Script>, Script) {
    let parse = |texts: &&[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
    let script = Script { answers: Arc::new(Mutex::new(answers.iter().map(parse).collect())), ..Script::default() };
    let guard = AddressGuard::new(policy, &[]);
    let connections = Connections::new(0);
    let counter = connections.counter(&Note::default());
    (Guarded::new(script.clone(), guard, counter, |tcp| tcp.enforce_http(false)), script)
}

async fn connect(to: &mut Guarded<Script>, uri: String) -> Result<SocketAddr, BoxError> {
    let stream = to.call(uri.parse().unwrap()).await?;
    Ok(stream.tcp().peer_addr().unwrap())
}

/// What of its causes is the guard's.
fn refusal(error: &BoxError) -> Option<&Refused> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let (address, count) = listener("127.0.0.1:0").await;
    let (mut to, script) = guarded(AddressPolicy::Customer, &[&["127.0.0.1"], &["127.0.0.1", "10.0.0.1"]]);
    for _ in 0..2 {
        let error = connect(&mut to, format!("http://hook.example.com:{}/", address.port())).await.unwrap_err();
        assert!(refusal(&error).is_some(), "{error:?}");
    }
    assert_eq!((count.load(Ordering::SeqCst), script.asked.load(Ordering::SeqCst)), (0, 2));
}

#[tokio::test]
async fn what_was_judged_is_what_is_connected_to() {
    // The second answer would lead elsewhere: a connection asks once, and takes what passed of that answer.
    let (first, at_first) = listener("127.0.0.2:0").await;
    let answers: &[&[&str]] = &[&["169.254.169.254", "127.0.0.2"], &["127.0.0.1"]];
    let (mut to, script) = guarded(AddressPolicy::Operator, answers);
    let peer = connect(&mut to, format!("http://hook.example.com:{}/", first.port())).await.unwrap();
    assert_eq!((peer, script.asked.load(Ordering::SeqCst)), (first, 1));
    drop(to);
    while at_first.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_name_that_was_good_before_is_judged_again() {
    let (address, count) = listener("127.0.0.1:0").await;
    let (mut to, _) = guarded(AddressPolicy::Operator, &[&["127.0.0.1"], &["169.254.169.254"]]);
    let uri = format!("http://hook.example.com:{}/", address.port());
    connect(&mut to, uri.clone()).await.unwrap();
    assert!(refusal(&connect(&mut to, uri).await.unwrap_err()).is_some());
    while count.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_in_the_url_is_judged_in_every_spelling_and_nobody_is_asked() {
    let (address, count) = listener("127.0.0.1:0").await;
    let (mut to, script) = guarded(AddressPolicy::Customer, &[]);
    for host in
        ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "[::1]", "127.0.0.1."]
    {
        let error = connect(&mut to, format!("http://{host}:{}/", address.port())).await.unwrap_err();
        assert!(refusal(&error).is_some(), "{host}: {error:?}");
    }
    assert_eq!((count.load(Ordering::SeqCst), script.asked.load(Ordering::SeqCst)), (0, 0));
    let (mut to, _) = guarded(AddressPolicy::Operator, &[]);
    assert_eq!(connect(&mut to, format!("http://127.0.0.1:{}/", address.port())).await.unwrap(), address);
}

#[tokio::test]
async fn an_address_that_is_dead_beside_a_good_one_is_passed_by() {
    let (good, _) = listener("127.0.0.1:0").await;
    let hole = black_hole(SocketAddr::new("::1".parse().unwrap(), good.port())).await;
    // Nobody listens at the first, and nobody answers at the second.
    for answer in [&["127.0.0.3", "127.0.0.1"], &["::1", "127.0.0.1"], &["127.0.0.1", "::1"]] {
        let (mut to, script) = guarded(AddressPolicy::Operator, &[answer]);
        let peer = connect(&mut to, format!("http://hook.example.com:{}/", good.port())).await.unwrap();
        assert_eq!((peer, script.asked.load(Ordering::SeqCst)), (good, 1), "{answer:?}");
    }
    drop(hole);
}

#[tokio::test]
async fn a_name_with_addresses_of_version_6_alone_is_connected_to() {
    let (there, count) = listener("[::1]:0").await;
    let (mut to, _) = guarded(AddressPolicy::Operator, &[&["::1"]]);
    assert_eq!(connect(&mut to, format!("http://hook.example.com:{}/", there.port())).await.unwrap(), there);
    assert_eq!(connect(&mut to, format!("http://[::1]:{}/", there.port())).await.unwrap(), there);
    while count.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
}

/// Before, each of a thousand had ten milliseconds to answer in, and none from far away did.
#[tokio::test]
async fn of_a_thousand_addresses_a_few_are_tried_at_a_time_and_others_the_next_time() {
    let public = |n: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0808_0000 + n), 0));
    let inside = |n: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 0));
    let all: Vec<SocketAddr> = (0..1_000).flat_map(|n| [public(n), inside(n)]).collect();
    let answers = Arc::new(Mutex::new(vec![all; 40]));
    let names = Script { answers, ..Script::default() };
    let mut resolver = Resolver { names, guard: AddressGuard::new(AddressPolicy::Customer, &[]) };
    let mut tried = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let few: Vec<SocketAddr> = resolver.call("hook.example.com".parse().unwrap()).await.unwrap().collect();
        assert_eq!(few.len(), ADDRESSES_MAX);
        assert!(few.iter().all(|address| resolver.guard.check(address.ip()).is_ok()), "{few:?}");
        tried.extend(few);
    }
    assert!(tried.len() > ADDRESSES_MAX, "{tried:?}");
}

/// Where this machine reaches one family only, the other one alone would be tried in vain.
#[test]
fn of_many_addresses_both_families_are_tried_and_the_reachable_one_first() {
    let v4 = |n: usize| SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0808_0000 + n as u32), 0));
    let v6 = |n: usize| SocketAddr::from((std::net::Ipv6Addr::from_bits((0x2606_4700 << 96) + n as u128), 0));
    for (fours, sixes) in [(64, 64), (8, 24), (24, 8), (3, 100), (100, 3), (17, 0), (0, 17)] {
        let all: Vec<_> = (0..fours).map(v4).chain((0..sixes).map(v6)).collect();
        for _ in 0..50 {
            let some = some_of(all.clone());
            let first = some.iter().take_while(|address| address.is_ipv4()).count();
            assert_eq!(some.len(), ADDRESSES_MAX);
            assert!(some[first..].iter().all(SocketAddr::is_ipv6), "{some:?}");
            assert!(first >= fours.min(ADDRESSES_MAX / 2) && some.len() - first >= sixes.min(ADDRESSES_MAX / 2));
            assert!(some.iter().all(|address| all.contains(address)) && some.is_sorted_by(|a, b| a != b));
        }
    }
}
