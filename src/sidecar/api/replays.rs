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
        let request = wanted(&asked, &*self.replayed.keeps_repeats)?;
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
    if queues.of(destination).iter().any(|queue| takes(queue.stream())) {
        return Ok(());
    }
    Err(Status::not_found(match environment {
        "" => format!("there is no destination {destination}"),
        _ => format!("there is no destination {destination} that takes environment {environment}"),
    }))
}

/// What is asked for, as the queues understand it.
fn wanted(asked: &StartReplayRequest, keeps_repeats: &dyn Fn(&str) -> bool) -> Result<ReplayRequest, Status> {
    if asked.destination.is_empty() {
        return Err(Status::invalid_argument("destination is needed"));
    }
    let from = match asked.from {
        Some(Asked::FromOffset(offset)) => ReplayFrom::Offset(offset),
        Some(Asked::FromUnixMs(ms)) => ReplayFrom::Time(ms),
        None => return Err(Status::invalid_argument("from_offset or from_unix_ms is needed")),
    };
    let mode = match asked.mode() {
        Mode::Unspecified | Mode::Fill if !asked.confirmed && keeps_repeats(&asked.destination) => {
            let id = &asked.destination;
            return Err(Status::invalid_argument(format!(
                "destination {id} drops nothing that it has: each of its lines would stand there a second time, under the id that it \
                 has; say confirmed (--yes)"
            )));
        }
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
    let all = queues.of(&asked.destination);
    let ours = |queue: &&Queue| {
        (asked.environment.is_empty() || queue.stream() == asked.environment) && !queue.stream().starts_with('!')
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
mod tests;
