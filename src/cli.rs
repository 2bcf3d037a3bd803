//! The command line: one file a subcommand, one place that maps failures to exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input (arguments, config or data).

pub mod check;
mod energy;
#[cfg(feature = "llama")]
pub mod engine;
pub mod init;
pub mod measure;
pub mod models;
pub mod replay;
pub mod route;
pub mod router;
pub mod serve;
pub mod train;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Problems};

/// Exit code of a command that could not do its work.
const FAILED: u8 = 1;
/// Exit code of arguments, a config or data that cannot be used.
const BAD_INPUT: u8 = 2;

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
    /// Look at this machine and write a config with a model that fits
    Init(init::InitArgs),
    /// List every problem of a config, with file and line
    Check(check::CheckArgs),
    /// List, find, fetch, check or remove local models
    Models(models::ModelsArgs),
    /// Score prompts from a file and show what would be chosen, running nothing
    Route(route::RouteArgs),
    /// Replay policies over the traffic log
    Replay(replay::ReplayArgs),
    /// Measure accuracy, joules and seconds of models on this machine
    Measure(Box<measure::MeasureArgs>),
    /// Train a router from outcomes
    Train(train::TrainArgs),
    /// List, promote and roll back routers; fit the cascade
    Router(router::RouterArgs),
    /// Serve one model to a gateway over standard input (started by `serve`)
    #[cfg(feature = "llama")]
    #[command(hide = true)]
    Engine(engine::EngineArgs),
}

/// The config file, if none is named.
const CONFIG_FILE: &str = "config.toml";

/// The config file, named the same way by every subcommand.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Config file
    #[arg(long, default_value = CONFIG_FILE, value_name = "PATH")]
    pub config: PathBuf,
}

impl ConfigArgs {
    pub fn load(&self) -> Result<Config, Problems> {
        config::load(&self.config)
    }

    /// Whether it may be the default rather than somebody's word.
    fn is_default(&self) -> bool {
        self.config == Path::new(CONFIG_FILE)
    }
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            // A config that does not hold is bad input; everything else failed.
            ExitCode::from(if error.is::<Problems>() { BAD_INPUT } else { FAILED })
        }
    }
}

/// The exit code of a command that said itself what was wrong.
fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Models(args) => models::run(args),
        Command::Route(args) => route::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Train(args) => train::run(args),
        Command::Router(args) => router::run(args),
        #[cfg(feature = "llama")]
        Command::Engine(args) => Ok(engine::run(args)),
    }
}

/// Asks the person at the terminal; an empty answer is `default`.
fn confirm(question: &str, default: bool) -> io::Result<bool> {
    let mut screen = io::stderr();
    write!(screen, "{question} [{}] ", if default { "Y/n" } else { "y/N" })?;
    screen.flush()?;
    let mut answer = String::new();
    let end_of_input = io::stdin().read_line(&mut answer)? == 0;
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "" => default && !end_of_input,
        answer => matches!(answer, "y" | "yes"),
    })
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
