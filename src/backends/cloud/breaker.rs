//! Keeps requests away from an upstream that fails again and again, and finds out when it is back.
//!
//! A pure state machine: the time is an argument, and nothing is logged or locked here.

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;

/// The first pause; each failed probe doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether an upstream may be asked.
#[derive(Debug)]
pub(super) struct Breaker(State);

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
    /// The client left before the end, so the outcome is unknown.
    Abandoned,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self(State::Closed { failures: 0 })
    }

    /// Whether `admit` would succeed now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.0 {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            State::Probing { .. } => false,
        }
    }

    pub(super) fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.0 {
            State::Closed { .. } => Some(Admission::Ordinary),
            State::Open { until, pause } if now >= until => {
                self.0 = State::Probing { pause };
                Some(Admission::Probe)
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// Learns how an admitted request went. What ordinary requests report after the breaker opened
    /// is old news: only the probe's word counts then.
    pub(super) fn settle(&mut self, admission: Admission, outcome: Outcome, now: Instant) {
        self.0 = match (self.0, admission, outcome) {
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
            (State::Probing { pause }, Admission::Probe, Outcome::Abandoned) => {
                State::Open { until: now, pause }
            }
            (unchanged, _, _) => unchanged,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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
        assert!(breaker.is_ready(now));
        assert!(!opened(now).is_ready(now));
    }

    #[test]
    fn one_probe_at_a_time_closes_it_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), None);
        assert_eq!(breaker.admit(now + SECOND), Some(Admission::Probe));
        assert_eq!((breaker.is_ready(now + SECOND), breaker.admit(now + SECOND)), (false, None));
        breaker.settle(Admission::Probe, Outcome::Answered, now + SECOND);
        assert_eq!(breaker.admit(now + SECOND), Some(Admission::Ordinary));
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let start = now;
            while breaker.admit(now).is_none() {
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
        assert_eq!(breaker.admit(now), Some(Admission::Probe));
        breaker.settle(Admission::Probe, Outcome::Abandoned, now);
        assert_eq!(breaker.admit(now), Some(Admission::Probe));
    }

    #[test]
    fn late_news_from_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let mut breaker = opened(now);
        for outcome in [Outcome::Answered, Outcome::Failed, Outcome::Abandoned] {
            breaker.settle(Admission::Ordinary, outcome, now + 10 * SECOND);
            assert_eq!((breaker.is_ready(now), breaker.is_ready(now + SECOND)), (false, true));
        }
    }
}
