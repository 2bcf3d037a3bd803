//! Fit of the confidence weights, from logged signals of local answers with outcomes.
//!
//! One logistic regression per model, and one over all for models without enough labels. Every
//! figure of a [`CascadeReport`] is from answers that the scoring weights have not seen. Reads
//! logs; writes nothing. Uses linfa: a few dense columns and hard labels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde::Serialize;

use super::error::TrainError;
use super::fit::ADEQUATE;
use super::metrics::{Reliability, reliability};
use crate::routing::Signals;
use crate::routing::confidence::{SIGNALS, Weights, features};
use crate::routing::text::fnv1a;
use crate::traffic::{AttemptOutcome, Line, Record, read_log};

const FOLDS: usize = 5;
/// L2 penalty on the weights of standardised signals.
const PENALTY: f64 = 1.0;
/// Least number of good and of bad answers for weights of a model's own; with fewer they would be
/// noise.
const LABELS_PER_CLASS_MIN: usize = 10;
/// Required direction of each signal, in the order of [`features`]: for a good answer (1), against
/// it (−1), or either (0).
const SIGNS: [f64; SIGNALS] = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 0.0];
/// Thresholds of the report.
const THRESHOLDS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// A local answer with a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Request id; determines the fold.
    pub id: String,
    /// Adequacy predicted from the prompt, 0 to 1.
    pub p: f64,
    pub signals: Signals,
    /// Label, 0 to 1.
    pub score: f64,
}

impl Example {
    /// The answering model and its example; `None` without label or signals.
    pub fn of(record: &Record) -> Option<(String, Self)> {
        let score = record.label?;
        let attempt = record.receipt.attempts.last()?;
        let answered = attempt.outcome == AttemptOutcome::Answered;
        let signals = attempt.signals.filter(|_| answered)?;
        let judged = record.receipt.candidates.iter().map(|judged| &judged.candidate);
        let p = judged.filter(|one| one.model == attempt.model).map(|one| one.p).next()?;
        let id = record.receipt.request_id.to_string();
        Some((attempt.model.to_string(), Self { id, p, signals, score }))
    }

    fn is_good(&self) -> bool {
        self.score >= ADEQUATE
    }
}

/// The labelled local answers of these logs, by model.
pub fn labelled_answers(logs: &[PathBuf]) -> Result<BTreeMap<String, Vec<Example>>, TrainError> {
    let mut examples: BTreeMap<String, Vec<Example>> = BTreeMap::new();
    for log in logs {
        for line in read_log(log)? {
            if let Line::Record(record) = line?
                && let Some((model, example)) = Example::of(&record)
            {
                examples.entry(model).or_default().push(example);
            }
        }
    }
    Ok(examples)
}

/// How well the first tokens of a model separate its good answers from its bad ones.
#[derive(Clone, Debug, Serialize)]
pub struct CascadeReport {
    pub model: String,
    pub answers: usize,
    pub good: usize,
    /// Probability that a good answer scores above a bad one; 0.5 is chance.
    pub auc: f64,
    /// The same for the prediction from the prompt alone.
    pub auc_of_prompt: f64,
    /// Deviation of confidences from shares of good answers; thresholds are only meaningful if it
    /// is small.
    pub reliability: Reliability,
    pub thresholds: Vec<ThresholdReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ThresholdReport {
    pub threshold: f64,
    /// Share of the answers that would be shown, 0 to 1.
    pub shown: f64,
    /// Share of good answers among these; absent if none would be shown.
    pub good_among_shown: Option<f64>,
    /// Share of the good answers that would be dropped, 0 to 1.
    pub good_dropped: f64,
}

/// Weights by model, `*` over all, and their evaluation.
#[derive(Debug)]
pub struct Fitted {
    pub weights: BTreeMap<String, Weights>,
    pub reports: Vec<CascadeReport>,
}

/// Fits every model that has enough labels of both kinds.
pub fn fit(examples: &BTreeMap<String, Vec<Example>>, seed: u64) -> Result<Fitted, TrainError> {
    let all: Vec<Example> = examples.values().flatten().cloned().collect();
    check(&all)?;
    let mut fitted = Fitted { weights: BTreeMap::new(), reports: Vec::new() };
    let any = ("*".to_owned(), &all);
    for (model, examples) in examples.iter().map(|(model, own)| (model.clone(), own)).chain([any]) {
        let good = examples.iter().filter(|one| one.is_good()).count();
        if good.min(examples.len() - good) < LABELS_PER_CLASS_MIN {
            continue;
        }
        fitted.weights.insert(model.clone(), weights(examples)?);
        fitted.reports.push(report(model, examples, good, seed)?);
    }
    Ok(fitted)
}

fn check(all: &[Example]) -> Result<(), TrainError> {
    let good = all.iter().filter(|one| one.is_good()).count();
    if all.len() < 2 * LABELS_PER_CLASS_MIN {
        Err(TrainError::TooFewAnswers { found: all.len(), wanted: 2 * LABELS_PER_CLASS_MIN })
    } else if good < LABELS_PER_CLASS_MIN {
        Err(TrainError::SingleClass("wrong"))
    } else if all.len() - good < LABELS_PER_CLASS_MIN {
        Err(TrainError::SingleClass("right"))
    } else {
        Ok(())
    }
}

/// Scores of every example by weights that have not seen it, in the order of the examples.
pub fn held_out_scores(examples: &[Example], seed: u64) -> Result<Vec<f64>, TrainError> {
    let order = |one: &Example| fnv1a(&[&seed.to_le_bytes()[..], one.id.as_bytes()].concat());
    let mut places: Vec<usize> = (0..examples.len()).collect();
    places.sort_by_key(|&place| (order(&examples[place]), place));
    let mut scores = vec![0.0; examples.len()];
    for fold in 0..FOLDS {
        let held_out = |at: usize| at % FOLDS == fold;
        let rest = places.iter().enumerate().filter(|&(at, _)| !held_out(at));
        let rest: Vec<Example> = rest.map(|(_, &place)| examples[place].clone()).collect();
        let weights = weights(&rest)?;
        for (_, &place) in places.iter().enumerate().filter(|&(at, _)| held_out(at)) {
            scores[place] = weights.score(examples[place].p, &examples[place].signals);
        }
    }
    Ok(scores)
}

fn report(
    model: String,
    examples: &[Example],
    good: usize,
    seed: u64,
) -> Result<CascadeReport, TrainError> {
    let scores = held_out_scores(examples, seed)?;
    let prompts: Vec<f64> = examples.iter().map(|one| one.p).collect();
    let good_or_not = examples.iter().map(|one| f64::from(u8::from(one.is_good())));
    let outcomes: Vec<(f64, f64)> = scores.iter().copied().zip(good_or_not).collect();
    let row = |&threshold: &f64| {
        let shown: Vec<&Example> = scores
            .iter()
            .zip(examples)
            .filter_map(|(&score, one)| (score >= threshold).then_some(one))
            .collect();
        let good_shown = shown.iter().filter(|one| one.is_good()).count();
        ThresholdReport {
            threshold,
            shown: shown.len() as f64 / examples.len() as f64,
            good_among_shown: (!shown.is_empty()).then(|| good_shown as f64 / shown.len() as f64),
            good_dropped: (good - good_shown) as f64 / good as f64,
        }
    };
    Ok(CascadeReport {
        model,
        answers: examples.len(),
        good,
        auc: auc(&scores, examples),
        auc_of_prompt: auc(&prompts, examples),
        reliability: reliability(&outcomes),
        thresholds: THRESHOLDS.iter().map(row).collect(),
    })
}

/// Area under the ROC curve: the share of pairs in the right order, ties counting half.
fn auc(scores: &[f64], examples: &[Example]) -> f64 {
    let of = |good: bool| {
        let labelled = scores.iter().zip(examples);
        labelled.filter(move |(_, one)| one.is_good() == good).map(|(&score, _)| score)
    };
    let bad: Vec<f64> = of(false).collect();
    let right = |good: f64| {
        let below = bad.iter().filter(|&&bad| bad < good).count() as f64;
        let ties = bad.iter().filter(|&&bad| bad.total_cmp(&good).is_eq()).count() as f64;
        below + ties / 2.0
    };
    let good: Vec<f64> = of(true).collect();
    good.iter().map(|&good| right(good)).sum::<f64>() / (good.len() * bad.len()).max(1) as f64
}

/// Weights of the signals with the required direction. A signal with the opposite sign has it by
/// chance or by correlation with another one, which does not carry over to other data; it is left
/// out.
fn weights(examples: &[Example]) -> Result<Weights, TrainError> {
    let standard = Standard::of(examples);
    let labels: Array1<bool> = examples.iter().map(Example::is_good).collect();
    let mut counts = [true; SIGNALS];
    loop {
        let (intercept, effects) = logistic_regression(&standard.rows(counts), &labels)?;
        let wrong = |&at: &usize| counts[at] && effects[at] * SIGNS[at] < 0.0;
        let most_wrong = (0..SIGNALS)
            .filter(wrong)
            .max_by(|&a, &b| effects[a].abs().total_cmp(&effects[b].abs()));
        match most_wrong {
            Some(at) => counts[at] = false,
            None => return Ok(standard.weights(intercept, &effects)),
        }
    }
}

/// Intercept and effect of each column.
fn logistic_regression(
    rows: &Array2<f64>,
    labels: &Array1<bool>,
) -> Result<(f64, [f64; SIGNALS]), TrainError> {
    let fitted = LogisticRegression::<f64>::default()
        .alpha(PENALTY)
        .max_iterations(200)
        .fit(&DatasetBase::new(rows.clone(), labels.clone()))?;
    // linfa chooses which of the two classes is positive; the fit reports its choice.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let params = fitted.params();
    Ok((fitted.intercept() * sign, std::array::from_fn(|at| params[at] * sign)))
}

/// Signals as deviations from their mean, in units of their standard deviation.
struct Standard {
    raw: Vec<[f64; SIGNALS]>,
    centre: [f64; SIGNALS],
    scale: [f64; SIGNALS],
}

impl Standard {
    fn of(examples: &[Example]) -> Self {
        let raw: Vec<[f64; SIGNALS]> =
            examples.iter().map(|one| features(one.p, &one.signals)).collect();
        let mean = |of: &dyn Fn(&[f64; SIGNALS]) -> f64| {
            raw.iter().map(of).sum::<f64>() / raw.len() as f64
        };
        let centre: [f64; SIGNALS] = std::array::from_fn(|at| mean(&|row| row[at]));
        let scale: [f64; SIGNALS] = std::array::from_fn(|at| {
            let spread = mean(&|row| (row[at] - centre[at]).powi(2)).sqrt();
            // A constant signal carries no information.
            if spread > 1e-6 { 1.0 / spread } else { 0.0 }
        });
        Self { raw, centre, scale }
    }

    /// With zeros for signals that are left out.
    fn rows(&self, counts: [bool; SIGNALS]) -> Array2<f64> {
        let standard =
            |row: usize, at: usize| (self.raw[row][at] - self.centre[at]) * self.scale[at];
        Array2::from_shape_fn((self.raw.len(), SIGNALS), |(row, at)| {
            if counts[at] { standard(row, at) } else { 0.0 }
        })
    }

    /// Weights of the raw signals.
    fn weights(&self, intercept: f64, effects: &[f64; SIGNALS]) -> Weights {
        let weights: [f64; SIGNALS] = std::array::from_fn(|at| effects[at] * self.scale[at]);
        let shift: f64 =
            weights.iter().zip(self.centre).map(|(weight, centre)| weight * centre).sum();
        Weights::new(intercept - shift, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good if the log-probability is high, except for every seventh.
    fn examples(count: usize) -> Vec<Example> {
        let example = |at: usize| {
            let sure = at.is_multiple_of(2);
            let mean_logprob = if sure { -0.2 } else { -1.4 } - (at % 5) as f64 / 20.0;
            let signals = Signals {
                tokens: 8,
                mean_logprob,
                min_logprob: 3.0 * mean_logprob,
                mean_entropy: -mean_logprob,
                refusal: false,
                repetition: 0.0,
                complete: true,
            };
            let score = f64::from(u8::from(sure != at.is_multiple_of(7)));
            Example { id: format!("r{at}"), p: 0.3, signals, score }
        };
        (0..count).map(example).collect()
    }

    #[test]
    fn confident_answers_score_higher_and_the_figures_are_held_out() {
        let fitted = fit(&[("m".to_owned(), examples(140))].into(), 1).unwrap();
        assert_eq!(fitted.weights.keys().collect::<Vec<_>>(), ["*", "m"]);
        let report = &fitted.reports[0];
        assert!(report.auc > 0.75 && (report.auc_of_prompt - 0.5).abs() < 1e-9, "{report:?}");
        let half = &report.thresholds[4];
        assert!(half.good_among_shown.unwrap() > 0.8 && half.shown < 0.7, "{half:?}");
        let weights = fitted.weights["m"];
        let score = |logprob: f64| {
            let one = &examples(1)[0];
            let signals = Signals {
                mean_logprob: logprob,
                min_logprob: 3.0 * logprob,
                mean_entropy: -logprob,
                ..one.signals
            };
            weights.score(0.3, &signals)
        };
        assert!(score(-0.2) > 0.7 && score(-1.4) < 0.3, "{} {}", score(-0.2), score(-1.4));
    }

    #[test]
    fn a_signal_with_the_opposite_sign_is_left_out() {
        let mut examples = examples(140);
        for one in &mut examples {
            // The better the prediction, the worse the answer; refusals have good labels.
            one.p = if one.is_good() { 0.2 } else { 0.6 };
            one.signals.refusal = one.is_good();
        }
        let weights = weights(&examples).unwrap();
        assert_eq!((weights.adequacy.abs(), weights.refusal.abs()), (0.0, 0.0), "{weights:?}");
        assert!(weights.mean_logprob > 0.0, "{weights:?}");
    }

    #[test]
    fn too_few_or_one_sided_labels_are_an_error() {
        let refusal = |examples: Vec<Example>| {
            fit(&[("m".to_owned(), examples)].into(), 1).unwrap_err().to_string()
        };
        assert!(refusal(examples(5)).contains("5 judged answers"));
        let mut good = examples(60);
        for one in &mut good {
            one.score = 1.0;
        }
        assert!(refusal(good).contains("every outcome is right"));
    }
}
