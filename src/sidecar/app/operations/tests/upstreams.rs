//! Destinations that are upstreams: their posts lie in logs of their own, and an environment has one.

use super::*;

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
    assert_eq!(all, [("of-file", "upstream", 0), ("split", "", 1)]);
}
