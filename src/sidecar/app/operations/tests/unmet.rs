//! What could not be done as it was decided: the rest goes on, it is told, and it is tried again.

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::SimDisk;

use super::upstreams::{file_with_upstream, taken};
use super::*;

/// When whatever failed before is tried again.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// A file with an upstream of this id beside a file destination.
fn both(upstream: &str) -> Config {
    let mut config = file_with_upstream(upstream);
    config.destinations.extend(file(&["archive"]).destinations);
    config
}

pub(super) fn on_sim(disk: &SimDisk, opened: impl FnOnce()) -> Inside {
    Inside::over(Arc::new(disk.clone()), &MemDisk::default(), (Duration::from_secs(5), &[]), opened)
}

impl House {
    /// A lock is let go a moment later than its holder is gone.
    async fn tried_until(&self, done: impl AsyncFn() -> bool) {
        for _ in 0..6_000 {
            self.operations.try_again(later()).await;
            if done().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is tried in vain: {:?}", self.operations.not_as_decided());
    }

    fn unmet(&self) -> Vec<(String, bool)> {
        self.operations.not_as_decided().into_iter().map(|one| (one.id, one.runs)).collect()
    }
}

/// Before, nothing was started, however often: everybody's posts were refused for the log of one upstream.
#[tokio::test]
async fn a_destination_of_the_file_that_cant_be_started_keeps_nobody_from_it_and_is_tried_again() {
    let disk = MemDisk::default();
    let held = taken(&disk, "split");
    let house = start(&disk, both("split")).await;
    assert!(house.registry.runs("archive") && !house.registry.runs("split"));
    assert_eq!(house.unmet(), [("split".to_owned(), false)]);
    assert!(house.operations.reloads().last_failed);
    let shown = house.operations.destination("split".to_owned()).await.unwrap();
    assert_eq!(
        (shown.origin(), shown.r#type.as_str(), shown.environments),
        (Origin::File, "upstream", vec!["prod".into()])
    );
    assert_eq!(house.relayed(), Some(("split".to_owned(), false)));
    drop(held);
    house.tried_until(async || house.registry.runs("split")).await;
    assert_eq!((house.unmet(), house.operations.reloads().last_failed), (vec![], false));
    assert_eq!(house.relayed(), Some(("split".to_owned(), true)));
}

/// Before, it was a line in the log: the reload counted as done, and nobody tried again.
#[tokio::test]
async fn what_a_reload_could_not_do_is_told_and_done_later_unless_something_else_is_decided() {
    let disk = MemDisk::default();
    let house = start(&disk, file(&["archive"])).await;
    let held = taken(&disk, "split");
    let reload = |config| house.operations.reload(config);
    let reloaded = reload(both("split")).await.unwrap();
    assert_eq!(reloaded, Reloaded { untouched: 1, failed: 1, ..Reloaded::default() });
    assert_eq!((house.unmet(), house.operations.reloads().last_failed), (vec![("split".to_owned(), false)], true));
    // It is the file's, though it does not run.
    let told = text(house.operations.delete_destination("split".to_owned(), Delete::Purge).await);
    assert!(told.contains("configuration file's"), "{told}");
    assert!(matches!(house.operations.put_destination(hook("split", ""), Put::Create).await, Err(Refused::Exists(_))));
    let told = text(house.operations.put_destination(hook("split", ""), Put::Update).await);
    assert!(told.contains("configuration file's"), "{told}");
    let told = text(house.operations.put_destination(upstream("other"), Put::Create).await);
    assert!(told.contains("go to upstream \"split\" already"), "{told}");
    reload(file(&["archive"])).await.unwrap();
    assert_eq!((house.unmet(), house.operations.reloads().last_failed), (vec![], false));
    house.operations.try_again(later()).await;
    assert!(!house.registry.runs("split"), "nobody wants it any more");
    reload(both("split")).await.unwrap();
    drop(held);
    house.tried_until(async || house.registry.runs("split")).await;
}

/// One that ran goes on as it was.
#[tokio::test]
async fn new_settings_that_cant_be_put_to_work_are_tried_again_while_the_old_ones_go_on() {
    let disk = MemDisk::default();
    let house = start(&disk, file(&["split"])).await;
    let held = taken(&disk, "split");
    house.operations.reload(file_with_upstream("split")).await.unwrap();
    assert_eq!(house.unmet(), [("split".to_owned(), true)]);
    assert_eq!(house.operations.destination("split".to_owned()).await.unwrap().r#type, "file");
    drop(held);
    let runs = async || house.operations.destination("split".to_owned()).await.unwrap().r#type;
    house.tried_until(async || runs().await == "upstream").await;
    assert_eq!(house.unmet(), []);
}

/// Before, the process did not start while a place under any destination's dead letters could not be read.
#[tokio::test]
async fn a_destination_whose_letters_cant_be_read_sends_nothing_and_the_others_are_started() {
    let disk = SimDisk::new(1);
    let config = || file(&["archive", "other"]);
    let house = start_in(on_sim(&disk, || ()), file(&[])).await;
    house.queues.queue("archive", "!dead/archive", forebay::Start::Earliest).unwrap();
    house.queues.log().append_wait("!dead/archive", vec![Payload { bytes: vec![1], records: 1 }]).unwrap();
    house.stop().await;
    let refuse = || disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".sys"));
    let house = start_in(on_sim(&disk, refuse), config()).await;
    assert_eq!(house.unmet(), [("archive".to_owned(), false)]);
    assert!(house.registry.runs("other") && !house.registry.runs("archive"));
    let why = &house.operations.not_as_decided()[0].why;
    assert!(why.contains("letters can't be read"), "{why}");
    assert_eq!(house.letters.dead().into_values().map(|dead| dead.records).sum::<u64>(), 1, "they are counted");
    house.append("prod", 0);
    house.operations.try_again(later()).await;
    assert!(!house.registry.runs("archive"), "they can't be read yet");
    disk.clear_faults();
    house.operations.try_again(later()).await;
    assert!(house.registry.runs("archive") && house.unmet().is_empty());
    house.append("prod", 10);
    for (id, records) in [("other", 20), ("archive", 10)] {
        let queue = house.queues.find(id, "prod").unwrap();
        while queue.balance().delivered.records < records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Before, the queue that was made stayed, for nobody, and kept all that came until somebody saw it.
#[tokio::test]
async fn what_a_creation_that_failed_has_made_goes_again() {
    let disk = SimDisk::new(1);
    let house = start_in(on_sim(&disk, || ()), file(&[])).await;
    let made = "[[environments]]\nid = \"qa\"\nsdk_keys = [\"key-q\"]\n".to_owned();
    house.operations.create_environment(made).await.unwrap();
    house.append("prod", 0);
    house.append("qa", 0);
    let settings = hook("hook", "").replace("[\"prod\"]", "[\"prod\", \"qa\"]");
    // The queue of the second environment can't be made durable.
    let (mut syncs, mut refusals) = (0, 0);
    for round in 0.. {
        assert!(round < 1_000, "it comes to an end");
        let struck = disk.struck();
        disk.inject(Fault::nth(OpKind::Sync, syncs, Failure::Eio).on("floor"));
        let made = house.operations.put_destination(settings.clone(), Put::Create).await;
        disk.clear_faults();
        if made.is_ok() && disk.struck() == struck {
            break;
        }
        if made.is_ok() {
            // It was a tick that failed, which came in between.
            house.operations.delete_destination("hook".to_owned(), Delete::Purge).await.unwrap();
            continue;
        }
        assert_eq!(house.queues.of("hook").len(), 0, "after {syncs} syncs");
        assert!(matches!(house.operations.destination("hook".to_owned()).await, Err(Refused::NotFound(_))));
        (syncs, refusals) = (syncs + 1, refusals + 1);
    }
    assert!(refusals > 1, "the first queue was made, and the second was not");
    assert_eq!(house.queues.of("hook").len(), 2);
}

/// Before, the file counted as read, and nobody read it again.
#[tokio::test]
async fn a_file_that_could_not_be_taken_for_a_failure_that_passes_is_unread() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    write(&path, &file_text(&["archive"]));
    let disk = SimDisk::new(1);
    let house = start_in(on_sim(&disk, || ()), load(&path)).await;
    house.operations.comes_from(ConfigFile::before_reading(&path));
    // A key in the place of another one has to be written down.
    write(&path, &file_text(&["archive", "new"]).replace("key-a", "another-key"));
    disk.inject(Fault::every(OpKind::Write, Failure::Eio).on("/log/"));
    house.operations.reload_file(&path).await;
    assert!(house.operations.has_unread_change().await && house.operations.reloads().last_failed);
    assert!(!house.registry.runs("new"));
    disk.clear_faults();
    for _ in 0..12_000 {
        house.operations.reload_file(&path).await;
        if !house.operations.has_unread_change().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await; // the log comes back by itself
    }
    assert!(house.registry.runs("new") && !house.operations.reloads().last_failed);
    write(&path, "data_dir = ");
    house.operations.reload_file(&path).await;
    assert!(!house.operations.has_unread_change().await, "a mistake stays one until the file is changed");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_when_its_time_has_come() {
    let disk = MemDisk::default();
    let house = start(&disk, file(&["archive"])).await;
    let wanted = || Box::new(file(&["new"]).destinations.remove(0));
    house.operations.does_not_run(wanted(), AddressPolicy::Operator, "for a test".to_owned());
    house.operations.try_again(Instant::now()).await;
    assert!(!house.registry.runs("new"));
    house.operations.try_again(Instant::now() + Duration::from_secs(1)).await;
    assert!(house.registry.runs("new") && house.unmet().is_empty());
}

#[test]
fn what_fails_is_tried_less_and_less_often() {
    let seconds: Vec<u64> = (1..9).map(|failures| super::super::unmet::try_after(failures).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(super::super::unmet::try_after(u32::MAX).as_secs(), 60);
}
