//! Destinations that are upstreams: their posts lie in logs of their own, and an environment has one.

use super::*;
use crate::sinks::sample::reopened;

#[tokio::test]
async fn an_upstream_goes_with_its_posts_and_only_when_they_are_purged() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(upstream("split"), Put::Create).await.unwrap();
    house.operations.pause_destination("split".to_owned(), true).await.unwrap();
    house.post("split", 3);
    let shown = house.operations.destination("split".to_owned()).await.unwrap();
    assert_eq!((shown.records_pending, shown.environments), (3, vec!["prod".to_owned()]));
    let delete = |how| house.operations.delete_destination("split".to_owned(), how);
    let told = text(delete(Delete::Empty).await);
    assert!(told.contains("3 records pending"), "{told}");
    assert!(text(delete(Delete::Drain).await).contains("can't be drained"), "it is paused");
    let deleted = delete(Delete::Purge).await.unwrap();
    assert_eq!((deleted.records_pending, deleted.deleted), (3, true));
    assert!(house.disk.list(Path::new("data/upstream/split")).is_err(), "its directory is gone");
    assert!(house.disk.list(Path::new("data/upstream")).unwrap().is_empty());
    assert!(matches!(house.operations.destination("split".to_owned()).await, Err(Refused::NotFound(_))));
    assert!(house.ingest.environments().all()[0].relay().is_none(), "nothing is kept for it any more");
    let (again, _) = house.operations.put_destination(upstream("split"), Put::Create).await.unwrap();
    assert_eq!(again.records_pending, 0);
}

#[tokio::test]
async fn what_an_upstream_left_behind_is_seen_and_counted_after_another_start() {
    let of_file = || {
        let mut config = file(&[]);
        let sink = SinkConfig::Upstream(config::UpstreamConfig::at("http://localhost:9/api").unwrap());
        config.destinations.push(Destination::new("split", vec!["prod".to_owned()], sink));
        config
    };
    let house = start(&MemDisk::default(), of_file()).await;
    house.operations.pause_destination("split".to_owned(), true).await.unwrap();
    house.post("split", 2);
    let house = house.again(file(&[])).await;
    let all = house.operations.destinations(String::new(), 10).await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.origin(), one.records_pending)).collect();
    assert_eq!(all, [("split", Origin::LeftBehind, 2)]);
    let put_back = house.operations.reload(of_file()).await.unwrap();
    assert_eq!(put_back.started, 1);
    let shown = house.operations.destination("split".to_owned()).await.unwrap();
    assert_eq!((shown.origin(), shown.records_pending), (Origin::File, 2));
    house.operations.reload(file(&[])).await.unwrap();
    let delete = |how| house.operations.delete_destination("split".to_owned(), how);
    assert!(text(delete(Delete::Empty).await).contains("2 records pending: nothing delivers them"));
    assert_eq!(delete(Delete::Purge).await.unwrap().records_pending, 2);
    assert!(house.again(file(&[])).await.operations.destinations(String::new(), 10).await.unwrap().is_empty());
}

/// A file with an upstream of this id for `prod`.
pub(super) fn file_with_upstream(id: &str) -> Config {
    let mut config = file(&[]);
    let sink = SinkConfig::Upstream(config::UpstreamConfig::at("http://localhost:9/api").unwrap());
    config.destinations.push(Destination::new(id, vec!["prod".to_owned()], sink));
    config
}

/// Somebody else has the log of this upstream: it can't be opened.
pub(super) fn taken(disk: &MemDisk, id: &str) -> Queues {
    let (log, queues) = (forebay::LogOptions::small(), forebay::QueueOptions::inline());
    let (clock, dir) = (Arc::new(forebay::clock::SystemClock::new()), Path::new("data/upstream").join(id));
    reopened(|| Queues::open(Arc::new(disk.clone()), Arc::clone(&clock) as _, &dir, log.clone(), queues.clone()))
}

impl House {
    /// What becomes of the posts of `prod`: whose they are, and whether they are kept.
    pub(super) fn relayed(&self) -> Option<(String, bool)> {
        let relay = self.ingest.environments().all()[0].relay()?;
        Some((relay.destination().to_string(), relay.is_there()))
    }
}

/// Before, its posts were answered as those that nobody wants, and dropped, and nothing counted them.
#[tokio::test]
async fn while_an_upstream_that_was_decided_does_not_run_its_posts_are_not_taken_for_ones_that_nobody_wants() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(upstream("split"), Put::Create).await.unwrap();
    let kept = |there| Some(("split".to_owned(), there));
    assert_eq!(house.relayed(), kept(true));
    let disk = house.stop().await;
    let held = taken(&disk, "split");
    let house = start(&disk, file(&[])).await;
    assert!(!house.registry.runs("split"));
    assert_eq!(house.relayed(), kept(false));
    house.operations.reload(file(&[])).await.unwrap();
    assert_eq!(house.relayed(), kept(false), "and when the file was read");
    drop(held);
    for _ in 0..6_000 {
        house.operations.reload(file(&[])).await.unwrap();
        if house.relayed() == kept(true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // the lock is let go a moment later
    }
    assert_eq!(house.relayed(), kept(true));
    house.operations.delete_destination("split".to_owned(), Delete::Empty).await.unwrap();
    assert_eq!(house.relayed(), None);
}

#[tokio::test]
async fn an_upstream_that_never_came_to_run_and_is_wanted_no_more_misses_nothing() {
    let disk = MemDisk::default();
    let held = taken(&disk, "split");
    let house = start(&disk, file(&[])).await;
    assert_eq!(house.relayed(), None);
    house.operations.reload(file_with_upstream("split")).await.unwrap();
    assert_eq!(house.relayed(), Some(("split".to_owned(), false)));
    // As something else it wants no posts.
    house.operations.reload(file(&["split"])).await.unwrap();
    assert_eq!(house.relayed(), None);
    house.operations.reload(file_with_upstream("split")).await.unwrap();
    assert_eq!(house.relayed(), Some(("split".to_owned(), false)));
    house.operations.reload(file(&[])).await.unwrap();
    assert_eq!(house.relayed(), None, "taken out");
    drop(held);
}

/// The settings were good for the version that took them. What is left of them says whose posts it wants.
#[tokio::test]
async fn an_upstream_whose_settings_are_valid_no_more_is_still_wanted() {
    let mut with_secret = file(&[]);
    with_secret.secrets.insert("split_url".to_owned(), Secret::new("http://localhost:9/api".to_owned()));
    let house = start(&MemDisk::default(), with_secret).await;
    let settings = upstream("split").replace("http://localhost:9/api", "secret:split_url");
    house.operations.put_destination(settings, Put::Create).await.unwrap();
    let house = house.again(file(&[])).await;
    assert!(!house.registry.runs("split"));
    assert_eq!(house.relayed(), Some(("split".to_owned(), false)));
}

#[tokio::test]
async fn an_environment_has_one_upstream() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(upstream("split"), Put::Create).await.unwrap();
    let told = text(house.operations.put_destination(upstream("other"), Put::Create).await);
    assert!(told.contains("go to upstream \"split\" already"), "{told}");
    house.operations.put_destination(upstream("split").replace(":9/", ":99/"), Put::Update).await.unwrap();
    // Nor does the file get a second one in.
    let mut config = file(&[]);
    let sink = SinkConfig::Upstream(config::UpstreamConfig::default());
    config.destinations.push(Destination::new("of-file", vec!["prod".to_owned()], sink));
    let told = house.operations.reload(config.clone()).await.unwrap_err().to_string();
    assert!(told.contains("upstream \"split\", which was made through the API"), "{told}");
    // What was written while nobody looked: the file's runs, and the other keeps what it has.
    house.post("split", 1);
    let house = house.again(config).await;
    let all = house.operations.destinations(String::new(), 10).await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.r#type.as_str(), one.records_pending)).collect();
    assert_eq!(all, [("of-file", "upstream", 0), ("split", "upstream", 1)]);
    assert!(house.registry.runs("of-file") && !house.registry.runs("split"));
    assert!(house.operations.not_as_decided()[0].why.contains("go to upstream \"of-file\" already"));
}
