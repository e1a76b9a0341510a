use std::sync::atomic::AtomicUsize;

use super::*;

/// One with a connection, as soon as it sent something.
#[derive(Debug, Default)]
struct Fake {
    note: Note,
    closed: AtomicUsize,
}

impl User for Fake {
    fn note(&self) -> &Note {
        &self.note
    }

    fn close(&self) {
        self.closed.fetch_add(1, Ordering::AcqRel);
    }
}

impl Fake {
    fn closed(&self) -> usize {
        self.closed.load(Ordering::Acquire)
    }
}

fn fakes(count: usize) -> Vec<Arc<Fake>> {
    (0..count).map(|_| Arc::default()).collect()
}

/// It sends something, over a connection that stays open.
fn send(connections: &Arc<Connections>, fake: &Arc<Fake>) {
    let using = connections.begin(fake);
    if fake.note.open.fetch_max(1, Ordering::AcqRel) == 0 {
        connections.open.fetch_add(1, Ordering::AcqRel);
    }
    drop(using);
    // What is closed is gone.
    if fake.closed() > 0 && fake.note.open.swap(0, Ordering::AcqRel) == 1 {
        connections.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn settle(connections: &Connections, fakes: &[Arc<Fake>]) {
    for fake in fakes.iter().filter(|fake| fake.closed() > 0) {
        if fake.note.open.swap(0, Ordering::AcqRel) == 1 {
            connections.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_idle_connections_are_kept_than_allowed_and_the_least_recent_go_first() {
    let (connections, fakes) = (Arc::new(Connections::new(100)), fakes(1000));
    for fake in &fakes {
        send(&connections, fake);
        settle(&connections, &fakes);
    }
    assert_eq!(connections.open(), 100);
    assert!(fakes[..900].iter().all(|fake| fake.closed() == 1), "the first who sent");
    assert!(fakes[900..].iter().all(|fake| fake.closed() == 0));
    // Who sends again is the last to go.
    send(&connections, &fakes[900]);
    send(&connections, &fakes[0]);
    assert_eq!((fakes[900].closed(), fakes[901].closed()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_never_closed_and_does_not_count_as_idle() {
    let (connections, fakes) = (Arc::new(Connections::new(2)), fakes(10));
    let busy: Vec<_> = fakes[..8].iter().map(|fake| connections.begin(fake)).collect();
    for fake in &fakes[..8] {
        fake.note.open.store(1, Ordering::Release);
        connections.open.fetch_add(1, Ordering::AcqRel);
    }
    fakes[8..].iter().for_each(|fake| send(&connections, fake));
    assert!(fakes.iter().all(|fake| fake.closed() == 0), "eight at work and two idle");
    drop(busy);
    let closed = fakes.iter().filter(|fake| fake.closed() > 0).count();
    assert!(closed >= 8, "{closed}");
}

/// Before, whoever always had a request under way kept all its idle connections, however many.
#[tokio::test(start_paused = true)]
async fn those_who_always_send_keep_no_more_idle_connections_than_allowed() {
    let (connections, fakes) = (Arc::new(Connections::new(10)), fakes(10));
    let busy: Vec<_> = fakes.iter().map(|fake| connections.begin(fake)).collect();
    for fake in &fakes {
        fake.note.open.store(6, Ordering::Release);
        connections.open.fetch_add(6, Ordering::AcqRel);
    }
    // Of sixty connections ten are at work.
    drop(connections.begin(&fakes[9]));
    let closed = || fakes.iter().map(|fake| fake.closed()).collect::<Vec<_>>();
    assert_eq!(closed(), [1, 1, 1, 1, 1, 1, 1, 1, 0, 0], "the least recent, until ten are left");
    for fake in &fakes {
        drop(connections.begin(fake));
    }
    assert_eq!(closed(), [1, 1, 1, 1, 1, 1, 1, 1, 0, 0], "once, until their requests have ended");
    // They end, and the connections of their clients with them.
    let mut busy = busy.into_iter();
    for fake in &fakes[..8] {
        fake.note.open.store(0, Ordering::Release);
        connections.open.fetch_sub(6, Ordering::AcqRel);
        drop(busy.next());
    }
    assert_eq!((connections.open(), connections.leaving.load(Ordering::Acquire)), (12, 0));
    assert_eq!((fakes[8].closed(), fakes[9].closed()), (0, 0), "ten idle ones are allowed");
    drop(busy.next());
    assert_eq!((fakes[8].closed(), fakes[9].closed()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_for_a_minute_is_dropped_and_then_nobody_looks_any_more() {
    let (connections, fakes) = (Arc::new(Connections::new(100)), fakes(3));
    fakes.iter().for_each(|fake| send(&connections, fake));
    tokio::time::sleep(UNUSED + Duration::from_secs(1)).await;
    send(&connections, &fakes[2]);
    tokio::time::sleep(UNUSED).await;
    assert_eq!(fakes.iter().map(|fake| fake.closed()).collect::<Vec<_>>(), [1, 1, 0]);
    tokio::time::sleep(UNUSED * 2).await;
    assert_eq!(fakes[2].closed(), 1);
    let table = connections.table();
    assert!(table.users.is_empty() && !table.tended);
}
