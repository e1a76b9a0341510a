//! The arguments of `replay`.

use std::path::PathBuf;

use clap::Args;

use super::address;
use crate::cli::when::{self, When};
use crate::config::Listen;

/// Of `replay`: which records, under which ids; or what is to be done about those that are under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ReplayArgs {
    /// The destination
    #[arg(value_name = "DESTINATION", required_unless_present = "list")]
    pub destination: Option<String>,

    /// From the records received at this moment on: 2026-11-26T10:00:00Z, or 36h for so long ago
    #[arg(long, value_name = "TIME", value_parser = when::parse, required_unless_present_any = ["from_offset", "list", "cancel"])]
    pub from: Option<When>,

    /// From this offset of the environment's stream on, instead of a time
    #[arg(long, value_name = "OFFSET", conflicts_with = "from")]
    pub from_offset: Option<u64>,

    /// Up to this offset [default: all that was settled]
    #[arg(long, value_name = "OFFSET", conflicts_with_all = ["list", "cancel"])]
    pub to_offset: Option<u64>,

    /// Only this environment
    #[arg(long, short, value_name = "ID")]
    pub environment: Option<String>,

    /// The same batches under the ids that they had: the receiver drops what it has (the default). Needs --yes for a file,
    /// which drops nothing
    #[arg(long)]
    pub fill: bool,

    /// New batches under new ids: the receiver gets everything once more. Needs --yes
    #[arg(long, conflicts_with = "fill", requires = "yes")]
    pub again: bool,

    /// Yes, the receiver is to get once more what it has
    #[arg(long)]
    pub yes: bool,

    /// Shows the replays that are under way
    #[arg(long, conflicts_with_all = ["from", "from_offset", "cancel"])]
    pub list: bool,

    /// Ends replays that are under way; what is on its way is not called back
    #[arg(long, conflicts_with_all = ["from", "from_offset"])]
    pub cancel: bool,

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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        replay: ReplayArgs,
    }

    fn parse(line: &str) -> Result<ReplayArgs, clap::Error> {
        Ok(Line::try_parse_from(std::iter::once("replay").chain(line.split_whitespace()))?.replay)
    }

    #[test]
    fn a_replay_has_a_beginning_and_again_is_confirmed() {
        let args = parse("hook --from 2026-01-01T00:00:00Z --environment prod").unwrap();
        assert_eq!(args.from, Some(When::At(1_767_225_600_000)));
        assert_eq!(
            (args.destination.as_deref(), args.environment.as_deref(), args.again),
            (Some("hook"), Some("prod"), false)
        );
        assert!(parse("hook --from 36h --again --yes").unwrap().again);
        assert_eq!(parse("hook --from-offset 7 --to-offset 9").unwrap().from_offset, Some(7));
        assert!(parse("--list").is_ok() && parse("hook --list").is_ok() && parse("hook --cancel").is_ok());
        for wrong in [
            "",
            "hook",
            "--from 36h",
            "--cancel",
            "hook --from yesterday",
            "hook --from 36h --again",
            "hook --from 36h --again --fill --yes",
            "hook --from 36h --from-offset 7",
            "hook --from 36h --cancel",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
