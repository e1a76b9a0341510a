//! Operations over a real log in memory: what is refused, what is kept, and what comes back after another start.

mod beside;
mod changes;
mod floor_loss;
mod grpc;
mod revisions;
mod room;
mod settings;
mod taken_out;
mod unmet;
mod upstreams;

use std::path::Path;

use forebay::Payload;
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;

use super::*;
use crate::api::destinations::{Delete, Operations as _, Put, Refused};
use crate::app::house::House as Inside;
use crate::config::{FileConfig, SinkConfig};
use crate::proto::v1::Origin;

/// What operators may do in a house.
struct House {
    inside: Inside,
    operations: Arc<Operations>,
}

impl std::ops::Deref for House {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

/// A file with the environment `prod`, one secret, and file destinations of these ids.
fn file(ids: &[&str]) -> Config {
    let environment = Environment {
        id: "prod".to_owned(),
        name: "production".to_owned(),
        sdk_keys: vec![Secret::new("key-a".to_owned()), Secret::new("key-b".to_owned())],
    };
    let destination = |id: &&str| {
        Destination::new(*id, vec!["prod".to_owned()], SinkConfig::File(FileConfig::new(format!("out-{id}"))))
    };
    Config {
        environments: vec![environment],
        destinations: ids.iter().map(destination).collect(),
        secrets: BTreeMap::from([("hook_url".to_owned(), Secret::new("http://localhost:9/canary".to_owned()))]),
        ..Config::default()
    }
}

async fn start(disk: &MemDisk, config: Config) -> House {
    start_in(Inside::on(disk), config).await
}

async fn start_in(inside: Inside, config: Config) -> House {
    let Inside { queues, clock, registry, .. } = &inside;
    let (journal, skipped) = Journal::open(queues.log().clone(), Arc::clone(clock)).unwrap();
    let started = Operations::start(queues.clone(), Arc::clone(registry), journal, &skipped, config).await;
    let operations = started.unwrap();
    House { inside, operations }
}

impl House {
    /// Another process on the same disk.
    async fn again(self, config: Config) -> Self {
        start(&self.stop().await, config).await
    }

    async fn stop(self) -> MemDisk {
        let Self { inside, operations } = self;
        drop(operations);
        inside.stop().await
    }

    /// Posts of the first key, as the way in keeps them.
    fn post(&self, upstream: &str, posts: u32) {
        let post = |_| Payload { bytes: vec![7; 100], records: 1 };
        let log = self.upstreams.log(upstream).unwrap();
        log.append_wait("posts/prod/0", (0..posts).map(post).collect()).unwrap();
    }

    fn key(&self, key: &str) -> Option<(usize, u32)> {
        self.ingest.environments().owner_of(key.as_bytes()).map(|owner| (owner.environment, owner.key))
    }
}

/// A configuration file as an operator has it: the environment `prod`, and file destinations of these ids.
fn file_text(ids: &[&str]) -> String {
    let destination = |id: &&str| {
        format!(
            "[[destinations]]\nid = \"{id}\"\nenvironments = [\"prod\"]\ntype = \"file\"\ndirectory = \"out-{id}\"\n"
        )
    };
    let head = "data_dir = \"data\"\n[[environments]]\nid = \"prod\"\nsdk_keys = [\"key-a\"]\n";
    head.to_owned() + &ids.iter().map(destination).collect::<String>()
}

#[expect(clippy::disallowed_methods, reason = "as an operator does")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn load(path: &Path) -> Config {
    let (config, findings) = config::load(path);
    config.unwrap_or_else(|| panic!("{findings:?}"))
}

/// A webhook where the API lets nobody go: what it gets stays pending, and nothing is connected to.
fn hook(id: &str, more: &str) -> String {
    format!(
        "[[destinations]]\nid = \"{id}\"\nenvironments = [\"prod\"]\ntype = \"webhook\"\nurl = \"secret:hook_url\"\n{more}\n"
    )
}

/// An upstream where the API lets nobody go.
fn upstream(id: &str) -> String {
    format!(
        "[[destinations]]\nid = \"{id}\"\nenvironments = [\"prod\"]\ntype = \"upstream\"\nurl = \"http://localhost:9/api\"\n"
    )
}

fn text<T: std::fmt::Debug>(refused: Result<T, Refused>) -> String {
    refused.unwrap_err().to_string()
}

#[tokio::test]
async fn what_was_made_is_there_after_another_start_and_shows_no_secret() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    let settings = hook(
        "hook",
        "headers = { x-token = \"canary\" }\nsigning_secrets = [\"whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5\"]",
    );
    let (made, _) = house.operations.put_destination(settings.clone(), Put::Create).await.unwrap();
    assert_eq!((made.origin(), made.r#type.as_str(), made.environments), (Origin::Api, "webhook", vec!["prod".into()]));
    assert!(matches!(house.operations.put_destination(settings, Put::Create).await, Err(Refused::Exists(_))));
    house.operations.pause_destination("archive".to_owned(), true).await.unwrap();
    let house = house.again(file(&["archive"])).await;
    let shown = house.operations.destination("hook".to_owned()).await.unwrap();
    assert!(shown.settings.contains("secret:hook_url") && shown.settings.contains("(set)"), "{}", shown.settings);
    assert!(!shown.settings.contains("canary") && !shown.settings.contains("Y2FuYXJ5"), "{}", shown.settings);
    let all = house.operations.destinations(String::new(), 10).await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.origin(), one.paused)).collect();
    assert_eq!(all, [("archive", Origin::File, true), ("hook", Origin::Api, false)]);
    assert_eq!(house.operations.destinations("archive".to_owned(), 10).await.unwrap().len(), 1, "the next page");
}

#[tokio::test]
async fn a_new_destination_starts_where_it_was_told_and_now_unless_it_was() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.append("prod", 0);
    for (at, pending) in [
        ("", 0),
        ("start = \"now\"", 0),
        ("start = \"earliest\"", 10),
        ("start = \"1970-01-01T00:00:00Z\"", 10),
        ("start = \"2999-01-01T00:00:00+01:00\"", 0),
    ] {
        let id = format!("hook-{pending}-{}", at.len());
        let (made, _) = house.operations.put_destination(hook(&id, at), Put::Create).await.unwrap();
        assert_eq!(made.records_pending, pending, "{at}");
    }
    house.append("prod", 10);
    let all = house.operations.destinations(String::new(), 10).await.unwrap();
    let pending: Vec<u64> = all.iter().map(|one| one.records_pending).collect();
    assert_eq!(pending, [10, 10, 10, 20, 20], "what comes later is everybody's: {all:?}");
    let told = text(house.operations.put_destination(hook("never", "start = \"soon\""), Put::Create).await);
    assert!(told.contains("this is no place to start at"), "{told}");
}

#[tokio::test]
async fn what_only_the_file_may_say_is_refused() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    let put = |settings: String, put| house.operations.put_destination(settings, put);
    let wrong = [
        (hook("a", "").replace("secret:hook_url", "env:HOME"), "env: and file: are for the configuration file only"),
        (hook("a", "").replace("secret:hook_url", "file:/etc/passwd"), "env: and file: are for the configuration file"),
        (hook("a", "").replace("hook_url", "nosuch"), "there is no secret \"nosuch\""),
        (hook("a", "allow_addresses = [\"10.0.0.0/8\"]"), "only the configuration file may allow"),
        (hook("a", "").replace("prod", "nosuch"), "there is no environment \"nosuch\""),
        (hook("a", "") + &hook("b", ""), "one [[destinations]] belongs here, not 2"),
        ("x = 1".to_owned(), "one [[destinations]] belongs here, not 0"),
        (
            "[[destinations]]\nid = \"f\"\nenvironments = [\"prod\"]\ntype = \"file\"\ndirectory = \"/\"".to_owned(),
            "files are written for the configuration file only",
        ),
        ("y".repeat(SETTINGS_BYTES_MAX + 1), "at most"),
    ];
    for (settings, why) in wrong {
        let told = text(put(settings, Put::Create).await);
        assert!(told.contains(why), "{told:?} does not say {why:?}");
    }
    let of_file = |told: String| assert!(told.contains("configuration file's"), "{told}");
    of_file(text(put(hook("archive", ""), Put::Update).await));
    of_file(text(house.operations.delete_destination("archive".to_owned(), Delete::Purge).await));
    assert!(matches!(put(hook("archive", ""), Put::Create).await, Err(Refused::Exists(_))));
    assert!(matches!(put(hook("nosuch", ""), Put::Update).await, Err(Refused::NotFound(_))));
    let probe = |id: &str| house.operations.probe_destination(id.to_owned());
    assert!(matches!(probe("nosuch").await, Err(Refused::NotFound(_))));
    assert_eq!(probe("archive").await.unwrap().id, "archive");
    assert!(house.operations.journal.state().changes().is_empty(), "nothing of it was written down");
}

#[tokio::test]
async fn pending_records_go_only_when_they_are_purged_and_the_id_begins_anew() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.operations.pause_destination("hook".to_owned(), true).await.unwrap();
    house.append("prod", 0);
    let delete = |how| house.operations.delete_destination("hook".to_owned(), how);
    assert!(text(house.operations.probe_destination("hook".to_owned()).await).contains("is paused"));
    let told = text(delete(Delete::Empty).await);
    assert!(told.contains("10 records pending: resume it and --drain") && told.contains("--purge"), "{told}");
    assert!(text(delete(Delete::Drain).await).contains("can't be drained"), "it is paused");
    let deleted = delete(Delete::Purge).await.unwrap();
    assert_eq!((deleted.records_pending, deleted.deleted), (10, true));
    assert!(matches!(delete(Delete::Purge).await, Err(Refused::NotFound(_))));
    let (again, _) = house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    assert_eq!((again.records_pending, again.paused), (0, false), "it starts now, and nobody paused it");
}

#[tokio::test]
async fn a_drained_destination_goes_by_itself() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.append("prod", 0);
    let answer = house.operations.delete_destination("hook".to_owned(), Delete::Drain).await.unwrap();
    assert_eq!((answer.records_pending, answer.deleted), (10, false));
    house.append("prod", 10);
    house.operations.end_drained().await;
    assert!(house.operations.destination("hook".to_owned()).await.unwrap().draining, "it has not got them yet");
    let house = house.again(file(&[])).await;
    let queue = house.queues.all().into_iter().find(|queue| queue.destination() == "hook").unwrap();
    queue.settle_range(0..10, forebay::Settled::Delivered);
    house.operations.end_drained().await;
    assert!(matches!(house.operations.destination("hook".to_owned()).await, Err(Refused::NotFound(_))));
}

#[tokio::test]
async fn environments_are_made_and_kept_and_their_keys_are_their_own() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    let made = |id: &str, key: &str| format!("[[environments]]\nid = \"{id}\"\nsdk_keys = [\"{key}\"]\n");
    house.operations.create_environment(made("qa", "key-q")).await.unwrap();
    assert_eq!(house.key("key-q"), Some((1, 0)));
    let told = text(house.operations.create_environment(made("qa2", "key-a")).await);
    assert!(told.contains("belongs to environment \"prod\"") && !told.contains("key-a"), "{told}");
    assert!(matches!(house.operations.create_environment(made("prod", "x")).await, Err(Refused::Exists(_))));
    house.operations.put_destination(hook("hook", "").replace("prod", "qa"), Put::Create).await.unwrap();
    let house = house.again(file(&["archive"])).await;
    assert_eq!(house.key("key-q"), Some((1, 0)));
    let delete = |id: &str| house.operations.delete_environment(id.to_owned());
    assert!(text(delete("qa").await).contains("1 destinations take from environment"));
    assert!(text(delete("prod").await).contains("configuration file's"));
    house.operations.delete_destination("hook".to_owned(), Delete::Empty).await.unwrap();
    delete("qa").await.unwrap();
    assert_eq!((house.key("key-q"), house.operations.environments().await.unwrap().len()), (None, 1));
}

#[tokio::test]
async fn a_reload_changes_what_differs_and_keeps_every_key_in_its_place() {
    let house = start(&MemDisk::default(), file(&["archive", "old"])).await;
    assert_eq!((house.key("key-a"), house.key("key-b")), (Some((0, 0)), Some((0, 1))));
    let mut next = file(&["archive", "new"]);
    next.environments[0].sdk_keys = vec![Secret::new("key-c".to_owned()), Secret::new("key-b".to_owned())];
    let reloaded = house.operations.reload(next.clone()).await.unwrap();
    assert_eq!(reloaded, Reloaded { started: 1, untouched: 1, taken_out: 1, ..Reloaded::default() });
    assert_eq!((house.key("key-a"), house.key("key-b"), house.key("key-c")), (None, Some((0, 1)), Some((0, 2))));
    let old = house.operations.destination("old".to_owned()).await.unwrap();
    assert_eq!(old.origin(), Origin::LeftBehind);
    let house = house.again(next).await;
    assert_eq!((house.key("key-b"), house.key("key-c")), (Some((0, 1)), Some((0, 2))), "after another start, too");
    let deleted = house.operations.delete_destination("old".to_owned(), Delete::Empty).await.unwrap();
    assert!(deleted.deleted && house.operations.destination("old".to_owned()).await.is_err());
}

#[tokio::test]
async fn a_file_that_takes_something_from_the_api_is_not_obeyed() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    let reload = |config| house.operations.reload(config);
    let told = |failed: Result<Reloaded, ReloadFailed>| failed.unwrap_err().to_string();
    assert!(told(reload(file(&["hook"])).await).contains("was made through the API"));
    let without = Config { secrets: BTreeMap::new(), ..file(&[]) };
    assert!(told(reload(without).await).contains("there is no secret \"hook_url\""));
    assert!(house.operations.registry.runs("archive"), "nothing has changed");
    let mut moved = file(&["archive"]);
    moved.secrets.insert("hook_url".to_owned(), Secret::new("http://localhost:9/other".to_owned()));
    let reloaded = reload(moved).await.unwrap();
    assert_eq!((reloaded.replaced, reloaded.untouched), (1, 1), "who names the secret has the new one");
}

#[tokio::test]
async fn what_a_destination_gets_is_remembered_by_revision() {
    let house = start(&MemDisk::default(), file(&[])).await;
    let filtered = |flag: &str| hook("hook", &format!("filter = {{ flags = [\"{flag}\"] }}"));
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.operations.put_destination(filtered("a"), Put::Update).await.unwrap();
    house.operations.put_destination(filtered("a"), Put::Update).await.unwrap();
    house.operations.put_destination(filtered("b"), Put::Update).await.unwrap();
    let house = house.again(file(&[])).await;
    let state = house.operations.journal.state();
    let revisions = &state.revisions["hook"];
    assert_eq!(revisions.keys().copied().collect::<Vec<_>>(), [1, 2], "one for each that differs");
    assert!(revisions[&1].filter.contains("\"a\"") && revisions[&2].filter.contains("\"b\""));
}

#[tokio::test]
async fn dead_letters_are_not_deleted_unless_that_is_said() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    let dead = house.queues.queue("hook", "!dead/hook", forebay::Start::Earliest).unwrap();
    house.queues.log().append_wait("!dead/hook", vec![Payload { bytes: vec![1], records: 1 }]).unwrap();
    let delete = |how| house.operations.delete_destination("hook".to_owned(), how);
    for how in [Delete::Empty, Delete::Drain] {
        let why = text(delete(how).await);
        assert!(why.contains("has 1 dead letters"), "{why}");
        assert_eq!(dead.lag().records, 1);
    }
    assert!(delete(Delete::Purge).await.unwrap().deleted);
    assert_eq!(dead.lag().records, 0);
}

/// Before, the rest of a replay was given up without a word, by `delete` and by a drain.
#[tokio::test]
async fn what_a_replay_has_still_to_send_is_pending() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.append("prod", 0);
    let queue = house.queues.all().into_iter().find(|queue| queue.destination() == "hook").unwrap();
    queue.settle_range(0..10, forebay::Settled::Delivered);
    house.queues.tick().unwrap();
    let request =
        forebay::ReplayRequest { from: forebay::ReplayFrom::Earliest, to: None, mode: forebay::ReplayMode::Again };
    house.queues.replay("hook", "prod", request).unwrap();
    let delete = |how| house.operations.delete_destination("hook".to_owned(), how);
    let told = text(delete(Delete::Empty).await);
    assert!(told.contains("10 records pending"), "{told}");
    assert!(!delete(Delete::Drain).await.unwrap().deleted);
    house.operations.end_drained().await;
    assert!(
        house.operations.destination("hook".to_owned()).await.unwrap().draining,
        "the replay has not got there yet"
    );
    let deleted = delete(Delete::Purge).await.unwrap();
    assert_eq!((deleted.records_pending, deleted.deleted), (10, true));
    assert!(house.queues.replays().is_empty());
}

/// Before, "nothing has changed" was the answer, and the next start took the new settings.
#[tokio::test]
async fn settings_that_could_not_be_put_to_work_are_not_those_of_the_next_start() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    // The log of its posts can't be opened: somebody else has it.
    let (log, queues) = (forebay::LogOptions::small(), forebay::QueueOptions::inline());
    let (disk, clock) = (Arc::new(house.disk.clone()), Arc::clone(&house.clock));
    let held = Queues::open(disk, clock, Path::new("data/upstream/hook"), log, queues).unwrap();
    let refused = house.operations.put_destination(upstream("hook"), Put::Update).await;
    assert!(matches!(refused, Err(Refused::Unavailable(_))), "{refused:?}");
    let shown = house.operations.destination("hook".to_owned()).await.unwrap();
    assert!(shown.settings.contains("webhook") && shown.r#type == "webhook", "{shown:?}");
    held.close().unwrap();
    let house = house.again(file(&[])).await;
    assert_eq!(house.operations.destination("hook".to_owned()).await.unwrap().r#type, "webhook");
}

/// Before, it was to stay from then on, and nobody was told.
#[tokio::test]
async fn settings_that_could_not_be_put_to_work_end_no_drain_and_others_say_that_they_do() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.append("prod", 0);
    house.operations.delete_destination("hook".to_owned(), Delete::Drain).await.unwrap();
    let draining = async || house.operations.destination("hook".to_owned()).await.unwrap().draining;
    let held = upstreams::taken(&house.disk, "hook");
    let refused = house.operations.put_destination(upstream("hook"), Put::Update).await;
    assert!(matches!(refused, Err(Refused::Unavailable(_))), "{refused:?}");
    assert!(draining().await);
    drop(held);
    let (_, warnings) = house.operations.put_destination(hook("hook", "timeout = \"7s\""), Put::Update).await.unwrap();
    assert!(!draining().await && warnings.iter().any(|warning| warning.contains("stays now")), "{warnings:?}");
    let (_, warnings) = house.operations.put_destination(hook("hook", "timeout = \"8s\""), Put::Update).await.unwrap();
    assert!(!warnings.iter().any(|warning| warning.contains("stays now")), "{warnings:?}");
}

/// Before, a file that changed while the process stopped could open a log that was being closed, and start loops.
#[tokio::test]
async fn nothing_is_changed_while_the_process_stops() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    let held = house.operations.hold().await;
    // Each change takes this for as long as it lasts.
    assert!(house.operations.operating.try_lock().is_err());
    let mut reload = Box::pin(house.operations.reload(file(&["archive", "new"])));
    tokio::select! {
        biased;
        reloaded = &mut reload => panic!("{reloaded:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(reload);
    assert!(!house.registry.runs("new"));
    drop(held);
    assert_eq!(house.operations.reload(file(&["archive", "new"])).await.unwrap().started, 1);
}
