//! Estimators as ratios of sums over requests. Pure.
//!
//! Every estimator is `numerator / denominator` with both linear in the requests, so one pass over
//! the log, sums of parts of it and sums of halves of it are enough for all of them.

use std::ops::AddAssign;

use serde::Serialize;

use super::sample::Sample;

/// Largest weight that counts in full in the clipped estimators: one request stands for at most
/// this many. Clipping bounds the variance at the price of a bias towards the prediction (doubly
/// robust) or towards 0 (inverse propensity).
pub const CLIP: f64 = 100.0;
/// Weight above which [`Estimator::SwitchDr`] takes the prediction in place of the outcome
/// (Wang, Agarwal and Dudík 2017).
pub const SWITCH: f64 = 20.0;

/// Ways to estimate a mean under a policy that did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Mean outcome of the requests for which the policy makes the logged choice. Biased unless the
    /// logged choice was random.
    Replay,
    /// Mean prediction (direct method). As good as the predictions, whatever the log says.
    Dm,
    /// Mean of the outcomes weighted by inverse propensity, weights clipped at [`CLIP`].
    Ips,
    /// The same over the sum of the weights (self-normalised).
    Snips,
    /// Prediction, corrected by the weighted errors of the prediction (doubly robust: right if the
    /// propensities or the predictions are; Dudík, Langford and Li 2011), clipped at [`CLIP`].
    Dr,
    /// The same without the corrections whose weights exceed [`SWITCH`].
    SwitchDr,
}

impl Estimator {
    pub const ALL: [Self; 6] =
        [Self::Replay, Self::Dm, Self::Ips, Self::Snips, Self::Dr, Self::SwitchDr];

    pub fn label(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Dm => "DM",
            Self::Ips => "IPS",
            Self::Snips => "SNIPS",
            Self::Dr => "DR",
            Self::SwitchDr => "Switch-DR",
        }
    }
}

/// Sums over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    pub requests: f64,
    /// Requests without a prediction.
    pub unpredicted: f64,
    matches: f64,
    match_outcomes: f64,
    weights: f64,
    weighted_outcomes: f64,
    clipped_outcomes: f64,
    predictions: f64,
    clipped_errors: f64,
    switched_errors: f64,
}

impl Sums {
    pub fn of(sample: &Sample) -> Self {
        let weight = sample.weight();
        let clipped = weight.min(CLIP);
        let switched = if weight <= SWITCH { weight } else { 0.0 };
        // A policy that explores makes no choice for certain; its likeliest is the one to replay.
        let matches = if sample.target_propensity > 0.5 { 1.0 } else { 0.0 };
        let error = sample.predicted.map_or(0.0, |predicted| sample.outcome - predicted.logged);
        Self {
            requests: 1.0,
            unpredicted: if sample.predicted.is_none() { 1.0 } else { 0.0 },
            matches,
            match_outcomes: matches * sample.outcome,
            weights: weight,
            weighted_outcomes: weight * sample.outcome,
            clipped_outcomes: clipped * sample.outcome,
            predictions: sample.predicted.map_or(0.0, |predicted| predicted.target),
            clipped_errors: clipped * error,
            switched_errors: switched * error,
        }
    }

    /// `None` where the estimator has nothing to stand on.
    pub fn value(&self, estimator: Estimator) -> Option<f64> {
        let (above, below) = match estimator {
            Estimator::Replay => (self.match_outcomes, self.matches),
            Estimator::Dm => (self.predictions, self.predicted()?),
            Estimator::Ips => (self.clipped_outcomes, self.requests),
            Estimator::Snips => (self.weighted_outcomes, self.weights),
            Estimator::Dr => (self.predictions + self.clipped_errors, self.predicted()?),
            Estimator::SwitchDr => (self.predictions + self.switched_errors, self.predicted()?),
        };
        (below > 0.0).then(|| above / below)
    }

    /// The requests, if each of them has a prediction: an unknown one is not 0.
    fn predicted(&self) -> Option<f64> {
        (self.unpredicted == 0.0).then_some(self.requests)
    }
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.unpredicted += other.unpredicted;
        self.matches += other.matches;
        self.match_outcomes += other.match_outcomes;
        self.weights += other.weights;
        self.weighted_outcomes += other.weighted_outcomes;
        self.clipped_outcomes += other.clipped_outcomes;
        self.predictions += other.predictions;
        self.clipped_errors += other.clipped_errors;
        self.switched_errors += other.switched_errors;
    }
}

#[cfg(test)]
mod tests;
