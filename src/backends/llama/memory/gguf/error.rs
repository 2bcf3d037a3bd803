//! Errors of reading a GGUF header.

use std::io;

/// The reason why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no GGUF file")]
    NotGguf,
    #[error("its GGUF version {0} is unknown")]
    Version(u32),
    #[error("its header is broken: {0}")]
    Broken(&'static str),
}
