//! Off-policy estimates: what a policy would have given and cost on traffic that another policy
//! served, from logged propensities. Pure.
//!
//! A deterministic log says nothing of the answers it did not ask for. Each estimate therefore
//! comes with its support, and a [`Verdict`] is withheld where support or sample is missing.

pub mod confidence;
pub mod halves;
pub mod sample;
pub mod sums;
pub mod support;
pub mod verdict;

pub use confidence::{Estimate, Interval};
pub use halves::Halves;
pub use sample::Sample;
pub use sums::{Estimator, Sums};
pub use support::Support;
pub use verdict::{Advice, Verdict};

/// Everything known of one quantity (quality, joules, dollars) under one policy; holds sums only.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    pub halves: Halves,
    pub support: Support,
}

impl Evaluation {
    /// `conversation` identifies the cluster that is drawn as a whole.
    pub fn add(&mut self, sample: &Sample, conversation: u64) {
        self.halves.add(&Sums::of(sample), conversation);
        self.support.add(sample);
    }

    pub fn merge(&mut self, other: &Self) {
        self.halves.merge(&other.halves);
        self.support.merge(&other.support);
    }

    /// `None` without samples, or where the estimator does not apply to them.
    pub fn estimate(&self, estimator: Estimator) -> Option<Estimate> {
        self.halves.estimate(estimator)
    }

    pub fn verdict(&self) -> Verdict {
        verdict::verdict(&self.support.diagnostics())
    }
}
