//! Loading and unloading a local model by hand, and what is known of its loads.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::command::{Answer, Command, ControlError, Unload};
use super::process::resident_bytes;
use super::state::{EngineState, UnloadReason};

/// The lever of one model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) state: watch::Receiver<EngineState>,
    pub(super) load_timeout: Duration,
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
