//! Support of an estimate: how much of the log speaks of the evaluated policy. Pure.

use serde::Serialize;

use super::sample::Sample;

/// Sums that describe the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Support {
    pub requests: f64,
    weights: f64,
    squares: f64,
    largest: f64,
    unsupported: f64,
    disagreements: f64,
    /// Σ (w − 1)²: the variance of Σ w, about.
    variance: f64,
}

/// What the weights say, for people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Requests with an outcome.
    pub requests: u64,
    /// (Σw)² / Σw²: as many unweighted requests would be as informative.
    pub effective_sample_size: f64,
    /// Share, 0 to 1, of the weights that one request has.
    pub largest_weight_share: f64,
    /// 1 in expectation; far from it, the logged propensities are wrong or the sample is small.
    pub mean_weight: f64,
    /// Standard errors by which the mean weight differs from 1: beyond 3, the logged propensities
    /// do not describe what the log did.
    pub propensity_error_sigmas: Option<f64>,
    /// Share, 0 to 1, of the policy's choices that the log could not have made.
    pub unsupported_mass: f64,
    /// Share, 0 to 1, of the choices that the policy makes otherwise than the log.
    pub disagreement: f64,
}

impl Support {
    pub fn add(&mut self, sample: &Sample) {
        let weight = sample.weight();
        self.requests += 1.0;
        self.weights += weight;
        self.squares += weight * weight;
        self.largest = self.largest.max(weight);
        self.unsupported += sample.unsupported;
        self.disagreements += sample.disagreement;
        self.variance += (weight - 1.0).powi(2);
    }

    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.weights += other.weights;
        self.squares += other.squares;
        self.largest = self.largest.max(other.largest);
        self.unsupported += other.unsupported;
        self.disagreements += other.disagreements;
        self.variance += other.variance;
    }

    pub fn diagnostics(&self) -> Diagnostics {
        let share = |part: f64| if self.requests > 0.0 { part / self.requests } else { 0.0 };
        let spread = self.variance.sqrt();
        // Weights that differ from 1 by rounding only have no spread to compare with.
        let has_spread = self.variance > 1e-9 * self.requests;
        // Mass that the log cannot choose is missing from the weights by right.
        let missing = self.requests - self.unsupported - self.weights;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of requests"
        )]
        let requests = self.requests as u64;
        Diagnostics {
            requests,
            effective_sample_size: self.effective_sample_size(),
            largest_weight_share: if self.weights > 0.0 {
                self.largest / self.weights
            } else {
                0.0
            },
            mean_weight: share(self.weights),
            propensity_error_sigmas: has_spread.then(|| missing.abs() / spread),
            unsupported_mass: share(self.unsupported),
            disagreement: share(self.disagreements),
        }
    }

    fn effective_sample_size(&self) -> f64 {
        if self.squares > 0.0 { self.weights * self.weights / self.squares } else { 0.0 }
    }
}
