//! The one place where a model is chosen: a pure rule from candidates to a ranked decision.
//!
//! No clock, no I/O, no logging, no dice; called by the gateway and by replay, so a replay exercises the code that
//! serves. Constraints come first (what cannot or must not answer is excluded, with the reason), preferences second,
//! then what the conversation has invested in its model, then exploration.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cascade::Lead;
use super::exclusion::exclusion;
use super::reason::{Gain, OverBudget, Reason, RunnerUp, Why};
use super::{Candidate, Exclusion, Features, Objective, Rule};

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
    /// Probability with which the rule chooses the first of `ranked`, above 0 to 1: below 1 only where it explores.
    pub propensity: f64,
}

impl Decision {
    /// The models that may answer, best first.
    pub fn ranked_candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.ranked.iter().map(|&index| &self.judged[index].candidate)
    }

    /// Predicted adequacy of a model that may answer; 0 for any other.
    pub fn p(&self, model: &str) -> f64 {
        let mut ranked = self.ranked_candidates();
        ranked.find(|one| &*one.model == model).map_or(0.0, |one| one.p)
    }

    pub fn chosen(&self) -> Option<&Candidate> {
        self.ranked.first().map(|&index| &self.judged[index].candidate)
    }
}

/// Ranks `candidates` for a request with `features` under `rule`.
///
/// First those at or above the floor, cheapest first; then those below it, most adequate first. Ties go to the order
/// given, so the result is deterministic. The conversation's model goes first if leaving it gains too little, or while
/// it waits for a tool; where there is none, chance may put another in front. A cascade lets a local model begin.
pub fn decide(features: &Features, candidates: &[Candidate], rule: &Rule) -> Decision {
    let judge = |candidate: &Candidate| Judged {
        candidate: candidate.clone(),
        excluded: exclusion(features, candidate, rule),
    };
    let judged: Vec<Judged> = candidates.iter().map(judge).collect();
    let mut ranked: Vec<usize> =
        (0..judged.len()).filter(|&index| judged[index].excluded.is_none()).collect();
    ranked.sort_by(|&a, &b| prefer(&candidates[a], &candidates[b], rule));
    let mut why = match ranked.first() {
        Some(&best) => preferred(&candidates[best], rule),
        None => nobody(&judged),
    };
    let mut propensity = 1.0;
    if let Some((place, stays)) = stay(&ranked, candidates, rule) {
        ranked[..=place].rotate_right(1);
        why = stays;
    } else if let Some((place, drawn)) = explore(ranked.len(), rule) {
        propensity = drawn;
        if place > 0 {
            ranked[..=place].rotate_right(1);
            let model = Arc::clone(&candidates[ranked[0]].model);
            why = Why::Explored { model, propensity };
        }
    }
    if matches!(why, Why::Adequate { .. } | Why::BestAvailable { .. })
        && let Some(Lead { first, next, threshold }) = lead(&mut ranked, features, candidates, rule)
    {
        why = Why::Watched { model: first, next, threshold };
    }
    let reason = Reason {
        why,
        runner_up: ranked.get(1).map(|&second| runner_up(&candidates[second], rule)),
        gone: gone(&judged, rule),
        over_budget: over_budget(&judged, rule),
    };
    Decision { ranked, judged, reason, propensity }
}

fn prefer(a: &Candidate, b: &Candidate, rule: &Rule) -> Ordering {
    match (rule.is_adequate(a), rule.is_adequate(b)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (true, true) => rule.cost(a).total_cmp(&rule.cost(b)),
        (false, false) => b.p.total_cmp(&a.p),
    }
}

fn preferred(first: &Candidate, rule: &Rule) -> Why {
    let (model, p, floor) = (Arc::clone(&first.model), first.p, rule.floor);
    if rule.pinned.is_some() {
        Why::Pinned { model, by_policy: rule.pinned_by_policy }
    } else if rule.is_adequate(first) {
        Why::Adequate { model, p, floor, objective: rule.objective, cost: rule.cost(first) }
    } else {
        Why::BestAvailable { model, p, floor }
    }
}

/// Why nobody may answer. What was not asked for is beside the point, and what is over a budget is told with that.
fn nobody(judged: &[Judged]) -> Why {
    let excluded = judged.iter().filter_map(|one| Some((&one.candidate.model, one.excluded?)));
    let told = excluded.filter(|(_, why)| *why != Exclusion::NotNamed && !why.is_about_a_budget());
    Why::NoCandidate(told.map(|(model, why)| (Arc::clone(model), why)).collect())
}

/// The place in `ranked` of the conversation's model and why it goes first, where being best is not why.
fn stay(ranked: &[usize], candidates: &[Candidate], rule: &Rule) -> Option<(usize, Why)> {
    let session = rule.stay.as_ref().filter(|_| rule.pinned.is_none())?;
    let place = ranked.iter().position(|&index| candidates[index].model == session.model)?;
    let (own, best) = (&candidates[ranked[place]], &candidates[ranked[0]]);
    let model = Arc::clone(&own.model);
    if session.tool_loop {
        return Some((place, Why::ToolLoop { model }));
    }
    if place == 0 {
        return None;
    }
    let gain = gain_of_leaving(own, best, rule)?;
    let worth_it = gain.of > gain.needed;
    (!worth_it).then(|| (place, Why::Stays { model, rival: Arc::clone(&best.model), gain }))
}

/// What moving from `own` to `best` would bring and what it must; `None` if `own` is not good enough and `best` is.
///
/// Reading the history again is in the rival's own costs; what the old model's cache was worth is lost on top.
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
        // A share of a cost that nobody knows is nothing that could be asked for.
        Some(rule.switch_gain * cost(own)).filter(|least| least.is_finite()).unwrap_or(0.0)
    };
    let lost = if objective == Objective::Quality { 0.0 } else { rule.cache_value(own) };
    // Two costs that nobody knows are no difference.
    let of = Some(cost(own) - cost(best)).filter(|of| !of.is_nan()).unwrap_or(0.0);
    Some(Gain { objective, of, needed: least + lost })
}

/// Which place the dice choose among `count`, and how probable that was; `None` without dice. Chance moves no
/// conversation.
fn explore(count: usize, rule: &Rule) -> Option<(usize, f64)> {
    let free = rule.pinned.is_none() && rule.stay.is_none() && count > 0;
    let dice = rule.explore.filter(|dice| free && dice.share > 0.0)?;
    let each = dice.share / count as f64;
    // The draws below `share` are cut into one stretch a place; all others choose the best.
    let place = (0..count).position(|place| dice.draw < each * (place + 1) as f64).unwrap_or(0);
    Some((place, if place == 0 { each + 1.0 - dice.share } else { each }))
}

/// Lets a local model begin under watch, unless that would take a conversation off the model that it is on.
fn lead(
    ranked: &mut Vec<usize>,
    features: &Features,
    candidates: &[Candidate],
    rule: &Rule,
) -> Option<Lead> {
    // Several choices would have to be escalated together, and a raw prompt has no answer to be sure of.
    let cascade = rule.cascade.filter(|_| features.needs.chat && !features.needs.choices)?;
    let mut order = ranked.clone();
    let lead = cascade.lead(&mut order, candidates, rule)?;
    let on = rule.stay.as_ref().map(|session| &session.model);
    let may_go_on = ranked.iter().any(|&index| Some(&candidates[index].model) == on);
    if may_go_on && on != Some(&lead.first) {
        return None;
    }
    *ranked = order;
    Some(lead)
}

fn runner_up(candidate: &Candidate, rule: &Rule) -> RunnerUp {
    RunnerUp {
        model: Arc::clone(&candidate.model),
        p: candidate.p,
        objective: rule.objective,
        cost: rule.cost(candidate),
    }
}

/// The conversation's model, if it may not answer.
fn gone(judged: &[Judged], rule: &Rule) -> Option<(Arc<str>, Option<Exclusion>)> {
    let session = rule.stay.as_ref().filter(|_| rule.pinned.is_none())?;
    let found = judged.iter().find(|one| one.candidate.model == session.model);
    match found {
        Some(one) => one.excluded.map(|why| (Arc::clone(&session.model), Some(why))),
        None => Some((Arc::clone(&session.model), None)),
    }
}

/// How many models only a budget keeps from answering, and which.
fn over_budget(judged: &[Judged], rule: &Rule) -> Option<OverBudget> {
    let mut models =
        judged.iter().filter(|one| one.excluded.is_some_and(Exclusion::is_about_a_budget));
    let first = Arc::clone(&models.next()?.candidate.model);
    let more = models.count();
    Some(OverBudget { first, more, max_joules: rule.max_joules, max_dollars: rule.max_dollars })
}

#[cfg(test)]
mod tests;
