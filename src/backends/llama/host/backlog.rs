//! Submissions that wait while their model loads, each with a deadline.
//!
//! Bounded by the handle: a submission holds one of the engine's places while it waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::command::Submit;
use crate::backends::backend::ErrorKind;
use crate::units::AttemptId;

/// First come, first served.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<(Instant, Submit)>);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, submit: Submit, patience: Duration) {
        self.0.push_back((Instant::now() + patience, submit));
    }

    pub(super) fn pop(&mut self) -> Option<Submit> {
        self.0.pop_front().map(|(_, submit)| submit)
    }

    /// Nobody wants this choice any more, if it is here; with the last of its choices a submission goes.
    pub(super) fn cancel(&mut self, attempt: AttemptId) {
        self.0.retain_mut(|(_, submit)| submit.goes_on_without(attempt));
    }

    pub(super) fn fail_all(&mut self, kind: &ErrorKind) {
        for (_, submit) in self.0.drain(..) {
            submit.refuse(kind);
        }
    }

    /// Refuses whoever has waited long enough with `kind`.
    pub(super) fn expire(&mut self, kind: &ErrorKind) {
        while self.0.front().is_some_and(|(deadline, _)| *deadline <= Instant::now()) {
            if let Some(submit) = self.pop() {
                submit.refuse(kind);
            }
        }
    }

    /// Sleeps until the next deadline, or for ever. All wait equally long, so the first one's comes first.
    pub(super) fn next_deadline(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.0.front().map(|(deadline, _)| *deadline);
        async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        }
    }
}
