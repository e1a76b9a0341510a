//! The service `forebay.v1.Balances`: where every record went, in total and by the hour. Only looks.

use std::sync::Arc;

use forebay::{Hour, Queue};
use tonic::{Request, Response, Status};

use super::turns::Turns;
use super::{Booked, limits, messages, sheets};
use crate::letters::Letters;
use crate::proto::v1::balances_server::Balances;
use crate::proto::v1::{
    Count, DestinationBalance, HourBalance, ListBalancesRequest, ListBalancesResponse, QueueBalance,
};

/// A page, unless it is asked for another size; and the largest: with all hours it is about a megabyte.
const PAGE: usize = 100;
const PAGE_MAX: usize = 200;

/// The service.
pub(super) struct BalancesService {
    queues: Booked,
    letters: Option<Arc<Letters>>,
    turns: Turns,
}

impl BalancesService {
    /// The balances of these queues, and of their letters.
    pub(super) fn new(queues: Booked, letters: Option<Arc<Letters>>) -> Self {
        Self { queues, letters, turns: Turns::of(limits::LOOKS_MAX) }
    }
}

#[tonic::async_trait]
impl Balances for BalancesService {
    async fn list_balances(
        &self,
        request: Request<ListBalancesRequest>,
    ) -> Result<Response<ListBalancesResponse>, Status> {
        let (queues, letters, asked) = (Arc::clone(&self.queues), self.letters.clone(), request.into_inner());
        self.turns.take(move || page(queues(), letters.as_deref(), &asked)).await.map(Response::new)
    }
}

fn page(mut queues: Vec<Queue>, letters: Option<&Letters>, asked: &ListBalancesRequest) -> ListBalancesResponse {
    let size = match asked.page_size as usize {
        0 => PAGE,
        size => size.min(PAGE_MAX),
    };
    // By name; a destination's id has no slash.
    let name = |queue: &Queue| (queue.destination_name(), queue.stream_name());
    queues.sort_by_cached_key(name);
    let after = asked.page_token.split_once('/');
    let wanted = |queue: &Queue| {
        let of = queue.replay().map(|replay| replay.of);
        let ours = [Some(queue.destination()), of.as_deref()].contains(&Some(asked.destination.as_str()));
        let later = after.is_none_or(|after| (queue.destination(), queue.stream()) > after);
        later && (asked.destination.is_empty() || ours)
    };
    let mut places = (0..queues.len()).filter(|at| wanted(&queues[*at])).peekable();
    let mut page = ListBalancesResponse::default();
    let (mut last, mut begun) = (String::new(), Vec::new());
    while page.balances.len() < size
        && let Some(at) = places.next()
    {
        let queue = &queues[at];
        page.balances.push(shown(queue, asked.with_hours));
        last = format!("{}/{}", queue.destination(), queue.stream());
        if at == 0 || queues[at - 1].destination() != queue.destination() {
            begun.push(queue.destination_name());
        }
    }
    if places.peek().is_some() {
        page.next_page_token = last;
    }
    let sheets = sheets::of(&queues, letters, |destination| begun.iter().any(|begun| **begun == *destination));
    page.destinations = (sheets.iter())
        .map(|(destination, sheet)| DestinationBalance {
            destination: destination.to_string(),
            total: Some(messages::balance(sheet)),
        })
        .collect();
    page
}

fn shown(queue: &Queue, with_hours: bool) -> QueueBalance {
    let replayed = queue.replayed();
    let hourly = with_hours.then(|| queue.hourly());
    let hour = |hour: &Hour| HourBalance {
        from_unix_ms: hour.from_ms,
        to_unix_ms: hour.to_ms,
        balance: Some(messages::balance(&hour.balance)),
    };
    QueueBalance {
        destination: queue.destination().to_owned(),
        stream: queue.stream().to_owned(),
        total: Some(messages::balance(&queue.balance())),
        replays: replayed.replays,
        replayed: Some(Count { records: replayed.delivered.records, bytes: replayed.delivered.bytes }),
        hours_known_from_unix_ms: hourly.as_ref().map(|hourly| hourly.known_from_ms),
        hours: hourly.iter().flat_map(|hourly| &hourly.hours).map(hour).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;
    use forebay::{
        BatchLimits, LogOptions, Payload, QueueOptions, Queues, ReplayFrom, ReplayMode, ReplayRequest, Settled, Start,
    };

    use super::*;

    fn delivered() -> Queues {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(7_200_000)));
        let (log, options) = (LogOptions::small(), QueueOptions::inline());
        let queues = Queues::open(disk, clock, Path::new("/data"), log, options).unwrap();
        queues.log().append_wait("prod", vec![Payload { bytes: vec![0; 50], records: 5 }]).unwrap();
        for destination in ["hook", "other"] {
            let queue = queues.queue(destination, "prod", Start::Earliest).unwrap();
            let limits = BatchLimits { records_max: 5, bytes_max: 1000 };
            let batch = queue.next_batch(limits).unwrap().unwrap();
            queue.settle(&batch, Settled::Delivered);
        }
        queues
    }

    #[test]
    fn a_balance_has_its_hours_and_its_replays_apart() {
        let queues = delivered();
        let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
        let replay = queues.replay("hook", "prod", request).unwrap();
        replay.settle_range(0..2, Settled::Delivered);
        queues.cancel_replay("hook", "prod").unwrap();
        queues.replay("hook", "prod", request).unwrap();
        let asked = ListBalancesRequest { destination: "hook".into(), with_hours: true, ..Default::default() };
        let found = page(queues.all(), None, &asked);
        let names: Vec<&str> = found.balances.iter().map(|queue| &*queue.destination).collect();
        assert_eq!(names, ["hook", "hook!replay-2"]);
        let live = &found.balances[0];
        assert_eq!((live.replays, live.replayed.as_ref().unwrap().records), (1, 2));
        assert_eq!(live.total.as_ref().unwrap().delivered.as_ref().unwrap().records, 5);
        assert_eq!((live.hours_known_from_unix_ms, live.hours.len()), (Some(7_200_000), 1));
        let pending = |queue: &QueueBalance| queue.total.as_ref().unwrap().pending.as_ref().unwrap().records;
        assert_eq!((pending(live), pending(&found.balances[1])), (0, 5));
        let [sheet] = &found.destinations[..] else { panic!("a replay has no sheet: {found:?}") };
        assert_eq!((&*sheet.destination, sheet.total), ("hook", live.total), "replays stand apart");
    }

    #[test]
    fn pages_show_every_balance_once() {
        let queues = delivered();
        let mut asked = ListBalancesRequest { page_size: 1, ..Default::default() };
        let (mut names, mut sheets) = (Vec::new(), Vec::new());
        loop {
            let found = page(queues.all(), None, &asked);
            names.extend(found.balances.into_iter().map(|queue| queue.destination));
            sheets.extend(found.destinations.into_iter().map(|sheet| sheet.destination));
            if found.next_page_token.is_empty() {
                break;
            }
            asked.page_token = found.next_page_token;
        }
        assert_eq!(
            (names, sheets),
            (vec!["hook".to_owned(), "other".to_owned()], vec!["hook".to_owned(), "other".to_owned()])
        );
    }
}
