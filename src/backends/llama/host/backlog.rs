//! Queue of attempts that wait for their model to load, each with a deadline.
//!
//! Bounded by the backend: each choice holds a place while it waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::command::NewAttempt;
use crate::backends::backend::ErrorKind;
use crate::units::AttemptId;

/// Attempts in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<(Instant, NewAttempt)>);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, attempt: NewAttempt, timeout: Duration) {
        self.0.push_back((Instant::now() + timeout, attempt));
    }

    pub(super) fn pop(&mut self) -> Option<NewAttempt> {
        self.0.pop_front().map(|(_, attempt)| attempt)
    }

    /// Removes a choice, and its attempt with the last of its choices.
    pub(super) fn cancel(&mut self, attempt: AttemptId) {
        self.0.retain_mut(|(_, new)| new.continues_without(attempt));
    }

    pub(super) fn fail_all(&mut self, kind: &ErrorKind) {
        for (_, attempt) in self.0.drain(..) {
            attempt.refuse(kind);
        }
    }

    /// Refuses attempts past their deadline with `kind`.
    pub(super) fn expire(&mut self, kind: &ErrorKind) {
        while self.0.front().is_some_and(|(deadline, _)| *deadline <= Instant::now()) {
            if let Some(attempt) = self.pop() {
                attempt.refuse(kind);
            }
        }
    }

    /// Resolves at the next deadline; never if empty. All timeouts are equal, so the first
    /// attempt's deadline is the next.
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
