//! `wattgate engine`: the hidden subcommand that runs an engine process. `serve` starts it.

use std::io::{self, IsTerminal};

use clap::Args;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::backends::llama::{LoadLog, run_engine};

#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// Name of the model, shown by `ps`
    #[arg(long)]
    model: String,
    /// Run the fake engine, which answers from a script: a test aid
    #[arg(long)]
    fake: bool,
}

/// Runs the engine process. Its log goes to standard error, which it shares with the gateway.
pub(super) fn run(args: &EngineArgs) -> u8 {
    // llama.cpp logs dozens of lines per load at level info.
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(LevelFilter::WARN).with(log).with(LoadLog).init();
    match run_engine(args.fake) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(model.name = %args.model, "{error}");
            1
        }
    }
}
