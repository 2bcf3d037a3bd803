//! Loading and unloading a local model by hand, and what is known of its loads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::handle::Command;
use super::process::resident_bytes;
use super::state::EngineState;

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
