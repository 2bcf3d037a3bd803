//! What an engine is doing, as everybody may watch it, and what that means for a request.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::llama::memory::estimate::MemoryEstimate;
use crate::backends::llama::wire::protocol::EngineFacts;

/// What the engine is doing just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    pub phase: Phase,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// How often it had to be started anew.
    pub restarts: u32,
    /// The present load, if there is one, was caused by requests: more of them may wait for it.
    pub on_demand: bool,
    /// Memory it takes once loaded, as its header and settings say.
    pub footprint: MemoryEstimate,
    /// Neither its file nor the config has a chat template: it only continues raw prompts.
    pub no_chat_template: bool,
    /// How long the last load took.
    pub last_load: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Loading {
        percent: u8,
    },
    Ready(EngineFacts),
    /// Not in memory; a request loads it.
    Unloaded,
    /// Not running, for this reason; it will be tried again.
    Down(Arc<str>),
    /// The gateway is shutting down.
    Stopped,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Loading { percent: 0 }
    }
}

/// Why an engine was ended though nothing was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnloadReason {
    /// Keeping it warm has cost what loading it again will.
    Idle,
    /// Another model needed the memory.
    Evicted,
    /// An operator asked.
    Admin,
}

impl UnloadReason {
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Admin => "admin",
        }
    }
}

/// Whether requests find the model loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    Loaded,
    Loading,
    /// A request would load it.
    Unloaded,
    /// It cannot be loaded just now.
    Down,
}

impl LoadState {
    pub fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Loading => "loading",
            Self::Unloaded => "unloaded",
            Self::Down => "down",
        }
    }
}

/// Bytes a second at which a model is loaded that was never loaded here: a file that has to come from an ordinary SSD.
const LOAD_BYTES_PER_S: f64 = 500e6;
/// What starting a process and its buffers takes on top.
const LOAD_LEAST_MS: f64 = 200.0;

impl EngineState {
    pub fn load_state(&self) -> LoadState {
        match self.phase {
            Phase::Ready(_) => LoadState::Loaded,
            Phase::Loading { .. } => LoadState::Loading,
            Phase::Unloaded => LoadState::Unloaded,
            Phase::Down(_) | Phase::Stopped => LoadState::Down,
        }
    }

    /// Whether a request can be taken: at once, or after the load that it causes or joins.
    pub fn takes_requests(&self) -> bool {
        match self.phase {
            Phase::Ready(_) | Phase::Unloaded => true,
            Phase::Loading { .. } => self.on_demand,
            Phase::Down(_) | Phase::Stopped => false,
        }
    }

    /// How long a load is expected to take from its start, milliseconds: as the last one did, or a guess by size.
    pub fn load_ms(&self) -> f64 {
        let guess = || self.footprint.weights_bytes as f64 / LOAD_BYTES_PER_S * 1e3 + LOAD_LEAST_MS;
        self.last_load.map_or_else(guess, |took| took.as_secs_f64() * 1e3)
    }
}
