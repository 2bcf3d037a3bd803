//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; [`child`] and [`engine`] are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`sampling`], [`text`], [`guard`], and of memory [`eviction`], [`break_even`],
//! [`footprint`], [`threads`].

mod attempts;
#[cfg(feature = "llama")]
pub mod child;
pub mod break_even;
mod config;
mod control;
mod engines;
#[cfg(feature = "llama")]
mod engine;
pub mod eviction;
pub mod footprint;
pub mod gguf;
pub mod guard;
pub mod handle;
pub mod machine;
pub mod observer;
mod process;
#[cfg(feature = "llama")]
mod prompt;
pub mod protocol;
mod residency;
pub mod sampling;
pub mod scheduler;
mod standby;
pub mod supervisor;
#[cfg(feature = "llama")]
pub mod template;
pub mod text;
pub mod threads;
mod waiting;

pub use config::{Config, FlashAttention, KvType, LoadWhen};
pub use control::{Control, ControlError, LoadState, UnloadReason};
pub use engines::EnginesConfig;
pub use handle::{EngineState, LlamaBackend, Phase};
pub use observer::{EngineObserver, StepReport, StepRow};
pub use protocol::EngineFacts;
pub use residency::{Idle, Residency, TooLarge};
pub use supervisor::{Supervisor, local_model};
