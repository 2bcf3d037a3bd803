//! The decision: a pure function from candidates and a rule to a ranking.
//!
//! No clock, no I/O, no logging, no random numbers. The gateway and replay call the same function,
//! so a replay exercises the code that serves. Constraints come first (a candidate that cannot or
//! must not answer is excluded, with the reason), then preferences, then the conversation's
//! affinity to its model, then exploration.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cascade::CascadePlan;
use super::exclusion::exclusion;
use super::reason::{Gain, OverBudget, Reason, ReasonKind, RunnerUp};
use super::{Candidate, Exclusion, Explore, Features, Objective, Rule};

/// A candidate as the decision saw it; part of the receipt and the log, so that replay can decide
/// again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedCandidate {
    #[serde(flatten)]
    pub candidate: Candidate,
    pub excluded: Option<Exclusion>,
}

/// The outcome of a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The models that may answer, best first; all but the first are fallbacks. Indices into
    /// `evaluated` of this very decision, which cannot name a model that it does not hold; they
    /// never leave it. Everything outside goes by names.
    ranked: Vec<usize>,
    /// Every candidate in the order given, with its exclusion if it has one.
    pub evaluated: Arc<[EvaluatedCandidate]>,
    pub reason: Reason,
    /// Probability with which the rule ranks this model first, above 0 to 1; below 1 only if it
    /// explores.
    pub propensity: f64,
}

impl Decision {
    /// The models that may answer, best first.
    pub fn ranked_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.ranked.iter().map(|&index| &self.evaluated[index].candidate)
    }

    /// Predicted adequacy of a model that may answer; 0 for any other.
    pub fn p(&self, model: &str) -> f64 {
        let mut ranked = self.ranked_candidates();
        ranked.find(|one| &*one.model == model).map_or(0.0, |one| one.p)
    }

    pub fn chosen(&self) -> Option<&Candidate> {
        self.ranked.first().map(|&index| &self.evaluated[index].candidate)
    }
}

/// Ranks `candidates` for a request with `features` under `rule`.
///
/// Candidates at or above the floor come first, cheapest first; then those below it, most adequate
/// first. Ties keep the order given, so the result is deterministic. The conversation's model moves
/// to the front if leaving it gains too little or while it waits for a tool result; a conversation
/// without a model may start at one drawn at random. A cascade moves a local model to the front.
pub fn decide(features: &Features, candidates: &[Candidate], rule: &Rule) -> Decision {
    let evaluate = |candidate: &Candidate| EvaluatedCandidate {
        candidate: candidate.clone(),
        excluded: exclusion(features, candidate, rule),
    };
    let evaluated: Arc<[EvaluatedCandidate]> = candidates.iter().map(evaluate).collect();
    let mut ranked: Vec<usize> =
        (0..evaluated.len()).filter(|&index| evaluated[index].excluded.is_none()).collect();
    ranked.sort_by(|&a, &b| prefer(&candidates[a], &candidates[b], rule));
    let mut kind = match ranked.first() {
        Some(&best) => preferred(&candidates[best], rule),
        None => no_candidate(&evaluated),
    };
    let mut propensity = 1.0;
    if let Some((position, stays)) = affinity(&ranked, candidates, rule) {
        ranked[..=position].rotate_right(1);
        kind = stays;
    } else if let Some((position, drawn)) = explore(ranked.len(), rule) {
        propensity = drawn;
        if position > 0 {
            ranked[..=position].rotate_right(1);
            let model = Arc::clone(&candidates[ranked[0]].model);
            kind = ReasonKind::Explored { model, propensity };
        }
    }
    if matches!(kind, ReasonKind::Adequate { .. } | ReasonKind::BestAvailable { .. })
        && let Some(CascadePlan { first, next, threshold }) =
            apply_cascade(&mut ranked, features, candidates, rule)
    {
        kind = ReasonKind::Watched { model: first, next, threshold };
    }
    let reason = Reason {
        kind,
        runner_up: ranked.get(1).map(|&second| runner_up(&candidates[second], rule)),
        previous_unavailable: previous_unavailable(&evaluated, rule),
        over_budget: over_budget(&evaluated, rule),
    };
    Decision { ranked, evaluated, reason, propensity }
}

/// What a rule does first: the model it asks, `None` if no model may answer, and whether it may
/// take the request away from it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstChoice {
    pub model: Option<Arc<str>>,
    pub cascades: bool,
}

impl From<&Decision> for FirstChoice {
    fn from(decision: &Decision) -> Self {
        Self {
            model: decision.chosen().map(|one| Arc::clone(&one.model)),
            cascades: matches!(decision.reason.kind, ReasonKind::Watched { .. }),
        }
    }
}

/// The first choices of `rule`, each with its probability, above 0 to 1; they add up to 1. More
/// than one only if the rule explores.
pub fn first_choices(
    features: &Features,
    candidates: &[Candidate],
    rule: &Rule,
) -> Vec<(FirstChoice, f64)> {
    let settled = decide(features, candidates, &Rule { explore: None, ..rule.clone() });
    let count = settled.ranked.len();
    let share = rule.explore.map_or(0.0, |explore| explore.share);
    if explore(count, rule).is_none() {
        return vec![(FirstChoice::from(&settled), 1.0)];
    }
    let each = share / count as f64;
    let mut choices = vec![(FirstChoice::from(&settled), 1.0 - share)];
    for position in 0..count {
        let explore = Some(Explore { share, sample: each * (position as f64 + 0.5) });
        let drawn = decide(features, candidates, &Rule { explore, ..rule.clone() });
        let drawn = FirstChoice::from(&drawn);
        match choices.iter_mut().find(|(known, _)| *known == drawn) {
            Some((_, probability)) => *probability += each,
            None => choices.push((drawn, each)),
        }
    }
    choices.retain(|(_, probability)| *probability > 0.0);
    choices
}

fn prefer(a: &Candidate, b: &Candidate, rule: &Rule) -> Ordering {
    match (rule.is_adequate(a), rule.is_adequate(b)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (true, true) => rule.cost(a).total_cmp(&rule.cost(b)),
        (false, false) => b.p.total_cmp(&a.p),
    }
}

fn preferred(first: &Candidate, rule: &Rule) -> ReasonKind {
    let (model, p, floor) = (Arc::clone(&first.model), first.p, rule.floor);
    if rule.pinned.is_some() {
        ReasonKind::Pinned { model, by_policy: rule.pinned_by_policy }
    } else if rule.is_adequate(first) {
        ReasonKind::Adequate { model, p, floor, objective: rule.objective, cost: rule.cost(first) }
    } else {
        ReasonKind::BestAvailable { model, p, floor }
    }
}

/// Why no candidate may answer. Models that were not asked for are left out; models over budget are
/// reported by [`over_budget`].
fn no_candidate(evaluated: &[EvaluatedCandidate]) -> ReasonKind {
    let excluded = evaluated.iter().filter_map(|one| Some((&one.candidate.model, one.excluded?)));
    let told = excluded.filter(|(_, why)| *why != Exclusion::NotNamed && !why.is_about_a_budget());
    ReasonKind::NoCandidate(told.map(|(model, why)| (Arc::clone(model), why)).collect())
}

/// The position in `ranked` of the conversation's model and why it moves to the front; `None` if it
/// does not, or is there already on merit.
fn affinity(
    ranked: &[usize],
    candidates: &[Candidate],
    rule: &Rule,
) -> Option<(usize, ReasonKind)> {
    let session = rule.affinity.as_ref().filter(|_| rule.pinned.is_none())?;
    let position = ranked.iter().position(|&index| candidates[index].model == session.model)?;
    let (own, best) = (&candidates[ranked[position]], &candidates[ranked[0]]);
    let model = Arc::clone(&own.model);
    if session.tool_loop {
        return Some((position, ReasonKind::ToolLoop { model }));
    }
    if position == 0 {
        return None;
    }
    let gain = gain_of_leaving(own, best, rule)?;
    let worth_it = gain.of > gain.needed;
    (!worth_it)
        .then(|| (position, ReasonKind::Stays { model, rival: Arc::clone(&best.model), gain }))
}

/// The gain from moving from `own` to `best` and the gain required; `None` if `best` is adequate
/// and `own` is not.
///
/// Reading the history again is part of the costs of `best`; the value of the cache that is lost
/// comes on top.
fn gain_of_leaving(own: &Candidate, best: &Candidate, rule: &Rule) -> Option<Gain> {
    let objective = match (rule.is_adequate(own), rule.is_adequate(best)) {
        (false, true) => return None,
        (false, false) => Objective::Quality,
        (true, _) => rule.objective,
    };
    let cost = |one: &Candidate| objective.cost(rule.lambda, one.p, &one.costs());
    let least = if objective.is_in_adequacy() {
        rule.switch_gain
    } else {
        // A share of an unknown cost is no threshold.
        Some(rule.switch_gain * cost(own)).filter(|least| least.is_finite()).unwrap_or(0.0)
    };
    let lost = if objective == Objective::Quality { 0.0 } else { rule.cache_value(own) };
    // The difference of two unknown costs is no gain.
    let of = Some(cost(own) - cost(best)).filter(|of| !of.is_nan()).unwrap_or(0.0);
    Some(Gain { objective, of, needed: least + lost })
}

/// The position drawn among `count` models and its probability; `None` without exploration. Pinned
/// requests and running conversations never explore.
fn explore(count: usize, rule: &Rule) -> Option<(usize, f64)> {
    let free = rule.pinned.is_none() && rule.affinity.is_none() && count > 0;
    let explore = rule.explore.filter(|explore| free && explore.share > 0.0)?;
    let each = explore.share / count as f64;
    // Samples below `share` are divided into one interval per position; all others take the best.
    let position =
        (0..count).position(|position| explore.sample < each * (position + 1) as f64).unwrap_or(0);
    Some((position, if position == 0 { each + 1.0 - explore.share } else { each }))
}

/// Lets a local model start under a cascade, unless that would move a conversation away from its
/// model.
fn apply_cascade(
    ranked: &mut Vec<usize>,
    features: &Features,
    candidates: &[Candidate],
    rule: &Rule,
) -> Option<CascadePlan> {
    // Several choices would have to be escalated together, and a raw prompt has no answer to score.
    let cascade = rule.cascade.filter(|_| features.needs.chat && !features.needs.choices)?;
    let mut order = ranked.clone();
    let plan = cascade.plan(&mut order, candidates, rule.floor)?;
    let on = rule.affinity.as_ref().map(|session| &session.model);
    let may_go_on = ranked.iter().any(|&index| Some(&candidates[index].model) == on);
    if may_go_on && on != Some(&plan.first) {
        return None;
    }
    *ranked = order;
    Some(plan)
}

fn runner_up(candidate: &Candidate, rule: &Rule) -> RunnerUp {
    RunnerUp {
        model: Arc::clone(&candidate.model),
        p: candidate.p,
        objective: rule.objective,
        cost: rule.cost(candidate),
    }
}

/// The conversation's model, if it may not answer; with `None` if it is no longer configured.
fn previous_unavailable(
    evaluated: &[EvaluatedCandidate],
    rule: &Rule,
) -> Option<(Arc<str>, Option<Exclusion>)> {
    let session = rule.affinity.as_ref().filter(|_| rule.pinned.is_none())?;
    let found = evaluated.iter().find(|one| one.candidate.model == session.model);
    match found {
        Some(one) => one.excluded.map(|why| (Arc::clone(&session.model), Some(why))),
        None => Some((Arc::clone(&session.model), None)),
    }
}

/// The models that are excluded by a budget alone.
fn over_budget(evaluated: &[EvaluatedCandidate], rule: &Rule) -> Option<OverBudget> {
    let mut models =
        evaluated.iter().filter(|one| one.excluded.is_some_and(Exclusion::is_about_a_budget));
    let first = Arc::clone(&models.next()?.candidate.model);
    let more = models.count();
    Some(OverBudget { first, more, max_joules: rule.max_joules, max_dollars: rule.max_dollars })
}

#[cfg(test)]
mod tests;
