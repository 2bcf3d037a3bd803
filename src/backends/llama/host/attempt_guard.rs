//! Guards that report each attempt to the observer exactly once: opened and closed, or, if it never
//! reached an engine, unserved.
//!
//! A guard travels with its attempt, so that no path on which an attempt ends can skip the report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::observer::EngineObserver;
use crate::units::{AttemptId, MonotonicNs};

/// An attempt that was not sent to an engine. Reports it as unserved when dropped.
#[derive(Debug)]
pub(super) struct PendingAttempt(Option<Subject>);

/// An attempt that was sent to an engine. Reports it as opened when created and as closed when
/// dropped.
#[derive(Debug)]
pub(super) struct OpenAttempt {
    subject: Subject,
    at: MonotonicNs,
}

#[derive(Clone)]
struct Subject {
    observer: Arc<dyn EngineObserver>,
    model: Arc<str>,
    attempt: AttemptId,
}

impl PendingAttempt {
    pub(super) fn new(
        observer: Arc<dyn EngineObserver>,
        model: Arc<str>,
        attempt: AttemptId,
    ) -> Self {
        Self(Some(Subject { observer, model, attempt }))
    }

    /// Reports the attempt as opened. Call before its frames are sent.
    pub(super) fn open(mut self) -> Option<OpenAttempt> {
        let subject = self.0.take()?;
        subject.observer.attempt_opened(&subject.model, subject.attempt);
        Some(OpenAttempt { subject, at: MonotonicNs::now() })
    }
}

impl Drop for PendingAttempt {
    fn drop(&mut self) {
        if let Some(Subject { observer, model, attempt }) = self.0.take() {
            observer.attempt_unserved(&model, attempt);
        }
    }
}

impl OpenAttempt {
    /// Reports that the attempt got a slot at `at`.
    pub(super) fn admitted(&self, at: MonotonicNs) {
        let Subject { observer, model, attempt } = &self.subject;
        observer.attempt_admitted(model, *attempt, Duration::from_nanos(at - self.at));
    }

    pub(super) fn attempt(&self) -> AttemptId {
        self.subject.attempt
    }
}

impl Drop for OpenAttempt {
    fn drop(&mut self) {
        self.subject.observer.attempt_closed(&self.subject.model, self.subject.attempt);
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.attempt).finish_non_exhaustive()
    }
}
