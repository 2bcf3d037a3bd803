//! Failures of a request's candidates, of which the client sees the most hopeful one. Pure.
//!
//! A client that hears of a busy model comes back; one that hears of a prompt that is too long cuts
//! its history. So a model that may answer later hides what another model can never answer.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::error::ServeErrorKind;
use crate::backends::ErrorKind;

/// The most hopeful failure so far.
#[derive(Debug)]
pub struct Failures(ServeErrorKind);

/// What the client may hope for, least first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hope {
    /// No model may be asked.
    Excluded,
    /// Another request could be answered: the one that holds the most tokens, where that is it.
    AnotherRequest { context_tokens: u32 },
    /// The operator can repair it.
    Repair,
    /// The same request may be answered later.
    Later,
    /// As `Later`, and it is known when; the soonest is the most hopeful.
    LaterIn(Reverse<Duration>),
}

impl Failures {
    /// Begins with why candidates were excluded.
    pub fn new(excluded: ServeErrorKind) -> Self {
        Self(excluded)
    }

    /// Keeps the more hopeful one; the earlier of two that are alike.
    pub fn add(&mut self, failure: ServeErrorKind) {
        if hope(&failure).cmp(&hope(&self.0)) == Ordering::Greater {
            self.0 = failure;
        }
    }

    pub fn most_hopeful(self) -> ServeErrorKind {
        self.0
    }
}

fn hope(failure: &ServeErrorKind) -> Hope {
    let later = || match failure.retry_after() {
        Some(wait) => Hope::LaterIn(Reverse(wait)),
        None => Hope::Later,
    };
    match failure {
        _ if failure.is_retryable() => later(),
        ServeErrorKind::Backend(error) | ServeErrorKind::TooLong { error, .. } => {
            match error.kind {
                ErrorKind::ContextExceeded { context_tokens, .. } => {
                    Hope::AnotherRequest { context_tokens }
                }
                ErrorKind::Credentials { .. } => Hope::Repair,
                _ => Hope::AnotherRequest { context_tokens: 0 },
            }
        }
        _ => Hope::Excluded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::{BackendError, RequestFault};
    use crate::routing::Exclusion;

    fn backend(kind: ErrorKind) -> ServeErrorKind {
        ServeErrorKind::Backend(BackendError { model: "m".into(), kind })
    }

    fn excluded(reason: Exclusion, retry_after: Option<Duration>) -> ServeErrorKind {
        ServeErrorKind::NoCandidate { exclusions: [("x".into(), reason)].into(), retry_after }
    }

    #[test]
    fn the_most_hopeful_failure_is_shown_in_whatever_order_they_come() {
        let seconds = Duration::from_secs;
        let limited = |wait| backend(ErrorKind::RateLimited { retry_after: wait, reason: None });
        // Least hopeful first.
        let ranking = [
            excluded(Exclusion::NoTools, None),
            backend(RequestFault::new("n", None, None).of_model()),
            backend(ErrorKind::ContextExceeded { prompt_tokens: 9, context_tokens: 4 }),
            backend(ErrorKind::ContextExceeded { prompt_tokens: 9, context_tokens: 8 }),
            backend(ErrorKind::Credentials { status: 401 }),
            backend(ErrorKind::EngineDied),
            limited(Some(seconds(9))),
            excluded(Exclusion::NotReady, Some(seconds(5))),
            limited(Some(seconds(2))),
        ];
        for (index, better) in ranking.iter().enumerate() {
            for worse in &ranking[..index] {
                for [first, second] in [[better, worse], [worse, better]] {
                    let mut failures = Failures::new(first.clone());
                    failures.add(second.clone());
                    assert_eq!(failures.most_hopeful(), *better, "{better:?} {worse:?}");
                }
            }
        }
    }

    #[test]
    fn of_two_that_are_alike_the_earlier_one_is_shown() {
        let mut failures = Failures::new(backend(ErrorKind::Unavailable("first".into())));
        failures.add(backend(ErrorKind::EngineDied));
        assert_eq!(failures.most_hopeful(), backend(ErrorKind::Unavailable("first".into())));
    }
}
