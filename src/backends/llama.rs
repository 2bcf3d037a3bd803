//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; [`child`], [`engine`] and [`embedder`] are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`packing`], [`sampling`], [`text`], [`guard`], [`overflow`].

mod attempts;
#[cfg(feature = "llama")]
pub mod child;
mod config;
#[cfg(feature = "llama")]
mod embedder;
#[cfg(feature = "llama")]
mod engine;
pub mod guard;
pub mod handle;
pub mod observer;
pub mod overflow;
pub mod packing;
mod process;
#[cfg(feature = "llama")]
mod prompt;
pub mod protocol;
mod raw;
pub mod sampling;
pub mod scheduler;
pub mod supervisor;
#[cfg(feature = "llama")]
pub mod template;
pub mod text;

pub use config::Config;
pub use handle::{EngineState, LlamaBackend, Phase};
pub use observer::{EngineObserver, StepReport, StepRow};
pub use overflow::Overflow;
pub use protocol::{EngineFacts, Pooling};
pub use supervisor::{Supervisor, local_model};
