//! The command line: one file a subcommand, one place that maps failures to exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input (arguments, config or data).

pub mod check;
#[cfg(feature = "llama")]
pub mod engine;
pub mod models;
pub mod replay;
pub mod route;
pub mod serve;
pub mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Problems};

/// OpenAI-compatible gateway that answers with the least energy that is good enough.
///
/// Point an OpenAI client at it (`base_url = http://127.0.0.1:8080/v1`, any key, `model = "auto"`).
#[derive(Debug, Parser)]
#[command(name = "wattgate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the OpenAI API
    Serve(serve::ServeArgs),
    /// List every problem of a config, with file and line
    Check(check::CheckArgs),
    /// List or fetch the local models
    Models(models::ModelsArgs),
    /// Score prompts from a file and show what would be chosen, running nothing
    Route(route::RouteArgs),
    /// Replay policies over the traffic log
    Replay(replay::ReplayArgs),
    /// Train a router from outcomes
    Train(train::TrainArgs),
    /// Serve one model to a gateway over standard input (started by `serve`)
    #[cfg(feature = "llama")]
    #[command(hide = true)]
    Engine,
}

/// The config file, named the same way by every subcommand.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Config file
    #[arg(long, default_value = "config.toml", value_name = "PATH")]
    pub config: PathBuf,
}

impl ConfigArgs {
    pub fn load(&self) -> Result<Config, Problems> {
        config::load(&self.config)
    }
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            // A config that does not hold is bad input; everything else failed.
            ExitCode::from(if error.is::<Problems>() { 2 } else { 1 })
        }
    }
}

/// The exit code of a command that said itself what was wrong.
fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Models(args) => models::run(args),
        Command::Route(args) => route::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Train(args) => train::run(args),
        #[cfg(feature = "llama")]
        Command::Engine => Ok(engine::run()),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a command reports its failure")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
