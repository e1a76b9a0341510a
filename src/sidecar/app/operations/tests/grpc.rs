//! `forebay.v1.Destinations` from outside: a real server on a real socket over real operations.

use std::time::Duration;

use forebay::clock::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::*;
use crate::api::listen::uri;
use crate::api::readings::Sources;
use crate::api::{Api, LocalListener, grpc};
use crate::proto::v1::destinations_client::DestinationsClient;
use crate::proto::v1::{
    CreateDestinationRequest, CreateEnvironmentRequest, DeleteDestinationRequest, DeleteEnvironmentRequest,
    GetDestinationRequest, ListDestinationsRequest, ListEnvironmentsRequest, PauseDestinationRequest,
    ProbeDestinationRequest, ResumeDestinationRequest, UpdateDestinationRequest,
};
use crate::shutdown::{self, Stop};

/// What must not be seen anywhere.
const CANARY: &str = "canary-in-a-coal-mine";

struct Served {
    house: House,
    client: DestinationsClient<Channel>,
    _stop: Stop,
}

async fn served(config: Config) -> Served {
    served_by(start(&MemDisk::default(), config).await).await
}

async fn served_by(house: House) -> Served {
    let listener = LocalListener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().unwrap();
    let (stop, shutdown) = shutdown::channel();
    let operations: Arc<dyn crate::api::destinations::Operations> = Arc::clone(&house.operations) as _;
    let sources = Sources { operations: Some(operations), ..Sources::empty() };
    tokio::spawn(grpc::serve(Api::new(Arc::new(SystemClock::new()), sources), listener, shutdown));
    let channel = Endpoint::from_shared(uri(&address)).unwrap().connect().await.unwrap();
    Served { house, client: DestinationsClient::new(channel), _stop: stop }
}

impl Served {
    async fn create(&mut self, settings: &str) -> Result<crate::proto::v1::Destination, Status> {
        let request = CreateDestinationRequest { settings: settings.to_owned() };
        Ok(self.client.create_destination(request).await?.into_inner().destination.unwrap())
    }

    async fn update(&mut self, settings: &str) -> Result<crate::proto::v1::Destination, Status> {
        let request = UpdateDestinationRequest { settings: settings.to_owned() };
        Ok(self.client.update_destination(request).await?.into_inner().destination.unwrap())
    }

    async fn get(&mut self, id: &str) -> Result<crate::proto::v1::Destination, Status> {
        let request = GetDestinationRequest { id: id.to_owned() };
        Ok(self.client.get_destination(request).await?.into_inner().destination.unwrap())
    }

    async fn delete(&mut self, id: &str, purge: bool, drain: bool) -> Result<(u64, bool), Status> {
        let request =
            DeleteDestinationRequest { id: id.to_owned(), purge, drain, ..DeleteDestinationRequest::default() };
        let answer = self.client.delete_destination(request).await?.into_inner();
        Ok((answer.records_pending, answer.deleted))
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test]
async fn every_refusal_has_its_code_and_says_why() {
    let mut served = served(file(&["archive"])).await;
    let (good, id) = (hook("hook", ""), || "hook".to_owned());
    assert_eq!(code(served.get("hook").await), Code::NotFound);
    assert_eq!(code(served.update(&good).await), Code::NotFound);
    assert_eq!(code(served.delete("hook", true, false).await), Code::NotFound);
    let pause = PauseDestinationRequest { id: id() };
    assert_eq!(code(served.client.pause_destination(pause.clone()).await), Code::NotFound);
    let resume = ResumeDestinationRequest { id: id() };
    assert_eq!(code(served.client.resume_destination(resume.clone()).await), Code::NotFound);
    let probe = ProbeDestinationRequest { id: id() };
    assert_eq!(code(served.client.probe_destination(probe.clone()).await), Code::NotFound);

    let wrong = served.create("type = \"webhook\"").await.unwrap_err();
    assert!(wrong.code() == Code::InvalidArgument && wrong.message().contains("[[destinations]]"), "{wrong}");
    let wrong = served.create(&hook("hook", "colour = \"blue\"")).await.unwrap_err();
    assert!(wrong.code() == Code::InvalidArgument && wrong.message().contains("colour"), "{wrong}");

    let made = served.create(&good).await.unwrap();
    assert_eq!((made.origin(), made.id.as_str(), made.paused), (Origin::Api, "hook", false));
    assert_eq!(code(served.create(&good).await), Code::AlreadyExists);
    assert_eq!(code(served.create(&hook("archive", "")).await), Code::AlreadyExists);
    assert_eq!(code(served.update(&hook("archive", "")).await), Code::FailedPrecondition);
    assert_eq!(code(served.delete("archive", true, false).await), Code::FailedPrecondition);

    assert!(served.client.pause_destination(pause).await.unwrap().into_inner().destination.unwrap().paused);
    assert_eq!(code(served.client.probe_destination(probe).await), Code::FailedPrecondition, "it is paused");
    assert!(!served.client.resume_destination(resume).await.unwrap().into_inner().destination.unwrap().paused);
    served.update(&hook("hook", "concurrency = 2")).await.unwrap();

    let environment = |id: &str, key: &str| CreateEnvironmentRequest {
        settings: format!("[[environments]]\nid = \"{id}\"\nsdk_keys = [\"{key}\"]\n"),
    };
    served.client.create_environment(environment("qa", "key-q")).await.unwrap();
    assert_eq!(code(served.client.create_environment(environment("qa", "key-z")).await), Code::AlreadyExists);
    assert_eq!(code(served.client.create_environment(environment("q2", "key-a")).await), Code::InvalidArgument);
    let delete = |id: &str| DeleteEnvironmentRequest { id: id.to_owned() };
    assert_eq!(code(served.client.delete_environment(delete("prod")).await), Code::FailedPrecondition);
    assert_eq!(code(served.client.delete_environment(delete("none")).await), Code::NotFound);
    served.client.delete_environment(delete("qa")).await.unwrap();
    let list = ListEnvironmentsRequest {};
    let environments = served.client.list_environments(list).await.unwrap().into_inner().environments;
    assert_eq!(environments.iter().map(|one| (one.id.as_str(), one.sdk_keys)).collect::<Vec<_>>(), [("prod", 2)]);
}

#[tokio::test]
async fn no_secret_comes_back_out_by_any_answer_or_refusal() {
    let mut config = file(&[]);
    let hidden = Secret::new(format!("http://localhost:9/{CANARY}"));
    config.secrets.insert("hidden_url".to_owned(), hidden);
    let mut served = served(config).await;
    let signing = "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5";
    let secrets = format!("headers = {{ x-token = \"{CANARY}\" }}\nsigning_secrets = [\"{signing}\"]");
    let literal = |id: &str, more: &str| {
        hook(id, more).replace("secret:hook_url", &format!("https://hooks.example.com/{CANARY}"))
    };
    let s3 = format!(
        "[[destinations]]\nid = \"bucket\"\nenvironments = [\"prod\"]\ntype = \"s3\"\nbucket = \"impressions\"\n\
         access_key_id = \"AKID\"\nsecret_access_key = \"{CANARY}\"\n"
    );
    let named = hook("named", &secrets).replace("hook_url", "hidden_url");
    let mut said = Vec::new();
    for settings in [literal("hook", &secrets), named.clone(), s3] {
        said.push(format!("{:?}", served.create(&settings).await.unwrap()));
        // And with a mistake beside them, and once more.
        said.push(served.create(&settings).await.unwrap_err().message().to_owned());
        let wrong = settings.replace("id = \"", "colour = \"blue\"\nid = \"x");
        said.push(served.create(&wrong).await.unwrap_err().message().to_owned());
        said.push(format!("{:?}", served.update(&settings).await.unwrap()));
    }
    // A secret in the wrong place is a mistake that must not be quoted.
    for wrong in [literal("a", "").replace("https://", "gopher://")] {
        said.push(served.create(&wrong).await.unwrap_err().message().to_owned());
    }
    for id in ["hook", "named", "bucket"] {
        let shown = served.get(id).await.unwrap();
        assert!(shown.settings.contains("(set)") || shown.settings.contains("secret:"), "{}", shown.settings);
        said.push(format!("{shown:?}"));
    }
    let request = ListDestinationsRequest::default();
    said.push(format!("{:?}", served.client.list_destinations(request).await.unwrap().into_inner()));
    let key = format!("[[environments]]\nid = \"qa\"\nsdk_keys = [\"{CANARY}\"]\n");
    let request = CreateEnvironmentRequest { settings: key };
    said.push(format!("{:?}", served.client.create_environment(request.clone()).await.unwrap().into_inner()));
    said.push(served.client.create_environment(request).await.unwrap_err().message().to_owned());
    let environments = served.client.list_environments(ListEnvironmentsRequest {}).await.unwrap().into_inner();
    said.push(format!("{environments:?}"));
    for said in said {
        assert!(!said.contains(CANARY) && !said.contains(signing), "{said}");
    }
}

#[tokio::test]
async fn pending_records_go_only_where_that_was_said_and_are_counted_first() {
    let mut served = served(file(&[])).await;
    served.create(&hook("hook", "")).await.unwrap();
    let pause = PauseDestinationRequest { id: "hook".to_owned() };
    served.client.pause_destination(pause).await.unwrap();
    served.house.append("prod", 0);
    let both = served.delete("hook", true, true).await.unwrap_err();
    assert!(both.code() == Code::InvalidArgument && both.message().contains("set one of them"), "{both}");
    let unsaid = served.delete("hook", false, false).await.unwrap_err();
    assert!(unsaid.code() == Code::FailedPrecondition && unsaid.message().contains("10 records pending"), "{unsaid}");
    assert_eq!(served.get("hook").await.unwrap().records_pending, 10, "nothing has changed");
    assert_eq!(served.delete("hook", true, false).await.unwrap(), (10, true));
    assert_eq!(code(served.get("hook").await), Code::NotFound);
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let mut served = served(file(&["archive"])).await;
    for n in 0..4 {
        served.create(&hook(&format!("hook-{n}"), "")).await.unwrap();
    }
    let (mut ids, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListDestinationsRequest { page_size: 2, page_token };
        let page = served.client.list_destinations(request).await.unwrap().into_inner();
        assert!(page.destinations.len() <= 2);
        ids.extend(page.destinations.into_iter().map(|one| one.id));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (5, 3));
    assert!(ids.is_sorted(), "{ids:?}");
}

/// A receiver on this machine: says where it is, and when somebody has connected. Answers 200, or never.
async fn receiver(answers: bool) -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (came, comes) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = came.try_send(());
            if answers {
                assert!(peer.read(&mut [0; 4096]).await.unwrap() > 0);
                peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            held.push(peer);
        }
    });
    (url, comes)
}

/// An operator updates a destination whose receiver hangs, and hangs up (or has waited as long as the API lets anybody
/// wait) while what is in flight has its grace. Before, the change ended there: its settings were written down, the loop
/// was stopped, the table said that it ran, and nothing was delivered until the next start.
#[tokio::test]
async fn a_change_comes_to_its_end_though_nobody_waits_for_it() {
    let inside = Inside::with(&MemDisk::default(), Duration::from_secs(1), &["127.0.0.1/32".parse().unwrap()]);
    let (hung, mut at_hung) = receiver(false).await;
    let (good, _at_good) = receiver(true).await;
    let mut config = file(&[]);
    config.secrets.insert("hung".to_owned(), Secret::new(hung));
    config.secrets.insert("good".to_owned(), Secret::new(good));
    let at = |name: &str| hook("hook", "timeout = \"10m\"").replace("hook_url", name);
    let mut served = served_by(start_in(inside, config).await).await;
    served.create(&at("hung")).await.unwrap();
    served.house.append("prod", 0);
    at_hung.recv().await.unwrap();
    let mut client = served.client.clone();
    let settings = at("good");
    let update = tokio::spawn(async move { client.update_destination(UpdateDestinationRequest { settings }).await });
    while served.house.delivery.runs("hook") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    update.abort();
    let pending = || served.house.queues.all().iter().map(|queue| queue.lag().records).sum::<u64>();
    for _ in 0..12_000 {
        if pending() == 0 {
            assert!(served.house.delivery.runs("hook"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nothing is delivered: {:?}", served.house.delivery.stats_of("hook"));
}

/// Calls whose clients hang up and ask again come to an end of their own.
#[tokio::test]
async fn more_changes_than_are_made_soon_are_refused() {
    let mut served = served(file(&["archive"])).await;
    let pause = || PauseDestinationRequest { id: "archive".to_owned() };
    let operations = Arc::clone(&served.house.operations);
    let held = operations.hold().await;
    let mut refused = 0;
    for _ in 0..200 {
        let mut client = served.client.clone();
        let call = client.pause_destination(pause());
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), call).await {
            assert_eq!(code(answer), Code::ResourceExhausted);
            refused += 1;
        }
    }
    assert!(refused > 0);
    drop(held);
    while served.client.pause_destination(pause()).await.is_err() {}
}
