//! Looks names up, for all destinations together. The machine's resolver blocks a thread for as long as it takes: for a
//! name whose servers are dead that is ten seconds or a minute, and nothing calls such a thread back.
//!
//! What always holds: [`THREADS`] at most are blocked so, however many wait, and the threads that claim and encode for
//! everybody are never among them. Names that took long the last time share [`SLOW_THREADS`] of those, and leave the rest
//! to names that answer. A name is looked up once at a time: whoever asks meanwhile hears that answer, and who asks later
//! a new one, for none is kept.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use super::connector::{BoxError, Pending};

/// Whoever is asked: the machine's resolver, or one of a test.
type Resolver = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, BoxError>;

type Answer = Result<Vec<SocketAddr>, Unknown>;

/// Threads that lookups may block at once. A runtime has 512 for what blocks.
const THREADS: usize = 128;

/// Of those, for names that took long the last time.
const SLOW_THREADS: usize = 32;

/// A lookup that took longer did not come from anybody's cache, and mostly timed out.
const PROMPT: Duration = Duration::from_secs(1);

/// So many slow names are known at most, save those of the last [`FORGOTTEN`].
const SLOW_NAMES: usize = 4096;

/// A slow name that nobody asked for since is forgotten when room is needed.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Who looks names up.
pub(super) trait Lookup:
    Service<Name, Error: Into<BoxError>, Response: Iterator<Item = SocketAddr>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<R> Lookup for R where
    R: Service<Name, Error: Into<BoxError>, Response: Iterator<Item = SocketAddr>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// One way to look names up, for all who have a clone of it. `R` does it.
#[derive(Debug, Clone)]
pub(super) struct Names<R = Resolver> {
    shared: Arc<Shared<R>>,
}

#[derive(Debug)]
struct Shared<R> {
    resolver: R,
    threads: Semaphore,
    slow_threads: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<Name, watch::Receiver<Option<Answer>>>,
    /// When each took long.
    slow: HashMap<Name, Instant>,
}

/// Why a name has no address, as everybody who asked hears it.
#[derive(Debug, Clone)]
struct Unknown(Arc<BoxError>);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unknown {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Default for Names {
    /// By the machine's resolver.
    fn default() -> Self {
        Self::asking(GaiResolver::new())
    }
}

impl Names {
    /// By this resolver.
    pub(super) fn asking(resolver: impl Lookup) -> Self {
        let listed = resolver.map_response(|found| found.collect::<Vec<_>>().into_iter()).map_err(Into::into);
        Self::by(BoxCloneSyncService::new(listed))
    }
}

impl<R> Names<R> {
    fn by(resolver: R) -> Self {
        let (threads, slow_threads) = (Semaphore::new(THREADS), Semaphore::new(SLOW_THREADS));
        Self { shared: Arc::new(Shared { resolver, threads, slow_threads, state: Mutex::default() }) }
    }
}

impl<R: Lookup> Service<Name> for Names<R> {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let mut answer = self.shared.ask(name);
        Box::pin(async move {
            let told = answer.wait_for(Option::is_some).await.map(|told| told.clone());
            let answer = told.ok().flatten().unwrap_or_else(|| Err(Unknown(Arc::new("the lookup panicked".into()))));
            Ok(answer?.into_iter())
        })
    }
}

impl<R: Lookup> Shared<R> {
    /// Where the answer will be: of the lookup under way, or of one that begins.
    fn ask(self: &Arc<Self>, name: Name) -> watch::Receiver<Option<Answer>> {
        let mut state = self.state();
        // One that panicked left its place without an answer.
        let under_way = state.under_way.get(&name).filter(|answer| answer.has_changed().is_ok());
        if let Some(answer) = under_way {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        state.under_way.insert(name.clone(), answer.clone());
        let slow = state.slow.contains_key(&name);
        drop(state);
        tokio::spawn(Arc::clone(self).look_up(name, slow, tell));
        answer
    }

    /// Goes on if all who wait have gone: what it learns of the name decides where the next one waits.
    async fn look_up(self: Arc<Self>, name: Name, slow: bool, tell: watch::Sender<Option<Answer>>) {
        let never = "they are never closed";
        let _lane = if slow { Some(self.slow_threads.acquire().await.expect(never)) } else { None };
        let thread = self.threads.acquire().await.expect(never);
        let began = Instant::now();
        let found = self.resolver.clone().oneshot(name.clone()).await;
        drop(thread);
        let answer = found.map(Iterator::collect).map_err(|why| Unknown(Arc::new(why.into())));
        self.state().learn(&name, began, Instant::now());
        tell.send_replace(Some(answer));
    }
}

impl<R> Shared<R> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, name: &Name, began: Instant, now: Instant) {
        self.under_way.remove(name);
        if now - began < PROMPT {
            self.slow.remove(name);
            return;
        }
        if self.slow.len() >= SLOW_NAMES {
            self.slow.retain(|_, since| now - *since < FORGOTTEN);
        }
        self.slow.insert(name.clone(), now);
    }
}

#[cfg(test)]
mod tests;
