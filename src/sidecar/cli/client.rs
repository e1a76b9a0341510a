//! What the commands that call a running sidecar share: the connection, and what can go wrong with it.

use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::api::listen::uri;
use crate::config::Listen;

/// A sidecar on this machine answers in a millisecond.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// For one answer of the API.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Why it was not done, or not shown.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer to the connection.
    #[error(
        "nothing listens on {address}: start `forebay run`, or give the [grpc] listen address of its configuration with --address"
    )]
    NothingListens {
        /// Where it was sought.
        address: Listen,
        /// What the connection said.
        source: tonic::transport::Error,
    },
    /// The API answered with an error, or what answered is not the API.
    #[error("{address}: {message}")]
    Refused {
        /// Where.
        address: Listen,
        /// What it said.
        message: String,
    },
    /// The output cannot be written.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
    /// The machine has no thread or descriptor left for a runtime.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// Runs a command that calls. Whoever closed the pipe has seen enough of its answer.
pub(super) fn block_on<E: From<CallError> + AsCall>(command: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CallError::Runtime)?;
    match runtime.block_on(command) {
        Err(error) if error.as_call().is_some_and(CallError::is_broken_pipe) => Ok(()),
        done => done,
    }
}

/// An error of a command that may be one of its call.
pub(super) trait AsCall {
    fn as_call(&self) -> Option<&CallError>;
}

impl AsCall for CallError {
    fn as_call(&self) -> Option<&CallError> {
        Some(self)
    }
}

impl CallError {
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Opens a connection whose calls are answered within some seconds.
pub(super) async fn connect(address: &Listen) -> Result<Channel, CallError> {
    connect_for(address, ANSWER_TIME_MAX).await
}

/// The same for calls that may take so long.
pub(super) async fn connect_for(address: &Listen, answer_time_max: Duration) -> Result<Channel, CallError> {
    let nothing_listens = |source| CallError::NothingListens { address: address.clone(), source };
    let endpoint = Endpoint::from_shared(uri(address)).map_err(nothing_listens)?;
    endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(answer_time_max).connect().await.map_err(nothing_listens)
}

pub(super) fn refused(address: &Listen, status: &tonic::Status) -> CallError {
    let message = match status.code() {
        tonic::Code::Unimplemented => "what listens there is no Forebay, or an older one".to_owned(),
        _ => status.message().to_owned(),
    };
    CallError::Refused { address: address.clone(), message }
}
