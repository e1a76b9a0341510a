//! Sets up the sidecar's own log lines: what is logged and in which form, to the standard error.
//!
//! `FOREBAY_LOG` says what (`info`, `debug`, `forebay_sidecar::delivery=debug,info`, ..), `FOREBAY_LOG_FORMAT` says
//! how (`text` or `json`). They are variables and not configuration, because the first lines are about reading the
//! configuration. A value that can't be read is named in the first line and the default taken: a slip in a log level
//! must keep no sidecar from starting.
//!
//! What always holds: nobody waits for a line. A thread of its own writes them, and where nobody reads the standard
//! error (a full pipe) they are dropped, and counted.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::{Subscriber, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged when nobody says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Most lines that wait to be written: some megabytes, and a burst at `debug` while a disk is slow.
const LINES_MAX: usize = 8192;

/// Lines that were dropped, once logging has started.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Logging under way. Dropping it waits a second at most for the last lines to be written.
#[must_use = "without it no line is written"]
pub struct Logging(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// What the two variables come to.
struct Choice {
    filter: EnvFilter,
    format: Format,
    complaints: Vec<String>,
}

/// Starts logging, once in a process. Does nothing where something else logs already.
pub fn start() -> Logging {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let choice = choose(variable("FOREBAY_LOG").as_deref(), variable("FOREBAY_LOG_FORMAT").as_deref());
    // https://no-color.org: any value but the empty one.
    let colours = std::io::stderr().is_terminal() && variable("NO_COLOR").is_none();
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("forebay-lines");
    let (writer, guard) = lines.finish(std::io::stderr());
    let dropped = writer.error_counter();
    if subscriber(choice.filter, choice.format, colours, writer).try_init().is_ok() {
        let _ = DROPPED.set(dropped);
        for complaint in choice.complaints {
            warn!("{complaint}");
        }
    }
    Logging(guard)
}

/// Lines that were dropped because nobody read the standard error.
#[must_use]
pub fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

fn choose(filter: Option<&str>, format: Option<&str>) -> Choice {
    let mut complaints = Vec::new();
    let text = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::builder().parse(text).unwrap_or_else(|error| {
        complaints.push(format!("FOREBAY_LOG={text:?} can't be read ({error}); logging {DEFAULT_FILTER:?}"));
        EnvFilter::new(DEFAULT_FILTER)
    });
    let format = match format {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            complaints.push(format!("FOREBAY_LOG_FORMAT={other:?} is neither \"text\" nor \"json\"; taking \"text\""));
            Format::Text
        }
    };
    Choice { filter, format, complaints }
}

fn subscriber<W>(filter: EnvFilter, format: Format, colours: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Text => Box::new(lines.with_ansi(colours).finish()),
        Format::Json => Box::new(lines.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What comes out for three events of different levels.
    fn logged(filter: Option<&str>, format: Option<&str>) -> String {
        let choice = choose(filter, format);
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(choice.filter, choice.format, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("small");
            tracing::info!(destination = "d", "middle");
            tracing::error!("large");
        });
        let bytes = lines.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        let default = logged(None, None);
        assert!(!default.contains("small") && default.contains("middle") && default.contains("large"), "{default}");
        assert!(logged(Some("debug"), None).contains("small"));
        assert!(!logged(Some("error"), None).contains("middle"));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(None, Some("json"));
        let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("two lines")).expect("JSON");
        assert_eq!((&first["message"], &first["destination"]), (&"middle".into(), &"d".into()));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_slip_is_named_and_the_default_taken() {
        let choice = choose(Some("forebay=loud=very"), Some("xml"));
        assert_eq!(choice.complaints.len(), 2);
        assert!(choice.complaints[0].contains("FOREBAY_LOG=\"forebay=loud=very\""), "{:?}", choice.complaints);
        assert!(choice.complaints[1].contains("\"xml\""));
        assert_eq!((choice.filter.to_string().as_str(), choice.format), (DEFAULT_FILTER, Format::Text));
        assert!(choose(Some("debug"), Some("json")).complaints.is_empty());
    }
}
