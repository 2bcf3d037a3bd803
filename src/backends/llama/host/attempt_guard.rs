//! What an observer is owed for each attempt: told once that it was opened and once that it closed, or, if no engine ever
//! heard of it, once that it was not served.
//!
//! A submission carries this with it, so that it cannot be lost on any of the ways on which a submission ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::observer::EngineObserver;
use crate::units::{AttemptId, MonotonicNs};

/// An attempt that no engine has heard of yet. Told as not served when dropped.
#[derive(Debug)]
pub(super) struct Unserved(Option<Account>);

/// An attempt that an engine works on. Told as opened when made and as closed when dropped.
#[derive(Debug)]
pub(super) struct Opened {
    account: Account,
    at: MonotonicNs,
}

#[derive(Clone)]
struct Account {
    observer: Arc<dyn EngineObserver>,
    model: Arc<str>,
    attempt: AttemptId,
}

impl Unserved {
    pub(super) fn new(
        observer: Arc<dyn EngineObserver>,
        model: Arc<str>,
        attempt: AttemptId,
    ) -> Self {
        Self(Some(Account { observer, model, attempt }))
    }

    /// The engine is about to hear of it.
    pub(super) fn open(mut self) -> Option<Opened> {
        let account = self.0.take()?;
        account.observer.attempt_opened(&account.model, account.attempt);
        Some(Opened { account, at: MonotonicNs::now() })
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        if let Some(Account { observer, model, attempt }) = self.0.take() {
            observer.attempt_unserved(&model, attempt);
        }
    }
}

impl Opened {
    /// It got a slot at `at`.
    pub(super) fn admitted(&self, at: MonotonicNs) {
        let Account { observer, model, attempt } = &self.account;
        observer.attempt_admitted(model, *attempt, Duration::from_nanos(at - self.at));
    }

    pub(super) fn attempt(&self) -> AttemptId {
        self.account.attempt
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.account.observer.attempt_closed(&self.account.model, self.account.attempt);
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Account").field(&self.attempt).finish_non_exhaustive()
    }
}
