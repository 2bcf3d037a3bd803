//! Messages to a model's supervisor: submissions, cancellations, loads and unloads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::attempt_guard::Unserved;
use super::progress::Progress;
use super::state::UnloadReason;
use crate::backends::backend::ErrorKind;
use crate::units::AttemptId;

/// What a client is told to wait when the queue is full: about the time an answer takes.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// From handle to supervisor.
#[derive(Debug)]
pub(super) enum Command {
    Submit(Submit),
    Cancel(AttemptId),
    Load(Answer),
    Unload(Unload),
}

/// The choices of one attempt.
#[derive(Debug)]
pub(super) struct Submit {
    pub(super) choices: Vec<ChoiceSubmit>,
    pub(super) unserved: Unserved,
}

#[derive(Debug)]
pub(super) struct ChoiceSubmit {
    /// The id of its sequence.
    pub(super) attempt: AttemptId,
    /// The request's field that the engine reads, to name it in an error.
    pub(super) field: &'static str,
    /// The encoded `Submit` or `Embed` frame.
    pub(super) frame: Bytes,
    pub(super) progress: watch::Sender<Progress>,
    /// One of the engine's places, held until the engine is done with the choice.
    pub(super) place: OwnedSemaphorePermit,
}

impl Submit {
    /// Ends the attempt before the engine heard of it.
    pub(super) fn refuse(&self, kind: &ErrorKind) {
        for choice in &self.choices {
            choice.progress.send_modify(|progress| progress.end = Some(Err(kind.clone())));
        }
    }

    /// Forgets a choice; whether others are left.
    pub(super) fn goes_on_without(&mut self, attempt: AttemptId) -> bool {
        self.choices.retain(|choice| choice.attempt != attempt);
        !self.choices.is_empty()
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

/// Tells the supervisor that nobody wants the answer any more.
pub(super) struct CancelOnDrop {
    pub(super) attempt: AttemptId,
    pub(super) command: Option<mpsc::OwnedPermit<Command>>,
}

impl CancelOnDrop {
    /// The answer has ended by itself.
    pub(super) fn disarm(&mut self) {
        self.command = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            command.send(Command::Cancel(self.attempt));
        }
    }
}
