//! Control of a local model from outside of its supervisor: loads, unloads and state.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::command::{Command, ControlError, Reply, Unload};
use super::process::resident_bytes;
use super::state::{EngineState, UnloadReason};

/// Control of one model. Cheap to clone.
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

    /// Resolves when the model is loaded; at once if it already is.
    pub async fn load(&self) -> Result<(), ControlError> {
        self.send(Command::Load).await
    }

    /// Resolves when the engine has exited; at once if there is none.
    pub async fn unload(&self, reason: UnloadReason, drain: bool) -> Result<(), ControlError> {
        self.send(|reply| Command::Unload(Unload { reason, drain, reply })).await
    }

    async fn send(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), ControlError> {
        let (reply, replied) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| ControlError::Stopped)?;
            replied.await.map_err(|_| ControlError::Stopped)?
        };
        let limit = self.load_timeout;
        timeout(limit, exchange).await.map_err(|_| ControlError::Timeout(limit))?
    }

    /// Resident memory of the engine process in bytes; `None` without a process.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.state.borrow().pid?)
    }
}
