use std::sync::atomic::AtomicUsize;

use tokio::time::{Duration, sleep};

use super::*;

const UNIT: u64 = BYTES_LEAST;

fn budget() -> Budget {
    Budget::new(BudgetLimits { requests_max: 8, bytes_max: 16 * UNIT, bulk_percent: 50, heavy_max: 1 })
}

fn asking(budget: &Budget) -> Asking {
    Asking { sharer: budget.sharer(1), failing: false, slow: false }
}

fn free(budget: &Budget) -> (usize, u64) {
    (budget.free_requests(), budget.free_bytes() / UNIT)
}

#[tokio::test]
async fn what_is_granted_is_missing_until_it_is_dropped() {
    let budget = budget();
    let mut grant = budget.grant(asking(&budget), 2 * UNIT).await;
    assert_eq!(free(&budget), (7, 14));
    grant.shrink(UNIT);
    assert_eq!(free(&budget), (7, 15));
    grant.shrink(9 * UNIT);
    assert_eq!(free(&budget), (7, 15), "shrinking never grows");
    drop(grant);
    assert_eq!(free(&budget), (8, 16));
}

#[tokio::test]
async fn a_batch_larger_than_its_lane_is_made_smaller_or_gets_all_of_that() {
    let budget = budget();
    let large = budget.grant(asking(&budget), u64::MAX).await;
    assert_eq!(large.bytes(), 7 * UNIT, "bulk's half, but for what is kept for others");
    drop(large);
    let bulk = budget.grant_bulk(asking(&budget), u64::MAX).await;
    assert_eq!(bulk.bytes(), 8 * UNIT);
}

#[tokio::test(start_paused = true)]
async fn bulk_work_never_holds_more_than_its_part_and_gets_it_whatever_is_live() {
    let budget = budget();
    let mut bulk = Vec::new();
    for _ in 0..2 {
        bulk.push(budget.grant_bulk(asking(&budget), 4 * UNIT).await);
    }
    let third = tokio::spawn({
        let (budget, asking) = (budget.clone(), asking(&budget));
        async move { budget.grant_bulk(asking, 4 * UNIT).await }
    });
    tokio::task::yield_now().await;
    assert!(!third.is_finished());
    let live = asking(&budget);
    let mut lives = Vec::new();
    for _ in 0..4 {
        lives.push(budget.grant(live, UNIT).await);
    }
    drop(bulk.pop());
    assert_eq!(third.await.unwrap().bytes(), 4 * UNIT, "live work is kept to its own part");
}

#[tokio::test(start_paused = true)]
async fn live_work_has_all_of_it_while_there_is_no_bulk_work() {
    let budget = budget();
    let mut lives = Vec::new();
    for _ in 0..7 {
        lives.push(budget.grant(asking(&budget), 2 * UNIT).await);
    }
    assert_eq!(free(&budget), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn where_memory_is_short_batches_are_smaller_and_not_later() {
    let budget = budget();
    let mut grants = Vec::new();
    for _ in 0..8 {
        grants.push(budget.grant(asking(&budget), 2 * UNIT).await);
    }
    let sizes: Vec<u64> = grants.iter().map(|grant| grant.bytes() / UNIT).collect();
    assert_eq!(sizes[..6], [2; 6]);
    assert!(sizes[7] < 2, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn destinations_that_hang_keep_nobody_out() {
    let budget = Budget::new(BudgetLimits { requests_max: 64, ..BudgetLimits::default() });
    let hung: Vec<Asking> = (0..8).map(|_| asking(&budget)).collect();
    // Each of them wants all there is, and never gives back.
    for n in 0..200 {
        let (budget, asking) = (budget.clone(), hung[n % hung.len()]);
        tokio::spawn(async move {
            let _held = budget.grant(asking, 1000).await;
            sleep(Duration::from_secs(3600)).await;
        });
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(budget.free_requests(), 8, "an eighth is kept");
    for _ in 0..100 {
        tokio::time::timeout(Duration::from_millis(1), budget.grant(asking(&budget), 1000)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_nothing_behind() {
    let budget = budget();
    let held = budget.grant_bulk(asking(&budget), u64::MAX).await;
    let wait = || {
        let (budget, asking) = (budget.clone(), asking(&budget));
        tokio::spawn(async move { drop(budget.grant_bulk(asking, u64::MAX).await) })
    };
    let (leaves, granted) = (wait(), wait());
    tokio::task::yield_now().await;
    assert_eq!(budget.waiting(), 2);
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(budget.waiting(), 1);
    // Granted here, and never polled again.
    drop(held);
    granted.abort();
    let _ = granted.await;
    assert_eq!((budget.waiting(), free(&budget)), (0, (8, 16)));
}

#[tokio::test(start_paused = true)]
async fn another_part_for_bulk_work_counts_at_once() {
    let budget = budget();
    let _held = budget.grant_bulk(asking(&budget), 8 * UNIT).await;
    let waits = tokio::spawn({
        let (budget, asking) = (budget.clone(), asking(&budget));
        async move { budget.grant_bulk(asking, 4 * UNIT).await }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    budget.set_bulk_percent(75);
    assert_eq!(waits.await.unwrap().bytes(), 4 * UNIT);
}

/// What it had waited itself was counted: it was given up as soon as it had begun.
#[tokio::test(start_paused = true)]
async fn others_wait_for_an_object_from_when_it_has_its_part_and_not_while_it_waits_itself() {
    let budget = budget();
    let before = budget.grant_bulk(asking(&budget), 8 * UNIT).await;
    let wait = || {
        let (budget, asking) = (budget.clone(), asking(&budget));
        tokio::spawn(async move { budget.grant_bulk(asking, 8 * UNIT).await })
    };
    let (waits, _behind) = (wait(), wait());
    sleep(2 * OTHERS_WAIT_MAX).await;
    drop(before);
    let had = waits.await.unwrap();
    let outstayed = |within| tokio::time::timeout(within, had.outstayed());
    assert!(outstayed(OTHERS_WAIT_MAX - Duration::from_secs(1)).await.is_err());
    assert!(outstayed(Duration::from_secs(2)).await.is_ok(), "another has waited for it for a minute");
}

#[tokio::test(start_paused = true)]
async fn turns_are_shared_by_bytes_and_not_by_who_came_first() {
    let budget = budget();
    let (large, small) = (budget.sharer(1), budget.sharer(1));
    let (order, first) = (Arc::new(std::sync::Mutex::new(Vec::new())), budget.heavy(large, 1).await);
    for n in 0..20u64 {
        let (sharer, bytes, name) = if n < 10 { (large, 1000, 'l') } else { (small, 100, 's') };
        let (budget, order) = (budget.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            let _turn = budget.heavy(sharer, bytes).await;
            order.lock().unwrap().push(name);
        });
    }
    tokio::task::yield_now().await;
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let order: String = order.lock().unwrap().iter().collect();
    assert_eq!(order.rfind('s'), Some(10), "{order}: all ten small ones are as much as one large one");
}

#[tokio::test(start_paused = true)]
async fn bulk_work_that_fails_keeps_to_a_part_of_its_own_and_leaves_live_work_some() {
    let budget = budget();
    let failing = || Asking { failing: true, ..asking(&budget) };
    let doubted = budget.grant_bulk(failing(), 8 * UNIT).await;
    assert_eq!(doubted.bytes(), 4 * UNIT, "counted as all of its part, which it has to itself");
    let second = tokio::spawn({
        let (budget, asking) = (budget.clone(), failing());
        async move { budget.grant_bulk(asking, UNIT).await }
    });
    let bulk = budget.grant_bulk(asking(&budget), 8 * UNIT).await;
    assert_eq!(bulk.bytes(), 8 * UNIT, "all of bulk's half");
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "those that fail wait for each other");
    let live = budget.grant(asking(&budget), UNIT).await;
    assert_eq!((live.bytes(), budget.waiting()), (UNIT, 1));
    drop(doubted);
    assert_eq!(second.await.unwrap().bytes(), UNIT);
}

/// Spawns one that wants a place of bulk work and holds it for an hour. Counts when it has it.
fn hold_bulk(budget: &Budget, asking: Asking, had: &Arc<AtomicUsize>) {
    let (budget, had) = (budget.clone(), Arc::clone(had));
    tokio::spawn(async move {
        let _held = budget.grant_bulk(asking, UNIT).await;
        had.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(3600)).await;
    });
}

/// Before, each lane's least place added up to all that there were, or more: for live work there was none while the others were
/// busy, and it sent without one, as much at once as it liked.
#[tokio::test(start_paused = true)]
async fn however_few_requests_there_are_live_work_finds_one_and_no_lane_waits_for_ever() {
    for (requests_max, bulk_percent) in [(2, 50), (3, 50), (4, 50), (10, 90)] {
        let budget =
            Budget::new(BudgetLimits { requests_max, bulk_percent, bytes_max: 64 * UNIT, ..BudgetLimits::default() });
        let had: [Arc<AtomicUsize>; 3] = Default::default();
        for _ in 0..10 {
            let of = |failing, slow| Asking { failing, slow, ..asking(&budget) };
            for (asking, had) in [of(false, false), of(true, false), of(false, true)].into_iter().zip(&had) {
                hold_bulk(&budget, asking, had);
            }
        }
        sleep(Duration::from_secs(1)).await;
        let counts = || had.each_ref().map(|had| had.load(Ordering::SeqCst));
        assert_eq!(counts().iter().sum::<usize>(), requests_max - budget.free_requests(), "{requests_max}");
        let live = tokio::time::timeout(Duration::from_millis(1), budget.grant(asking(&budget), UNIT)).await;
        let live = live.unwrap_or_else(|_| panic!("of {requests_max} requests {:?} are taken by others", counts()));
        assert_eq!(live.0.amount().places, 1, "{requests_max}");
        sleep(Duration::from_secs(4 * 3600)).await;
        assert!(counts().iter().all(|had| *had > 0), "{requests_max}: {:?}", counts());
    }
    // There is one for all: they take turns.
    let budget = Budget::new(BudgetLimits { requests_max: 1, ..BudgetLimits::default() });
    let (bulk, live): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    for _ in 0..5 {
        hold_bulk(&budget, asking(&budget), &bulk);
        let (budget, asking, live) = (budget.clone(), asking(&budget), Arc::clone(&live));
        tokio::spawn(async move {
            let _held = budget.grant(asking, UNIT).await;
            live.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_secs(3600)).await;
        });
    }
    sleep(Duration::from_secs(3 * 3600 + 1)).await;
    assert_eq!((bulk.load(Ordering::SeqCst), live.load(Ordering::SeqCst)), (2, 2));
}
