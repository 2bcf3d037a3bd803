//! Local models: one engine process per model, started and watched from here, that runs llama.cpp.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions: [`handle`], [`supervisor`] and what
//! they use live in the gateway; `child`, `engine` and `embedder` are the other side of the socket. Decisions are
//! pure and apart: [`scheduler`], [`waiting`], [`pacing`], [`host_cache`], [`packing`], [`sampling`], [`text`],
//! [`answer`], [`arguments`], [`transcript`], [`form`], [`guard`], [`overflow`], [`drafting`], and of memory [`eviction`],
//! [`break_even`], [`footprint`], [`threads`].

pub mod answer;
mod answering;
pub mod arguments;
mod attempts;
mod backlog;
#[cfg(all(feature = "llama", target_os = "linux"))]
mod barrier;
#[cfg(feature = "llama")]
mod binding;
mod booking;
#[cfg(feature = "llama")]
pub mod child;
pub mod break_even;
mod choices;
#[cfg(feature = "llama")]
pub mod complaints;
pub mod confidence;
mod config;
pub mod constraint;
mod control;
pub mod conversation;
pub mod dialect;
mod dialogue;
pub mod drafting;
mod engines;
#[cfg(feature = "llama")]
pub mod failure;
#[cfg(feature = "llama")]
mod embedder;
#[cfg(feature = "llama")]
mod engine;
pub mod eviction;
pub mod fallback;
pub mod footprint;
pub mod form;
pub mod gguf;
#[cfg(feature = "llama")]
mod grammar;
pub mod guard;
pub mod handle;
pub mod host_cache;
#[cfg(feature = "llama")]
mod intake;
pub mod lark;
mod link;
#[cfg(all(feature = "llama", target_arch = "x86_64"))]
mod kernels;
#[cfg(all(feature = "llama", target_os = "linux"))]
mod mapped;
pub mod logprobs;
pub mod observer;
pub mod overflow;
pub mod packing;
pub mod pacing;
mod parameters;
mod process;
#[cfg(feature = "llama")]
mod prompt;
pub mod protocol;
#[cfg(feature = "llama")]
mod python_json;
mod repacking;
mod residency;
mod raw;
pub mod sampling;
pub mod scheduler;
pub mod softmax;
mod standby;
mod state;
pub mod supervisor;
#[cfg(feature = "llama")]
pub mod template;
pub mod text;
pub mod threads;
pub mod transcript;
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

pub use config::{Config, FlashAttention, KvType, LoadWhen};
pub use control::{Control, ControlError, UnloadReason};
pub use engines::EnginesConfig;
pub use handle::LlamaBackend;
pub use observer::{Drafted, EngineObserver, Reused, StepReport, StepRow};
pub use overflow::Overflow;
pub use protocol::{EngineFacts, Pooling};
pub use residency::{Idle, Residency, TooLarge};
pub use state::{EngineState, LoadState, Phase};
pub use supervisor::{Supervisor, local_model};
