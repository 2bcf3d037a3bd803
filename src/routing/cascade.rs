//! Cascade: a local model answers first, and another one takes over if the first tokens are not
//! confident.
//!
//! Pure. `signals` summarises the tokens, `confidence` scores them; withholding tokens and asking
//! the second model are left to the caller.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, Route};
use crate::validate::{Diagnostics, Validate};

/// Tokens that the signals of a local answer are computed from, unless a policy sets another
/// number.
pub const WINDOW_TOKENS: u32 = 8;

/// `[policies.NAME.cascade]`: how a local answer is checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cascade {
    /// Least confidence, 0 to 1, in the first tokens; below it another model answers. Default: the
    /// floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Most tokens to withhold, 1 to 256. A shorter answer is scored whole. Default 8.
    pub withhold_tokens: u32,
    /// Longest time to withhold tokens, milliseconds from the first one. Default 3000.
    pub withhold_ms: u64,
    /// Least predicted adequacy, 0 to 1, for a local model to be tried first. Default 0.05.
    pub min_p: f64,
}

impl Default for Cascade {
    fn default() -> Self {
        Self { threshold: None, withhold_tokens: WINDOW_TOKENS, withhold_ms: 3000, min_p: 0.05 }
    }
}

/// Upper limit of `withhold_tokens`: engines report the probabilities of at most so many.
pub const WITHHOLD_TOKENS_MAX: u32 = 256;

impl Validate for Cascade {
    fn validate(&self, out: &mut Diagnostics) {
        out.range_if_set("threshold", self.threshold, 0.0..=1.0, "");
        out.range("min_p", self.min_p, 0.0..=1.0, "");
        out.range("withhold_tokens", self.withhold_tokens, 1..=WITHHOLD_TOKENS_MAX, "");
        out.positive([("withhold_ms", self.withhold_ms)]);
    }
}

/// The model that starts and the one that takes over.
#[derive(Clone, Debug, PartialEq)]
pub struct CascadePlan {
    pub first: Arc<str>,
    pub next: Arc<str>,
    /// Confidence below which `next` takes over.
    pub threshold: f64,
}

impl Cascade {
    /// Least confidence for which an answer is shown. Confidence and adequacy are both
    /// probabilities of a good enough answer, so the floor applies to both.
    pub fn threshold_or(&self, floor: f64) -> f64 {
        self.threshold.unwrap_or(floor)
    }

    /// Moves the cheapest local model of `ranked` (indices into `candidates`) to the front,
    /// followed by the best-ranked model of higher adequacy. `None`, with `ranked` unchanged, if
    /// there is no such pair.
    pub fn plan(
        &self,
        ranked: &mut Vec<usize>,
        candidates: &[Candidate],
        floor: f64,
    ) -> Option<CascadePlan> {
        let worth_trying = |index: &&usize| {
            let one = &candidates[**index];
            one.route == Route::Local && one.p >= self.min_p
        };
        let joules = |index: usize| candidates[index].joules.map_or(f64::INFINITY, |j| j.0);
        let local = ranked.iter().filter(worth_trying).copied();
        let first = local.min_by(|&a, &b| joules(a).total_cmp(&joules(b)))?;
        let next = ranked.iter().copied().find(|&one| candidates[one].p > candidates[first].p)?;
        ranked.retain(|&one| one != first && one != next);
        ranked.splice(0..0, [first, next]);
        let name = |index: usize| Arc::clone(&candidates[index].model);
        let threshold = self.threshold_or(floor);
        Some(CascadePlan { first: name(first), next: name(next), threshold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Joules;

    fn candidate(model: &str, route: Route, p: f64, joules: Option<f64>) -> Candidate {
        Candidate { joules: joules.map(Joules), ..Candidate::of_unknown_cost(model, route, p) }
    }

    fn plan(candidates: &[Candidate]) -> (Vec<usize>, Option<CascadePlan>) {
        let mut ranked: Vec<usize> = (0..candidates.len()).rev().collect();
        let plan = Cascade::default().plan(&mut ranked, candidates, 0.7);
        (ranked, plan)
    }

    #[test]
    fn the_cheapest_local_model_worth_trying_starts_and_a_better_one_takes_over() {
        let candidates = [
            candidate("hopeless", Route::Local, 0.01, Some(0.1)),
            candidate("small", Route::Local, 0.3, Some(1.0)),
            candidate("middle", Route::Local, 0.5, Some(5.0)),
            candidate("weak-cloud", Route::Cloud, 0.2, Some(2.0)),
            candidate("cloud", Route::Cloud, 0.9, Some(9.0)),
        ];
        let (ranked, found) = plan(&candidates);
        // The floor also applies to what is shown.
        let expected = CascadePlan { first: "small".into(), next: "cloud".into(), threshold: 0.7 };
        assert_eq!(found, Some(expected));
        assert_eq!(ranked, [1, 4, 3, 2, 0]);
    }

    #[test]
    fn without_a_better_model_or_a_local_one_the_ranking_is_unchanged() {
        let weak = candidate("cloud", Route::Cloud, 0.2, Some(2.0));
        let local = candidate("local", Route::Local, 0.3, None);
        let strong = candidate("other", Route::Cloud, 0.4, None);
        assert_eq!(plan(&[local.clone(), weak.clone()]), (vec![1, 0], None));
        assert_eq!(plan(&[weak, strong]), (vec![1, 0], None));
        assert_eq!(plan(&[local]), (vec![0], None));
    }
}
