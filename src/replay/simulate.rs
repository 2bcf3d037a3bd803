//! Simulation of one logged request under one rule. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use super::conversation;
use crate::energy::EnergyFigure;
use crate::routing::{Candidate, Decision, Explore, Policy, Route, Rule, decide};
use crate::traffic::{AttemptOutcome, Record};

/// A rule to replay.
#[derive(Clone, Debug, PartialEq)]
pub enum Scenario {
    /// A configured policy, with the request's own demands (a named model, `local_only`, overrides
    /// that the policy permits) and the model that its conversation was on.
    Policy(Arc<Policy>),
    /// The logged rule with cloud models only; a model named by the client is ignored.
    CloudOnly,
    /// The logged rule with local models only; a model named by the client is ignored.
    LocalOnly,
    /// The logged rule with one model only; a model named by the client is ignored.
    Single(Arc<str>),
    /// The logged rule, with the model drawn among all that may answer.
    Random,
    /// The logged rule with the label of the logged answer as that model's adequacy; labelled
    /// requests only. Nothing is known of other answers.
    Oracle,
}

/// Outcome of one request under a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Simulation {
    /// The model that answers; `None` if no candidate could, or the last one failed.
    pub answer: Option<Candidate>,
    /// Whether it ends as in the log, so that energy, price and label are known rather than
    /// predicted.
    pub logged: bool,
    /// Logged energy of those of its attempts that the log holds; absent if it holds none of them.
    pub metered: Option<EnergyFigure>,
}

impl Scenario {
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Policy(policy) => Cow::Borrowed(&policy.name),
            Self::CloudOnly => "cloud-only".into(),
            Self::LocalOnly => "local-only".into(),
            Self::Single(model) => format!("only {model}").into(),
            Self::Random => "random".into(),
            Self::Oracle => "oracle".into(),
        }
    }

    /// The rule for this request and the candidates that it may see; `None` if the request does
    /// not apply to this scenario.
    pub fn terms(&self, record: &Record) -> Option<Terms> {
        let mut candidates = candidates(record);
        let logged = record.rule.clone();
        let rule = match self {
            Self::Policy(policy) => replayed(policy, record),
            Self::CloudOnly => {
                candidates.retain(|candidate| candidate.route == Route::Cloud);
                Rule { pinned: None, ..logged }
            }
            Self::LocalOnly => {
                candidates.retain(|candidate| candidate.route == Route::Local);
                Rule { pinned: None, ..logged }
            }
            Self::Single(model) => {
                candidates.retain(|candidate| candidate.model == *model);
                Rule { pinned: None, ..logged }
            }
            Self::Random => {
                let sample =
                    fastrand::Rng::with_seed(conversation::hash(&record.receipt.request_id)).f64();
                let explore = Some(Explore { share: 1.0, sample });
                Rule { pinned: None, affinity: None, cascade: None, explore, ..logged }
            }
            Self::Oracle => {
                let (label, model) = (record.label?, record.receipt.model.as_ref()?);
                candidates.iter_mut().filter(|c| c.model == *model).for_each(|c| c.p = label);
                logged
            }
        };
        Some(Terms { rule, candidates })
    }
}

/// What a scenario decides a request by.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    pub rule: Rule,
    pub candidates: Vec<Candidate>,
}

impl Terms {
    pub fn decide(&self, record: &Record) -> Decision {
        decide(&record.features, &self.candidates, &self.rule)
    }

    pub fn simulate(&self, record: &Record) -> Simulation {
        ask_in_order(record, &self.candidates, &self.rule)
    }
}

impl Simulation {
    /// The logged outcome.
    pub fn logged(record: &Record) -> Self {
        let model = record.receipt.model.as_ref();
        Self {
            answer: model
                .and_then(|model| candidates(record).into_iter().find(|c| c.model == *model)),
            logged: true,
            metered: record.receipt.energy,
        }
    }
}

/// Whether the logged rule, applied again, selects the model that was asked first.
pub(super) fn reproduces(record: &Record) -> bool {
    let decision = decide(&record.features, &candidates(record), &record.rule);
    let asked = record.receipt.attempts.first().map(|attempt| &attempt.model);
    decision.chosen().map(|candidate| &candidate.model) == asked
}

/// Asks the models in the order of the decision. An attempt that the log holds ends as it did
/// there; any other model is assumed to answer.
fn ask_in_order(record: &Record, candidates: &[Candidate], rule: &Rule) -> Simulation {
    let decision = decide(&record.features, candidates, rule);
    let attempts = &record.receipt.attempts;
    let mut metered = None;
    for candidate in decision.ranked_candidates() {
        let place = attempts.iter().position(|attempt| attempt.model == candidate.model);
        let (logged, answers, ended) = match place.map(|place| (place, &attempts[place])) {
            None => (false, true, true),
            Some((place, attempt)) => {
                metered = total(metered, attempt.energy);
                let given_up = [AttemptOutcome::Failed, AttemptOutcome::Escalated];
                let answers = !given_up.contains(&attempt.outcome);
                // The last failure in the log was final: no model was left, or the request itself
                // was at fault.
                (true, answers, answers || place + 1 == attempts.len())
            }
        };
        if ended {
            let answer = answers.then(|| candidate.clone());
            return Simulation { answer, logged, metered };
        }
    }
    Simulation { answer: None, logged: false, metered }
}

fn total(a: Option<EnergyFigure>, b: Option<EnergyFigure>) -> Option<EnergyFigure> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (one, None) | (None, one) => one,
    }
}

pub(super) fn candidates(record: &Record) -> Vec<Candidate> {
    record.receipt.candidates.iter().map(|judged| judged.candidate.clone()).collect()
}

/// The policy's rule for this request, with the logged random sample.
fn replayed(policy: &Policy, record: &Record) -> Rule {
    let (task, logged) = (record.features.task, &record.rule);
    // Overrides that this policy does not permit are ignored.
    let mut rule = policy.rule_with(task, &record.overrides).unwrap_or_else(|_| policy.rule(task));
    rule.local_only |= logged.local_only;
    rule.own_network_is_local = logged.own_network_is_local;
    if logged.pinned.is_some() && !logged.pinned_by_policy {
        rule.pinned.clone_from(&logged.pinned);
        rule.pinned_by_policy = false;
    }
    rule.affinity.clone_from(&logged.affinity);
    rule.explore = logged
        .explore
        .filter(|_| policy.config.explore > 0.0)
        .map(|explore| Explore { share: policy.config.explore, ..explore });
    rule
}

#[cfg(test)]
mod tests;
