//! Environments that a destination takes from no more, and what lies where it was given up while a destination goes.

use forebay::{Much, Settled};

use super::*;
use crate::proto::v1::LeftEnvironment;

/// A file with two environments and file destinations of these ids that take from both.
fn of_two(ids: &[&str]) -> Config {
    let mut config = file(ids);
    let qa =
        Environment { id: "qa".to_owned(), name: "qa".to_owned(), sdk_keys: vec![Secret::new("key-q".to_owned())] };
    config.environments.push(qa);
    config.destinations.iter_mut().for_each(|destination| destination.environments.push("qa".to_owned()));
    config
}

fn of_both(id: &str) -> String {
    hook(id, "").replace("[\"prod\"]", "[\"prod\", \"qa\"]")
}

fn left(environment: &str, records_pending: u64, dead_letters: u64) -> LeftEnvironment {
    LeftEnvironment { environment: environment.to_owned(), records_pending, dead_letters }
}

/// Before, nobody was told of its queue, which collected records and held the disk; a drain never ended; and to get rid of it
/// the whole destination had to go.
#[tokio::test]
async fn an_environment_that_is_taken_out_of_a_destination_is_told_and_goes_only_by_name() {
    let house = start(&MemDisk::default(), of_two(&[])).await;
    let operations = &house.operations;
    let hook_of_both = of_both("hook").replace("type =", "start = \"earliest\"\ntype =");
    house.append("qa", 0);
    let (made, warnings) = operations.put_destination(hook_of_both, Put::Create).await.unwrap();
    assert_eq!((made.left, warnings), (vec![], vec![]));
    let (changed, warnings) = operations.put_destination(hook("hook", ""), Put::Update).await.unwrap();
    assert_eq!((changed.left, changed.environments), (vec![left("qa", 10, 0)], vec!["prod".to_owned()]));
    let told = warnings.join("\n");
    assert!(told.contains("environment qa no more: 10 records") && told.contains("--environment qa"), "{told}");
    house.append("qa", 10);
    let is_left = |stream: &str| operations.left_behind(&house.queues.find("hook", stream).unwrap());
    assert_eq!([is_left("qa"), is_left("prod")], [true, false], "lag shows it as what nothing delivers");
    let shown = operations.destination("hook".to_owned()).await.unwrap();
    assert_eq!((shown.left, shown.records_pending), (vec![left("qa", 20, 0)], 20), "new ones are added");

    let drain = text(operations.delete_destination("hook".to_owned(), Delete::Drain).await);
    assert!(drain.contains("\"qa\"") && drain.contains("can't be drained"), "{drain}");
    let delete = |environment: &str, purge| operations.delete_left("hook".to_owned(), environment.to_owned(), purge);
    assert!(text(delete("prod", true).await).contains("take that out of its settings first"));
    assert!(matches!(delete("nosuch", true).await, Err(Refused::NotFound(_))));
    let refused = text(delete("qa", false).await);
    assert!(refused.contains("20 records") && refused.contains("--purge"), "{refused}");
    assert_eq!(house.queues.find("hook", "qa").unwrap().lag().records, 20);
    let deleted = delete("qa", true).await.unwrap();
    assert_eq!((deleted.records_pending, deleted.deleted), (20, true));
    assert!(house.queues.find("hook", "qa").is_none() && house.queues.find("hook", "prod").is_some());
    assert!(operations.destination("hook".to_owned()).await.unwrap().left.is_empty());
    assert!(operations.delete_destination("hook".to_owned(), Delete::Drain).await.unwrap().deleted);
}

#[tokio::test]
async fn what_an_environment_left_in_a_destination_of_the_file_goes_too_and_after_another_start() {
    let house = start(&MemDisk::default(), of_two(&["archive"])).await;
    house.operations.pause_destination("archive".to_owned(), true).await.unwrap();
    house.append("qa", 0);
    let mut without = of_two(&["archive"]);
    without.destinations[0].environments.pop();
    house.operations.reload(without.clone()).await.unwrap();
    let house = house.again(without).await;
    let shown = house.operations.destination("archive".to_owned()).await.unwrap();
    assert_eq!((shown.origin(), shown.left), (Origin::File, vec![left("qa", 10, 0)]));
    let delete = |purge| house.operations.delete_left("archive".to_owned(), "qa".to_owned(), purge);
    house.queues.find("archive", "qa").unwrap().mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    let refused = text(delete(false).await);
    assert!(refused.contains("0 records") && refused.contains("10 lie there as dead letters"), "{refused}");
    delete(true).await.unwrap();
    assert!(house.queues.find("archive", "qa").is_none());
    // Put back it begins anew.
    let reloaded = house.operations.reload(of_two(&["archive"])).await.unwrap();
    assert_eq!(reloaded.replaced, 1);
    assert!(house.operations.destination("archive".to_owned()).await.unwrap().left.is_empty());
}

#[tokio::test]
async fn posts_of_an_environment_that_is_taken_out_of_an_upstream_go_by_its_name() {
    let house = start(&MemDisk::default(), of_two(&[])).await;
    house.operations.put_destination(upstream("split"), Put::Create).await.unwrap();
    house.operations.pause_destination("split".to_owned(), true).await.unwrap();
    house.post("split", 3);
    let of_qa = upstream("split").replace("prod", "qa");
    let (changed, warnings) = house.operations.put_destination(of_qa, Put::Update).await.unwrap();
    assert_eq!((changed.left, warnings.len()), (vec![left("prod", 3, 0)], 1));
    let delete = |purge| house.operations.delete_left("split".to_owned(), "prod".to_owned(), purge);
    assert!(text(delete(false).await).contains("3 records"));
    assert_eq!(delete(true).await.unwrap().records_pending, 3);
    assert!(house.operations.destination("split".to_owned()).await.unwrap().left.is_empty());
    let (_, warnings) = house.operations.put_destination(upstream("split"), Put::Update).await.unwrap();
    assert_eq!(warnings.len(), 1, "now the other one is out");
}

/// Before, ranges that were being sent again counted as dead letters, so that nothing could be drained meanwhile; and what was
/// given up during a drain was given up for good when it ended.
#[tokio::test]
async fn what_lies_where_it_was_given_up_is_dead_until_it_is_sent_again_and_keeps_its_destination() {
    let house = start(&MemDisk::default(), file(&[])).await;
    house.operations.put_destination(hook("hook", ""), Put::Create).await.unwrap();
    house.append("prod", 0);
    let queue = house.queues.find("hook", "prod").unwrap();
    queue.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    let delete = |how| house.operations.delete_destination("hook".to_owned(), how);
    assert!(text(delete(Delete::Drain).await).contains("10 dead letters"));
    let again = house.queues.redrive("hook", "prod", 0..10).unwrap().unwrap();
    assert_eq!(house.operations.dead_letters("hook"), 0);
    assert_eq!(house.operations.destination("hook".to_owned()).await.unwrap().records_pending, 10);
    assert!(!delete(Delete::Drain).await.unwrap().deleted);
    again.settle_range(0..10, Settled::Delivered);
    house.append("prod", 10);
    queue.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    (0..3).for_each(|_| house.queues.tick().unwrap());
    assert!(house.queues.replays().is_empty());
    house.operations.end_drained().await;
    assert!(house.operations.destination("hook".to_owned()).await.unwrap().draining, "ten lie there, given up since");
    house.letters.desk("hook").let_marked_go(&crate::letters::Filter::default(), Settled::Purged);
    house.operations.end_drained().await;
    assert!(matches!(house.operations.destination("hook".to_owned()).await, Err(Refused::NotFound(_))));
}
