//! Local first, and elsewhere if the first tokens do not look sure: which model begins, and who takes over.
//!
//! Pure. What the tokens tell is `signals`, what that is worth `confidence`; who withholds and asks again is the gateway.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Candidate, Route, Rule};
use crate::validate::{Diagnostics, Validate};

/// Tokens that every local answer's signals are computed from where no policy says otherwise.
pub const WINDOW_TOKENS: u32 = 8;

/// `[policies.NAME.cascade]`: how far a local answer is watched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cascade {
    /// Least probability, 0 to 1, that the answer is good enough by its first tokens; below it another model answers.
    /// Default: the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Tokens to withhold at most, 1 to 256. A shorter answer is judged whole. Default 8.
    pub withhold_tokens: u32,
    /// How long to withhold at most, milliseconds from the first token. Default 3000.
    pub withhold_ms: u64,
    /// A local model whose predicted adequacy is less is not tried first: it would be wasted. Default 0.05.
    pub min_p: f64,
}

impl Default for Cascade {
    fn default() -> Self {
        Self { threshold: None, withhold_tokens: WINDOW_TOKENS, withhold_ms: 3000, min_p: 0.05 }
    }
}

/// Most tokens that can be withheld: engines tell the probabilities of no more.
pub const WITHHOLD_TOKENS_MAX: u32 = 256;

impl Validate for Cascade {
    fn validate(&self, out: &mut Diagnostics) {
        out.range_if_set("threshold", self.threshold, 0.0..=1.0, "");
        out.range("min_p", self.min_p, 0.0..=1.0, "");
        out.range("withhold_tokens", self.withhold_tokens, 1..=WITHHOLD_TOKENS_MAX, "");
        out.positive([("withhold_ms", self.withhold_ms)]);
    }
}

/// Who goes first and who takes over.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    pub first: Arc<str>,
    pub next: Arc<str>,
    /// Confidence below which it does.
    pub threshold: f64,
}

impl Cascade {
    /// Least confidence for which an answer is shown. Confidence is a probability as adequacy is, so the floor holds for
    /// both.
    pub fn threshold_under(&self, rule: &Rule) -> f64 {
        self.threshold.unwrap_or(rule.floor)
    }

    /// Puts the cheapest local model of `ranked` (indices into `candidates`) first and the best-ranked more able one
    /// second. Nothing changes where there is no such pair, or where the client named its model.
    pub fn lead(
        &self,
        ranked: &mut Vec<usize>,
        candidates: &[Candidate],
        rule: &Rule,
    ) -> Option<Lead> {
        if rule.pinned.is_some() {
            return None;
        }
        let worth_trying = |place: &&usize| {
            let one = &candidates[**place];
            one.route == Route::Local && one.p >= self.min_p
        };
        let joules = |place: usize| candidates[place].joules.map_or(f64::INFINITY, |j| j.0);
        let local = ranked.iter().filter(worth_trying).copied();
        let first = local.min_by(|&a, &b| joules(a).total_cmp(&joules(b)))?;
        let next = ranked.iter().copied().find(|&one| candidates[one].p > candidates[first].p)?;
        ranked.retain(|&one| one != first && one != next);
        ranked.splice(0..0, [first, next]);
        let name = |place: usize| Arc::clone(&candidates[place].model);
        let threshold = self.threshold_under(rule);
        Some(Lead { first: name(first), next: name(next), threshold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Capabilities;
    use crate::units::Joules;

    fn candidate(model: &str, route: Route, p: f64, joules: Option<f64>) -> Candidate {
        Candidate {
            model: model.into(),
            route,
            locality: None,
            p,
            joules: joules.map(Joules),
            grams: None,
            dollars: None,
            ttft_ms: None,
            output_tokens: None,
            context_tokens: None,
            capabilities: Capabilities::ALL,
            unavailable: None,
            state: None,
            cache: None,
        }
    }

    fn lead(candidates: &[Candidate], pinned: bool) -> (Vec<usize>, Option<Lead>) {
        let mut ranked: Vec<usize> = (0..candidates.len()).rev().collect();
        let cascade = Cascade::default();
        let rule = Rule { floor: 0.7, pinned: pinned.then(|| "a".into()), ..Rule::default() };
        let lead = cascade.lead(&mut ranked, candidates, &rule);
        (ranked, lead)
    }

    #[test]
    fn the_cheapest_local_model_worth_trying_goes_first_and_a_better_one_takes_over() {
        let candidates = [
            candidate("hopeless", Route::Local, 0.01, Some(0.1)),
            candidate("small", Route::Local, 0.3, Some(1.0)),
            candidate("middle", Route::Local, 0.5, Some(5.0)),
            candidate("weak-cloud", Route::Cloud, 0.2, Some(2.0)),
            candidate("cloud", Route::Cloud, 0.9, Some(9.0)),
        ];
        let (ranked, found) = lead(&candidates, false);
        // What is shown must reach the floor, too.
        let expected = Lead { first: "small".into(), next: "cloud".into(), threshold: 0.7 };
        assert_eq!(found, Some(expected));
        assert_eq!(ranked, [1, 4, 3, 2, 0]);
        assert_eq!(lead(&candidates, true).1, None);
    }

    #[test]
    fn without_somebody_better_or_somebody_local_nothing_changes() {
        let weak = candidate("cloud", Route::Cloud, 0.2, Some(2.0));
        let local = candidate("local", Route::Local, 0.3, None);
        let strong = candidate("other", Route::Cloud, 0.4, None);
        assert_eq!(lead(&[local.clone(), weak.clone()], false), (vec![1, 0], None));
        assert_eq!(lead(&[weak, strong], false), (vec![1, 0], None));
        assert_eq!(lead(&[local], false), (vec![0], None));
    }
}
