//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; [`child`] and [`engine`] are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`waiting`], [`pacing`],
//! [`host_cache`], [`sampling`], [`text`], [`guard`].

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
pub mod host_cache;
pub mod observer;
pub mod pacing;
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
pub mod waiting;

/// Whether this build has the engine at all.
pub const BUILT_IN: bool = cfg!(feature = "llama");
/// What to say of a build without it.
pub const NOT_BUILT_IN: &str = "this build of Wattgate has no local engine (feature `llama`)";
pub const HOW_TO_BUILD: &str = "build it with `cargo build --release`, without `--no-default-features`; \
    or add `--features llama`";

/// Whether this build's engine can use a GPU. On Apple's machines llama.cpp always can.
pub const GPU_BUILT_IN: bool = BUILT_IN
    && cfg!(any(
        feature = "cuda",
        feature = "vulkan",
        all(target_os = "macos", target_arch = "aarch64")
    ));

pub use config::Config;
pub use handle::{EngineState, LlamaBackend, Phase};
pub use observer::{EngineObserver, Reused, StepReport, StepRow};
pub use protocol::EngineFacts;
pub use supervisor::{Supervisor, local_model};
