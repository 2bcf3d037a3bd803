//! Placeholder: being written.

#[cfg(feature = "llama")]
pub mod engine;
