//! The interrupt of a request in preparation: its client has left, or its deadline has passed.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::backends::llama::wire::outcome::Outcome;
use crate::units::MonotonicNs;

/// Looked at between two pieces of work.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    cancelled: AtomicBool,
    deadline: Option<MonotonicNs>,
}

/// The request needs no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("cancelled")]
    Cancelled,
    #[error("the deadline has passed")]
    Expired,
}

impl From<Stopped> for Outcome {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Cancelled => Self::Cancelled,
            Stopped::Expired => Self::Expired,
        }
    }
}

impl Interrupt {
    pub(crate) fn at(deadline: Option<MonotonicNs>) -> Self {
        Self { cancelled: AtomicBool::new(false), deadline }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Stopped::Cancelled);
        }
        match self.deadline {
            Some(deadline) if deadline <= MonotonicNs::now() => Err(Stopped::Expired),
            _ => Ok(()),
        }
    }
}
