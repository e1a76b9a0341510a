//! Connects only to addresses that were judged: resolves a name, keeps what the guard lets pass, connects to one of those.
//!
//! What always holds: between the judgement and the connection no name is resolved again, so a name that changes its
//! answer gets nowhere; and an address in a URL is judged like one that a name resolved to.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

use super::connections::{CountedStream, Counter};
use super::names::{Lookup, Names};
use crate::sinks::address_guard::AddressGuard;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Pending<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Of a name's addresses so many are tried at a time. They share the time that there is to connect in: of a thousand each
/// would have a hundredth of a second, which no answer from far away comes in.
const ADDRESSES_MAX: usize = 16;

/// A TCP connector with a guard, whose connections are counted; `R` resolves names.
#[derive(Clone)]
pub(super) struct Guarded<R = Names> {
    tcp: HttpConnector<Resolver<R>>,
    guard: AddressGuard,
    counter: Counter,
}

/// A resolver that leaves out what the guard refuses.
#[derive(Clone)]
pub(super) struct Resolver<R> {
    names: R,
    guard: AddressGuard,
}

impl<R: Clone> Guarded<R> {
    /// `set_up` may change how connections are made.
    pub(super) fn new(
        names: R,
        guard: AddressGuard,
        counter: Counter,
        set_up: impl FnOnce(&mut HttpConnector<Resolver<R>>),
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { names, guard: guard.clone() });
        set_up(&mut tcp);
        Self { tcp, guard, counter }
    }
}

impl<R: Lookup> Service<Uri> for Guarded<R> {
    type Response = CountedStream;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // Addresses never reach the resolver.
        if let Err(refused) = self.guard.check_host(to.host().unwrap_or_default()) {
            return Box::pin(async move { Err(refused.into()) });
        }
        let (connecting, counter) = (self.tcp.call(to), self.counter.clone());
        Box::pin(async move { Ok(counter.count(connecting.await?)) })
    }
}

impl<R> Service<Name> for Resolver<R>
where
    R: Service<Name, Error: Into<BoxError>, Future: Send + 'static, Response: Iterator<Item = SocketAddr>>,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.names.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.guard.clone();
        let resolving = self.names.call(name);
        Box::pin(async move {
            let (mut passed, mut refused) = (Vec::new(), None);
            for address in resolving.await.map_err(Into::into)? {
                match guard.check(address.ip()) {
                    Ok(()) => passed.push(address),
                    Err(why) => refused = refused.or(Some(why)),
                }
            }
            if passed.is_empty() {
                return Err(refused.map_or_else(|| "the name has no address".into(), Into::into));
            }
            if passed.len() > ADDRESSES_MAX {
                passed = some_of(passed);
            }
            Ok(passed.into_iter())
        })
    }
}

/// As many as are tried: others each time, so that a few that are dead are not all that is ever tried. Of both families, and in
/// their order, which is that of what this machine can reach.
fn some_of(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    for family in [&mut first, &mut other] {
        if !family.is_empty() {
            let begin = rand::random_range(0..family.len());
            family.rotate_left(begin);
        }
    }
    let others = other.len().min((ADDRESSES_MAX / 2).max(ADDRESSES_MAX.saturating_sub(first.len())));
    first.truncate(ADDRESSES_MAX - others);
    other.truncate(others);
    first.append(&mut other);
    first
}

#[cfg(test)]
mod tests;
