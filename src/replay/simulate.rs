//! One logged request under one rule. Pure.

use std::sync::Arc;

use crate::energy::EnergyFigure;
use crate::routing::{Candidate, Explore, Policy, Route, Rule, decide};
use crate::traffic::{AttemptOutcome, Record};

/// A rule to replay.
#[derive(Clone, Debug, PartialEq)]
pub enum Scenario {
    /// A configured policy, under what the request itself demanded (a model it named, not to leave
    /// this machine, wishes that the policy grants) and on the model that its conversation was on.
    Policy(Arc<Policy>),
    /// The logged rule with only the cloud to choose from; a model that the client named does not
    /// count.
    CloudOnly,
    /// The logged rule with only this machine to choose from; a model that the client named does
    /// not count.
    LocalOnly,
    /// The logged rule knowing how good the logged answer turned out; labelled requests only. It
    /// knows nothing of the answers that were never given.
    Oracle,
}

/// What a rule does with one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Play {
    /// The model that answers; none if no candidate could, or the last one failed.
    pub answer: Option<Candidate>,
    /// Whether it ends as the log did, so that energy, price and label are known rather than
    /// predicted.
    pub logged: bool,
    /// Energy, from the log, of those of its attempts that were made then too; absent when none of
    /// them ran.
    pub metered: Option<EnergyFigure>,
}

impl Scenario {
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(policy) => &policy.name,
            Self::CloudOnly => "cloud-only",
            Self::LocalOnly => "local-only",
            Self::Oracle => "oracle",
        }
    }

    /// `None` if the request is not for this scenario.
    pub fn play(&self, record: &Record) -> Option<Play> {
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
            Self::Oracle => {
                let (label, model) = (record.label?, record.receipt.model.as_ref()?);
                candidates.iter_mut().filter(|c| c.model == *model).for_each(|c| c.p = label);
                logged
            }
        };
        Some(play(record, &candidates, &rule))
    }
}

impl Play {
    /// What did happen.
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

/// Whether the logged rule, applied again, asks the model that was asked first.
pub(super) fn reproduces(record: &Record) -> bool {
    let decision = decide(&record.features, &candidates(record), &record.rule);
    let asked = record.receipt.attempts.first().map(|attempt| &attempt.model);
    decision.chosen().map(|candidate| &candidate.model) == asked
}

/// Asks the models in the order of the decision. Where the log knows how an attempt went, it goes
/// so again; a model that was not asked then is taken to answer.
fn play(record: &Record, candidates: &[Candidate], rule: &Rule) -> Play {
    let mut decision = decide(&record.features, candidates, rule);
    let attempts = &record.receipt.attempts;
    let mut metered = None;
    for index in decision.ranked {
        let candidate = &decision.judged[index].candidate;
        let place = attempts.iter().position(|attempt| attempt.model == candidate.model);
        let (logged, answers, ended) = match place.map(|place| (place, &attempts[place])) {
            None => (false, true, true),
            Some((place, attempt)) => {
                metered = total(metered, attempt.energy);
                let given_up = [AttemptOutcome::Failed, AttemptOutcome::Escalated];
                let answers = !given_up.contains(&attempt.outcome);
                // The log's last failure was final: nobody was left, or the request itself was at
                // fault.
                (true, answers, answers || place + 1 == attempts.len())
            }
        };
        if ended {
            let answer = answers.then(|| decision.judged.swap_remove(index).candidate);
            return Play { answer, logged, metered };
        }
    }
    Play { answer: None, logged: false, metered }
}

fn total(a: Option<EnergyFigure>, b: Option<EnergyFigure>) -> Option<EnergyFigure> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (one, None) | (None, one) => one,
    }
}

fn candidates(record: &Record) -> Vec<Candidate> {
    record.receipt.candidates.iter().map(|judged| judged.candidate.clone()).collect()
}

/// The policy's rule for this request. The dice fall as they did.
fn replayed(policy: &Policy, record: &Record) -> Rule {
    let (task, logged) = (record.features.task, &record.rule);
    // A wish that this policy would refuse counts for nothing.
    let mut rule = policy.rule_with(task, &record.wishes).unwrap_or_else(|_| policy.rule(task));
    rule.local_only |= logged.local_only;
    rule.own_network_is_local = logged.own_network_is_local;
    if logged.pinned.is_some() && !logged.pinned_by_policy {
        rule.pinned.clone_from(&logged.pinned);
        rule.pinned_by_policy = false;
    }
    rule.stay.clone_from(&logged.stay);
    rule.explore = logged
        .explore
        .filter(|_| policy.config.explore > 0.0)
        .map(|dice| Explore { share: policy.config.explore, ..dice });
    rule
}

#[cfg(test)]
mod tests;
