//! `forebay lag`: how far each destination is behind, as a table or as JSON, once or as it changes.
//!
//! A client of `forebay.v1.Cursors` and nothing more: it knows what the API tells.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::args::LagArgs;
use crate::api::listen::uri;
use crate::config::Listen;
use crate::console::CLEAR;
use crate::console::lag_table::{self, Snapshot};
use crate::proto::v1::cursors_client::CursorsClient;
use crate::proto::v1::{ListLagRequest, WatchLagRequest};

mod json;

/// A sidecar on this machine answers in a millisecond.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// For one answer of the API; a watch may be silent for its interval.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// As many as the API gives at a time.
const LAGS_MAX: u32 = 1_000;

/// More than a terminal shows; those that wait longest are among them.
const ROWS_WATCHED_MAX: u32 = 100;

/// Why the lag was not shown.
#[derive(Debug, thiserror::Error)]
pub enum LagError {
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
    #[error("{address} did not tell the lag: {message}")]
    Refused {
        /// Where.
        address: Listen,
        /// What it said.
        message: String,
    },
    /// The output cannot be written.
    #[error("cannot write the lag")]
    Output(#[from] io::Error),
    /// The machine has no thread or descriptor left for a runtime.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// Shows the lag on standard output. With `watch` it returns when the sidecar stops.
///
/// # Errors
/// See [`LagError`]. A reader who has seen enough (`| head`) is no error.
pub fn run(args: LagArgs) -> Result<(), LagError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LagError::Runtime)?;
    let terminal = io::stdout().is_terminal();
    match runtime.block_on(show(&args, &mut io::stdout(), terminal)) {
        Err(LagError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

async fn show(args: &LagArgs, out: &mut impl Write, terminal: bool) -> Result<(), LagError> {
    let mut cursors = connect(&args.address).await?;
    if !args.watch {
        let snapshot = all(&mut cursors, args).await?;
        return Ok(write(args, &snapshot, out)?);
    }
    let request = WatchLagRequest {
        destination: args.destination.clone().unwrap_or_default(),
        interval_ms: 0,
        lags_max: if args.json { LAGS_MAX } else { ROWS_WATCHED_MAX },
    };
    let refused = |status| refused(&args.address, &status);
    let mut snapshots = cursors.watch_lag(request).await.map_err(refused)?.into_inner();
    while let Some(message) = snapshots.message().await.map_err(refused)? {
        if !args.json {
            // A file or a pipe gets one table under the other, with an empty line between.
            out.write_all(if terminal { CLEAR } else { "\n" }.as_bytes())?;
        }
        let snapshot =
            Snapshot { lags: message.lags, omitted: message.omitted, read_at_unix_ms: message.read_at_unix_ms };
        write(args, &snapshot, out)?;
    }
    Ok(())
}

async fn connect(address: &Listen) -> Result<CursorsClient<Channel>, LagError> {
    let nothing_listens = |source| LagError::NothingListens { address: address.clone(), source };
    let endpoint = Endpoint::from_shared(uri(address)).map_err(nothing_listens)?;
    let channel = endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(ANSWER_TIME_MAX).connect().await;
    channel.map(CursorsClient::new).map_err(nothing_listens)
}

/// Every page.
async fn all(cursors: &mut CursorsClient<Channel>, args: &LagArgs) -> Result<Snapshot, LagError> {
    let mut snapshot = Snapshot { lags: Vec::new(), omitted: 0, read_at_unix_ms: 0 };
    let mut page_token = String::new();
    loop {
        let destination = args.destination.clone().unwrap_or_default();
        let request = ListLagRequest { destination, page_size: LAGS_MAX, page_token };
        let page = cursors.list_lag(request).await.map_err(|status| refused(&args.address, &status))?.into_inner();
        snapshot.lags.extend(page.lags);
        snapshot.read_at_unix_ms = page.read_at_unix_ms;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(snapshot);
        }
    }
}

fn refused(address: &Listen, status: &tonic::Status) -> LagError {
    let message = match status.code() {
        tonic::Code::Unimplemented => "what listens there is no Forebay, or an older one".to_owned(),
        tonic::Code::Unavailable | tonic::Code::Unknown => format!("the connection broke ({})", status.message()),
        _ => status.message().to_owned(),
    };
    LagError::Refused { address: address.clone(), message }
}

fn write(args: &LagArgs, snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    let text = if args.json { json::line(snapshot) } else { lag_table::text(snapshot) };
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::Arc;

    use forebay::clock::SystemClock;

    use super::*;
    use crate::api::readings::{QueueReading, Sources};
    use crate::api::{Api, LocalListener, grpc};
    use crate::shutdown::{self, Stop};

    fn args(address: &Listen) -> LagArgs {
        LagArgs { watch: false, json: false, destination: None, address: address.clone() }
    }

    /// A sidecar's API with `queues` destinations.
    async fn serve(queues: usize) -> (Listen, Stop) {
        let listener = LocalListener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let readings: Vec<QueueReading> = (0..queues)
            .map(|number| QueueReading {
                destination: format!("hook-{number:05}").into(),
                stream: "prod".into(),
                lag: forebay::Lag { records: 12, bytes: 1_200, ..forebay::Lag::default() },
                ..QueueReading::default()
            })
            .collect();
        let sources =
            Sources { queues: Box::new(move |each| readings.iter().cloned().for_each(each)), ..Sources::empty() };
        let (stop, shutdown) = shutdown::channel();
        tokio::spawn(grpc::serve(Api::new(Arc::new(SystemClock::new()), sources), listener, shutdown));
        (address, stop)
    }

    #[tokio::test]
    async fn a_table_has_every_destination_however_many_pages_it_takes() {
        let (address, _stop) = serve(2_500).await;
        let mut out = Vec::new();
        show(&args(&address), &mut out, true).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("hook-")).count(), 2_500);
        assert!(!text.contains('\x1b'), "it is not cleared for a single table");
    }

    #[tokio::test]
    async fn json_is_one_line_a_snapshot() {
        let (address, _stop) = serve(3).await;
        let mut out = Vec::new();
        let only = LagArgs { json: true, destination: Some("hook-00001".to_owned()), ..args(&address) };
        show(&only, &mut out, true).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["lags"].as_array().unwrap().len(), 1);
        assert_eq!(read["lags"][0]["records_behind"], 12);
    }

    #[tokio::test]
    async fn a_watch_ends_without_an_error_when_the_sidecar_stops() {
        let (address, stop) = serve(1).await;
        let watching = LagArgs { watch: true, ..args(&address) };
        let mut out = StopAfterFirst { text: Vec::new(), stop };
        show(&watching, &mut out, false).await.unwrap();
        let text = String::from_utf8(out.text).unwrap();
        assert!(text.contains("hook-00000"), "{text}");
        assert!(!text.contains('\x1b'), "no terminal, no commands to one: {text:?}");
    }

    /// Stops the sidecar as soon as a table was shown.
    struct StopAfterFirst {
        text: Vec<u8>,
        stop: Stop,
    }

    impl Write for StopAfterFirst {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.stop.stop();
            Ok(())
        }
    }

    #[tokio::test]
    async fn where_nothing_listens_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}/none.sock", directory.path().display());
        // Port 1 is nobody's.
        for text in ["127.0.0.1:1", &socket] {
            let error = show(&args(&text.parse().unwrap()), &mut Vec::new(), false).await.unwrap_err();
            assert!(matches!(error, LagError::NothingListens { .. }), "{error:?}");
            assert!(error.to_string().contains(text) && error.to_string().contains("forebay run"), "{error}");
            assert!(error.source().is_some());
        }
    }
}
