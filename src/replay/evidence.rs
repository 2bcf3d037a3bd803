//! Evidence of a logged request for another rule: what was done and what the rule would have done,
//! with their probabilities, outcomes and predictions. Pure.

use serde::Serialize;

use super::estimate::sample::Predicted;
use super::estimate::{Estimator, Evaluation, Sample};
use super::simulate;
use crate::routing::{Candidate, FirstChoice, Rule, decide, first_choices};
use crate::traffic::{Outcome, Record};
use crate::units::{Dollars, Joules};

/// An evaluation of each quantity, in the order of [`Quantity::ALL`].
pub type Evaluations = [Evaluation; Quantity::ALL.len()];

/// What is estimated of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Mean label, 0 to 1; a request without an answer has 0.
    Quality,
    /// Mean metered joules, with all attempts.
    Joules,
    /// Mean price, with all attempts.
    Dollars,
}

impl Quantity {
    pub const ALL: [Self; 3] = [Self::Quality, Self::Joules, Self::Dollars];

    pub fn label(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Joules => "joules",
            Self::Dollars => "dollars",
        }
    }

    /// The estimator that a summary shows: doubly robust where everything was predicted.
    pub fn headline(evaluation: &Evaluation) -> Estimator {
        let predicted = evaluation.estimate(Estimator::Dr).is_some();
        if predicted { Estimator::Dr } else { Estimator::Snips }
    }

    /// `None` if it was not observed.
    fn outcome(self, record: &Record) -> Option<f64> {
        match self {
            Self::Quality => match record.outcome {
                Outcome::Failed | Outcome::Refused => Some(0.0),
                Outcome::Answered | Outcome::Cancelled => record.label,
            },
            Self::Joules if record.receipt.attempts.is_empty() => Some(0.0),
            Self::Joules => record.receipt.energy?.joules.map(|Joules(joules)| joules),
            Self::Dollars => record.dollars.map(|Dollars(dollars)| dollars),
        }
    }

    /// `None` if it was not predicted.
    fn prediction(self, choice: &FirstChoice, candidates: &[Candidate]) -> Option<f64> {
        let Some(model) = &choice.model else { return Some(0.0) };
        let candidate = candidates.iter().find(|one| one.model == *model)?;
        match self {
            Self::Quality => Some(candidate.p),
            Self::Joules => candidate.joules.map(|Joules(joules)| joules),
            Self::Dollars => candidate.dollars.map(|Dollars(dollars)| dollars),
        }
    }
}

/// Probabilities of one request's first choice under the rule that served it and another.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence<'a> {
    record: &'a Record,
    logged: FirstChoice,
    target: Vec<(FirstChoice, f64)>,
    target_propensity: f64,
    unsupported: f64,
    disagreement: f64,
}

impl<'a> Evidence<'a> {
    /// `candidates` are those of the record that the rule may see. `None` if the record's
    /// propensity is no probability.
    pub fn new(record: &'a Record, candidates: &[Candidate], rule: &Rule) -> Option<Self> {
        if !(record.propensity > 0.0 && record.propensity <= 1.0) {
            return None;
        }
        let all = simulate::candidates(record);
        let decided = FirstChoice::from(&decide(&record.features, &all, &record.rule));
        let asked = record.receipt.attempts.first().map(|attempt| attempt.model.clone());
        // A log whose rule has changed its meaning since: what was done counts.
        let logged = if decided.model == asked {
            decided
        } else {
            FirstChoice { model: asked, cascades: false }
        };
        let possible = first_choices(&record.features, &all, &record.rule);
        let is_possible = |choice: &FirstChoice| {
            *choice == logged || possible.iter().any(|(one, _)| one == choice)
        };
        let target = first_choices(&record.features, candidates, rule);
        let mass = |wanted: &dyn Fn(&FirstChoice) -> bool| -> f64 {
            target.iter().filter(|(choice, _)| wanted(choice)).map(|(_, share)| share).sum()
        };
        let (target_propensity, unsupported) =
            (mass(&|choice| *choice == logged), mass(&|choice| !is_possible(choice)));
        let common = |(choice, share): &(FirstChoice, f64)| {
            let logged = possible.iter().find(|(one, _)| one == choice);
            logged.map_or(0.0, |(_, logged)| logged.min(*share))
        };
        let disagreement = 1.0 - target.iter().map(common).sum::<f64>();
        Some(Self { record, logged, target, target_propensity, unsupported, disagreement })
    }

    /// The same for the rule that served, of which every outcome is known.
    #[must_use]
    pub fn of_log(self) -> Self {
        let target = vec![(self.logged.clone(), 1.0)];
        let target_propensity = self.record.propensity;
        Self { target, target_propensity, unsupported: 0.0, disagreement: 0.0, ..self }
    }

    /// Adds what is known of each quantity to its evaluation.
    pub fn add_to(
        &self,
        evaluations: &mut Evaluations,
        candidates: &[Candidate],
        conversation: u64,
    ) {
        for (quantity, evaluation) in Quantity::ALL.into_iter().zip(evaluations) {
            if let Some(sample) = self.sample(quantity, candidates) {
                evaluation.add(&sample, conversation);
            }
        }
    }

    /// `None` if the quantity was not observed.
    fn sample(&self, quantity: Quantity, candidates: &[Candidate]) -> Option<Sample> {
        let mean = || {
            self.target.iter().try_fold(0.0, |sum, (choice, share)| {
                Some(sum + share * quantity.prediction(choice, candidates)?)
            })
        };
        let predicted = quantity
            .prediction(&self.logged, candidates)
            .zip(mean())
            .map(|(logged, target)| Predicted { logged, target });
        Some(Sample {
            logged_propensity: self.record.propensity,
            target_propensity: self.target_propensity,
            unsupported: self.unsupported,
            disagreement: self.disagreement,
            outcome: quantity.outcome(self.record)?,
            predicted,
        })
    }
}
