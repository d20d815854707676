//! The `easytransfer` command: argument handling over the facade, nothing else. One file per command.
//!
//! Exit codes: 0 done, also when a reader of the output went away (`… | head`); 2 bad input or usage; 1 anything else,
//! such as a full disk or a standard output that is closed; 130 ended by Ctrl-C (SIGINT), 143 by SIGTERM, 129 by
//! SIGHUP. Errors go to standard error as `easytransfer: error: …`, and nothing of an unfinished output remains; a run
//! of training that was ended keeps its checkpoint.

mod arguments;
mod device;
mod embed;
mod evaluate;
mod interrupt;
mod new_plugin;
mod plugin;
mod predict;
mod print;
mod spoken;
mod train;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use easytransfer::{Error, Result};

use arguments::Common;

/// Transfer learning for text: train, evaluate, predict and embed through plugins.
#[derive(Parser)]
#[command(name = "easytransfer", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Train),
    Evaluate(evaluate::Evaluate),
    Predict(predict::Predict),
    Embed(embed::Embed),
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    #[command(subcommand)]
    Device(device::DeviceCommand),
}

fn parse() -> std::result::Result<Cli, clap::Error> {
    let command = Cli::command()
        .mut_subcommand("train", |train| train.after_long_help(train::options_help()));
    Cli::from_arg_matches(&command.try_get_matches()?)
}

impl Command {
    /// Whether it writes to standard output.
    fn prints(&self) -> bool {
        match self {
            Command::Predict(command) => command.prints(),
            _ => true,
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    if cli.command.prints() {
        print::check()?;
    }
    cli.common.apply()?;
    let result = match cli.command {
        Command::Train(command) => command.run(&cli.common),
        Command::Evaluate(command) => command.run(&cli.common),
        Command::Predict(command) => command.run(&cli.common),
        Command::Embed(command) => command.run(&cli.common),
        Command::Plugin(command) => command.run(&cli.common),
        Command::Device(command) => command.run(),
    };
    // The failure of the command matters more than one of its profile.
    let profile = cli.common.finish();
    result.and(profile)
}

fn main() -> ExitCode {
    interrupt::watch();
    // The process is ours, so its allocator may keep the pages of a step for the next one.
    easytransfer::keep_pages();
    let cli = match parse() {
        Ok(cli) => cli,
        // Help and the version are no errors and go to standard output.
        Err(error) if !error.use_stderr() => {
            return match print::text(&error.to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print::message(&format!("error: {error:#}"));
                    ExitCode::FAILURE
                }
            };
        }
        Err(error) => {
            print::message(error.to_string().trim_end());
            return ExitCode::from(2);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Cancelled) => ExitCode::from(interrupt::exit_code()),
        // Only an output can be a pipe: its reader has enough (`easytransfer … | head`).
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            print::message(&format!("error: {}", spoken::spoken(&format!("{error:#}"))));
            ExitCode::from(if error.is_user_error() { 2 } else { 1 })
        }
    }
}
