//! The arguments of each command, as clap reads them. What they mean is the command's affair.

use std::path::PathBuf;

use clap::{Args, Subcommand};

mod dead_letters;

pub use dead_letters::{
    DeadLettersCommand, LetterFilterArgs, ListLettersArgs, PurgeLettersArgs, RedriveLettersArgs, ShowLetterArgs,
};

use crate::config::Listen;

mod balance;
mod replay;

pub use balance::BalanceArgs;
pub use replay::ReplayArgs;

/// Of `run` and `check`: the file that says everything.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "forebay.toml")]
    pub config: PathBuf,
}

/// Of `lag`: how far behind each destination is.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LagArgs {
    /// Keep it fresh, until interrupted
    #[arg(long, short)]
    pub watch: bool,

    /// One line of JSON for each snapshot, for programs
    #[arg(long)]
    pub json: bool,

    /// Only this destination
    #[arg(long, short, value_name = "ID")]
    pub destination: Option<String>,

    /// Where the sidecar's operators' API listens, such as localhost:9090 or unix:/run/forebay.sock [default: 127.0.0.1:9090]
    #[arg(long, short, value_name = "ADDRESS", value_parser = address, conflicts_with = "config")]
    pub address: Option<Listen>,

    /// Read the address from the sidecar's configuration: `listen` under `[grpc]`
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Where to call the sidecar, and how to show its answer.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CallArgs {
    /// JSON, for programs
    #[arg(long)]
    pub json: bool,

    /// Where the sidecar's operators' API listens, such as localhost:9090 or unix:/run/forebay.sock [default: 127.0.0.1:9090]
    #[arg(long, short, value_name = "ADDRESS", value_parser = address, conflicts_with = "config")]
    pub address: Option<Listen>,

    /// Read the address from the sidecar's configuration: `listen` under `[grpc]`
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Of `destinations`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DestinationsCommand {
    /// Lists all destinations, and those that only left records behind
    List(CallArgs),
    /// Shows one destination with its settings, without secrets
    Show(OneArgs),
    /// Makes a destination that is kept across restarts
    Create(SettingsArgs),
    /// Gives a destination that was made here other settings
    Update(SettingsArgs),
    /// Deletes a destination
    Delete(DeleteArgs),
    /// Starts no more batches of a destination until it is resumed, across restarts
    Pause(OneArgs),
    /// Goes on with a destination that was paused
    Resume(OneArgs),
    /// Tries a destination now that refuses or asked for a pause: when it was mended
    Probe(OneArgs),
    /// Takes the loss of cursors that a damaged floor had, so that the log is let go again
    AcceptFloorLoss(FloorLossArgs),
}

/// Of `environments`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum EnvironmentsCommand {
    /// Lists all environments
    List(CallArgs),
    /// Makes an environment that is kept across restarts
    Create(SettingsArgs),
    /// Deletes an environment that was made here: posts with its keys are refused from then on
    Delete(OneArgs),
}

/// One of them, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct OneArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Settings, in the shape of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SettingsArgs {
    /// A file with one table as in the configuration file, such as `[[destinations]]`; - for standard input
    #[arg(value_name = "FILE")]
    pub settings: PathBuf,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Of `destinations delete`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DeleteArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,

    /// Only the queue of this environment, which the destination takes from no more
    #[arg(long, short, value_name = "ID", conflicts_with = "drain")]
    pub environment: Option<String>,

    /// Give up what is pending; it is counted as purged
    #[arg(long, conflicts_with = "drain")]
    pub purge: bool,

    /// Deliver first what is pending now; it goes by itself then
    #[arg(long)]
    pub drain: bool,

    /// Don't ask whether what is pending may go
    #[arg(long, requires = "purge")]
    pub yes: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Of `destinations accept-floor-loss`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct FloorLossArgs {
    /// Do it; without, what is lost and what follows is shown
    #[arg(long)]
    pub yes: bool,

    /// Also what destinations had pending that were made at run time and that nobody knows of, since the record of it can't be read
    #[arg(long, requires = "yes")]
    pub unread_decisions: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// As a configuration has it; and `localhost`, which the API listens on as 127.0.0.1 if it was not told otherwise.
fn address(text: &str) -> Result<Listen, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = local.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| {
        format!("{text:?} is none: write localhost:9090, 127.0.0.1:9090, [::1]:9090 or unix:/run/forebay.sock")
    })
}

/// Of `log`: looking at a log without the sidecar, which must not be running on it.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LogCommand {
    /// Shows what a data directory holds: segments, streams, offsets, sizes
    Inspect(LogDir),
    /// Reads every byte, checks it, and names what is damaged
    Verify(LogDir),
    /// Writes the records that can be read to the standard output, as lines of JSON
    Dump(DumpArgs),
    /// Names the places that the disk won't read, and with --lose gives up what lies there
    ///
    /// Records that can't be read are never skipped: who needs them waits and tries again. When the disk will not
    /// come back, this is how to go on without them. The sidecar must not be running for --lose.
    GiveUp(GiveUpArgs),
}

/// Of `log give-up`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GiveUpArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub place: LogDir,

    /// Overwrite these places with zeros: the next start counts the records there as lost, and delivers the rest
    #[arg(long)]
    pub lose: bool,
}

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LogDir {
    /// The data directory (data_dir of the configuration), or the log directory in it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Of `log dump`: which records.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DumpArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub place: LogDir,

    /// Only this stream: an environment's id, or one of our own such as !rejects/ENVIRONMENT
    #[arg(long, short, value_name = "NAME")]
    pub stream: Option<String>,

    /// Only records from this offset of their stream on
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: u64,

    /// At most this many lines
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<u64>,
}

/// Of `demo`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// How long impressions are sent
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Line {
        Run(ConfigArgs),
        Lag(LagArgs),
        #[command(subcommand)]
        Log(LogCommand),
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(std::iter::once("forebay").chain(line.split_whitespace()))
    }

    #[test]
    fn run_takes_its_configuration_from_a_file() {
        let config = |line| match parse(line) {
            Ok(Line::Run(args)) => args.config,
            other => panic!("{other:?}"),
        };
        assert_eq!(config("run"), PathBuf::from("forebay.toml"));
        assert_eq!(config("run --config /etc/f.toml"), PathBuf::from("/etc/f.toml"));
    }

    #[test]
    fn lag_calls_the_default_address_unless_told_otherwise() {
        let lag = |line| match parse(line) {
            Ok(Line::Lag(args)) => args,
            other => panic!("{other:?}"),
        };
        let default = lag("lag");
        assert!(default.address.is_none() && default.config.is_none());
        assert!(!default.watch && !default.json && default.destination.is_none());
        let told = lag("lag --watch --json --address unix:/run/f.sock");
        assert!(told.watch && told.json);
        assert_eq!(told.address, Some(Listen::Unix("/run/f.sock".into())));
        assert_eq!(lag("lag -a localhost:9090").address, Some(Listen::Tcp(([127, 0, 0, 1], 9090).into())));
        assert_eq!(lag("lag -c f.toml").config, Some(PathBuf::from("f.toml")));
        for wrong in ["lag -a localhost:x", "lag -a localhost", "lag -a example.com:1", "lag -a 127.0.0.1:1 -c f.toml"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_needs_a_directory() {
        let dir = |dir: &str| LogDir { dir: dir.into() };
        let log = |line| match parse(line) {
            Ok(Line::Log(command)) => command,
            other => panic!("{other:?}"),
        };
        assert_eq!(log("log inspect d"), LogCommand::Inspect(dir("d")));
        assert_eq!(log("log verify d"), LogCommand::Verify(dir("d")));
        let all = DumpArgs { place: dir("d"), stream: None, from: 0, limit: None };
        assert_eq!(log("log dump d"), LogCommand::Dump(all.clone()));
        let some = DumpArgs { stream: Some("!rejects/prod".to_owned()), from: 5, limit: Some(2), ..all };
        assert_eq!(log("log dump d --stream !rejects/prod --from 5 --limit 2"), LogCommand::Dump(some));
        let give_up = |lose| LogCommand::GiveUp(GiveUpArgs { place: dir("d"), lose });
        assert_eq!(log("log give-up d"), give_up(false));
        assert_eq!(log("log give-up d --lose"), give_up(true));
        assert!(parse("log verify").is_err());
    }
}
