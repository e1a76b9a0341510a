//! A witness of what was durable before a kill: reads /metrics for as long as a life lasts, and concludes by counting.
//!
//! One scrape reads how much a queue has delivered, and then how often the floor was written. A write of the floor
//! that begins later holds all that was delivered then. The write after next begins after the scrape, whatever was under
//! way in it: so once a later scrape counts two more, those deliveries are on the disk, and no time was measured.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wire::Client;

/// Records that each destination's queue had delivered, counted since it began.
pub(crate) type Delivered = BTreeMap<String, u64>;

/// Watches one life of a sidecar.
pub(crate) struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Delivered>,
}

impl Witness {
    /// Watches whoever answers at `admin`.
    pub(crate) fn over(admin: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut account = Account::default();
            while !stopped.load(Ordering::Relaxed) {
                let page = Client::connect(admin).and_then(|mut client| client.get("/metrics"));
                if let Some(page) = page.ok().filter(|page| page.status().is_ok_and(|status| status == 200)) {
                    account.take(Scrape::of(&String::from_utf8_lossy(&page.body)));
                }
                thread::sleep(Duration::from_millis(10));
            }
            account.durable
        });
        Self { stop, thread }
    }

    /// What was durable for certain, at the least. To be asked when that life is over.
    pub(crate) fn end(self) -> Delivered {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness does not panic")
    }
}

/// One look.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Scrape {
    floor_writes: u64,
    delivered: Delivered,
}

impl Scrape {
    fn of(page: &str) -> Self {
        let mut scrape = Self::default();
        for line in page.lines() {
            let Some((series, number)) = line.rsplit_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            if series == "forebay_floor_writes_total" {
                scrape.floor_writes = number;
            } else if series.starts_with("forebay_settled_records_total{") && series.contains("as=\"delivered\"") {
                let destination = series.split("destination=\"").nth(1).and_then(|rest| rest.split('"').next());
                // One that holds records apart has a second queue for those.
                *scrape.delivered.entry(destination.expect("every queue has a destination").to_owned()).or_default() +=
                    number;
            }
        }
        scrape
    }
}

/// What follows from the looks so far.
#[derive(Default)]
struct Account {
    /// Looks whose deliveries may not be durable yet.
    open: VecDeque<Scrape>,
    durable: Delivered,
}

impl Account {
    fn take(&mut self, scrape: Scrape) {
        while let Some(sure) = self.open.pop_front_if(|open| open.floor_writes + 2 <= scrape.floor_writes) {
            self.durable = sure.delivered;
        }
        self.open.push_back(scrape);
    }
}

mod tests {
    use super::*;

    fn scrape(floor_writes: u64, delivered: u64) -> Scrape {
        Scrape { floor_writes, delivered: Delivered::from([("hook".to_owned(), delivered)]) }
    }

    #[test]
    fn deliveries_are_durable_with_the_second_write_of_the_floor_behind_their_scrape() {
        let mut account = Account::default();
        let mut durable = |floor_writes, delivered| {
            account.take(scrape(floor_writes, delivered));
            account.durable.get("hook").copied()
        };
        assert_eq!(durable(7, 100), None);
        assert_eq!(durable(8, 150), None, "that write may have begun before");
        assert_eq!(durable(9, 200), Some(100));
        assert_eq!(durable(9, 250), Some(100));
        assert_eq!(durable(11, 300), Some(250));
    }

    #[test]
    fn a_page_of_metrics_is_read() {
        let page = "# HELP forebay_floor_writes_total x\nforebay_floor_writes_total 9\n\
            forebay_settled_records_total{destination=\"hook\",stream=\"acme-prod\",as=\"delivered\"} 150\n\
            forebay_settled_records_total{destination=\"hook\",stream=\"acme-prod\",as=\"lost\"} 3\n";
        assert_eq!(Scrape::of(page), scrape(9, 150));
    }
}
