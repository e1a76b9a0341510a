//! The arguments of `balance`.

use std::path::PathBuf;

use clap::Args;

use super::address;
use crate::config::Listen;

/// Of `balance`: where every record went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct BalanceArgs {
    /// Under each total what came of it hour by hour (UTC), two days back at most
    #[arg(long)]
    pub hours: bool,

    /// JSON, with the hours, for programs
    #[arg(long)]
    pub json: bool,

    /// Only this destination, with its replays
    #[arg(long, short, value_name = "ID")]
    pub destination: Option<String>,

    /// Where the sidecar's operators' API listens, such as localhost:9090 or unix:/run/forebay.sock [default: 127.0.0.1:9090]
    #[arg(long, short, value_name = "ADDRESS", value_parser = address, conflicts_with = "config")]
    pub address: Option<Listen>,

    /// Read the address from the sidecar's configuration: `listen` under `[grpc]`
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
