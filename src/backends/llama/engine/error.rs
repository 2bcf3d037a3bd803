//! Why an engine process ends other than by its gateway's leave. Words only.

use std::io;

use crate::backends::llama::wire::protocol::FrameError;

/// Why an engine process ended other than by its gateway's leave.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "standard input is not a gateway's socket: `wattgate serve` starts this command itself"
    )]
    NotAChild,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Load(String),
    #[error("llama.cpp could not evaluate a batch: {0}")]
    Decode(String),
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}
