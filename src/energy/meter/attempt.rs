//! Guards of metered attempts. Every attempt, at a local engine or at a remote one, is opened,
//! worked on and closed through them, so that no path on which it ends can skip the report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::energy::work::{WorkRow, WorkSpan};
use crate::units::{AttemptId, MonotonicNs};

/// Receiver of the lifecycle of attempts: the meter, or what forwards to it. Calls must be cheap
/// and must not block.
pub trait AttemptObserver: Send + Sync {
    /// The attempt is about to be sent to an engine of the model.
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt got a slot, `waited` after it was opened. Irrelevant for energy.
    fn attempt_admitted(&self, _model: &Arc<str>, _attempt: AttemptId, _waited: Duration) {}

    /// The model's engine has finished a step. Comes before `attempt_closed` of the attempts that
    /// ended with it.
    fn work(&self, model: &Arc<str>, span: &WorkSpan);

    /// Called exactly once per opened attempt, whatever its outcome.
    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt ended before any engine received it; called instead of the other three.
    fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId);
}

/// An attempt that was not sent to an engine. Reports it as unserved when dropped.
#[derive(Debug)]
pub struct PendingAttempt(Option<Subject>);

/// An attempt that was sent to an engine. Reports it as opened when created and as closed when
/// dropped.
#[derive(Debug)]
pub struct OpenAttempt {
    subject: Subject,
    opened: MonotonicNs,
}

struct Subject {
    observer: Arc<dyn AttemptObserver>,
    model: Arc<str>,
    attempt: AttemptId,
}

impl PendingAttempt {
    pub fn new(observer: Arc<dyn AttemptObserver>, model: Arc<str>, attempt: AttemptId) -> Self {
        Self(Some(Subject { observer, model, attempt }))
    }

    /// Reports the attempt as opened. Must be called before its engine receives it.
    pub fn open(mut self) -> Option<OpenAttempt> {
        let Subject { observer, model, attempt } = self.0.take()?;
        Some(OpenAttempt::new(observer, model, attempt))
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
    /// Reports the attempt as opened. Must be called before its engine receives it.
    pub fn new(observer: Arc<dyn AttemptObserver>, model: Arc<str>, attempt: AttemptId) -> Self {
        observer.attempt_opened(&model, attempt);
        Self { subject: Subject { observer, model, attempt }, opened: MonotonicNs::now() }
    }

    pub fn id(&self) -> AttemptId {
        self.subject.attempt
    }

    pub fn opened(&self) -> MonotonicNs {
        self.opened
    }

    /// Reports that the attempt got a slot at `at`.
    pub fn admitted(&self, at: MonotonicNs) {
        let Subject { observer, model, attempt } = &self.subject;
        observer.attempt_admitted(model, *attempt, Duration::from_nanos(at - self.opened));
    }

    /// Reports work for this attempt alone, by an engine that reports no steps itself.
    pub fn work(
        &self,
        start: MonotonicNs,
        end: MonotonicNs,
        prefill_tokens: u32,
        decode_tokens: u32,
    ) {
        let row = WorkRow { attempt: self.id(), prefill_tokens, decode_tokens };
        let span = WorkSpan { start, end, rows: vec![row] };
        self.subject.observer.work(&self.subject.model, &span);
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<&'static str>>);

    impl AttemptObserver for Log {
        fn attempt_opened(&self, _: &Arc<str>, _: AttemptId) {
            self.0.lock().push("opened");
        }

        fn work(&self, _: &Arc<str>, span: &WorkSpan) {
            assert_eq!(span.rows[0].decode_tokens, 2);
            self.0.lock().push("work");
        }

        fn attempt_closed(&self, _: &Arc<str>, _: AttemptId) {
            self.0.lock().push("closed");
        }

        fn attempt_unserved(&self, _: &Arc<str>, _: AttemptId) {
            self.0.lock().push("unserved");
        }
    }

    #[test]
    fn each_attempt_is_reported_once_as_served_or_as_unserved() {
        let log = Arc::new(Log::default());
        let pending = || PendingAttempt::new(Arc::clone(&log) as _, "m".into(), AttemptId(1));
        drop(pending());
        assert_eq!(std::mem::take(&mut *log.0.lock()), ["unserved"]);
        let open = pending().open().unwrap();
        open.work(open.opened(), MonotonicNs::now(), 0, 2);
        drop(open);
        assert_eq!(*log.0.lock(), ["opened", "work", "closed"]);
    }
}
