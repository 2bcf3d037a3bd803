//! The published state of an engine: its phase, its memory, and whether it takes requests.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::llama::memory::estimate::MemoryEstimate;
use crate::backends::llama::wire::protocol::EngineFacts;

/// The current state of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    pub phase: Phase,
    /// Process id; `None` without a process.
    pub pid: Option<u32>,
    /// Number of restarts after failures.
    pub restarts: u32,
    /// A request causes the load, so further requests may wait for it.
    pub on_demand: bool,
    /// Estimated memory once loaded.
    pub memory: MemoryEstimate,
    /// Neither the file nor the config has a chat template: the model only continues raw prompts.
    pub no_chat_template: bool,
    /// Duration of the last load.
    pub last_load: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Loading {
        percent: u8,
    },
    Ready(EngineFacts),
    /// Not in memory; the next request loads it.
    Unloaded,
    /// Not running for this reason; the supervisor retries.
    Down(Arc<str>),
    /// The gateway is shutting down.
    Stopped,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Loading { percent: 0 }
    }
}

/// Why a working engine was unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnloadReason {
    /// Idle for its keep-alive time.
    Idle,
    /// Another model needed the memory.
    Evicted,
    /// Requested by an operator.
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

/// Availability of the model for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    Loaded,
    Loading,
    /// The next request loads it.
    Unloaded,
    /// Currently not loadable.
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

/// Assumed load rate, in bytes per second, before the first load: a file on an ordinary SSD.
const LOAD_BYTES_PER_S: f64 = 500e6;
/// Fixed part of a load: process start and buffers.
const LOAD_MIN_MS: f64 = 200.0;

impl EngineState {
    pub fn load_state(&self) -> LoadState {
        match self.phase {
            Phase::Ready(_) => LoadState::Loaded,
            Phase::Loading { .. } => LoadState::Loading,
            Phase::Unloaded => LoadState::Unloaded,
            Phase::Down(_) | Phase::Stopped => LoadState::Down,
        }
    }

    /// Whether requests are accepted, now or after a load that they cause or join.
    pub fn takes_requests(&self) -> bool {
        match self.phase {
            Phase::Ready(_) | Phase::Unloaded => true,
            Phase::Loading { .. } => self.on_demand,
            Phase::Down(_) | Phase::Stopped => false,
        }
    }

    /// When a load that is under way is expected to end; `None` if none is.
    pub fn ready_in(&self) -> Option<Duration> {
        let Phase::Loading { percent } = self.phase else { return None };
        let left = self.load_ms() * (1.0 - f64::from(percent.min(100)) / 100.0);
        Some(Duration::from_secs_f64(left / 1e3))
    }

    /// Expected duration of a load in milliseconds: that of the last one, or an estimate by size.
    pub fn load_ms(&self) -> f64 {
        let by_size = || self.memory.weights_bytes as f64 / LOAD_BYTES_PER_S * 1e3 + LOAD_MIN_MS;
        self.last_load.map_or_else(by_size, |took| took.as_secs_f64() * 1e3)
    }
}
