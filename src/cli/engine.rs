//! `wattgate engine`: the hidden subcommand that an engine process is. Not for people; `serve` starts it.

use std::io;

use tracing::Level;

use crate::backends::llama::child;

/// Runs the engine process. Its log goes to standard error, which it shares with the gateway.
pub fn run() -> u8 {
    // llama.cpp tells dozens of lines about each load at level info; only what is wrong is worth a line here.
    tracing_subscriber::fmt().with_max_level(Level::WARN).with_writer(io::stderr).init();
    match child::run() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            1
        }
    }
}
