//! `forebay lag`: how far each destination is behind, as a table or as JSON, once or as it changes.
//!
//! A client of `forebay.v1.Cursors` and nothing more: it knows what the API tells.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tonic::transport::Channel;

use super::args::LagArgs;
use super::client::{self, CallError};
use crate::config::Listen;
use crate::console::CLEAR;
use crate::console::lag_table::{self, Snapshot};
use crate::proto::v1::cursors_client::CursorsClient;
use crate::proto::v1::{Lag, ListLagRequest, WatchLagRequest};

pub(super) mod json;

/// Between two tries to reach a sidecar that went away: a restart takes a second or two.
const PAUSE: Duration = Duration::from_secs(1);

/// As many as the API gives at a time.
const LAGS_MAX: u32 = 1_000;

/// More than a terminal shows; those that wait longest are among them.
const ROWS_WATCHED_MAX: u32 = 100;

/// Why the lag was not shown.
#[derive(Debug, thiserror::Error)]
pub enum LagError {
    /// No connection, or no means to make one.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The API answered with an error, or what answered is not the API.
    #[error("{address} did not tell the lag: {message}")]
    Refused {
        /// Where.
        address: Listen,
        /// What it said.
        message: String,
    },
    /// It was there, and the connection broke.
    #[error("{address} did not tell the lag: the connection broke ({message})")]
    Gone {
        /// Where.
        address: Listen,
        /// What was seen of it.
        message: String,
    },
    /// Nothing is delivered, nor was, to what `--destination` names.
    #[error("{address} knows no destination {id:?}: `forebay lag` without --destination lists those that there are")]
    NoSuchDestination {
        /// Where it was sought.
        address: Listen,
        /// What was asked for.
        id: String,
    },
    /// The output cannot be written.
    #[error("cannot write the lag")]
    Output(#[from] io::Error),
}

/// Shows the lag on standard output. With `watch` it goes on until it is interrupted, also across restarts of the
/// sidecar.
///
/// # Errors
/// See [`LagError`]. A reader who has seen enough (`| head`) is no error.
pub fn run(args: &LagArgs, address: &Listen) -> Result<(), LagError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CallError::Runtime)?;
    let show = Show { args, address, terminal: io::stdout().is_terminal(), pause: PAUSE };
    let shown = runtime.block_on(async {
        if args.watch {
            show.watch(&mut io::stdout(), &mut io::stderr()).await
        } else {
            show.once(&mut io::stdout()).await
        }
    });
    match shown {
        Err(LagError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

/// What is shown, and how.
struct Show<'a> {
    args: &'a LagArgs,
    address: &'a Listen,
    /// Whether the output can be cleared.
    terminal: bool,
    /// Between two tries to connect again.
    pause: Duration,
}

impl Show<'_> {
    async fn once(&self, out: &mut impl Write) -> Result<(), LagError> {
        let snapshot = self.all(&mut connect(self.address).await?).await?;
        self.write(&snapshot, out)
    }

    /// Returns with an error only: when there is nothing at the start, when what answers is no sidecar, when the output
    /// is closed. A sidecar that was there is waited for.
    async fn watch(&self, out: &mut impl Write, notes: &mut impl Write) -> Result<(), LagError> {
        let mut cursors = connect(self.address).await?;
        loop {
            match self.watch_one(&mut cursors, out).await {
                Ok(()) | Err(LagError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
            // Not to the output: that is for tables or JSON.
            writeln!(notes, "forebay: {} answers no more; trying again until it does", self.address)?;
            cursors = loop {
                tokio::time::sleep(self.pause).await;
                if let Ok(cursors) = connect(self.address).await {
                    break cursors;
                }
            };
            if !self.terminal {
                writeln!(notes, "forebay: {} answers again", self.address)?;
            }
        }
    }

    /// Until this sidecar stops.
    async fn watch_one(&self, cursors: &mut CursorsClient<Channel>, out: &mut impl Write) -> Result<(), LagError> {
        let request = WatchLagRequest {
            destination: self.args.destination.clone().unwrap_or_default(),
            interval_ms: 0,
            lags_max: if self.args.json { LAGS_MAX } else { ROWS_WATCHED_MAX },
        };
        let refused = |status| refused(self.address, &status);
        let mut snapshots = cursors.watch_lag(request).await.map_err(refused)?.into_inner();
        while let Some(message) = snapshots.message().await.map_err(refused)? {
            if !self.args.json {
                // A file or a pipe gets one table under the other, with an empty line between.
                out.write_all(if self.terminal { CLEAR } else { "\n" }.as_bytes())?;
            }
            let snapshot =
                Snapshot { lags: message.lags, omitted: message.omitted, read_at_unix_ms: message.read_at_unix_ms };
            self.write(&snapshot, out)?;
        }
        Ok(())
    }

    async fn all(&self, cursors: &mut CursorsClient<Channel>) -> Result<Snapshot, LagError> {
        let pages = pages(cursors, self.args.destination.as_deref().unwrap_or_default()).await;
        let (lags, read_at_unix_ms) = pages.map_err(|status| refused(self.address, &status))?;
        Ok(Snapshot { lags, omitted: 0, read_at_unix_ms })
    }

    fn write(&self, snapshot: &Snapshot, out: &mut impl Write) -> Result<(), LagError> {
        if let Some(id) = self.args.destination.as_ref().filter(|_| snapshot.lags.is_empty()) {
            return Err(LagError::NoSuchDestination { address: self.address.clone(), id: id.clone() });
        }
        let text = if self.args.json { json::line(snapshot) } else { lag_table::text(snapshot) };
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Every page of the lag of a destination, or of all where it is empty, and when the last was read.
pub(super) async fn pages(
    cursors: &mut CursorsClient<Channel>,
    destination: &str,
) -> Result<(Vec<Lag>, u64), tonic::Status> {
    let (mut lags, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListLagRequest { destination: destination.to_owned(), page_size: LAGS_MAX, page_token };
        let page = cursors.list_lag(request).await?.into_inner();
        lags.extend(page.lags);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((lags, page.read_at_unix_ms));
        }
    }
}

async fn connect(address: &Listen) -> Result<CursorsClient<Channel>, LagError> {
    Ok(CursorsClient::new(client::connect(address).await?))
}

fn refused(address: &Listen, status: &tonic::Status) -> LagError {
    let (address, message) = (address.clone(), status.message().to_owned());
    match status.code() {
        tonic::Code::Unimplemented => {
            LagError::Refused { address, message: "what listens there is no Forebay, or an older one".to_owned() }
        }
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => LagError::Gone { address, message },
        _ => LagError::Refused { address, message },
    }
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

    const ONCE: LagArgs = LagArgs { watch: false, json: false, destination: None, address: None, config: None };

    fn show<'a>(args: &'a LagArgs, address: &'a Listen, terminal: bool) -> Show<'a> {
        Show { args, address, terminal, pause: Duration::from_millis(1) }
    }

    /// A sidecar's API with `queues` destinations.
    async fn serve(queues: usize) -> (Listen, Stop) {
        serve_at(&"127.0.0.1:0".parse().unwrap(), queues).await
    }

    async fn serve_at(address: &Listen, queues: usize) -> (Listen, Stop) {
        let listener = LocalListener::bind(address).await.unwrap();
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
        show(&ONCE, &address, true).once(&mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("hook-")).count(), 2_500);
        assert!(!text.contains('\x1b'), "it is not cleared for a single table");
    }

    #[tokio::test]
    async fn json_is_one_line_a_snapshot() {
        let (address, _stop) = serve(3).await;
        let mut out = Vec::new();
        let only = LagArgs { json: true, destination: Some("hook-00001".to_owned()), ..ONCE };
        show(&only, &address, true).once(&mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["lags"].as_array().unwrap().len(), 1);
        assert_eq!(read["lags"][0]["records_behind"], 12);
    }

    #[tokio::test]
    async fn a_destination_that_is_not_there_is_an_error_and_no_empty_table() {
        let (address, _stop) = serve(3).await;
        for watch in [false, true] {
            let nosuch = LagArgs { watch, destination: Some("nosuch".to_owned()), ..ONCE };
            let show = show(&nosuch, &address, false);
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let shown = if watch { show.watch(&mut out, &mut notes).await } else { show.once(&mut out).await };
            let error = shown.unwrap_err();
            assert!(matches!(error, LagError::NoSuchDestination { .. }), "{error:?}");
            assert!(error.to_string().contains("no destination \"nosuch\""), "{error}");
        }
    }

    #[tokio::test]
    async fn a_watch_outlives_a_restart_and_says_so() {
        let (address, stop) = serve(1).await;
        let watching = LagArgs { watch: true, ..ONCE };
        let mut out = Reader { text: Vec::new(), tables: 0, stop };
        let (gone, mut is_gone) = tokio::sync::watch::channel(false);
        let mut notes = Notes { text: Vec::new(), gone };
        let restart = async {
            is_gone.wait_for(|gone| *gone).await.expect("the watch notes that the sidecar is gone");
            serve_at(&address, 1).await
        };
        let show = show(&watching, &address, false);
        let (shown, _restarted) = tokio::join!(show.watch(&mut out, &mut notes), restart);
        // The reader closes its end at the second table.
        assert!(matches!(shown, Err(LagError::Output(_))), "{shown:?}");
        let text = String::from_utf8(out.text).unwrap();
        assert_eq!(text.matches("hook-00000").count(), 2, "{text}");
        assert!(!text.contains('\x1b'), "no terminal, no commands to one: {text:?}");
        let notes = String::from_utf8(notes.text).unwrap();
        assert!(notes.contains("answers no more") && notes.contains("answers again"), "{notes}");
    }

    /// Stops the sidecar as soon as a table was shown, and is gone after the second.
    struct Reader {
        text: Vec<u8>,
        tables: usize,
        stop: Stop,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.tables += 1;
            self.stop.stop();
            if self.tables == 2 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        }
    }

    /// Passes on that something was noted.
    struct Notes {
        text: Vec<u8>,
        gone: tokio::sync::watch::Sender<bool>,
    }

    impl Write for Notes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.extend_from_slice(bytes);
            self.gone.send_replace(true);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn where_nothing_listens_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}/none.sock", directory.path().display());
        // Port 1 is nobody's.
        for text in ["127.0.0.1:1", &socket] {
            let address = text.parse().unwrap();
            let error = show(&ONCE, &address, false).once(&mut Vec::new()).await.unwrap_err();
            assert!(matches!(error, LagError::Call(CallError::NothingListens { .. })), "{error:?}");
            assert!(error.to_string().contains(text) && error.to_string().contains("forebay run"), "{error}");
            assert!(error.source().is_some());
        }
    }
}
