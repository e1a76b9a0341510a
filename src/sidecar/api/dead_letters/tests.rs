//! Calls over a real log in memory, and what comes between their steps.

use std::path::Path;

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{BatchLimits, LogOptions, Much, Payload, Queue, QueueOptions, Queues, Start};

use super::*;
use crate::delivery::parking::{Kind, Letter, LetterOrigin, Parking};
use crate::delivery::sink::Environment;
use crate::sinks::sample;

const HOOK: &str = "hook";

struct House {
    disk: MemDisk,
    clock: ManualClock,
    queues: Queues,
    main: Queue,
    letters: Arc<Letters>,
    service: DeadLettersService,
}

impl House {
    fn on(disk: MemDisk, clock: ManualClock) -> Self {
        let (disk_of, clock_of) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
        let (path, options) = (Path::new("/data"), QueueOptions::inline());
        let queues = sample::reopened(|| {
            Queues::open(disk_of.clone(), clock_of.clone(), path, LogOptions::small(), options.clone())
        });
        let main = queues.queue(HOOK, "prod", Start::Earliest).unwrap();
        let letters = Letters::open(queues.clone(), clock_of);
        let service = DeadLettersService::new(Arc::clone(&letters));
        Self { disk, clock, queues, main, letters, service }
    }

    fn new() -> Self {
        Self::on(MemDisk::new(), ManualClock::at(1_000_000))
    }

    /// As after a crash: what no tick has written down is forgotten.
    fn crash(self) -> Self {
        let Self { disk, clock, queues, main, letters, service } = self;
        drop((queues, main, letters, service));
        Self::on(disk, clock)
    }

    fn append(&self) {
        for part in sample::job(0..10).parts {
            self.queues.log().append_wait("prod", vec![Payload { bytes: part.payload.to_vec(), records: 10 }]).unwrap();
        }
    }

    /// Appends ten records, which all become dead letters.
    async fn let_die(&self) {
        self.append();
        let batch = self.main.next_batch(BatchLimits { records_max: 10, bytes_max: u64::MAX }).unwrap().unwrap();
        let slice = &batch.slices[0];
        let letter = |offset| Letter {
            kind: Kind::Dead,
            destination: HOOK.into(),
            origin: LetterOrigin { log: self.queues.log().log_id(), stream: slice.frame.stream, offset },
            replay: 0,
            environment: Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() }),
            payload: bytes::Bytes::copy_from_slice(slice.frame.payload()),
            index: (offset - slice.frame.first) as usize,
            reason: "bad".to_owned(),
            excerpt: String::new(),
            at_ms: 1,
            attempts: 1,
        };
        let (sent, heard) = tokio::sync::oneshot::channel();
        let letters = batch.offsets.clone().map(letter).collect();
        self.letters.park(letters, Box::new(move |parked| sent.send(parked.map_err(|why| why.to_string())).unwrap()));
        heard.await.unwrap().unwrap();
        self.main.settle_parts(&batch, &[], Settled::DeadLettered);
    }

    fn purge(&self) -> impl Future<Output = Result<Response<PurgeDeadLettersResponse>, Status>> + '_ {
        let destination = HOOK.to_owned();
        let request = PurgeDeadLettersRequest { destination, all: true, confirm: true, ..Default::default() };
        self.service.purge_dead_letters(Request::new(request))
    }
}

/// Before, a crash within a tick brought back what an operator had been told is gone.
#[tokio::test]
async fn what_a_purge_says_is_gone_is_gone_after_a_crash_where_it_lies_too() {
    let house = House::new();
    house.append();
    house.main.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    house.queues.tick().unwrap();
    assert_eq!(house.purge().await.unwrap().get_ref().purged, 10, "nothing was ever copied");
    let house = house.crash();
    assert_eq!((house.letters.dead().len(), house.main.marked().1.purged.records), (0, 10));

    house.append();
    house.main.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    house.let_die().await;
    house.queues.tick().unwrap();
    assert_eq!(house.purge().await.unwrap().get_ref().purged, 20);
    let house = house.crash();
    assert!(house.letters.dead().values().all(|dead| dead.records == 0));
}

/// Before, the call that had waited worked at the desk of the destination that was gone: what it purged was there still.
#[tokio::test]
async fn a_call_that_waited_while_its_destination_was_made_anew_is_about_the_new_one() {
    let mut house = House::new();
    house.let_die().await;
    let (go_on, waits) = std::sync::mpsc::sync_channel(1);
    let turns = house.service.turns.clone();
    let before = turns.take(move || waits.recv().unwrap());
    tokio::pin!(before);
    let service = DeadLettersService { letters: Arc::clone(&house.letters), turns: turns.clone() };
    let request = RedriveDeadLettersRequest { destination: HOOK.to_owned(), all: true, ..Default::default() };
    let call = service.redrive_dead_letters(Request::new(request));
    tokio::pin!(call);
    tokio::select! {
        biased;
        _ = &mut before => panic!("it has not heard yet"),
        _ = &mut call => panic!("another one has the turn"),
        () = std::future::ready(()) => {}
    }
    house.letters.close(HOOK);
    house.queues.delete(HOOK, None).unwrap();
    house.letters.forget(HOOK);
    house.main = house.queues.queue(HOOK, "prod", Start::Now).unwrap();
    house.let_die().await;
    go_on.send(()).unwrap();
    before.await.unwrap();
    assert_eq!(call.await.unwrap().get_ref().redriven, 10);
    assert_eq!(house.letters.desk(HOOK).dead().records, 0);
}
