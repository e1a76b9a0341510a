//! The command line: parses it, and hands each command to whoever does the work.
//!
//! Exit codes: 0 done, 1 it failed, 64 the command line is wrong, 78 the configuration is wrong (the last two from
//! sysexits.h, so that a supervisor can tell what a restart won't cure). Does no work of its own.

pub mod args;
pub mod balance;
pub mod check;
pub mod client;
pub mod confirm;
pub mod dead_letters;
pub mod destinations;
pub mod lag;
pub mod log_tool;
pub mod replay;
pub mod when;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::causes;
use crate::demo;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// As a shell says it of what SIGINT ended.
const INTERRUPTED: u8 = 130;
/// The configuration is wrong: starting again will not help.
pub const BAD_CONFIG: u8 = 78;

/// Takes impressions from Split SDKs, keeps them safe, and delivers each at its destination's own pace.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar until it is told to stop.
    Run(args::ConfigArgs),
    /// Shows the main job in half a minute, with nothing to install: lag that grows and drains, and books that balance
    Demo(args::DemoArgs),
    /// Checks a configuration and reports every mistake at once.
    Check(args::ConfigArgs),
    /// Shows how far each destination is behind, and when it will have caught up
    Lag(args::LagArgs),
    /// Shows where every record went: delivered, pending, set aside, lost; in total and by the hour
    Balance(args::BalanceArgs),
    /// Sends again what a destination has acknowledged, while live delivery goes on; lists and ends such replays
    Replay(args::ReplayArgs),
    /// Lists, makes, changes, pauses and deletes destinations at run time
    #[command(subcommand)]
    Destinations(args::DestinationsCommand),
    /// Lists, makes and deletes environments at run time
    #[command(subcommand)]
    Environments(args::EnvironmentsCommand),
    /// Lists, shows, sends again and purges records that their destination does not take
    #[command(subcommand)]
    DeadLetters(args::DeadLettersCommand),
    /// Looks at a log without the sidecar: for the operator with a damaged disk. Changes nothing, save for give-up --lose
    #[command(subcommand)]
    Log(args::LogCommand),
}

/// Does what the command line says. `args` starts with the program's name.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Run(args) => {
                let file = crate::app::ConfigFile::before_reading(&args.config);
                match check::load(&args.config) {
                    Ok(config) => crate::app::run_file(config, file),
                    Err(code) => code,
                }
            }
            Command::Demo(args) => show(args.seconds),
            Command::Check(args) => check::run(&args),
            Command::Lag(args) => match check::api_address(&args) {
                Ok(address) => code_of(lag::run(&args, &address)),
                Err(code) => code,
            },
            Command::Balance(args) => match check::api_at(args.address.as_ref(), args.config.as_deref()) {
                Ok(address) => code_of(balance::run(&args, &address)),
                Err(code) => code,
            },
            Command::Replay(args) => match check::api_at(args.address.as_ref(), args.config.as_deref()) {
                Ok(address) => code_of(replay::run(&args, &address)),
                Err(code) => code,
            },
            Command::Destinations(command) => destinations::run(&destinations::Wish::of_destinations(command)),
            Command::Environments(command) => destinations::run(&destinations::Wish::of_environments(command)),
            Command::DeadLetters(command) => {
                let call = command.call();
                match check::api_at(call.address.as_ref(), call.config.as_deref()) {
                    Ok(address) => code_of(dead_letters::run(&command, &address)),
                    Err(code) => code,
                }
            }
            Command::Log(command) => log_tool::run(&command),
        },
        Err(error) => {
            // Whoever closed the pipe does not want to hear of it.
            let _ = error.print();
            ExitCode::from(code(&error))
        }
    }
}

/// Shows the demo. Whoever closed the pipe has seen enough of it.
fn show(seconds: u64) -> ExitCode {
    match demo::run(seconds) {
        Ok(demo::Ending::Balanced) => ExitCode::SUCCESS,
        Ok(demo::Ending::Wrong) => ExitCode::FAILURE,
        Ok(demo::Ending::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(demo::DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => code_of(Err(error)),
    }
}

/// Tells an error with all its causes, and that it failed.
fn code_of<E: std::error::Error>(done: Result<(), E>) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Standard error may be closed; the exit code still says it.
    let _ = writeln!(io::stderr(), "forebay: {}", causes::line(&error));
    ExitCode::FAILURE
}

/// Help and version are answers, everything else is a wrong command line.
fn code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn refused(args: &[&str]) -> clap::Error {
        Cli::try_parse_from(std::iter::once("forebay").chain(args.iter().copied())).expect_err("it is no command")
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_exits_with_64_and_help_with_0() {
        for wrong in [&[][..], &["chekc"], &["check", "--confg", "x"], &["check", "x", "y"]] {
            assert_eq!(code(&refused(wrong)), USAGE, "{wrong:?}");
        }
        for answer in [&["--help"][..], &["check", "--help"], &["--version"], &["help", "check"]] {
            assert_eq!(code(&refused(answer)), 0, "{answer:?}");
        }
    }
}
