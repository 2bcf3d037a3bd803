//! Errors of reading a GGUF header.

use std::io;

/// The reason why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    #[error("not a GGUF file")]
    NotGguf,
    #[error("unknown GGUF version {0}")]
    Version(u32),
    #[error("invalid GGUF header: a number is infinite or none at all")]
    NotFinite,
    #[error("invalid GGUF header: {0}")]
    Broken(&'static str),
}
