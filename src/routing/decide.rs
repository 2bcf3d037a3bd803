//! The one place where a model is chosen: a pure rule from candidates to a ranked decision.
//!
//! No clock, no I/O, no logging; called by the gateway and by replay, so a replay exercises the code that serves.
//! Constraints come first (what cannot or must not answer is excluded, with the reason), preferences second.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::cascade::Lead;
use super::exclusion::exclusion;
use super::{Candidate, Exclusion, Features, Policy, Reason};

/// A candidate as the decision saw it; part of the receipt and the log, so that replay can decide again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    #[serde(flatten)]
    pub candidate: Candidate,
    pub excluded: Option<Exclusion>,
}

/// What was chosen and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Indices into `judged` of the models that may answer, best first; the rest are fallbacks.
    pub ranked: Vec<usize>,
    /// Every candidate in the order given, with its exclusion if it has one.
    pub judged: Vec<Judged>,
    pub reason: Reason,
}

impl Decision {
    pub fn chosen(&self) -> Option<&Candidate> {
        self.ranked.first().map(|&index| &self.judged[index].candidate)
    }
}

/// Ranks `candidates` for a request with `features` under `policy`.
///
/// First those at or above the floor, cheapest first; then those below it, most adequate first. Ties go to the order
/// given, so the result is deterministic. A cascade then lets a local model begin.
pub fn decide(features: &Features, candidates: &[Candidate], policy: &Policy) -> Decision {
    let judge = |candidate: &Candidate| Judged {
        candidate: candidate.clone(),
        excluded: exclusion(features, candidate, policy),
    };
    let judged: Vec<Judged> = candidates.iter().map(judge).collect();
    let mut ranked: Vec<usize> =
        (0..judged.len()).filter(|&index| judged[index].excluded.is_none()).collect();
    ranked.sort_by(|&a, &b| prefer(&candidates[a], &candidates[b], policy));
    let lead = policy.cascade.and_then(|cascade| cascade.lead(&mut ranked, candidates, policy));
    let reason = if let Some(Lead { first, next }) = lead {
        Reason::Watched { model: first, next }
    } else {
        ranked.first().map_or(Reason::NoCandidate, |&first| explain(&candidates[first], policy))
    };
    Decision { ranked, judged, reason }
}

fn prefer(a: &Candidate, b: &Candidate, policy: &Policy) -> Ordering {
    let adequate = |candidate: &Candidate| candidate.p >= policy.floor;
    match (adequate(a), adequate(b)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (true, true) => policy.objective.cost(a).total_cmp(&policy.objective.cost(b)),
        (false, false) => b.p.total_cmp(&a.p),
    }
}

fn explain(first: &Candidate, policy: &Policy) -> Reason {
    let (model, p, floor) = (first.model.clone(), first.p, policy.floor);
    if policy.pinned.is_some() {
        Reason::Pinned { model }
    } else if p >= floor {
        Reason::Adequate { model, p, floor, objective: policy.objective }
    } else {
        Reason::BestAvailable { model, p, floor }
    }
}

#[cfg(test)]
mod tests;
