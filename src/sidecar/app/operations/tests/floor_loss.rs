//! A floor that has lost cursors: when its loss can be taken, and that the log is let go then.

use std::io::IoSlice;

use super::*;
use crate::app::operations::floor_loss::NAMED_MAX;
use crate::proto::v1::AcceptFloorLossRequest;

const TAKEN: AcceptFloorLossRequest = AcceptFloorLossRequest { accepted: true, unread_decisions_accepted: false };

/// Bytes of a slot: see docs/format.md.
const SLOT: u64 = 12 << 10;

/// Both slots of every page but the first rot, so that the cursors are lost.
fn damage(disk: &MemDisk, floor: &str) {
    let floor = disk.open(Path::new(floor)).unwrap();
    let (from, len) = (2 * SLOT, floor.len().unwrap());
    assert!(len > from, "there is a page of cursors behind the first page's two slots");
    floor.write_all_at(&[IoSlice::new(&vec![0xff; usize::try_from(len - from).unwrap()])], from).unwrap();
}

async fn refused(house: &House) -> String {
    match house.operations.floor_loss(TAKEN).await {
        Err(Refused::Precondition(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Before, nothing in the sidecar took such a loss: the log kept everything until the disk was full.
#[tokio::test]
async fn a_floors_loss_is_taken_only_while_every_destination_runs_and_then_the_log_is_let_go() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    assert!(refused(&house).await.contains("no cursors were lost"));
    house.operations.put_destination(hook("hook", "start = \"earliest\""), Put::Create).await.unwrap();
    house.append("prod", 0);
    (0..NAMED_MAX + 1).for_each(|n| house.append(&format!("qa-{n}"), 0));
    let disk = house.stop().await;
    damage(&disk, "data/floor");

    // It can't be started without the secret.
    let without = Config { secrets: BTreeMap::new(), ..file(&["archive"]) };
    let house = start(&disk, without).await;
    assert!(house.queues.stats().pinned);
    let why = refused(&house).await;
    assert!(why.contains("1 destinations do not run") && why.ends_with(": hook"), "{why}");
    assert!(house.queues.stats().pinned, "nothing was done");

    let house = house.again(file(&["archive"])).await;
    let looked = house.operations.floor_loss(AcceptFloorLossRequest::default()).await.unwrap().losses;
    assert_eq!(looked.iter().map(|loss| loss.upstream.as_str()).collect::<Vec<_>>(), [""]);
    assert_eq!((&*looked[0].streams_let_go[0], looked[0].streams_let_go.len()), ("qa-0", NAMED_MAX));
    assert_eq!(looked[0].streams_let_go_total, 101, "where not all are named, it is told how many there are");
    assert!(house.queues.stats().pinned, "it was only looked at");
    let log = house.queues.log();
    let needed = log.stats().needed_bytes;
    assert_eq!(house.operations.floor_loss(TAKEN).await.unwrap().losses, looked);
    assert!(!house.queues.stats().pinned);
    assert!(log.stats().needed_bytes < needed, "what nobody takes is let go");
    assert_eq!(house.queues.find("hook", "prod").unwrap().lag().records, 10, "what a destination has not got is kept");
    assert!(refused(&house).await.contains("no cursors were lost"));

    let house = house.again(file(&["archive"])).await;
    assert!(!house.queues.stats().pinned, "it is durable");
}

#[tokio::test]
async fn an_upstreams_floor_is_one_of_its_own() {
    let of_file = |id: &str| {
        let mut config = file(&[]);
        let sink = SinkConfig::Upstream(config::UpstreamConfig::at("http://localhost:9/api").unwrap());
        config.destinations.push(Destination::new(id, vec!["prod".to_owned()], sink));
        config
    };
    let house = start(&MemDisk::default(), of_file("split")).await;
    house.operations.pause_destination("split".to_owned(), true).await.unwrap();
    house.post("split", 2);
    let disk = house.stop().await;
    damage(&disk, "data/upstream/split/floor");
    let house = start(&disk, of_file("split")).await;
    assert!(!house.queues.stats().pinned);
    let losses = house.operations.floor_loss(TAKEN).await.unwrap().losses;
    assert_eq!(losses.iter().map(|loss| loss.upstream.as_str()).collect::<Vec<_>>(), ["split"]);
    assert!(losses[0].streams_let_go.is_empty(), "{losses:?}");
    assert!(house.upstreams.pinned().is_empty());
    assert_eq!(house.operations.destination("split".to_owned()).await.unwrap().records_pending, 2);
}

/// Before, a destination whose record had rotted was in nobody's list, so that what it had pending went without a word.
#[tokio::test]
async fn no_loss_is_taken_while_decisions_are_unread_unless_that_is_accepted_too() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    house.operations.put_destination(hook("hook", "start = \"earliest\""), Put::Create).await.unwrap();
    house.append("prod", 0);
    // A length, and nothing behind it: as rot that a checksum does not see.
    house.queues.log().append_wait("!control", vec![Payload { bytes: vec![9], records: 2 }]).unwrap();
    let disk = house.stop().await;
    damage(&disk, "data/floor");

    let house = start(&disk, file(&["archive"])).await;
    let looked = house.operations.floor_loss(AcceptFloorLossRequest::default()).await.unwrap();
    assert_eq!(looked.unread_decisions, 2);
    let why = refused(&house).await;
    assert!(why.starts_with("2 records of what operators decided") && why.contains("--unread-decisions"), "{why}");
    assert!(house.queues.stats().pinned);
    let both = AcceptFloorLossRequest { unread_decisions_accepted: true, ..TAKEN };
    assert_eq!(house.operations.floor_loss(both).await.unwrap(), looked);
    assert!(!house.queues.stats().pinned);
}

/// Before, its queue was never made again, and its posts went when the loss was taken.
#[tokio::test]
async fn posts_of_a_key_that_is_configured_no_more_are_relayed_though_its_cursor_is_lost() {
    let of_keys = |keys: &[&str]| {
        let mut config = file(&[]);
        config.environments[0].sdk_keys = keys.iter().map(|key| Secret::new((*key).to_owned())).collect();
        let sink = SinkConfig::Upstream(config::UpstreamConfig::at("http://localhost:9/api").unwrap());
        config.destinations.push(Destination::new("split", vec!["prod".to_owned()], sink));
        config
    };
    let house = start(&MemDisk::default(), of_keys(&["key-a", "key-b"])).await;
    house.operations.pause_destination("split".to_owned(), true).await.unwrap();
    let post = Payload { bytes: vec![7; 100], records: 1 };
    house.upstreams.log("split").unwrap().append_wait("posts/prod/1", vec![post]).unwrap();
    let disk = house.stop().await;
    damage(&disk, "data/upstream/split/floor");
    let house = start(&disk, of_keys(&["key-a"])).await;
    let losses = house.operations.floor_loss(TAKEN).await.unwrap().losses;
    assert!(losses[0].streams_let_go.is_empty(), "{losses:?}");
    assert_eq!(house.operations.destination("split".to_owned()).await.unwrap().records_pending, 1);
    // From then on it has a cursor like all others.
    let house = house.again(of_keys(&["key-a"])).await;
    assert_eq!(house.operations.destination("split".to_owned()).await.unwrap().records_pending, 1);
}

/// Before, who put a destination back and took the loss at once, before the file was read again, lost what it had pending.
#[tokio::test]
async fn no_loss_is_taken_while_the_file_has_a_change_that_nobody_has_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    write(&path, &file_text(&["archive", "back"]));
    let house = start(&MemDisk::default(), load(&path)).await;
    house.append("prod", 0);
    let disk = house.stop().await;
    damage(&disk, "data/floor");

    write(&path, &file_text(&["archive"]));
    let of = ConfigFile::before_reading(&path);
    let house = start(&disk, load(&path)).await;
    house.operations.comes_from(of);
    write(&path, &(file_text(&["archive", "back"]) + "start = \"now\"\n"));
    let why = refused(&house).await;
    assert!(why.contains("not as it was when it was read last"), "{why}");
    assert!(house.queues.stats().pinned);
    house.operations.reload_file(&path).await;
    house.operations.floor_loss(TAKEN).await.unwrap();
    let balance = house.queues.find("back", "prod").unwrap().balance();
    assert_eq!(balance.accepted.records, 10, "it was kept for it; some of it may be delivered by now");
}

#[tokio::test]
async fn no_loss_is_taken_while_the_file_is_not_what_runs() {
    let house = start(&MemDisk::default(), file(&["archive"])).await;
    house.append("prod", 0);
    let disk = house.stop().await;
    damage(&disk, "data/floor");
    let house = start(&disk, file(&["archive"])).await;
    house.operations.reload_file(Path::new("/there/is/no/such/file.toml")).await;
    let why = refused(&house).await;
    assert!(why.contains("was not taken"), "{why}");
}
