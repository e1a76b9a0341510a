//! Which revisions of settings are kept, and for how long.

use forebay::{BatchLimits, Settled};
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::SimDisk;

use super::*;

/// A bucket that nobody reaches, with objects under this prefix.
fn with_bucket(prefix: &str) -> Config {
    let s3 = config::S3Config {
        prefix: config::KeyTemplate::parse(prefix).unwrap(),
        endpoint: Some(config::Endpoint::parse("http://127.0.0.1:9").unwrap()),
        ..config::S3Config::new("impressions")
    };
    let mut config = file(&[]);
    config.destinations.push(Destination::new("bucket", vec!["prod".to_owned()], SinkConfig::S3(Box::new(s3))));
    config
}

impl House {
    fn revisions(&self) -> Vec<u32> {
        let state = self.operations.journal.state();
        state.revisions.get("bucket").map(|known| known.keys().copied().collect()).unwrap_or_default()
    }

    /// The next batch, planned and not sent.
    fn plan(&self) -> forebay::Batch {
        let queue = self.queues.find("bucket", "prod").unwrap();
        let batch = queue.next_batch(BatchLimits { records_max: 5, bytes_max: u64::MAX }).unwrap().unwrap();
        let (sent, heard) = std::sync::mpsc::sync_channel(1);
        queue.plan(&batch, Box::new(move |planned| sent.send(planned).unwrap()));
        heard.recv().unwrap().unwrap();
        queue.release(&batch);
        batch
    }
}

/// Before, each change of a destination's settings was read and held by every process that came.
#[tokio::test]
async fn a_revision_is_forgotten_when_no_plan_names_it() {
    let house = start(&MemDisk::default(), with_bucket("p0/")).await;
    house.operations.pause_destination("bucket".to_owned(), true).await.unwrap();
    house.append("prod", 0);
    for n in 1..8 {
        house.operations.reload(with_bucket(&format!("p{n}/"))).await.unwrap();
        if n == 2 {
            assert_eq!(house.plan().settings_revision, 3);
        }
    }
    assert_eq!(house.revisions(), [1, 2, 3, 4, 5, 6, 7, 8]);
    let house = house.again(with_bucket("p7/")).await;
    assert_eq!(house.revisions(), [3, 5, 6, 7, 8], "the newest, and that of the batch that is planned");
    let queue = house.queues.find("bucket", "prod").unwrap();
    let batch = queue.next_batch(BatchLimits { records_max: 5, bytes_max: u64::MAX }).unwrap().unwrap();
    assert_eq!((batch.settings_revision, batch.planned), (3, true));
    let wanted =
        house.operations.wanted(with_bucket("p7/").destinations.remove(0), AddressPolicy::Operator).await.unwrap();
    assert!(wanted.layouts.iter().any(|(revision, layout)| *revision == 3 && layout.prefix.literal() == "p2/"));
    queue.settle(&batch, Settled::Delivered);
    drop(queue);
    // Its plan may be replayed while it is kept, and counts on from the newest all the same.
    let house = house.again(with_bucket("p8/")).await;
    assert_eq!(house.revisions(), [3, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn what_runs_is_looked_through_now_and_then_and_goes_on_untouched() {
    let house = start(&MemDisk::default(), with_bucket("p0/")).await;
    house.operations.pause_destination("bucket".to_owned(), true).await.unwrap();
    for n in 1..17 {
        house.operations.reload(with_bucket(&format!("p{n}/"))).await.unwrap();
    }
    assert_eq!(house.revisions(), [14, 15, 16, 17], "the seventeenth was one too many");
    let again = house.operations.reload(with_bucket("p16/")).await.unwrap();
    assert_eq!((again.replaced, again.untouched), (0, 1));
}

#[tokio::test]
async fn how_objects_are_made_is_remembered_by_revision() {
    let house = start(&MemDisk::default(), with_bucket("a/{date}/")).await;
    let house = house.again(with_bucket("a/{date}/")).await;
    let house = house.again(with_bucket("b/")).await;
    let destination = with_bucket("b/").destinations.pop().unwrap();
    let wanted = house.operations.wanted(destination, AddressPolicy::Operator).await.unwrap();
    assert_eq!(wanted.revision, 2);
    let known = wanted.layouts.iter().map(|(revision, layout)| (*revision, layout.prefix.literal().to_owned()));
    assert_eq!(known.collect::<Vec<_>>(), [(1, "a/".to_owned()), (2, "b/".to_owned())]);
    let queue = house.queues.all().into_iter().find(|queue| queue.destination() == "bucket").unwrap();
    assert_eq!(queue.settings_revision(), 2, "what is planned from now on");
}

/// Before, they were forgotten first: put back after that, it gave batches that were planned the settings of another revision.
#[tokio::test]
async fn a_destination_whose_queues_are_still_there_has_its_revisions_and_one_that_is_gone_has_none() {
    let disk = SimDisk::new(1);
    let house = start_in(super::unmet::on_sim(&disk, || ()), file(&[])).await;
    let settings = hook("hook", "filter = { flags = [\"a\"] }");
    house.operations.put_destination(settings.clone(), Put::Create).await.unwrap();
    let delete = || house.operations.delete_destination("hook".to_owned(), Delete::Purge);
    let known = || house.operations.journal.state().revisions.contains_key("hook");
    disk.inject(Fault::every(OpKind::Sync, Failure::Eio).on("floor"));
    assert!(text(delete().await).contains("can't be deleted yet"));
    assert!(known());
    disk.clear_faults();
    assert!(delete().await.unwrap().deleted && !known());
    house.operations.put_destination(settings, Put::Create).await.unwrap();
    assert_eq!(house.operations.journal.state().revisions["hook"].keys().copied().collect::<Vec<_>>(), [1]);
}
