//! `wattgate engine`: the hidden subcommand that an engine process is. Not for people; `serve` starts it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tracing::Level;

use crate::backends::llama::child;

/// Runs the engine process. Its log goes to standard error, which it shares with the gateway.
pub fn run() -> ExitCode {
    // llama.cpp tells dozens of lines about each load at level info; only what is wrong is worth a line here.
    tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match child::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
