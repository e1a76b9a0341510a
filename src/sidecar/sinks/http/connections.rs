//! All destinations' connections: how many are open, and which of them nobody uses.
//!
//! What always holds: no more idle connections are kept than are allowed, whoever has them; those of whoever sent least
//! recently are closed first, and of those with nothing under way before those with something. A client that was not used
//! for a while is dropped with all it holds, and made anew when it is needed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Idle connections that are kept for all destinations together, unless less is allowed: most destinations of a large
/// sidecar send now and then, and a connection costs a file and some kilobytes.
pub const IDLE_MAX: usize = 512;

/// A client that nobody used for so long, and at most twice as long, is dropped.
const UNUSED: Duration = Duration::from_secs(30);

/// The connections of all.
#[derive(Debug)]
pub(super) struct Connections {
    open: Arc<AtomicUsize>,
    busy: AtomicUsize,
    /// Idle ones that close as soon as the last request of their client ends.
    leaving: AtomicUsize,
    idle_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// How often anything was used.
    uses: u64,
    /// By the last use.
    users: BTreeMap<u64, Weak<dyn User>>,
    /// Somebody sees to it that what is not used is dropped.
    tended: bool,
}

/// One who has connections.
pub(super) trait User: std::fmt::Debug + Send + Sync {
    /// Where it notes what it has.
    fn note(&self) -> &Note;

    /// Closes its idle connections; drops all that it can make anew. Those of requests under way stay until these end, and
    /// with them, where there are any, the idle ones.
    fn close(&self);
}

/// What one user has.
#[derive(Debug, Default)]
pub(super) struct Note {
    open: Arc<AtomicUsize>,
    requests: Mutex<Requests>,
    /// Its place among the users; written under the table's lock.
    used: std::sync::atomic::AtomicU64,
}

/// A user's requests under way.
#[derive(Debug, Default)]
struct Requests {
    busy: usize,
    /// How often it was closed with requests under way.
    closed: u64,
    /// Of the busy ones, those that began before that.
    of_closed: usize,
    /// What [`Connections::leaving`] has of it.
    leaving: usize,
}

/// A request under way.
pub(super) struct Use<'a> {
    connections: &'a Connections,
    note: &'a Note,
    /// How often the user had been closed when it began.
    closed: u64,
}

impl Connections {
    /// At most so many are kept idle.
    pub(super) fn new(idle_max: usize) -> Self {
        let (open, busy, leaving, table) = Default::default();
        Self { open, busy, leaving, idle_max, table }
    }

    /// A request of this user begins.
    pub(super) fn begin<'a, U: User + 'static>(self: &'a Arc<Self>, user: &'a Arc<U>) -> Use<'a> {
        let note = user.note();
        let mut requests = note.requests();
        requests.busy += 1;
        let closed = requests.closed;
        drop(requests);
        self.busy.fetch_add(1, Ordering::AcqRel);
        let mut table = self.table();
        table.uses += 1;
        let (uses, before) = (table.uses, note.used.swap(table.uses, Ordering::Relaxed));
        let known = table.users.remove(&before);
        let user = known.unwrap_or_else(|| Arc::downgrade(user) as Weak<dyn User>);
        table.users.insert(uses, user);
        if !std::mem::replace(&mut table.tended, true) {
            tokio::spawn(tend(Arc::downgrade(self)));
        }
        drop(table);
        Use { connections: self, note, closed }
    }

    /// What counts a connection of this user while it is open.
    pub(super) fn counter(&self, note: &Note) -> Counter {
        Counter([Arc::clone(&self.open), Arc::clone(&note.open)])
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Closes idle connections until no more are kept than are allowed.
    fn close_surplus(&self) {
        let spoken_for = self.busy.load(Ordering::Acquire) + self.leaving.load(Ordering::Acquire);
        let mut left = self.open().saturating_sub(spoken_for).saturating_sub(self.idle_max);
        if left == 0 {
            return;
        }
        let (mut closing, mut at_work) = (Vec::new(), Vec::new());
        let mut table = self.table();
        for (used, user) in &table.users {
            if left == 0 {
                break;
            }
            let Some(user) = user.upgrade().filter(|user| !user.note().is_busy()) else { continue };
            left = left.saturating_sub(user.note().open.load(Ordering::Acquire));
            closing.push((*used, user));
        }
        closing.iter().for_each(|(used, _)| drop(table.users.remove(used)));
        for user in table.users.values() {
            if left == 0 {
                break;
            }
            let Some(user) = user.upgrade() else { continue };
            let leave = user.note().leave();
            self.leaving.fetch_add(leave, Ordering::AcqRel);
            left = left.saturating_sub(leave);
            at_work.extend((leave > 0).then_some(user));
        }
        drop(table);
        // Not under the lock: what is dropped may be much.
        closing.iter().map(|(_, user)| user).chain(&at_work).for_each(|user| user.close());
    }

    /// Drops what was not used since `before`; says how often anything was used by now, and whether anything is left.
    fn close_unused(&self, before: u64) -> (u64, bool) {
        let mut closing = Vec::new();
        let mut table = self.table();
        table.users.retain(|used, user| {
            if *used > before {
                return true;
            }
            let Some(user) = user.upgrade() else { return false };
            if user.note().is_busy() {
                return true;
            }
            closing.push(user);
            false
        });
        table.tended = !table.users.is_empty();
        let seen = (table.uses, table.tended);
        drop(table);
        closing.iter().for_each(|user| user.close());
        seen
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic runs between two changes of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tend(connections: Weak<Connections>) {
    let (mut seen, mut any_left) = (0, true);
    while any_left {
        tokio::time::sleep(UNUSED).await;
        let Some(connections) = connections.upgrade() else { return };
        (seen, any_left) = connections.close_unused(seen);
    }
}

impl Note {
    fn is_busy(&self) -> bool {
        self.requests().busy > 0
    }

    /// Its idle connections are to go though it has requests under way. Says how many these are: none, if that was asked
    /// before and is not over yet.
    fn leave(&self) -> usize {
        let mut requests = self.requests();
        let idle = self.open.load(Ordering::Acquire).saturating_sub(requests.busy);
        if idle == 0 || requests.of_closed > 0 || requests.busy == 0 {
            return 0;
        }
        requests.closed += 1;
        (requests.of_closed, requests.leaving) = (requests.busy, idle);
        idle
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        // Each change under this lock is whole or has not begun.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut requests = self.note.requests();
        requests.busy -= 1;
        if self.closed < requests.closed && requests.of_closed > 0 {
            requests.of_closed -= 1;
            if requests.of_closed == 0 {
                self.connections.leaving.fetch_sub(std::mem::take(&mut requests.leaving), Ordering::AcqRel);
            }
        }
        drop(requests);
        self.connections.busy.fetch_sub(1, Ordering::AcqRel);
        self.connections.close_surplus();
    }
}

/// Counts connections where it is told to.
#[derive(Debug, Clone)]
pub(super) struct Counter([Arc<AtomicUsize>; 2]);

/// Counts one connection until it is dropped.
#[derive(Debug)]
struct Counted([Arc<AtomicUsize>; 2]);

impl Drop for Counted {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A connection that is counted while it is open.
#[derive(Debug)]
pub(super) struct CountedStream {
    stream: TokioIo<TcpStream>,
    _counted: Counted,
}

impl Counter {
    /// Counts it from now on.
    pub(super) fn count(&self, stream: TokioIo<TcpStream>) -> CountedStream {
        for count in &self.0 {
            count.fetch_add(1, Ordering::AcqRel);
        }
        CountedStream { stream, _counted: Counted(self.0.clone()) }
    }
}

#[cfg(test)]
impl CountedStream {
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.inner()
    }
}

impl Connection for CountedStream {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}

#[cfg(test)]
mod tests;
