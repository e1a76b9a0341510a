//! The `forebay` binary: the command line, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay_sidecar::cli::run(std::env::args_os())
}
