//! Replays asked for as operators do, over queues in memory.

use std::path::Path;
use std::sync::Arc;

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Settled, Start};
use tonic::Code;

use super::*;

const ANY: BatchLimits = BatchLimits { records_max: 100, bytes_max: 1 << 20 };

/// Two environments with ten records each, received a second apart; all of them delivered.
fn delivered() -> (ReplaysService, Queues) {
    let clock = ManualClock::at(1_000_000);
    let queues = Queues::open(
        Arc::new(MemDisk::new()),
        Arc::new(clock.clone()),
        Path::new("/data"),
        LogOptions::small(),
        QueueOptions::inline(),
    )
    .unwrap();
    for stream in ["prod", "staging"] {
        let queue = queues.queue("hook", stream, Start::Earliest).unwrap();
        for _ in 0..2 {
            queues.log().append_wait(stream, vec![Payload { bytes: vec![0; 50], records: 5 }]).unwrap();
            clock.advance(std::time::Duration::from_secs(1));
        }
        while let Some(batch) = queue.next_batch(ANY).unwrap() {
            queue.plan(&batch, Box::new(|planned| planned.unwrap()));
            queue.settle(&batch, Settled::Delivered);
        }
    }
    queues.tick().unwrap();
    (service(&queues, false), queues)
}

fn service(queues: &Queues, keeps_repeats: bool) -> ReplaysService {
    let all = queues.clone();
    let replayed = Replayed { queues: queues.clone(), keeps_repeats: Arc::new(move |_| keeps_repeats) };
    ReplaysService::new(replayed, Arc::new(move || all.all()))
}

fn ask(environment: &str, from: Asked) -> StartReplayRequest {
    StartReplayRequest {
        destination: "hook".to_owned(),
        environment: environment.to_owned(),
        from: Some(from),
        ..StartReplayRequest::default()
    }
}

async fn code(service: &ReplaysService, request: StartReplayRequest) -> Code {
    service.start_replay(Request::new(request)).await.unwrap_err().code()
}

#[tokio::test]
async fn a_replay_is_started_listed_and_cancelled() {
    let (service, queues) = delivered();
    let all = ask("", Asked::FromUnixMs(0));
    let started = service.start_replay(Request::new(all)).await.unwrap().into_inner();
    assert_eq!((started.replays.len(), started.none.len()), (2, 0));
    let prod = &started.replays[0];
    assert_eq!((&*prod.environment, prod.number, prod.mode()), ("prod", 1, Mode::Fill));
    assert_eq!((prod.first_offset, prod.end_offset, prod.records_under_old_ids), (0, 10, 10));
    let list = |destination: &str| ListReplaysRequest { destination: destination.to_owned() };
    let listed = service.list_replays(Request::new(list("hook"))).await.unwrap().into_inner();
    let as_listed = |replay: &Replay| Replay { first_received_unix_ms: 0, ..replay.clone() };
    assert_eq!(listed.replays, started.replays.iter().map(as_listed).collect::<Vec<_>>());
    let unknown = service.list_replays(Request::new(list("other"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    for (destination, environment) in [("other", ""), ("hook", "nowhere")] {
        let cancel = CancelReplayRequest { destination: destination.to_owned(), environment: environment.to_owned() };
        assert_eq!(service.cancel_replay(Request::new(cancel)).await.unwrap_err().code(), Code::NotFound);
    }

    let cancel = CancelReplayRequest { destination: "hook".to_owned(), environment: "prod".to_owned() };
    let cancelled = service.cancel_replay(Request::new(cancel.clone())).await.unwrap().into_inner();
    assert_eq!(cancelled.replays[0].balance.as_ref().unwrap().pending.as_ref().unwrap().records, 10);
    assert_eq!(queues.replays().len(), 1);
    assert!(service.cancel_replay(Request::new(cancel)).await.unwrap().into_inner().replays.is_empty());
}

/// Before, a replay from earlier than anything that is kept began later, and said nothing of it.
#[tokio::test]
async fn a_replay_says_where_it_begins_and_whether_older_records_are_gone() {
    let clock = ManualClock::at(1_000_000);
    let replay_window = std::time::Duration::from_secs(8);
    let log = LogOptions { segment_bytes: 4 << 10, replay_window, ..LogOptions::small() };
    let (disk, ticks) = (Arc::new(MemDisk::new()), Arc::new(clock.clone()));
    let queues = Queues::open(disk, ticks, Path::new("/data"), log, QueueOptions::inline()).unwrap();
    let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
    for _ in 0..20 {
        queues.log().append_wait("prod", vec![Payload { bytes: vec![0; 1_000], records: 5 }]).unwrap();
        clock.advance(std::time::Duration::from_secs(1));
    }
    let service = service(&queues, false);
    let start = async |from| {
        let started = service.start_replay(Request::new(ask("prod", from))).await.unwrap().into_inner();
        queues.cancel_replay("hook", "prod").unwrap();
        let replay = &started.replays[0];
        (replay.first_offset, replay.begins_at_oldest_kept, replay.first_received_unix_ms)
    };
    // Half of it is delivered, and nothing is gone yet.
    queue.settle_range(0..60, Settled::Delivered);
    assert_eq!(start(Asked::FromOffset(5)).await, (5, false, 1_001_000));
    assert_eq!(start(Asked::FromUnixMs(0)).await, (0, false, 1_000_000), "there never were older ones");
    queue.settle_range(60..90, Settled::Delivered);
    (0..3).for_each(|_| queues.tick().unwrap());
    queues.log().housekeep();
    let (kept, gone, at) = start(Asked::FromOffset(5)).await;
    assert!(gone && kept > 10 && kept < 90, "{kept}");
    assert_eq!(at, 1_000_000 + kept / 5 * 1_000);
    assert_eq!(start(Asked::FromUnixMs(0)).await, (kept, true, at));
    assert_eq!(start(Asked::FromOffset(kept)).await, (kept, false, at));
    assert_eq!(start(Asked::FromUnixMs(at)).await, (kept, false, at));
}

/// Before, all of these were told that no destination of this name takes this environment.
#[tokio::test]
async fn who_slips_is_told_which_name_is_wrong() {
    let (service, queues) = delivered();
    queues.queue("split", "posts/prod/0", Start::Earliest).unwrap();
    let why = async |destination: &str, environment: &str| {
        let destination = destination.to_owned();
        let request = StartReplayRequest { destination, ..ask(environment, Asked::FromUnixMs(0)) };
        service.start_replay(Request::new(request)).await.unwrap_err().message().to_owned()
    };
    let unknown = why("hok", "").await;
    assert!(unknown.starts_with("there is no destination hok:"), "{unknown}");
    assert_eq!(why("hook", "nowhere").await, "destination hook does not take environment nowhere");
    let upstream = why("split", "prod").await;
    assert!(upstream.contains("split relays posts") && upstream.contains("can't be replayed"), "{upstream}");
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused_with_its_reason() {
    let (service, queues) = delivered();
    let again = StartReplayRequest { mode: Mode::Again.into(), ..ask("prod", Asked::FromOffset(3)) };
    assert_eq!(code(&service, again.clone()).await, Code::InvalidArgument, "it is not confirmed");
    assert_eq!(code(&service, ask("", Asked::FromOffset(3))).await, Code::InvalidArgument, "of which environment?");
    assert_eq!(code(&service, StartReplayRequest { from: None, ..again.clone() }).await, Code::InvalidArgument);
    assert_eq!(code(&service, ask("nowhere", Asked::FromUnixMs(0))).await, Code::NotFound);
    assert_eq!(code(&service, ask("prod", Asked::FromUnixMs(u64::MAX))).await, Code::FailedPrecondition);
    let beyond = StartReplayRequest { to_offset: Some(11), ..ask("prod", Asked::FromOffset(0)) };
    assert_eq!(code(&service, beyond).await, Code::FailedPrecondition);
    assert!(queues.replays().is_empty());

    let confirmed = StartReplayRequest { confirmed: true, ..again };
    let started = service.start_replay(Request::new(confirmed.clone())).await.unwrap().into_inner();
    assert_eq!((started.replays[0].first_offset, started.replays[0].records_under_old_ids), (3, 0));
    assert_eq!(code(&service, confirmed).await, Code::FailedPrecondition, "one is under way");
    // Where one environment of several has none, the others do.
    let rest = service.start_replay(Request::new(ask("", Asked::FromUnixMs(0)))).await.unwrap().into_inner();
    assert_eq!((rest.replays.len(), &*rest.none[0].environment), (1, "prod"));
    assert!(rest.none[0].why.contains("under way"), "{}", rest.none[0].why);
}

/// Before, it filled gaps as though a file dropped what it has, and every line stood there twice.
#[tokio::test]
async fn what_keeps_repeats_is_sent_them_only_where_that_is_confirmed() {
    let (_, queues) = delivered();
    let service = service(&queues, true);
    let fill = ask("prod", Asked::FromOffset(0));
    let refused = service.start_replay(Request::new(fill.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("a second time") && refused.message().contains("--yes"), "{refused}");
    assert!(queues.replays().is_empty());
    let confirmed = StartReplayRequest { confirmed: true, ..fill };
    assert_eq!(service.start_replay(Request::new(confirmed)).await.unwrap().into_inner().replays.len(), 1);
}
