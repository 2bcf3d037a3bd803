//! The gateway side of local models: admission, supervision of engine processes, and answers as
//! streams of events.
//!
//! Never calls llama.cpp.

mod attempt_event;
mod attempts;
mod backend;
mod backlog;
mod command;
mod connection;
mod constraint;
mod control;
mod conversation;
mod fan_out;
#[cfg(fuzzing)]
pub mod fuzzing;
mod observer;
mod parameters;
mod process;
mod refusal;
mod request;
mod response;
mod standby;
mod state;
mod supervisor;
mod supervisor_state;
mod vitality;

pub use backend::LlamaBackend;
pub use command::ControlError;
pub use control::Control;
pub use observer::EngineObserver;
pub use state::{EngineState, LoadState, Phase, UnloadReason};
pub use supervisor::{LocalModel, Supervisor, local_model};
