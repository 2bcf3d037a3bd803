//! Errors that end an engine process.

use std::io;

use crate::backends::llama::wire::protocol::FrameError;

/// An error that ends the engine process.
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
    #[error("the process could not be confined: {0}")]
    Limits(io::Error),
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}
