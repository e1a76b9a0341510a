//! The registry over a real log in memory, with destinations that write files there.

use std::collections::BTreeMap;
use std::path::Path;

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, read_all};

use super::*;
use crate::app::house::House;
use crate::config::{Endpoint, FileConfig, Secret, SinkConfig, WebhookConfig};

async fn house() -> House {
    let house = House::on(&MemDisk::default());
    house.environments(&[("prod", "production")]).await;
    house
}

impl House {
    async fn environments(&self, ids: &[(&str, &str)]) {
        let environment = |(id, name): &(&str, &str)| config::Environment {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            sdk_keys: vec![Secret::new(format!("key-{id}"))],
        };
        let environments: Vec<_> = ids.iter().map(environment).collect();
        let keyed = ids.iter().map(|(id, _)| ((*id).to_owned(), vec![(0, format!("key-{id}"))])).collect();
        self.registry.set_environments(&environments, keyed).await.unwrap();
    }

    async fn drained(&self) {
        for _ in 0..12_000 {
            if self.queues.all().iter().all(|queue| queue.lag().records == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not drained: {:?}", self.delivery.stats());
    }

    /// How often each key was written into a directory.
    fn keys(&self, directory: &str) -> BTreeMap<String, u32> {
        let mut keys = BTreeMap::new();
        for name in self.disk.list(Path::new(directory)).unwrap_or_default() {
            let file = self.disk.open(&Path::new(directory).join(name)).unwrap();
            let text = String::from_utf8(read_all(&*file).unwrap()).unwrap();
            for line in text.lines() {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                *keys.entry(object["key"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        keys
    }

    fn routed(&self) -> Vec<(String, bool)> {
        let environments = self.ingest.environments();
        environments.all().iter().map(|environment| (environment.id().to_owned(), environment.routed())).collect()
    }
}

fn files(id: &str, environments: &[&str], directory: &str) -> Wanted {
    let environments = environments.iter().map(|id| (*id).to_owned()).collect();
    let sink = SinkConfig::File(FileConfig::new(directory));
    Wanted::of_file(Destination::new(id, environments, sink))
}

fn webhook(id: &str, header: &str) -> Wanted {
    let mut config = WebhookConfig::new(Endpoint::parse("http://127.0.0.1:9/").unwrap());
    config.headers.push(("x-token".parse().unwrap(), Secret::new(header.parse().unwrap())));
    let destination = Destination::new(id, vec!["prod".to_owned()], SinkConfig::Webhook(config));
    Wanted::of_file(destination)
}

#[tokio::test]
async fn a_replaced_destination_goes_on_where_it_was() {
    let house = house().await;
    house.registry.start(&files("archive", &["prod"], "first"), false).unwrap();
    house.append("prod", 0);
    house.drained().await;
    let put = house.registry.put(files("archive", &["prod"], "second"), false).await.unwrap();
    assert_eq!(put, Put::Replaced);
    house.append("prod", 10);
    house.drained().await;
    let (first, second) = (house.keys("first"), house.keys("second"));
    assert_eq!((first.len(), second.len()), (10, 10));
    assert!(first.keys().all(|key| !second.contains_key(key)), "each record in one of them");
    assert!(first.values().chain(second.values()).all(|times| *times == 1));
    let counted = house.delivery.stats_of("archive").unwrap();
    assert_eq!(counted.delivered_records, 20, "counters count since the process began");
}

#[tokio::test]
async fn what_is_equal_is_left_running_and_a_new_secret_is_a_change() {
    let house = house().await;
    let put = |wanted| house.registry.put(wanted, false);
    assert_eq!(put(webhook("hook", "one")).await.unwrap(), Put::Started);
    assert_eq!(put(webhook("hook", "one")).await.unwrap(), Put::Untouched);
    assert_eq!(put(webhook("hook", "two")).await.unwrap(), Put::Replaced);
    let customers = Wanted { policy: AddressPolicy::Customer, ..webhook("hook", "two") };
    assert_eq!(put(customers.clone()).await.unwrap(), Put::Replaced);
    house.environments(&[("prod", "production"), ("other", "other")]).await;
    assert_eq!(put(customers.clone()).await.unwrap(), Put::Untouched);
    house.environments(&[("prod", "renamed")]).await;
    assert_eq!(put(customers).await.unwrap(), Put::Replaced, "its records are sent with another name");
}

/// Its own settings are the ones that an operator puts back when a change went wrong. Before, it was said to run untouched.
#[tokio::test]
async fn one_that_was_stopped_on_the_way_to_another_is_started_again_by_the_settings_that_it_had() {
    let house = house().await;
    house.registry.start(&files("archive", &["prod"], "out"), false).unwrap();
    house.delivery.stop("archive", Duration::from_secs(60)).await.unwrap();
    assert_eq!(house.registry.put(files("archive", &["prod"], "out"), false).await.unwrap(), Put::Replaced);
    house.append("prod", 0);
    house.drained().await;
    assert_eq!(house.keys("out").len(), 10);
}

#[tokio::test]
async fn one_that_is_taken_out_keeps_its_records_until_it_is_back() {
    let house = house().await;
    let (kept, other) = (files("kept", &["prod"], "kept"), files("other", &["prod"], "other"));
    house.registry.start(&kept, false).unwrap();
    house.registry.start(&other, false).unwrap();
    assert!(house.registry.remove("kept").await && !house.registry.remove("kept").await);
    assert_eq!(house.routed(), [("prod".to_owned(), true)]);
    house.append("prod", 0);
    let queue = |id: &str| house.queues.all().into_iter().find(|queue| queue.destination() == id).unwrap();
    while queue("other").lag().records > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((queue("kept").lag().records, house.registry.drains(&queue("kept"))), (10, false));
    assert!(house.registry.drains(&queue("other")) && !house.registry.runs("kept"));
    assert!(house.registry.remove("other").await);
    assert_eq!(house.routed(), [("prod".to_owned(), false)], "nobody takes from it now");
    assert_eq!(house.registry.put(kept, false).await.unwrap(), Put::Started);
    house.drained().await;
    assert_eq!((house.keys("kept").len(), house.keys("other").len()), (10, 10));
    assert_eq!(house.routed(), [("prod".to_owned(), true)]);
}

#[tokio::test]
async fn environments_come_and_go_and_keep_their_places() {
    let house = house().await;
    let owner = |key: &str| house.ingest.environments().owner_of(key.as_bytes()).map(|owner| owner.environment);
    house.registry.start(&files("archive", &["prod"], "out"), false).unwrap();
    house.environments(&[("next", "next"), ("prod", "production")]).await;
    assert_eq!((owner("key-prod"), owner("key-next")), (Some(0), Some(1)));
    assert_eq!(house.routed(), [("prod".to_owned(), true), ("next".to_owned(), false)]);
    house.registry.put(files("archive", &["prod", "next"], "out"), false).await.unwrap();
    assert_eq!(house.routed(), [("prod".to_owned(), true), ("next".to_owned(), true)]);
    house.append("next", 0);
    house.append("prod", 10);
    house.drained().await;
    assert_eq!(house.keys("out").len(), 20);
    house.environments(&[("next", "next")]).await;
    assert_eq!((owner("key-prod"), owner("key-next")), (None, Some(1)), "its key is refused from now on");
}

#[tokio::test]
async fn a_key_of_two_environments_changes_nothing() {
    let house = house().await;
    let keyed = ["prod", "twin"].map(|id| (id.to_owned(), vec![(0, "same".to_owned())])).to_vec();
    assert!(house.registry.set_environments(&[], keyed).await.is_err());
    let environments = house.ingest.environments();
    assert_eq!((environments.all().len(), environments.owner_of(b"key-prod").is_some()), (1, true));
}

#[tokio::test]
async fn an_upstream_keeps_posts_as_long_as_it_runs_and_has_a_queue_for_each_key_before_its_first_post() {
    let house = house().await;
    let upstream = |max_bytes| {
        let config = crate::config::UpstreamConfig { max_bytes, ..crate::config::UpstreamConfig::default() };
        let destination = Destination::new("split", vec!["prod".to_owned()], SinkConfig::Upstream(config));
        Wanted::of_file(destination)
    };
    let relayed = || house.ingest.environments().all()[0].relay().is_some();
    let streams = || {
        let mut streams = Vec::new();
        house.upstreams.each_queue(&mut |queue| streams.push(queue.stream().to_owned()));
        streams
    };
    assert!(!relayed());
    assert_eq!(house.registry.put(upstream(64 << 20), false).await.unwrap(), Put::Started);
    assert!(relayed());
    assert_eq!(streams(), ["posts/prod/0"]);
    assert_eq!(house.registry.put(upstream(64 << 20), false).await.unwrap(), Put::Untouched);
    // A new key: its queue is there at once, its source with the next change.
    let keys = vec![(0, "key-prod".to_owned()), (4, "key-more".to_owned())];
    house.registry.set_environments(&[], vec![("prod".to_owned(), keys)]).await.unwrap();
    assert_eq!(streams(), ["posts/prod/0", "posts/prod/4"]);
    house.environments(&[("prod", "production")]).await;
    assert_eq!(house.registry.put(upstream(128 << 20), false).await.unwrap(), Put::Replaced);
    assert!(relayed(), "no post is missed while it is replaced");
    assert!(house.registry.remove("split").await);
    assert!(!relayed());
    assert_eq!(streams().len(), 2, "what they hold is kept");
}

/// Before, a change of `max_bytes` counted from the next start.
#[tokio::test(flavor = "multi_thread")]
async fn another_share_for_an_upstreams_posts_holds_at_once_and_loses_none() {
    let house = house().await;
    let upstream = |max_bytes| {
        let config = crate::config::UpstreamConfig { max_bytes, ..crate::config::UpstreamConfig::default() };
        let destination = Destination::new("split", vec!["prod".to_owned()], SinkConfig::Upstream(config));
        Wanted::of_file(destination)
    };
    // Paused: nothing leaves.
    house.registry.put(upstream(8 << 20), true).await.unwrap();
    let log = house.upstreams.log("split").unwrap();
    let append = || log.append_wait("posts/prod/0", vec![forebay::Payload { bytes: vec![7; 256 << 10], records: 1 }]);
    let fill = || (0..1_000).find(|_| append().is_err()).expect("the share holds");
    let few = fill();
    assert_eq!(house.registry.put(upstream(24 << 20), true).await.unwrap(), Put::Replaced);
    assert_eq!(log.stats().bytes_limit, 24 << 20);
    for _ in 0..12_000 {
        if log.state() == forebay::LogState::Serving {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let more = fill();
    assert!(more > few, "{few} posts in 8 MiB, {more} in 16 more");
    house.registry.put(upstream(8 << 20), true).await.unwrap();
    assert_eq!(log.stats().bytes_limit, 8 << 20);
    assert!(append().is_err());
    let queue = house.upstreams.queues_of("split").pop().unwrap();
    assert_eq!(queue.lag().records, (few + more) as u64, "what was kept is kept");
}

/// A webhook that never had anything to send, all included: its queue, its loop, its sink and its place in every table.
/// Memory is what limits how many there can be. Its configuration is not in it.
#[tokio::test]
async fn an_idle_webhook_costs_two_kilobytes_at_most() {
    /// What the allocator adds to each: its header, and the rest of a cell of 16 bytes.
    const OVERHEAD: i64 = 16;
    const MANY: usize = 1_000;
    let house = house().await;
    let wanted: Vec<Wanted> = (0..=MANY).map(|n| webhook(&format!("hook-{n:04}"), "token")).map(plain).collect();
    // The first one makes what all share.
    house.registry.start(&wanted[0], false).unwrap();
    let counted = allocation_counter::measure(|| {
        for one in &wanted[1..] {
            house.registry.start(one, false).unwrap();
        }
    });
    let (bytes, pieces) = (counted.bytes_current / MANY as i64, counted.count_current / MANY as i64);
    assert_eq!(house.delivery.stats().len(), MANY + 1);
    eprintln!("an idle webhook: {bytes} bytes in {pieces} pieces");
    assert!(bytes > 500 && bytes + pieces * OVERHEAD <= 2048, "{bytes} bytes in {pieces} pieces");
}

/// Without headers of its own, as most are.
fn plain(mut wanted: Wanted) -> Wanted {
    let SinkConfig::Webhook(config) = &mut wanted.destination.sink else { unreachable!("it is one") };
    config.headers.clear();
    wanted
}
