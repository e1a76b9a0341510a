//! The tasks that show the sidecar: gRPC and the pages for metrics and health.

use tokio::task::JoinHandle;
use tracing::error;

use crate::api::{self, Api};
use crate::shutdown::{self, Stop};

/// Both servers. They outlive the way in, so that a slow stop can be watched.
pub(super) struct Pages {
    stop: Stop,
    grpc: JoinHandle<Result<(), api::grpc::ServeError>>,
    http: JoinHandle<()>,
}

impl Pages {
    pub(super) fn start(api: &Api, grpc: api::listen::LocalListener, http: api::listen::Listener) -> Self {
        let (stop, shutdown) = shutdown::channel();
        Self {
            stop,
            grpc: tokio::spawn(api::grpc::serve(api.clone(), grpc, shutdown.clone())),
            http: tokio::spawn(api::http::serve(api.clone(), http, shutdown)),
        }
    }

    /// Stops both and waits for them; each bounds its own time.
    pub(super) async fn end(self) {
        self.stop.stop();
        match self.grpc.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => error!(error = %e, "gRPC ended badly"),
            Err(e) => error!(error = %e, "gRPC ended badly"),
        }
        if let Err(e) = self.http.await {
            error!(error = %e, "the pages for metrics and health ended badly");
        }
    }
}
