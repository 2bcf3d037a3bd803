//! Verdict on an estimate: usable, or what is missing and how to get it. Pure.

use std::fmt;

use serde::Serialize;

use super::support::Diagnostics;

/// Fewest unweighted requests that an estimate must be worth.
pub const LEAST_EFFECTIVE_SAMPLE: f64 = 100.0;
/// Largest share of the policy's choices that the log may be silent on.
const MOST_UNSUPPORTED: f64 = 0.02;
/// Largest share of all weights that one request may have.
const MOST_FOR_ONE: f64 = 0.1;
/// Largest distance of the mean weight from 1, in standard errors.
const MOST_SIGMAS: f64 = 4.0;
/// The `explore` share that is recommended: one request in twenty goes to a random model.
const ADVISED_EXPLORE: f64 = 0.05;
/// Models that may answer, for the advice: with more, more requests are needed.
const ADVISED_MODELS: f64 = 3.0;

/// Whether an estimate may be believed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Supported,
    /// Why not, and what would help.
    NotSupported {
        why: Vec<Lack>,
        advice: Advice,
    },
}

/// What an estimate lacks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// No request has an outcome.
    NoOutcome,
    /// The log could not have made this share, 0 to 1, of the policy's choices.
    Unsupported(f64),
    /// Worth only this many unweighted requests.
    SmallSample(f64),
    /// One request has this share, 0 to 1, of all weights.
    OneHeavyRequest(f64),
    /// The mean weight is this many standard errors from 1: the logged propensities are wrong.
    WrongPropensities(f64),
}

/// A log that would give a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// `explore` of the serving policy.
    pub explore: f64,
    /// Requests with an outcome, about.
    pub requests: u64,
}

pub fn verdict(diagnostics: &Diagnostics) -> Verdict {
    let lacks = [
        (diagnostics.requests == 0).then_some(Lack::NoOutcome),
        Some(diagnostics.unsupported_mass)
            .filter(|share| *share > MOST_UNSUPPORTED)
            .map(Lack::Unsupported),
        Some(diagnostics.effective_sample_size)
            .filter(|size| diagnostics.requests > 0 && *size < LEAST_EFFECTIVE_SAMPLE)
            .map(Lack::SmallSample),
        Some(diagnostics.largest_weight_share)
            .filter(|share| *share > MOST_FOR_ONE)
            .map(Lack::OneHeavyRequest),
        diagnostics
            .propensity_error_sigmas
            .filter(|sigmas| *sigmas > MOST_SIGMAS)
            .map(Lack::WrongPropensities),
    ];
    let why: Vec<Lack> = lacks.into_iter().flatten().collect();
    if why.is_empty() {
        Verdict::Supported
    } else {
        Verdict::NotSupported { why, advice: Advice::of(diagnostics.disagreement) }
    }
}

impl Advice {
    /// `disagreement` is the share of requests for which the policy chooses another model.
    ///
    /// Under exploration ε among k models the weight of a request on which the policies agree is
    /// about 1, and k / ε where they disagree and the draw was right, so the effective sample is
    /// n / (1 − d + d k / ε).
    fn of(disagreement: f64) -> Self {
        let per_request = 1.0 - disagreement + disagreement * ADVISED_MODELS / ADVISED_EXPLORE;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 100 × 60"
        )]
        let requests = (LEAST_EFFECTIVE_SAMPLE * per_request).ceil() as u64;
        Self { explore: ADVISED_EXPLORE, requests }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOutcome => f.write_str("no request has an outcome"),
            Self::Unsupported(share) => {
                write!(f, "the log could not have made {:.0} % of its choices", 100.0 * share)
            }
            Self::SmallSample(size) => write!(
                f,
                "the log is worth {size:.0} requests of this policy, fewer than {LEAST_EFFECTIVE_SAMPLE:.0}"
            ),
            Self::OneHeavyRequest(share) => {
                write!(f, "one request has {:.0} % of the weight", 100.0 * share)
            }
            Self::WrongPropensities(sigmas) => write!(
                f,
                "the logged propensities are wrong: the mean weight is {sigmas:.1} standard errors from 1"
            ),
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a log of about {} judged requests served with `explore = {}` would give a verdict",
            self.requests, self.explore
        )
    }
}
