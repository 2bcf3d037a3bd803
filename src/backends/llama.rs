//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; [`child`] and [`engine`] are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`sampling`], [`text`], [`guard`].

pub mod answer;
mod attempts;
#[cfg(feature = "llama")]
pub mod child;
mod config;
pub mod conversation;
pub mod dialect;
#[cfg(feature = "llama")]
mod engine;
pub mod fallback;
pub mod guard;
pub mod handle;
pub mod observer;
mod process;
#[cfg(feature = "llama")]
mod prompt;
pub mod protocol;
#[cfg(feature = "llama")]
mod python_json;
pub mod sampling;
pub mod scheduler;
pub mod supervisor;
#[cfg(feature = "llama")]
pub mod template;
pub mod text;

pub use config::Config;
pub use handle::{EngineState, LlamaBackend, Phase};
pub use observer::{EngineObserver, StepReport, StepRow};
pub use protocol::EngineFacts;
pub use supervisor::{Supervisor, local_model};
