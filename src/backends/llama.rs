//! Local models: one engine process per model that runs llama.cpp, supervised from the gateway
//! process.
//!
//! The gateway process never calls llama.cpp, which aborts on failed assertions. So the folders are
//! processes:
//!
//! - [`wire`]: the frames between the two processes, and the types in them;
//! - [`host`]: the gateway process: admission, supervision, and answers as streams of events;
//! - [`memory`]: which models may be loaded at the same time, and how much each needs;
//! - `engine`: the engine process, the only code that names llama.cpp. Its one entry is
//!   [`run_engine`].

mod config;
#[cfg(feature = "llama")]
mod engine;
pub mod host;
pub mod memory;
mod pool_config;
pub mod wire;

/// Whether this build has the engine at all.
pub const BUILT_IN: bool = cfg!(feature = "llama");
/// Error message and hint for a build without the engine.
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

pub use config::{Config, LoadWhen};
#[cfg(fuzzing)]
#[cfg(feature = "llama")]
pub use engine::fuzzing;
#[cfg(feature = "llama")]
pub use engine::{LoadLog, run_engine};
pub use host::{
    Control, ControlError, EngineObserver, EngineState, LlamaBackend, LoadState, LocalModel, Phase,
    Supervisor, UnloadReason, local_model,
};
pub use memory::budget::{Idle, MemoryBudget, TooLarge};
pub use memory::keep_alive::keep_alive;
pub use pool_config::EnginesConfig;
pub use wire::cpu::{CpuCode, CpuVariant, Kernels};
pub use wire::protocol::EngineFacts;
pub use wire::settings::{FlashAttention, KvType, Overflow, Pooling};
pub use wire::step::{Drafted, Reused, StepReport};
