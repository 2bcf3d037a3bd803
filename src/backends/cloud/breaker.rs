//! Keeps requests away from an upstream that fails again and again, or that asks to be left alone,
//! and finds out when it is back.
//!
//! A pure state machine: the time is an argument, and nothing is logged or locked here.

use std::time::{Duration, Instant};

use crate::backends::backend::ErrorKind;

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;

/// The first pause; each failed probe doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest time for which an upstream's own word keeps requests away: it may be back earlier.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// How long a request may have to wait for the news of the probe: one that answers does so at its
/// first byte.
const PROBE_NEWS: Duration = Duration::from_secs(1);

/// Whether an upstream may be asked.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// What the upstream said when it asked to be left alone, and until when.
    rest: Option<(ErrorKind, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Asked freely.
    Closed { failures: u32 },
    /// Left alone until then; afterwards one request may probe it.
    Open { until: Instant, pause: Duration },
    /// One request is finding out.
    Probing { pause: Duration },
}

/// Permission for one request; handed back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Ordinary,
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Failed,
    /// Says nothing about the upstream's health: the client left before the end, or the account has
    /// reached a limit.
    Neutral,
}

impl Outcome {
    /// What an error says about the upstream's health. What a client sends never counts against it:
    /// a refusal is an answer too.
    pub(super) fn of(error: &ErrorKind) -> Self {
        match error {
            ErrorKind::InvalidRequest(_)
            | ErrorKind::Unsupported(_)
            | ErrorKind::ContextExceeded { .. } => Self::Answered,
            ErrorKind::RateLimited { .. }
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Overloaded { .. }
            | ErrorKind::NotLoaded { .. }
            // The account lacks money, for this request or for all.
            | ErrorKind::UpstreamStatus { status: 402, .. } => Self::Neutral,
            ErrorKind::Unavailable(_)
            | ErrorKind::Credentials { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::UpstreamStatus { .. }
            | ErrorKind::Protocol(_)
            | ErrorKind::EngineDied => Self::Failed,
        }
    }
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, rest: None }
    }

    /// When `admit` may succeed again; `None` while it does.
    pub(super) fn ready_in(&self, now: Instant) -> Option<Duration> {
        let shut = match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => left(until, now),
            State::Probing { .. } => Some(PROBE_NEWS),
        };
        let rest = self.rest.as_ref().and_then(|(_, until)| left(*until, now));
        shut.max(rest)
    }

    /// The error says why not, and how long to wait where that is known.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, ErrorKind> {
        if let Some((reason, until)) = &self.rest {
            match left(*until, now) {
                Some(wait) => return Err(with_wait(reason, wait)),
                None => self.rest = None,
            }
        }
        match self.state {
            State::Closed { .. } => Ok(Admission::Ordinary),
            State::Open { until, pause } if now >= until => {
                self.state = State::Probing { pause };
                Ok(Admission::Probe)
            }
            State::Open { .. } | State::Probing { .. } => Err(ErrorKind::Unavailable(
                "the circuit breaker is open after repeated failures of the upstream".to_owned(),
            )),
        }
    }

    /// Learns how an admitted request went. What ordinary requests report after the breaker opened
    /// is old news: only the probe's word counts then.
    pub(super) fn settle(&mut self, admission: Admission, outcome: Outcome, now: Instant) {
        self.state = match (self.state, admission, outcome) {
            (State::Closed { .. }, Admission::Ordinary, Outcome::Answered)
            | (State::Probing { .. }, Admission::Probe, Outcome::Answered) => {
                State::Closed { failures: 0 }
            }
            (State::Closed { failures }, Admission::Ordinary, Outcome::Failed) => {
                let failures = failures + 1;
                if failures < FAILURES_TO_OPEN {
                    State::Closed { failures }
                } else {
                    State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE }
                }
            }
            (State::Probing { pause }, Admission::Probe, Outcome::Failed) => {
                let pause = (2 * pause).min(LONGEST_PAUSE);
                State::Open { until: now + pause, pause }
            }
            (State::Probing { pause }, Admission::Probe, Outcome::Neutral) => {
                State::Open { until: now, pause }
            }
            (unchanged, _, _) => unchanged,
        };
    }

    /// Leaves the upstream alone for as long as it asked for.
    pub(super) fn heed(&mut self, error: &ErrorKind, now: Instant) {
        let wait = match error {
            ErrorKind::RateLimited { retry_after, .. }
            | ErrorKind::UpstreamStatus { status: 503 | 529, retry_after, .. } => *retry_after,
            _ => None,
        };
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else { return };
        let until = now + wait.min(LONGEST_REST);
        if self.rest.as_ref().is_none_or(|(_, earlier)| *earlier < until) {
            self.rest = Some((error.clone(), until));
        }
    }
}

fn left(until: Instant, now: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|left| !left.is_zero())
}

/// The error again, with what is left of the wait, and without words that were meant for another
/// request.
fn with_wait(error: &ErrorKind, wait: Duration) -> ErrorKind {
    let (retry_after, reason) = (Some(wait), None);
    match error {
        ErrorKind::UpstreamStatus { status, .. } => {
            ErrorKind::UpstreamStatus { status: *status, retry_after, reason }
        }
        _ => ErrorKind::RateLimited { retry_after, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::RequestFault;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_ready(breaker: &Breaker, now: Instant) -> bool {
        breaker.ready_in(now).is_none()
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES_TO_OPEN {
            let admission = breaker.admit(now).unwrap();
            breaker.settle(admission, Outcome::Failed, now);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Answered, Outcome::Failed] {
            breaker.settle(Admission::Ordinary, outcome, now);
            breaker.settle(Admission::Ordinary, Outcome::Failed, now);
        }
        assert!(is_ready(&breaker, now));
        assert!(!is_ready(&opened(now), now));
    }

    #[test]
    fn one_probe_at_a_time_closes_it_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now).unwrap_err().label(), "unavailable");
        assert_eq!(breaker.admit(now + SECOND), Ok(Admission::Probe));
        assert!(!is_ready(&breaker, now + SECOND) && breaker.admit(now + SECOND).is_err());
        breaker.settle(Admission::Probe, Outcome::Answered, now + SECOND);
        assert_eq!(breaker.admit(now + SECOND), Ok(Admission::Ordinary));
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let start = now;
            while breaker.admit(now).is_err() {
                now += SECOND;
            }
            pauses.push((now - start).as_secs());
            breaker.settle(Admission::Probe, Outcome::Failed, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_request_probe() {
        let now = Instant::now() + SECOND;
        let mut breaker = opened(now.checked_sub(SECOND).unwrap());
        assert_eq!(breaker.admit(now), Ok(Admission::Probe));
        breaker.settle(Admission::Probe, Outcome::Neutral, now);
        assert_eq!(breaker.admit(now), Ok(Admission::Probe));
    }

    #[test]
    fn late_news_from_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let mut breaker = opened(now);
        for outcome in [Outcome::Answered, Outcome::Failed, Outcome::Neutral] {
            breaker.settle(Admission::Ordinary, outcome, now + 10 * SECOND);
            assert_eq!((is_ready(&breaker, now), is_ready(&breaker, now + SECOND)), (false, true));
        }
    }

    #[test]
    fn an_upstream_that_asks_for_rest_is_left_alone_and_is_not_ill() {
        let now = Instant::now();
        let limited = |seconds| ErrorKind::RateLimited {
            retry_after: Some(seconds * SECOND),
            reason: Some("no".into()),
        };
        let mut breaker = Breaker::new();
        breaker.heed(&limited(30), now);
        // A shorter rest that is asked for later does not end a longer one.
        breaker.heed(&limited(2), now);
        assert_eq!(breaker.ready_in(now + 10 * SECOND), Some(20 * SECOND));
        let refused = breaker.admit(now + 10 * SECOND).unwrap_err();
        let expected = ErrorKind::RateLimited { retry_after: Some(20 * SECOND), reason: None };
        assert_eq!(refused, expected);
        assert_eq!(
            (breaker.ready_in(now + 30 * SECOND), is_ready(&breaker, now + 30 * SECOND)),
            (None, true)
        );
        assert_eq!(breaker.admit(now + 30 * SECOND), Ok(Admission::Ordinary));

        breaker.heed(&limited(86_400), now);
        assert_eq!(breaker.ready_in(now), Some(LONGEST_REST));
        let busy =
            |status| ErrorKind::UpstreamStatus { status, retry_after: Some(SECOND), reason: None };
        for (error, rests) in [
            (busy(503), true),
            (busy(529), true),
            (busy(500), false),
            (limited(0), false),
            (ErrorKind::RateLimited { retry_after: None, reason: None }, false),
        ] {
            let mut breaker = Breaker::new();
            breaker.heed(&error, now);
            assert_eq!(breaker.admit(now).is_err(), rests, "{error:?}");
        }
    }

    #[test]
    fn what_a_client_sends_says_nothing_of_the_upstreams_health() {
        let fault = || RequestFault::new("no", None, None);
        let status = |status| ErrorKind::UpstreamStatus { status, retry_after: None, reason: None };
        for (error, outcome) in [
            (fault().of_request(), Outcome::Answered),
            (fault().of_model(), Outcome::Answered),
            (ErrorKind::ContextExceeded { prompt_tokens: 2, context_tokens: 1 }, Outcome::Answered),
            (ErrorKind::RateLimited { retry_after: None, reason: None }, Outcome::Neutral),
            (status(402), Outcome::Neutral),
            (status(500), Outcome::Failed),
            (status(503), Outcome::Failed),
            (ErrorKind::Credentials { status: 401 }, Outcome::Failed),
            (ErrorKind::Timeout { after: SECOND }, Outcome::Failed),
            (ErrorKind::Protocol("x".into()), Outcome::Failed),
        ] {
            assert_eq!(Outcome::of(&error), outcome, "{error:?}");
        }
    }
}
