//! The engine process: one model, answered over the socket that is its standard input.
//!
//! The only code that names llama.cpp, llguidance and minijinja; nothing here is used by the
//! gateway process.

mod command;
mod embedder;
mod error;
mod fake;
#[cfg(fuzzing)]
pub mod fuzzing;
mod generator;
mod grammar;
mod helper;
mod intake;
mod kernels;
mod load;
mod load_log;
mod main;
#[cfg(target_os = "linux")]
mod mmap;
mod output;
mod prompt;
mod reader;
mod sample;
mod schedule;
mod step_loop;
mod tool_format;
mod tool_schema;

pub use load_log::LoadLog;
pub use main::{Kind, run as run_engine};
