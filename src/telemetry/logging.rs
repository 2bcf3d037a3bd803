//! Setup of the process log on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::config::{Config, LogFormat};

/// Installs the subscriber for the whole process; a second call changes nothing.
pub fn init(config: &Config) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(config.directives()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Fails if a subscriber is already installed, as between tests of one process.
    let _ = match config.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
