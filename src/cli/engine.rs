//! `wattgate engine`: the hidden subcommand that runs an engine process. `serve` starts it.

use std::io;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::backends::llama::{EngineKind, LoadLog, run_engine};
use crate::telemetry::OneLine;

#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// Name of the model, shown by `ps`
    #[arg(long)]
    model: String,
    /// Run the fake engine, which answers from a script: a test aid
    #[arg(long)]
    fake: bool,
    /// Render templates and try out schemas for an engine, which starts this itself
    #[arg(long, conflicts_with = "fake")]
    helper: bool,
}

/// Runs the engine process. Its log goes to standard error, which it shares with the gateway.
pub(super) fn run(args: &EngineArgs) -> u8 {
    // llama.cpp logs dozens of lines per load at level info.
    let log = tracing_subscriber::fmt::layer()
        // What it reports may be words of the model's file.
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(false);
    tracing_subscriber::registry().with(LevelFilter::WARN).with(log).with(LoadLog).init();
    let kind = match (args.fake, args.helper) {
        (_, true) => EngineKind::Helper,
        (true, _) => EngineKind::Fake,
        _ => EngineKind::Engine,
    };
    match run_engine(kind) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(model.name = %args.model, "{error}");
            1
        }
    }
}
