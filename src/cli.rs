//! Command line: one file per subcommand, one mapping from failures to exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input (arguments, config or data).

mod check;
mod config_args;
mod configured_model;
mod console;
#[cfg(feature = "llama")]
mod engine;
mod exit;
mod init;
mod launch;
mod log;
mod measure;
mod models;
mod replay;
mod route;
mod router;
mod running_gateway;
mod serve;
mod table;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::console::{fail, refuse};
use crate::config::Problems;

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
    /// Write a config with a local model that fits this machine
    Init(init::InitArgs),
    /// Check a config, the sensors (--energy) or the running gateway (--ready)
    Check(check::CheckArgs),
    /// List, search, pull, verify or remove local models
    Models(models::ModelsArgs),
    /// Show how a coding agent uses this gateway, or run it (--exec)
    Launch(launch::LaunchArgs),
    /// Show which model would be chosen for each prompt of a file, without running any
    Route(route::RouteArgs),
    /// Show, count, check or export the traffic log
    Log(log::LogArgs),
    /// Compare policies on the traffic log
    Replay(replay::ReplayArgs),
    /// Measure accuracy, energy and latency of models on this machine
    ///
    /// Sends each question alone, and with --batch again in batches. Prints accuracy per watt and
    /// per joule with intervals; writes a report (report.html, summary.json) and a profile, by
    /// which the gateway predicts and attributes energy once `profile` under `[energy]` names it.
    /// --resume continues a run that was interrupted.
    Measure(Box<measure::MeasureArgs>),
    /// Train a router from outcome files or the traffic log
    Train(train::TrainArgs),
    /// List, promote and roll back routers; fit the cascade
    Router(router::RouterArgs),
    /// Engine process of one local model (started by `serve`)
    #[cfg(feature = "llama")]
    #[command(hide = true)]
    Engine(engine::EngineArgs),
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = causes(&error);
            // An invalid config is bad input; everything else failed.
            ExitCode::from(if error.is::<Problems>() { refuse(&text) } else { fail(&text) })
        }
    }
}

/// The error and its causes, without those that it names itself.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Runs the subcommand; its exit code where it reported a failure itself.
fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Models(args) => models::run(args),
        Command::Launch(args) => launch::run(args),
        Command::Route(args) => route::run(args),
        Command::Log(args) => log::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Train(args) => train::run(args),
        Command::Router(args) => router::run(args),
        #[cfg(feature = "llama")]
        Command::Engine(args) => Ok(engine::run(args)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, causes};

    #[test]
    fn a_cause_is_named_once() {
        let error = anyhow::anyhow!("in use (os error 98)");
        assert_eq!(causes(&error), "in use (os error 98)");
        let named = anyhow::anyhow!("in use").context("cannot listen: in use: choose another");
        assert_eq!(causes(&named), "cannot listen: in use: choose another");
        assert_eq!(causes(&error.context("cannot listen")), "cannot listen: in use (os error 98)");
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
