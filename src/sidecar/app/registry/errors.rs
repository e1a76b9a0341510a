//! Why a destination was not started, or environments were not changed.

use forebay::QueueError;

use crate::app::upstreams::OpenUpstreamError;
use crate::ingest::EnvironmentsError;

/// A destination could not be started. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("can't open the queue of destination {destination}")]
pub struct PutError {
    /// The destination.
    pub destination: String,
    /// What is wrong.
    pub source: OpenError,
}

/// Why there is no queue.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It can't be made.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The log of an upstream, which its queues are in, can't be opened.
    #[error("can't open the upstream's own log")]
    Upstream(#[from] OpenUpstreamError),
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
