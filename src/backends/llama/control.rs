//! Loading and unloading a local model by hand, and what is known of its loads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::handle::{Command, EngineState, Phase};
use super::process::resident_bytes;

/// The lever of one model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) state: watch::Receiver<EngineState>,
    pub(super) load_timeout: Duration,
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

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("it is busy")]
    Busy,
    #[error("{0}")]
    Failed(Arc<str>),
    #[error("it did not happen within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("it is shutting down")]
    Stopped,
}

/// How the supervisor answers.
pub(super) type Answer = oneshot::Sender<Result<(), ControlError>>;

/// A request to unload.
#[derive(Debug)]
pub(super) struct Unload {
    pub(super) reason: UnloadReason,
    /// Let running answers end first; new ones wait.
    pub(super) drain: bool,
    pub(super) answer: Answer,
}

impl Control {
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Resolves once the model is loaded, which it may be already.
    pub async fn load(&self) -> Result<(), ControlError> {
        self.ask(Command::Load).await
    }

    /// Resolves once the engine has ended, which it may have before.
    pub async fn unload(&self, reason: UnloadReason, drain: bool) -> Result<(), ControlError> {
        self.ask(|answer| Command::Unload(Unload { reason, drain, answer })).await
    }

    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), ControlError> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(answer)).await.map_err(|_| ControlError::Stopped)?;
            answered.await.map_err(|_| ControlError::Stopped)?
        };
        let patience = self.load_timeout;
        timeout(patience, exchange).await.map_err(|_| ControlError::Timeout(patience))?
    }

    /// Bytes of the engine process in memory, while there is one.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.state.borrow().pid?)
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
