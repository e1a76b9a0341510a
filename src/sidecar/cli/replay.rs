//! `forebay replay`: sends again what a destination has acknowledged; lists and ends such replays.
//!
//! A client of `forebay.v1.Replays` and nothing more: what can be replayed the sidecar says.

use std::io::{self, Write};
use std::time::Duration;

use forebay::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::args::ReplayArgs;
use super::client::{CallError, connect, refused};
use crate::config::Listen;
use crate::console::units::duration;
use crate::proto::v1::replays_client::ReplaysClient;
use crate::proto::v1::start_replay_request::From as Asked;
use crate::proto::v1::{CancelReplayRequest, ListReplaysRequest, NoReplay, Replay, ReplayMode, StartReplayRequest};

/// Does what the arguments say; writes to standard output.
///
/// # Errors
/// See [`CallError`]. A reader who has seen enough (`| head`) is no error.
pub fn run(args: &ReplayArgs, address: &Listen) -> Result<(), CallError> {
    super::client::block_on(async {
        let answer = call(args, address, SystemClock::new().wall_ms()).await?;
        let text = if args.json { format!("{}\n", answer.json()) } else { answer.text() };
        io::stdout().write_all(text.as_bytes()).map_err(CallError::Output)
    })
}

/// What was done.
struct Answer {
    /// What happened to these replays, for a person: "started".
    what: &'static str,
    replays: Vec<Replay>,
    none: Vec<NoReplay>,
    now_ms: u64,
}

async fn call(args: &ReplayArgs, address: &Listen, now_ms: u64) -> Result<Answer, CallError> {
    let mut replays = ReplaysClient::new(connect(address).await?);
    let refused = |status| refused(address, &status);
    let destination = args.destination.clone().unwrap_or_default();
    let environment = args.environment.clone().unwrap_or_default();
    if args.list {
        let listed = replays.list_replays(ListReplaysRequest { destination }).await.map_err(refused)?.into_inner();
        return Ok(Answer { what: "under way", replays: listed.replays, none: Vec::new(), now_ms });
    }
    if args.cancel {
        let request = CancelReplayRequest { destination, environment };
        let cancelled = replays.cancel_replay(request).await.map_err(refused)?.into_inner();
        return Ok(Answer { what: "cancelled", replays: cancelled.replays, none: Vec::new(), now_ms });
    }
    let offset = args.from_offset.map(Asked::FromOffset);
    let request = StartReplayRequest {
        destination,
        environment,
        from: offset.or_else(|| args.from.map(|when| Asked::FromUnixMs(when.unix_ms(now_ms)))),
        to_offset: args.to_offset,
        mode: if args.again { ReplayMode::Again } else { ReplayMode::Fill }.into(),
        confirmed: args.yes,
    };
    let started = replays.start_replay(request).await.map_err(refused)?.into_inner();
    Ok(Answer { what: "started", replays: started.replays, none: started.none, now_ms })
}

impl Answer {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.replays.iter().map(|replay| self.line(replay)).collect();
        let none = self.none.iter().map(|none| format!("{}: nothing started: {}", none.environment, none.why));
        lines.extend(none);
        if lines.is_empty() {
            lines.push("no replay is under way".to_owned());
        }
        lines.join("\n") + "\n"
    }

    fn line(&self, replay: &Replay) -> String {
        let Replay { destination, environment, number, first_offset, end_offset, records_under_old_ids, .. } = replay;
        let records = end_offset.saturating_sub(*first_offset);
        let ids = match replay.mode() {
            ReplayMode::Again => "under new ids".to_owned(),
            _ if *records_under_old_ids == records => "under the ids that they had".to_owned(),
            _ => format!(
                "{records_under_old_ids} of them in the batches that they had, under the ids of these, the rest in new batches"
            ),
        };
        let pending =
            replay.balance.as_ref().and_then(|balance| balance.pending.as_ref()).map_or(0, |count| count.records);
        let line = format!(
            "{destination} {environment}: replay {number} {}: records {first_offset} to {end_offset}, {ids}; {pending} of {records} to go",
            self.what
        );
        if !replay.begins_at_oldest_kept {
            return line;
        }
        let age = Duration::from_millis(self.now_ms.saturating_sub(replay.first_received_unix_ms));
        let since = match replay.first_received_unix_ms {
            0 => String::new(),
            _ => format!(", received {} ago", duration(age)),
        };
        format!(
            "{line}\n  it begins with the oldest record that is kept{since}: older ones are gone, see [log] replay_window"
        )
    }

    fn json(&self) -> Value {
        let replay = |replay: &Replay| {
            json!({
                "destination": replay.destination,
                "environment": replay.environment,
                "number": replay.number,
                "mode": if replay.mode() == ReplayMode::Again { "again" } else { "fill" },
                "first_offset": replay.first_offset,
                "end_offset": replay.end_offset,
                "records_under_old_ids": replay.records_under_old_ids,
                "begins_at_oldest_kept": replay.begins_at_oldest_kept,
                "first_received_unix_ms": replay.first_received_unix_ms,
                "balance": replay.balance.as_ref().map(super::lag::json::balance),
            })
        };
        let none = |none: &NoReplay| json!({ "environment": none.environment, "why": none.why });
        json!({
            "replays": self.replays.iter().map(replay).collect::<Vec<_>>(),
            "none": self.none.iter().map(none).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use forebay::disk::mem::MemDisk;
    use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};

    use super::*;
    use crate::api::readings::{Replayed, Sources};
    use crate::api::{Api, LocalListener, grpc};
    use crate::cli::when::When;
    use crate::shutdown::{self, Stop};

    /// A sidecar's API over one destination that has had ten records.
    async fn serve() -> (Listen, Stop, Queues) {
        let clock = Arc::new(SystemClock::new());
        let (disk, options) = (Arc::new(MemDisk::new()), QueueOptions::inline());
        let queues = Queues::open(disk, clock.clone(), Path::new("/data"), LogOptions::small(), options).unwrap();
        let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
        queues.log().append_wait("prod", vec![Payload { bytes: vec![0; 50], records: 10 }]).unwrap();
        let batch = queue.next_batch(BatchLimits { records_max: 10, bytes_max: 1000 }).unwrap().unwrap();
        queue.settle(&batch, Settled::Delivered);
        let listener = LocalListener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, shutdown) = shutdown::channel();
        let replayed = Replayed { queues: queues.clone(), keeps_repeats: Arc::new(|_| false) };
        let sources = Sources { replayed: Some(replayed), ..Sources::empty() };
        tokio::spawn(grpc::serve(Api::new(clock, sources), listener, shutdown));
        (address, stop, queues)
    }

    fn args() -> ReplayArgs {
        ReplayArgs { destination: Some("hook".to_owned()), ..ReplayArgs::default() }
    }

    #[tokio::test]
    async fn a_replay_is_started_shown_and_cancelled() {
        let (address, _stop, queues) = serve().await;
        let now_ms = SystemClock::new().wall_ms();
        let ago = Some(When::Ago(std::time::Duration::from_secs(60)));
        let started = call(&ReplayArgs { from: ago, ..args() }, &address, now_ms).await.unwrap();
        let told = "hook prod: replay 1 started: records 0 to 10, 0 of them in the batches that they had, under the ids of these, the rest in new \
                    batches; 10 of 10 to go\n";
        assert_eq!(started.text(), told);
        assert_eq!(queues.replays().len(), 1);
        let listed = call(&ReplayArgs { list: true, ..ReplayArgs::default() }, &address, now_ms).await.unwrap();
        assert_eq!(listed.json()["replays"][0]["balance"]["pending"]["records"], 10);
        let cancelled = call(&ReplayArgs { cancel: true, ..args() }, &address, now_ms).await.unwrap();
        assert!(cancelled.text().contains("replay 1 cancelled"), "{}", cancelled.text());
        let none = call(&ReplayArgs { list: true, ..args() }, &address, now_ms).await.unwrap();
        assert_eq!(none.text(), "no replay is under way\n");

        let old =
            Replay { begins_at_oldest_kept: true, first_received_unix_ms: now_ms - 7_200_000, ..Replay::default() };
        let answer = Answer { what: "started", replays: vec![old], none: Vec::new(), now_ms };
        let text = answer.text();
        assert!(text.contains("it begins with the oldest record that is kept, received 2h 00m ago"), "{text}");
        assert_eq!(answer.json()["replays"][0]["begins_at_oldest_kept"], true);

        let again = ReplayArgs { from_offset: Some(4), again: true, yes: true, ..args() };
        let started = call(&again, &address, now_ms).await.unwrap();
        assert!(started.text().contains("replay 2 started: records 4 to 10, under new ids"), "{}", started.text());
        let error = call(&again, &address, now_ms).await.err().expect("one is under way");
        assert!(error.to_string().contains("replay 2 of it is under way"), "{error}");
    }
}
