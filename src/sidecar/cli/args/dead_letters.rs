//! The arguments of `dead-letters`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::CallArgs;
use crate::config::parse_duration;

/// Of `dead-letters`: what to do with them.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersCommand {
    /// Lists dead letters, or without a destination how many each has
    List(ListLettersArgs),
    /// Shows one with its record
    Show(ShowLetterArgs),
    /// Sends them again, under the ids that they have
    Redrive(RedriveLettersArgs),
    /// Lets them go for good; they are counted as purged
    Purge(PurgeLettersArgs),
}

/// Of `dead-letters list`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListLettersArgs {
    /// The destination's id; without it all are counted
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub filter: LetterFilterArgs,

    /// At most this many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Of `dead-letters show`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowLetterArgs {
    /// The destination's id
    #[arg(value_name = "DESTINATION")]
    pub destination: String,

    /// The record's id
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub id: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Of `dead-letters redrive`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RedriveLettersArgs {
    /// The destination's id
    #[arg(value_name = "DESTINATION")]
    pub destination: String,

    /// All of them
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub filter: LetterFilterArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub call: CallArgs,
}

/// Of `dead-letters purge`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PurgeLettersArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would replace the command's own help")]
    pub which: RedriveLettersArgs,

    /// Don't ask
    #[arg(long)]
    pub yes: bool,
}

/// Which letters: those for which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct LetterFilterArgs {
    /// The record of this id; may be repeated
    #[arg(long = "id", value_name = "ID", allow_hyphen_values = true)]
    pub ids: Vec<String>,

    /// Only of this environment
    #[arg(long, short, value_name = "ID")]
    pub environment: Option<String>,

    /// Only of this flag
    #[arg(long, short, value_name = "NAME")]
    pub flag: Option<String>,

    /// Only with this in their reason
    #[arg(long, short, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Only those that are dead for so long or longer, such as 2h or 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,

    /// Only those that are dead for less, such as 2h or 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer_than: Option<Duration>,
}

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is none: write 90s, 15m, 2h or 7d"))
}

impl DeadLettersCommand {
    /// Where to call.
    pub(crate) fn call(&self) -> &CallArgs {
        match self {
            Self::List(args) => &args.call,
            Self::Show(args) => &args.call,
            Self::Redrive(args) => &args.call,
            Self::Purge(args) => &args.which.call,
        }
    }
}
