//! The state of a supervisor across processes of its engine, and its transitions when a process
//! ends: running attempts fail, and new ones are refused until the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::attempts::Attempts;
use super::backlog::Backlog;
use super::command::{Command, ControlError, Reply};
use super::observer::EngineObserver;
use super::state::{EngineState, Phase, UnloadReason};
use crate::backends::backend::ErrorKind;
use crate::backends::llama::config::Config;
use crate::backends::llama::memory::budget::TooLarge;
use crate::backends::llama::wire::cpu::CpuCode;

/// State that outlives an engine process.
pub(super) struct SupervisorState {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) cpu: CpuCode,
    pub(super) observer: Arc<dyn EngineObserver>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) published: watch::Sender<EngineState>,
    pub(super) attempts: Attempts,
    /// Attempts that wait for the model to load.
    pub(super) backlog: Backlog,
    /// Operators that wait for the model to load.
    pub(super) load_waiters: Vec<Reply>,
    /// An unload that waits until the engine is idle.
    pub(super) pending_unload: Option<PendingUnload>,
    /// Load without a request, also after the engine has died.
    pub(super) keep_loaded: bool,
    /// When the current process finished loading.
    pub(super) ready_since: Option<Instant>,
}

/// An unload that waits for the last answer.
pub(super) struct PendingUnload {
    pub(super) reason: UnloadReason,
    pub(super) replies: Vec<Reply>,
}

/// Why an engine process ended.
pub(super) enum ExitReason {
    /// The gateway is stopping.
    Stopped,
    /// Unloaded on purpose.
    Unloaded(UnloadReason),
    /// The engine reported it, or there was no file to load.
    LoadFailed(String),
    Died(String),
}

impl SupervisorState {
    /// Refuses attempts for the duration of `pause`, after a death or a failed load. An operator
    /// ends the pause by a load, or keeps the model from being restarted by an unload.
    pub(super) async fn refuse_for(&mut self, pause: Duration) {
        let refuse_all = async {
            while let Some(command) = self.commands.recv().await {
                match command {
                    Command::Submit(attempt) => attempt.refuse(&not_running()),
                    Command::Cancel(_) => {}
                    Command::Load(reply) => return self.load_waiters.push(reply),
                    Command::Unload(unload) => {
                        self.keep_loaded = false;
                        let _gone = unload.reply.send(Ok(()));
                    }
                }
            }
            std::future::pending::<()>().await;
        };
        let _elapsed = timeout(pause, refuse_all).await;
    }

    /// Publishes the end of the process, and fails all attempts and load waiters, except after an
    /// unload.
    pub(super) fn take_down(&mut self, exit: &ExitReason) {
        let (phase, kind) = match exit {
            ExitReason::Stopped => {
                (Phase::Stopped, ErrorKind::Unavailable("it is shutting down".to_owned()))
            }
            ExitReason::Unloaded(reason) => {
                info!(model = %self.model, reason = reason.label(), "model unloaded");
                self.published.send_modify(|state| {
                    state.phase = Phase::Unloaded;
                    state.on_demand = true;
                });
                return;
            }
            ExitReason::LoadFailed(reason) => {
                error!(model = %self.model, "model could not be loaded: {reason}");
                let down = format!("it could not be loaded: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
            ExitReason::Died(reason) => {
                let next = if self.keep_loaded { "restarting" } else { "stays unloaded" };
                warn!(model = %self.model, "engine failed, {next}: {reason}");
                let down = format!("its engine failed: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
        };
        self.set_phase(phase);
        self.attempts.fail_all();
        for reply in self.load_waiters.drain(..) {
            let _gone = reply.send(Err(ControlError::Failed(kind.to_string().into())));
        }
        // Attempts of the backlog were never sent to the engine and used no energy.
        self.backlog.fail_all(&kind);
    }

    pub(super) fn too_large(&mut self, too_large: TooLarge) -> ExitReason {
        let exit = ExitReason::LoadFailed(too_large.to_string());
        self.take_down(&exit);
        exit
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.published.send_modify(|state| state.phase = phase);
    }
}

pub(super) fn not_running() -> ErrorKind {
    ErrorKind::Unavailable("its engine is not running".to_owned())
}
