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

/// Most probes at once. The first one may be a whole answer, without a byte before its end: others
/// are not shut out meanwhile, and few enough wait in vain if the upstream is still ill.
const PROBES_MAX: u32 = 8;

/// How long a request beyond these may have to wait for their news.
const PROBE_NEWS: Duration = Duration::from_secs(1);

/// Whether an upstream may be asked.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Rounds of probes so far: what a probe of an earlier one reports is old news.
    round: u32,
    /// What the upstream said when it asked to be left alone, and until when.
    rest: Option<(ErrorKind, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Asked freely.
    Closed { failures: u32 },
    /// Left alone until then; afterwards requests may probe it.
    Open { until: Instant, pause: Duration },
    /// So many requests are finding out.
    Probing { pause: Duration, out: u32 },
}

/// Permission for one request; handed back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Ordinary,
    Probe { round: u32 },
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
            | ErrorKind::ClientShare { .. }
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
        Self { state: State::Closed { failures: 0 }, round: 0, rest: None }
    }

    /// When `admit` may succeed again; `None` while it does.
    pub(super) fn ready_in(&self, now: Instant) -> Option<Duration> {
        let shut = match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => left(until, now),
            State::Probing { out, .. } => (out >= PROBES_MAX).then_some(PROBE_NEWS),
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
                self.round = self.round.wrapping_add(1);
                self.state = State::Probing { pause, out: 1 };
                Ok(Admission::Probe { round: self.round })
            }
            State::Probing { pause, out } if out < PROBES_MAX => {
                self.state = State::Probing { pause, out: out + 1 };
                Ok(Admission::Probe { round: self.round })
            }
            State::Open { .. } | State::Probing { .. } => Err(ErrorKind::Unavailable(
                "the circuit breaker is open after repeated failures of the upstream".to_owned(),
            )),
        }
    }

    /// Learns how an admitted request went. What ordinary requests report after the breaker opened
    /// is old news: only the probes' word counts then, and the first one decides.
    pub(super) fn settle(&mut self, admission: Admission, outcome: Outcome, now: Instant) {
        let probes = admission == Admission::Probe { round: self.round };
        self.state = match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Answered) => State::Closed { failures: 0 },
            (State::Probing { .. }, Outcome::Answered) if probes => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failed) if admission == Admission::Ordinary => {
                let failures = failures + 1;
                if failures < FAILURES_TO_OPEN {
                    State::Closed { failures }
                } else {
                    State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE }
                }
            }
            (State::Probing { pause, .. }, Outcome::Failed) if probes => {
                let pause = (2 * pause).min(LONGEST_PAUSE);
                State::Open { until: now + pause, pause }
            }
            (State::Probing { pause, out }, Outcome::Neutral) if probes => match out {
                0 | 1 => State::Open { until: now, pause },
                _ => State::Probing { pause, out: out - 1 },
            },
            (unchanged, _) => unchanged,
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
    fn the_first_probe_that_is_answered_closes_it_and_few_others_wait_with_it() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now).unwrap_err().label(), "unavailable");
        let later = now + SECOND;
        for _ in 0..PROBES_MAX {
            assert!(is_ready(&breaker, later));
            assert_eq!(breaker.admit(later), Ok(Admission::Probe { round: 1 }));
        }
        assert_eq!(breaker.ready_in(later), Some(PROBE_NEWS));
        assert!(breaker.admit(later).is_err());
        breaker.settle(Admission::Probe { round: 1 }, Outcome::Answered, later);
        assert_eq!(breaker.admit(later), Ok(Admission::Ordinary));
    }

    #[test]
    fn the_first_probe_that_fails_opens_it_and_the_others_are_old_news() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probes = [(); 3].map(|()| breaker.admit(now + SECOND).unwrap());
        breaker.settle(probes[0], Outcome::Failed, now + SECOND);
        breaker.settle(probes[1], Outcome::Failed, now + SECOND);
        assert_eq!(breaker.ready_in(now + SECOND), Some(2 * SECOND), "doubled once");
        assert_eq!(breaker.admit(now + 3 * SECOND), Ok(Admission::Probe { round: 2 }));
        for outcome in [Outcome::Answered, Outcome::Failed, Outcome::Neutral] {
            breaker.settle(probes[2], outcome, now + 3 * SECOND);
            assert_eq!(breaker.admit(now + 3 * SECOND), Ok(Admission::Probe { round: 2 }));
        }
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let start = now;
            let probe = loop {
                match breaker.admit(now) {
                    Ok(probe) => break probe,
                    Err(_) => now += SECOND,
                }
            };
            pauses.push((now - start).as_secs());
            breaker.settle(probe, Outcome::Failed, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_request_probe() {
        let now = Instant::now() + SECOND;
        let mut breaker = opened(now.checked_sub(SECOND).unwrap());
        let (first, second) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        breaker.settle(first, Outcome::Neutral, now);
        breaker.settle(second, Outcome::Neutral, now);
        assert_eq!(breaker.admit(now), Ok(Admission::Probe { round: 2 }));
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
