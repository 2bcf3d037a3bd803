//! What a supervisor keeps of its model while processes come and go, and what happens between two of them: whoever waited is
//! told, and whoever comes is refused until it is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::attempts::Attempts;
use super::backlog::Backlog;
use super::command::{Answer, Command, ControlError};
use super::observer::EngineObserver;
use super::state::{EngineState, Phase, UnloadReason};
use crate::backends::backend::ErrorKind;
use crate::backends::llama::config::Config;
use crate::backends::llama::memory::budget::TooLarge;

/// What stays while processes come and go.
pub(super) struct Link {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) observer: Arc<dyn EngineObserver>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) state: watch::Sender<EngineState>,
    pub(super) attempts: Attempts,
    /// What came while the model was not loaded.
    pub(super) waiting: Backlog,
    /// Operators who wait for the load.
    pub(super) asked: Vec<Answer>,
    /// It is to leave once it is idle.
    pub(super) leaving: Option<Leaving>,
    /// It is loaded, and after a death loaded again, without being asked for.
    pub(super) keep: bool,
    /// When the present process finished loading.
    pub(super) ready_since: Option<Instant>,
}

/// An unload that waits for the last answer.
pub(super) struct Leaving {
    pub(super) reason: UnloadReason,
    pub(super) answers: Vec<Answer>,
}

/// How a process's life ended.
pub(super) enum Ended {
    /// We were told to stop.
    Stopped,
    /// Its memory is better used otherwise.
    Unloaded(UnloadReason),
    /// It said so itself, or there was nothing to load.
    LoadFailed(String),
    Died(String),
}

impl Link {
    /// After a death or a failed load: what was sent in the meantime is refused at once, until it is tried again. An
    /// operator may cut the pause short by asking for the load, or keep the model from coming back by unloading it.
    pub(super) async fn refuse_for(&mut self, pause: Duration) {
        let refuse_all = async {
            while let Some(command) = self.commands.recv().await {
                match command {
                    Command::Submit(submit) => submit.refuse(&not_running()),
                    Command::Cancel(_) => {}
                    Command::Load(answer) => return self.asked.push(answer),
                    Command::Unload(unload) => {
                        self.keep = false;
                        let _gone = unload.answer.send(Ok(()));
                    }
                }
            }
            std::future::pending::<()>().await;
        };
        // The time is what ends this.
        let _elapsed = timeout(pause, refuse_all).await;
    }

    /// From now on nobody is sent here, and whoever was waiting is told.
    pub(super) fn take_down(&mut self, ended: &Ended) {
        // Whoever waited was never sent to the engine: nothing was spent on it.
        let (phase, kind) = match ended {
            Ended::Stopped => {
                (Phase::Stopped, ErrorKind::Unavailable("it is shutting down".to_owned()))
            }
            Ended::Unloaded(reason) => {
                info!(model = %self.model, reason = reason.label(), "the model is unloaded");
                self.state.send_modify(|state| {
                    state.phase = Phase::Unloaded;
                    state.on_demand = true;
                });
                return;
            }
            Ended::LoadFailed(reason) => {
                error!(model = %self.model, "the model could not be loaded: {reason}");
                let down = format!("it could not be loaded: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
            Ended::Died(reason) => {
                let next = if self.keep { "is started anew" } else { "ended" };
                warn!(model = %self.model, "the engine {next}: {reason}");
                let down = format!("its engine died: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
        };
        self.set_phase(phase);
        self.attempts.fail_all();
        for answer in self.asked.drain(..) {
            let _gone = answer.send(Err(ControlError::Failed(kind.to_string().into())));
        }
        self.waiting.fail_all(&kind);
    }

    pub(super) fn too_large(&mut self, too_large: TooLarge) -> Ended {
        let ended = Ended::LoadFailed(too_large.to_string());
        self.take_down(&ended);
        ended
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = phase);
    }
}

pub(super) fn not_running() -> ErrorKind {
    ErrorKind::Unavailable("its engine is not running".to_owned())
}
