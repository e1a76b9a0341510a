//! Why a destination was not started, or environments were not changed.

use forebay::QueueError;

use crate::app::upstreams::OpenUpstreamError;
use crate::delivery::source::BoxError;
use crate::ingest::EnvironmentsError;

/// A destination could not be started. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("can't start destination {destination}")]
pub struct PutError {
    /// The destination.
    pub destination: String,
    /// What is wrong.
    pub source: OpenError,
}

/// Why it can't be.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It can't be made.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The log of an upstream, which its queues are in, can't be opened.
    #[error("can't open the upstream's own log")]
    Upstream(#[from] OpenUpstreamError),
    /// Its letters can't be read: without them nobody knows which records are letters already.
    #[error("its dead and held letters can't be read")]
    Letters(#[source] BoxError),
}

/// Environments could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentsChange {
    /// The SDK keys. Nothing has changed.
    #[error(transparent)]
    Keys(#[from] EnvironmentsError),
    /// An upstream has no queue for a new key's posts: the key is not let in.
    #[error("can't make the queue of an sdk key's posts")]
    Queue(#[from] QueueError),
}
