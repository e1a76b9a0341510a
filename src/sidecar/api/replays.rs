//! The service `forebay.v1.Replays`: starts, lists and ends replays.
//!
//! Decides nothing but who has to confirm what: what can be replayed the queues say. What waits for the disk runs where
//! waiting is allowed. Nobody has to be told of a replay: whoever sends for the destination finds it beside its queue.

use std::sync::Arc;

use forebay::{Item, Queue, Queues, ReplayError, ReplayFrom, ReplayMode, ReplayRequest};
use tonic::{Request, Response, Status};

use super::readings::Replayed;
use super::turns::Turns;
use super::{Booked, limits, messages};
use crate::causes;
use crate::post;
use crate::proto::v1::replays_server::Replays;
use crate::proto::v1::start_replay_request::From as Asked;
use crate::proto::v1::{
    CancelReplayRequest, CancelReplayResponse, ListReplaysRequest, ListReplaysResponse, NoReplay, Replay,
    ReplayMode as Mode, StartReplayRequest, StartReplayResponse,
};

/// The service.
pub(super) struct ReplaysService {
    replayed: Replayed,
    /// All that have books, those that can't be replayed among them.
    booked: Booked,
    turns: Turns,
}

impl ReplaysService {
    /// Replays of these queues. `booked` are all that there are.
    pub(super) fn new(replayed: Replayed, booked: Booked) -> Self {
        Self { replayed, booked, turns: Turns::of(limits::LOOKS_MAX) }
    }

    /// Does something that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Queues) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let queues = self.replayed.queues.clone();
        self.turns.take(move || act(&queues)).await?
    }
}

#[tonic::async_trait]
impl Replays for ReplaysService {
    async fn start_replay(
        &self,
        request: Request<StartReplayRequest>,
    ) -> Result<Response<StartReplayResponse>, Status> {
        let asked = request.into_inner();
        let request = wanted(&asked)?;
        if request.mode == ReplayMode::Fill && !asked.confirmed && (self.replayed.keeps_repeats)(&asked.destination) {
            let id = &asked.destination;
            return Err(Status::invalid_argument(format!(
                "destination {id} drops nothing that it has: each of its lines would stand there a second time, under the id that it \
                 has; say confirmed (--yes)"
            )));
        }
        let booked = Arc::clone(&self.booked);
        self.blocking(move |queues| start(queues, &booked, &asked, request)).await.map(Response::new)
    }

    async fn list_replays(
        &self,
        request: Request<ListReplaysRequest>,
    ) -> Result<Response<ListReplaysResponse>, Status> {
        let ListReplaysRequest { destination } = request.into_inner();
        if !destination.is_empty() {
            known(&self.replayed.queues, &destination, "")?;
        }
        let replays = self.replayed.queues.replays();
        let replays = replays
            .iter()
            .filter_map(shown)
            .filter(|replay| destination.is_empty() || replay.destination == destination);
        Ok(Response::new(ListReplaysResponse { replays: replays.collect() }))
    }

    async fn cancel_replay(
        &self,
        request: Request<CancelReplayRequest>,
    ) -> Result<Response<CancelReplayResponse>, Status> {
        let CancelReplayRequest { destination, environment } = request.into_inner();
        if destination.is_empty() {
            return Err(Status::invalid_argument("destination is needed"));
        }
        self.blocking(move |queues| {
            known(queues, &destination, &environment)?;
            let (mut replays, mut redrives) = (Vec::new(), false);
            for queue in queues.replays() {
                let Some(replay) = shown(&queue) else { continue };
                if replay.destination != destination || !(environment.is_empty() || replay.environment == environment) {
                    continue;
                }
                if queue.redrives().is_some() {
                    redrives = true;
                    continue;
                }
                let ended = queues.cancel_replay(&replay.destination, &replay.environment);
                let ended = ended.map_err(|error| Status::unavailable(causes::line(&error)))?;
                tracing::info!(
                    destination,
                    environment = replay.environment,
                    number = replay.number,
                    "an operator had a replay end"
                );
                let balance = ended.map(|balance| messages::balance(&balance));
                replays.push(Replay { balance, ..replay });
            }
            if redrives && replays.is_empty() {
                return Err(Status::failed_precondition(
                    "what is under way sends dead letters again, and ends when all of them are settled: pause the destination",
                ));
            }
            Ok(CancelReplayResponse { replays })
        })
        .await
        .map(Response::new)
    }
}

/// That there is such a destination, and that it takes the environment unless that is empty. A slip of the pen is told.
fn known(queues: &Queues, destination: &str, environment: &str) -> Result<(), Status> {
    let takes = |stream: &str| environment.is_empty() || stream == environment;
    if queues.all().iter().any(|queue| queue.destination() == destination && takes(queue.stream())) {
        return Ok(());
    }
    Err(Status::not_found(match environment {
        "" => format!("there is no destination {destination}"),
        _ => format!("there is no destination {destination} that takes environment {environment}"),
    }))
}

/// What is asked for, as the queues understand it.
fn wanted(asked: &StartReplayRequest) -> Result<ReplayRequest, Status> {
    if asked.destination.is_empty() {
        return Err(Status::invalid_argument("destination is needed"));
    }
    let from = match asked.from {
        Some(Asked::FromOffset(offset)) => ReplayFrom::Offset(offset),
        Some(Asked::FromUnixMs(ms)) => ReplayFrom::Time(ms),
        None => return Err(Status::invalid_argument("from_offset or from_unix_ms is needed")),
    };
    let mode = match asked.mode() {
        Mode::Unspecified | Mode::Fill => ReplayMode::Fill,
        Mode::Again if asked.confirmed => ReplayMode::Again,
        Mode::Again => {
            let why = "the receiver gets everything once more under new ids: say confirmed (--yes)";
            return Err(Status::invalid_argument(why));
        }
    };
    Ok(ReplayRequest { from, to: asked.to_offset, mode })
}

fn start(
    queues: &Queues,
    booked: &Booked,
    asked: &StartReplayRequest,
    request: ReplayRequest,
) -> Result<StartReplayResponse, Status> {
    let all = queues.all();
    let ours = |queue: &&Queue| {
        queue.destination() == asked.destination
            && (asked.environment.is_empty() || queue.stream() == asked.environment)
            && !queue.stream().starts_with('!')
    };
    let streams: Vec<&str> = all.iter().filter(ours).map(Queue::stream).collect();
    if streams.is_empty() {
        return Err(none_of(booked, asked));
    }
    let offsets = request.to.is_some() || matches!(request.from, ReplayFrom::Offset(_));
    if offsets && streams.len() > 1 {
        return Err(Status::invalid_argument("each environment has offsets of its own: name the environment"));
    }
    let mut started = StartReplayResponse::default();
    let mut first_error = None;
    for stream in streams {
        match queues.replay(&asked.destination, stream, request) {
            Ok(queue) => {
                let begun = shown(&queue).map(|replay| begun(queues, stream, request.from, replay));
                if let Some(Replay { number, first_offset: from, end_offset: to, .. }) = begun {
                    let (destination, again) = (&*asked.destination, request.mode == ReplayMode::Again);
                    tracing::info!(
                        destination,
                        environment = stream,
                        number,
                        from,
                        to,
                        again,
                        "an operator had a replay begin"
                    );
                }
                started.replays.extend(begun);
            }
            Err(error) => {
                started.none.push(NoReplay { environment: stream.to_owned(), why: causes::line(&error) });
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if started.replays.is_empty() => Err(refused(&error)),
        _ => Ok(started),
    }
}

/// Why there is no queue to replay.
fn none_of(booked: &Booked, asked: &StartReplayRequest) -> Status {
    let StartReplayRequest { destination, environment, .. } = asked;
    let all = booked();
    let streams: Vec<&str> = all.iter().filter(|q| q.destination() == destination).map(Queue::stream).collect();
    if streams.iter().any(|stream| post::stream_owner(stream).is_some()) {
        let why = "relays posts: what was taken of them is not kept, so they can't be replayed";
        return Status::failed_precondition(format!("destination {destination} {why}"));
    }
    Status::not_found(match streams.is_empty() || environment.is_empty() {
        true => format!("there is no destination {destination}: `forebay lag` shows which there are"),
        false => format!("destination {destination} does not take environment {environment}"),
    })
}

/// A replay that was just started, with where that is: it may be later than was asked for.
fn begun(queues: &Queues, stream: &str, asked: ReplayFrom, replay: Replay) -> Replay {
    let log = queues.log();
    let Some(stream) = log.stream(stream) else { return replay };
    let first = log.reader(stream, replay.first_offset).next().ok().flatten();
    let first_received_unix_ms = match first {
        Some(Item::Frame(frame)) => frame.ingest_ms,
        _ => 0,
    };
    let oldest = log.first_kept(stream);
    let begins_at_oldest_kept = match asked {
        // It begins no later for any other reason: batches make it begin earlier.
        ReplayFrom::Offset(offset) => offset < replay.first_offset && oldest > 0,
        // Whether there were any since that moment nobody knows any more.
        ReplayFrom::Time(ms) => oldest > 0 && replay.first_offset <= oldest && ms < first_received_unix_ms,
        ReplayFrom::Earliest => oldest > 0,
    };
    Replay { begins_at_oldest_kept, first_received_unix_ms, ..replay }
}

fn refused(error: &ReplayError) -> Status {
    let why = causes::line(error);
    match error {
        ReplayError::NoQueue { .. } => Status::not_found(why),
        ReplayError::UnderWay { .. } | ReplayError::NotSettled { .. } | ReplayError::Nothing { .. } => {
            Status::failed_precondition(why)
        }
        ReplayError::TooMany { .. } => Status::resource_exhausted(why),
        ReplayError::Read(_) | ReplayError::NotDurable(_) => Status::unavailable(why),
    }
}

fn shown(queue: &Queue) -> Option<Replay> {
    let replay = queue.replay()?;
    let mode = match replay.mode {
        ReplayMode::Fill => Mode::Fill,
        ReplayMode::Again => Mode::Again,
    };
    Some(Replay {
        destination: replay.of.to_string(),
        environment: queue.stream().to_owned(),
        number: replay.number,
        mode: mode.into(),
        first_offset: replay.offsets.start,
        end_offset: replay.offsets.end,
        records_under_old_ids: replay.under_old_ids,
        balance: Some(messages::balance(&queue.balance())),
        ..Replay::default()
    })
}

#[cfg(test)]
mod tests {
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
            let cancel =
                CancelReplayRequest { destination: destination.to_owned(), environment: environment.to_owned() };
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
}
