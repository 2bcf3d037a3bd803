//! Messages to a model's supervisor: submissions, cancellations, loads and unloads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::attempt_event::EventSender;
use super::state::UnloadReason;
use crate::backends::backend::ErrorKind;
use crate::energy::PendingAttempt;
use crate::shares::Taken;
use crate::units::AttemptId;

/// Retry time for clients if the queue is full: about the duration of an answer.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A message from backend or control to the supervisor.
#[derive(Debug)]
pub(super) enum Command {
    Submit(NewAttempt),
    Cancel(AttemptId),
    Load(Reply),
    Unload(Unload),
}

/// An attempt with its choices.
#[derive(Debug)]
pub(super) struct NewAttempt {
    pub(super) choices: Vec<NewChoice>,
    pub(super) guard: PendingAttempt,
}

/// The fields of a request that errors of the engine are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) prompt: &'static str,
    pub(super) constraint: &'static str,
}

#[derive(Debug)]
pub(super) struct NewChoice {
    /// The id of the choice's sequence.
    pub(super) attempt: AttemptId,
    /// For error messages.
    pub(super) fields: Fields,
    /// The encoded `Submit` or `Embed` frame.
    pub(super) frame: Bytes,
    pub(super) events: EventSender,
    /// Held until the engine has closed the choice, whether or not its output has been read.
    pub(super) place: Place,
}

/// A choice's place at the model, and the means to cancel it, which are of no use without.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) cancel: Arc<CancelSlot>,
    pub(super) _taken: Taken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cancel.0.lock().take();
    }
}

/// Room for a cancellation in the supervisor's queue, reserved in advance so that a destructor can
/// send without waiting; empty once the choice is closed.
#[derive(Debug)]
pub(super) struct CancelSlot(Mutex<Option<mpsc::OwnedPermit<Command>>>);

impl CancelSlot {
    pub(super) fn new(permit: mpsc::OwnedPermit<Command>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(permit))))
    }
}

impl NewAttempt {
    /// Fails the attempt before it is sent to the engine.
    pub(super) fn refuse(&self, kind: &ErrorKind) {
        for choice in &self.choices {
            choice.events.end(Err(kind.clone()));
        }
    }

    /// Removes a choice; false if it was the last one.
    pub(super) fn continues_without(&mut self, attempt: AttemptId) -> bool {
        self.choices.retain(|choice| choice.attempt != attempt);
        !self.choices.is_empty()
    }
}

/// Why a load or unload did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("the model is busy; unload it with `drain`, or retry later")]
    Busy,
    #[error("{0}")]
    Failed(Arc<str>),
    #[error("not completed within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the gateway is shutting down")]
    Stopped,
}

/// The reply channel of a load or unload.
pub(super) type Reply = oneshot::Sender<Result<(), ControlError>>;

/// A request to unload.
#[derive(Debug)]
pub(super) struct Unload {
    pub(super) reason: UnloadReason,
    /// Complete running answers first; new requests wait.
    pub(super) drain: bool,
    pub(super) reply: Reply,
}

/// Cancels an attempt if its response stream is dropped before the end.
pub(super) struct CancelOnDrop {
    pub(super) attempt: AttemptId,
    pub(super) slot: Arc<CancelSlot>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let permit = self.slot.0.lock().take();
        if let Some(permit) = permit {
            permit.send(Command::Cancel(self.attempt));
        }
    }
}
