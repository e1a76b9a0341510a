//! A webhook whose name leads nowhere, to too much, elsewhere, or inside: each is an attempt that failed and says why, nothing
//! leaves for where it may not, and the batch arrives under its id once the name is right.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::delivery::outcome::{Failure, Outcome};
use crate::sinks::address_guard::AddressGuard;
use crate::sinks::http::Tls;
use crate::sinks::receiver::{black_hole, serve_on};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(20);

/// Where the receiver is, where it was, and where nothing may be sent to.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const BEFORE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// Nobody listens there, and they may be sent to.
fn empty_houses() -> impl Iterator<Item = IpAddr> {
    (0..1_000).map(|n| Ipv4Addr::from_bits(0x7f01_0100 + n).into())
}

/// What whoever asks for the name is told now.
#[derive(Debug, Clone)]
enum Name {
    Fails(&'static str),
    /// The same, after so long.
    Late(Duration, &'static str),
    At(Vec<IpAddr>),
}

const NOT_FOUND: &str = "failed to lookup address information: Name or service not known";
const SERVER_FAILED: &str = "failed to lookup address information: Temporary failure in name resolution";

/// The three places, at one port, and the name that is to lead to the first.
struct Scene {
    name: Arc<Mutex<Name>>,
    webhook: Arc<dyn Sink>,
    /// Of the receiver.
    received: Received,
    /// What came where it was before, which takes nothing.
    before: Arc<Mutex<Vec<Vec<u8>>>>,
    inside: TcpListener,
}

impl Scene {
    async fn set() -> Self {
        let (here, before, inside) = loop {
            let here = TcpListener::bind((HERE, 0)).await.unwrap();
            let port = here.local_addr().unwrap().port();
            let others = (TcpListener::bind((BEFORE, port)).await, TcpListener::bind((INSIDE, port)).await);
            // Else somebody has this port there.
            if let (Ok(before), Ok(inside)) = others {
                break (here, before, inside);
            }
        };
        let (address, received) = serve_on(here, |_| status(200));
        let came = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let noted = Arc::clone(&came);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = before.accept().await.unwrap();
                let request = whole_request(&mut stream).await;
                noted.lock().unwrap().push(request);
                let gone = b"HTTP/1.1 500 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(gone).await.unwrap();
            }
        });
        let name = Arc::new(Mutex::new(Name::Fails(NOT_FOUND)));
        let now = Arc::clone(&name);
        let tls = Arc::new(Tls::hearing(move || tell(now.lock().unwrap().clone())));
        let config =
            WebhookConfig::new(Endpoint::parse(&format!("http://hook.example.com:{}/", address.port())).unwrap());
        let clock = Arc::new(forebay::clock::SystemClock::new());
        // To a customer nothing of this machine is allowed, but for these that stand for public places.
        let allowed = ["127.0.0.2/31", "127.1.0.0/16"].map(|net| net.parse().unwrap());
        let webhook =
            Webhook::new(&config, AddressPolicy::Customer, 4, tls, clock).behind(AddressGuard::customer(&allowed));
        Self { name, webhook: Arc::new(webhook), received, before: came, inside }
    }

    fn leads(&self, name: Name) {
        *self.name.lock().unwrap() = name;
    }

    /// The batch's id of what came where the receiver was, each time.
    fn ids_before(&self) -> Vec<String> {
        let text = |request: &Vec<u8>| String::from_utf8_lossy(request).into_owned();
        let id = |text: String| text.split("webhook-id: ").nth(1).unwrap().lines().next().unwrap().to_owned();
        self.before.lock().unwrap().iter().map(text).map(id).collect()
    }

    async fn nobody_was_inside(&self) {
        let came = timeout(Duration::from_millis(50), self.inside.accept()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

async fn tell(name: Name) -> Result<Vec<SocketAddr>, String> {
    match name {
        Name::Fails(why) => Err(why.to_owned()),
        Name::Late(after, why) => {
            sleep(after).await;
            Err(why.to_owned())
        }
        Name::At(addresses) => Ok(addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect()),
    }
}

#[tokio::test]
async fn whatever_a_name_leads_to_an_attempt_says_so_and_nothing_leaves_for_where_it_may_not() {
    let scene = Scene::set().await;
    let inside =
        [vec![INSIDE, METADATA], "::1 10.0.0.1 fd00:ec2::254".split(' ').map(|at| at.parse().unwrap()).collect()];
    let ways = [
        (Name::Fails(NOT_FOUND), LATER, "Name or service not known"),
        (Name::Fails(SERVER_FAILED), LATER, "Temporary failure in name resolution"),
        (Name::Late(SOON * 3, SERVER_FAILED), SOON, "no answer before the timeout"),
        // Who comes meanwhile hears what that one would have heard.
        (Name::Fails(SERVER_FAILED), LATER, "Temporary failure in name resolution"),
        (Name::At(Vec::new()), LATER, "the name has no address"),
        (Name::At(vec![INSIDE]), LATER, "a loopback address"),
        (Name::At(vec![METADATA]), LATER, "a cloud's metadata address"),
        (Name::At(inside.concat()), LATER, "only public addresses"),
        (Name::At(vec![INSIDE; 1_000]), LATER, "a loopback address"),
        (Name::At(empty_houses().take(1).collect()), LATER, "refused"),
        (Name::At(empty_houses().collect()), LATER, "refused"),
        (Name::At(vec![INSIDE, BEFORE, METADATA]), LATER, "answered 500"),
        // That one was good a moment ago.
        (Name::At(vec![INSIDE]), LATER, "a loopback address"),
    ];
    let job = sample::job(0..3);
    let encoded = scene.webhook.encode(&job).unwrap();
    let attempt = async |within| scene.webhook.send(&encoded, &job.id, Instant::now() + within).await;
    for (name, within, says) in ways {
        let place = format!("{:.90}", format!("{name:?}"));
        scene.leads(name);
        let outcome = attempt(within).await;
        let Outcome::Retry { why } = outcome else { panic!("{place}: {outcome:?}") };
        assert!(why.to_string().contains(says), "{place}: {why}");
        assert!(
            !why.to_string().contains("127.0.0.1"),
            "{place}: a customer is not told what names mean inside: {why}"
        );
        let kind = matches!(why, Failure::Connect(_) | Failure::Timeout | Failure::Status { status: 500, .. });
        assert!(kind, "{place}: {why:?}");
    }
    assert!(scene.received.lock().unwrap().is_empty());
    let one_of_a_thousand = (0..999).map(|_| INSIDE).chain([HERE]).collect();
    scene.leads(Name::At(one_of_a_thousand));
    assert_eq!(attempt(LATER).await, Outcome::Delivered);
    let (id, records) = batches(&scene.received).pop_first().unwrap();
    assert_eq!((&*id, records), (&*job.id, expected(3)));
    assert_eq!(scene.ids_before(), [&*job.id], "the one that was answered 500");
    scene.nobody_was_inside().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_name_goes_wrong_and_right_again_arrives_under_its_id() {
    let (scene, stage) = (Scene::set().await, stage(&MemDisk::new()));
    stage.append(0);
    scene.leads(Name::At(vec![BEFORE]));
    stage.start("d", Arc::clone(&scene.webhook));
    let says = async |word: &str| {
        let told = timeout(LATER, async {
            while !stage.delivery.stats_of("d").unwrap().last_error.is_some_and(|why| why.contains(word)) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(told.await.is_ok(), "{word}: {:?}", stage.delivery.stats_of("d"));
    };
    says("answered 500").await;
    for (name, word) in [
        (Name::Fails(NOT_FOUND), "Name or service not known"),
        (Name::At(vec![INSIDE, METADATA]), "only public addresses"),
        (Name::At(Vec::new()), "no address"),
        (Name::Late(Duration::from_secs(10), SERVER_FAILED), "no answer before the timeout"),
    ] {
        scene.leads(name);
        // Rather than wait until it is its time.
        stage.delivery.probe("d");
        says(word).await;
    }
    let failures = stage.delivery.stats_of("d").unwrap().failures_in_a_row;
    assert!(failures >= 5, "{failures}");
    scene.leads(Name::At(vec![HERE]));
    stage.drained().await;
    let ids: BTreeSet<String> = scene.ids_before().into_iter().chain(batches(&scene.received).into_keys()).collect();
    assert_eq!((ids.len(), delivered(&scene.received)), (1, expected(10)), "{ids:?}");
    assert_eq!(scene.received.lock().unwrap().len(), 1);
    let balance = stage.queues.all()[0].balance();
    assert_eq!((balance.accepted.records, balance.delivered.records), (10, 10));
    scene.nobody_was_inside().await;
}

/// An address that never answers, alone and then beside one that does: its destination waits for it, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_keeps_its_own_destination_waiting_and_no_other() {
    let stage = stage(&MemDisk::new());
    let (there, received) = serve(|_| status(200)).await;
    // Each batch makes a connection.
    let closing = |_| Response::builder().header("connection", "close").body(Full::default()).unwrap();
    let (well, at_well) = serve(closing).await;
    let dead = SocketAddr::new("::1".parse().unwrap(), there.port());
    let _hole = black_hole(dead).await;
    let name = Arc::new(Mutex::new(Name::At(vec![dead.ip()])));
    let now = Arc::clone(&name);
    let tls = Arc::new(Tls::hearing(move || tell(now.lock().unwrap().clone())));
    let config = WebhookConfig::new(Endpoint::parse(&format!("http://hook.example.com:{}/", there.port())).unwrap());
    let hook = Webhook::new(&config, AddressPolicy::Operator, 4, tls, Arc::clone(&stage.clock));
    stage.start("dead", Arc::new(hook));
    stage.webhook("well", well);
    // Which of its attempts is under way.
    let attempt = || stage.delivery.stats_of("dead").filter(|told| told.in_flight > 0).map(|told| told.requests);
    let (mut appended, mut amid) = (0, 0);
    let goes_on = timeout(3 * LATER, async {
        while amid < 20 {
            // Rather than wait until it is its time.
            stage.delivery.probe("dead");
            let before = attempt();
            stage.append(appended * 10);
            appended += 1;
            while (at_well.lock().unwrap().len() as u64) < appended {
                sleep(Duration::from_millis(1)).await;
            }
            amid += u32::from(before.is_some() && attempt() == before);
        }
    });
    let in_time = goes_on.await.is_ok();
    assert!(in_time, "of {appended} appends {amid} arrived while an attempt at the dead address was under way");
    assert!(received.lock().unwrap().is_empty());
    *name.lock().unwrap() = Name::At(vec![dead.ip(), there.ip()]);
    stage.delivery.probe("dead");
    stage.drained().await;
    assert_eq!([&received, &at_well].map(delivered), [(); 2].map(|()| expected(appended * 10)));
}
