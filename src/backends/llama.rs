//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; [`child`] and [`engine`] are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`sampling`], [`text`], [`guard`].

mod attempts;
#[cfg(feature = "llama")]
pub mod child;
mod choices;
mod config;
pub mod constraint;
#[cfg(feature = "llama")]
mod engine;
#[cfg(feature = "llama")]
mod grammar;
pub mod guard;
pub mod handle;
pub mod logprobs;
pub mod observer;
mod parameters;
mod process;
#[cfg(feature = "llama")]
mod prompt;
pub mod protocol;
pub mod sampling;
pub mod scheduler;
pub mod softmax;
pub mod supervisor;
#[cfg(feature = "llama")]
pub mod template;
pub mod text;

pub use config::Config;
pub use handle::{EngineState, LlamaBackend, Phase};
pub use observer::{EngineObserver, StepReport, StepRow};
pub use protocol::EngineFacts;
pub use supervisor::{Supervisor, local_model};
